"""NVIDIA GPUs: our integer and float programs as CUDA kernels, compiled for one architecture, and the C around them."""
