"""Channels last: images stay (N, C, H, W) to the eye and lie as (N, H, W, C) in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyconv.backend import Array, xp


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """A C-contiguous array whose values are not set yet."""
    return xp().empty(shape, dtype)


def empty_images(N: int, C: int, H: int, W: int, dtype: Any = np.float32) -> Array:
    """Images (N, C, H, W), channels last, whose values are not set yet."""
    return empty((N, H, W, C), dtype).transpose(0, 3, 1, 2)


def is_channels_last(x: Array) -> bool:
    """Whether images (N, C, H, W) lie as (N, H, W, C)."""
    return bool(x.transpose(0, 2, 3, 1).flags.c_contiguous)


def channels_last(x: Array) -> Array:
    """The images themselves where they lie channels last, else a copy that does."""
    if is_channels_last(x):
        return x
    return xp().ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def contiguous(x: Array) -> Array:
    """x itself where it is C-contiguous, else a copy that is."""
    return xp().ascontiguousarray(x)
