"""From a photo's bytes to normalised floats in one pass, in the layout that convolutions want.

Photos come channels last and stay so: y = x * scale - shift for one long row of bytes. Three
channels fill no vector, so scale and shift are repeated for a run of pixels, and the inner loop
goes over the whole run.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.jit import F32, INT, U8, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images
from tinyconv.op import register
from tinyconv.ops.image import NormalizeImage

_RUN = 64  # pixels


def _bytes_to_float32(op, xp, x):
    return (
        xp is np
        and x.dtype == np.uint8
        and op.dtype == np.float32
        and x.ndim == 4
        and x.size > 0
        and x.flags.c_contiguous
    )


@register(NormalizeImage, "forward", _bytes_to_float32)
def normalize_channels_last(op, xp, x):
    """y = x * scale - shift, with scale = 1 / (255 std) and shift = mean / std."""
    mean, std = np.array(op.mean, np.float32), np.array(op.std, np.float32)
    scale, shift = np.tile(1 / (255 * std), _RUN), np.tile(mean / std, _RUN)
    y = empty(x.shape)
    C, pixels = x.shape[3], x.size // x.shape[3]
    launch(_normalize, y, x, scale, shift, C, items=pixels, parts=parts_for(pixels, 0.3 * x.size))
    return as_images(y), ()


@kernel
def _normalize(
    y: F32, x: U8, scale: F32, shift: F32, C: INT, part: INT, begin: INT, end: INT
):  # fmt: skip
    """Items are pixels."""
    for start in range(begin * C, end * C, _RUN * C):
        for i in range(min(_RUN * C, end * C - start)):
            y[start + i] = x[start + i] * scale[i] - shift[i]
