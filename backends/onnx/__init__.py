"""Standard ONNX files."""
