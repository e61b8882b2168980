"""The graph and what can be asked of it: ONNX as held by onnx_ir, never a graph class of our own."""
