"""Serves archives with Ray Serve: the project's core, without TorchServe and without Java. Importing it does not import Ray."""

import handler  # noqa: F401 (makes vit_core known)
