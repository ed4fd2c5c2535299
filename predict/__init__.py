"""Answers pictures with an archive in this process, without a server: the quick look before serving it."""

import handler  # noqa: F401 (makes vit_core known)
