"""Kernels in Numba for float32 on the CPU; importing this package registers them on the ops.

Where several could compute an op, the one that is imported first is asked first.
"""

from tinyconv.kernels.cpu import winograd  # isort: skip # before direct
from tinyconv.kernels.cpu import (
    activation,
    conv_norm,
    depthwise,
    direct,
    dropout,
    elementwise,
    image,
    linear,
    loss,
    norm,
    pool,
    shape,
    update,
)

__all__ = [
    "activation", "conv_norm", "depthwise", "direct", "dropout", "elementwise", "image", "linear",
    "loss", "norm", "pool", "shape", "update", "winograd",
]  # fmt: skip
