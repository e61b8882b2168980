"""From IR to artifact: ONNX files and compiled code."""
