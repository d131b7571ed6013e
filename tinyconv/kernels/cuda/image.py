"""From a photo's bytes to normalised floats in one pass, and batches from a data set on the device.

Photos come channels last and stay so.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import contiguous, empty, empty_images
from tinyconv.kernels.cuda.when import on_gpu
from tinyconv.op import register
from tinyconv.ops.image import Gather, NormalizeImage

_THREADS = 256
_MOST_CHANNELS = 4  # of struct Channels
_channels = np.dtype([("scale", np.float32, _MOST_CHANNELS), ("shift", np.float32, _MOST_CHANNELS)])


def _of_bytes(op, xp, x):
    floats = op.dtype in (np.float32, np.float16)
    images = on_gpu(xp, x) and x.dtype == np.uint8 and x.ndim == 4 and x.size < 2**31
    return images and floats and x.shape[3] <= _MOST_CHANNELS


@register(NormalizeImage, "forward", _of_bytes)
def normalize_channels_last(op, xp, x):
    """y = x * scale - shift, with scale = 1 / (255 std) and shift = mean / std."""
    N, H, W, C = x.shape
    mean, std = np.array(op.mean, np.float32), np.array(op.std, np.float32)
    channels = np.zeros(1, _channels)
    channels["scale"][0, :C], channels["shift"][0, :C] = 1 / (255 * std), mean / std
    y = empty_images(N, C, H, W, op.dtype)
    blocks = ceil_div(y.size, _THREADS * (16 // y.itemsize))
    launch(
        "image.cu", "normalize", blocks, _THREADS, y, contiguous(x), channels, y.size, C,
        TY=type_name(y),
    )  # fmt: skip
    return y, ()


def _of_rows(op, xp, x, indices):
    whole = on_gpu(xp, x, indices) and x.flags.c_contiguous and indices.flags.c_contiguous
    known = whole and indices.dtype == np.int64 and indices.ndim == 1
    return known and x.nbytes // len(x) * len(indices) < 2**31


@register(Gather, "forward", _of_rows)
def gather_rows(op, xp, x, indices):
    """The rows as they lie, whatever their dtype. Indices that are out of range are not noticed."""
    y = empty((len(indices), *x.shape[1:]), x.dtype)
    size = x.nbytes // len(x)
    word = next(n for n in (16, 4, 1) if size % n == 0 and x.data.ptr % n == 0)
    blocks = ceil_div(y.nbytes // word, _THREADS)
    launch(
        "image.cu", "gather", blocks, _THREADS, y, x, indices, len(indices), size, word, TY="float"
    )  # fmt: skip
    return y, ()
