"""What is compared, by the names that records, tables and plots have for it."""

# Servers.
OURS, STOCK = "this project", "TorchServe image_classifier"
LITSERVE, LITSERVE_TRACE = "LitServe", "LitServe, the same trace"
EMPTY = "TorchServe, a handler that does nothing"
# In process, without a server.
ALONE, OPENVINO, ONNX, COMPILED = "its model alone", "OpenVINO", "ONNX Runtime", "torch.compile"
