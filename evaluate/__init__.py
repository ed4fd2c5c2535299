"""Measures how good an archive is on labelled pictures, and compares archives."""

import handler  # noqa: F401 (makes vit_core known)
