"""Runs TorchServe for one checkout, behind `make serve` and the tests: starts it, registers archives, asks it, stops it."""
