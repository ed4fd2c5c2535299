"""Turns a timm image classifier into a TorchServe model archive: weights → trace → proof → `.mar`."""
