"""Measures how good an archive is on labelled pictures, and sets archives side by side."""

import handler  # noqa: F401 (makes vit_core known)
