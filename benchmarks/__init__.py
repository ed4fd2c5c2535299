"""Compares this project with what people would use in its place, and measures what its rules and limits are made from."""

import handler  # noqa: F401 (makes vit_core known)
