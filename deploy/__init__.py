"""The same archive on other engines than one TorchServe."""
