"""A page in the browser for the server that `make serve` has started: it shows labels, heat map and similar pictures for a
picture.

It listens on loopback, and everyone on this machine can open it. What they ask goes to the server with this checkout's token.
"""

import handler  # noqa: F401 (makes vit_core known)
