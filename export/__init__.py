"""Turns a timm image classifier into a TorchServe model archive: weights → trace → check → `.mar`."""

import handler  # noqa: F401 (makes vit_core known)
