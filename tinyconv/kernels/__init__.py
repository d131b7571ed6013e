"""Fast ways to compute the ops of tinyconv/ops: cpu/ with Numba, loaded when NumPy is chosen."""
