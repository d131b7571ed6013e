"""Kernels in Numba against the reference ops."""
