"""Channels last: images stay (N, C, H, W) to the eye and lie as (N, H, W, C) in memory.

So the inner loops of all kernels run over contiguous channels, whole vectors at a time.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.jit import F32, INT, kernel
from tinyconv.kernels.cpu.launch import empty, launch, launch_python, parts_for


def channels_last(x: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) as a C-contiguous array (N, H, W, C); a view where they lie like that."""
    view = x.transpose(0, 2, 3, 1)
    if view.flags.c_contiguous:
        return view
    N, C, H, W = x.shape
    x = contiguous(x)
    y = empty((N, H, W, C), x.dtype)
    launch(_transpose, y, x, C, H * W, items=N * H * W, parts=parts_for(N * H * W, x.size))
    return y


def as_images(memory: np.ndarray) -> np.ndarray:
    """Memory (N, H, W, C) seen as images (N, C, H, W)."""
    return memory.transpose(0, 3, 1, 2)


def contiguous(x: np.ndarray) -> np.ndarray:
    """x (float32) itself where it is C-contiguous, else a copy that is."""
    if x.flags.c_contiguous:
        return x
    y = empty(x.shape, x.dtype)
    view = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    if x.ndim == 4 and view.flags.c_contiguous:
        N, C, H, W = x.shape
        launch(_transpose, y, view, H * W, C, items=N * C, parts=parts_for(N * C, x.size))
    else:
        launch_python(np.copyto, y, x)
    return y


@kernel
def _transpose(y: F32, x: F32, C: INT, P: INT, part: INT, begin: INT, end: INT):
    """y (N, P, C) = x (N, C, P); items are y's rows."""
    for row in range(begin, end):
        n, p = row // P, row % P
        for c in range(C):
            y[row * C + c] = x[(n * C + c) * P + p]
