"""Kernels in Numba for float32 on the CPU; importing this package registers them on the ops."""
