"""The ops on an NVIDIA GPU: CUDA C++ sources, compiled when they are first used.

Each module here registers kernels for the ops of one kind and launches what stands in the .cu file
of its name. Images lie channels last. Whatever a kernel does is a launch on the current stream: no
copy to the host, no waiting, so that a whole step can be captured as a CUDA graph.
"""

from tinyconv.kernels.cuda import (
    activation,
    conv,
    depthwise,
    dropout,
    elementwise,
    image,
    linear,
    loss,
    norm,
    pool,
    reduce,
    shape,
    update,
)

__all__ = [
    "activation", "conv", "depthwise", "dropout", "elementwise", "image", "linear", "loss", "norm",
    "pool", "reduce", "shape", "update",
]  # fmt: skip
