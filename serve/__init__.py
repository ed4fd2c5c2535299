"""Runs TorchServe for one checkout: starts it, registers an archive, asks it, stops it. Behind `make serve` and the tests."""
