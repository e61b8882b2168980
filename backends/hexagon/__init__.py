"""Back end for Hexagon DSPs: the TVM back end's kernels with VRMPY, and float32 steps in integer vectors."""
