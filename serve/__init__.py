"""Runs TorchServe for one checkout, behind `make serve` and the tests: starts it, registers archives, sends requests, stops it."""
