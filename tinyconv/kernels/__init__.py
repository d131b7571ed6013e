"""Fast ways to compute the ops of tinyconv/ops: cpu/ with Numba, registered when NumPy is chosen."""
