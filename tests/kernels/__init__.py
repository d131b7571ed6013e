"""Kernels against the reference ops."""
