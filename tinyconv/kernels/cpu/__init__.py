"""Kernels in Numba for float32 on the CPU; importing this package registers them on the ops.

Where several could compute an op, the one that is imported first is asked first.
"""

from tinyconv.kernels.cpu import winograd  # noqa: F401
