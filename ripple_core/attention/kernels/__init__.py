"""Triton kernels of mode `ripple`."""
