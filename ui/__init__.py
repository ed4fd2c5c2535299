"""A page in the browser for the server that `make serve` has started: a picture in, labels, heat map and like pictures out.

It listens on loopback, and whoever uses this machine can open it; what they ask goes to the server with this checkout's token.
"""

import handler  # noqa: F401 (makes vit_core known)
