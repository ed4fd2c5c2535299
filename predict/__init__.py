"""Answers pictures with an archive in this process, without a server."""

import handler  # noqa: F401 (makes vit_core known)
