"""Answers requests about pictures with a traced model: everything of the handler that is not TorchServe's.

`predictor.Predictor` is the front. Any server or batch job that has an archive can use it; it needs torch, Pillow, numpy and
PyYAML. It imports neither TorchServe nor timm nor torchvision.
"""
