"""The Open Inference Protocol over HTTP, with the extension for binary tensors."""
