"""Kernels in Numba for float32 on the CPU; importing this package registers them on the ops.

Where several could compute an op, the one that is imported first is asked first.
"""

from tinyconv.kernels.cpu import (  # noqa: F401
    winograd,
    direct,  # isort: skip
    depthwise,
    norm,
    pool,
    linear,
    loss,
    update,
    image,
    elementwise,
    shape,
    dropout,
    activation,
)
