"""Pooling: max (alone or behind ReLU), average and adaptive average, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda import when
from tinyconv.kernels.cuda.launch import PROCESSORS, ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import channels_last, empty_images
from tinyconv.kernels.cuda.sums import REDUCING_THREADS, cut, vector_width
from tinyconv.kernels.fused import ReLUPool
from tinyconv.op import register
from tinyconv.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyconv.ops.window import Window

# A block's threads, and how many blocks there are at most: what an H100 holds at once, so that all
# of them have the same share of the work.
THREADS, BLOCKS = 256, 4 * PROCESSORS

# Pixels that an average is taken over, from which on a block shares them out.
_MANY = 32

# Blocks along the second axis of a grid: CUDA's limit.
_MOST_BLOCKS = 65535


def window_constants(window: Window) -> dict[str, Any]:
    """A window as the constants of windows.cuh."""
    whole = window.padding == (0, 0) and not window.ceil_mode
    tiles = whole and window.stride == window.kernel and window.dilation == (1, 1)
    tiles = tiles and window.kernel[1] <= 16  # a thread keeps a row of the window in registers
    constants: dict[str, Any] = {"WHOLE": whole, "TILES": tiles}
    for letter, field in zip("KSPD", ("kernel", "stride", "padding", "dilation"), strict=True):
        constants[f"{letter}H"], constants[f"{letter}W"] = getattr(window, field)
    return constants


def pools(window: Window) -> bool:
    """Whether windows.cuh knows such a window: a byte holds the winner, as in ops/pool.py."""
    (KH, KW), padding = window.kernel, window.padding
    return KH * KW <= 256 and 2 * padding[0] <= KH and 2 * padding[1] <= KW


def rows_to_spread(window: Window, N: int, H: int, W: int) -> int:
    """Over how many rows spread_to_winners (windows.cuh) is called: windows, or pixels of x."""
    KH, KW = window.kernel if window_constants(window)["TILES"] else (1, 1)
    return N * ceil_div(H, KH) * ceil_div(W, KW)


def images(xp: Any, *arrays: Array) -> bool:
    """Whether all arrays are images of one type that the kernels take."""
    return when.floats(xp, *arrays) and all(
        a.ndim == 4 and a.dtype == arrays[0].dtype and countable(a.shape) for a in arrays
    )


def countable(shape: tuple[int, ...]) -> bool:
    """Whether an int can count the numbers of an array."""
    return math.prod(shape) < 2**31


# Max pooling --------------------------------------------------------------------------------------


def _pooled(x: Array, window: Window, relu: bool) -> tuple[Array, Array]:
    """y and winner."""
    x = channels_last(x)
    N, C, H, W = x.shape
    OH, OW = window.output_size(H, W)
    y = empty_images(N, C, OH, OW, x.dtype)
    winner = empty_images(N, C, OH, OW, np.uint8)
    V = vector_width(C, x)
    grid, lanes = cut(N * OH * OW, C, V, THREADS, BLOCKS)
    launch(
        "pool.cu", "max_pool", grid, THREADS,
        x, y, winner, N * OH * OW, lanes, C, H, W, OH, OW,
        TX=type_name(x), V=V, RELU=relu, **window_constants(window),
    )  # fmt: skip
    return y, winner


def _pooled_gradient(
    gy: Array, y: Array | None, winner: Array, shape: tuple[int, ...], window: Window
) -> Array:
    """gx; y is None where there was no ReLU."""
    gy, winner = channels_last(gy), channels_last(winner)
    y = None if y is None else channels_last(y)
    N, C, H, W = shape
    OH, OW = gy.shape[2:]
    gx = empty_images(N, C, H, W, gy.dtype)
    V = vector_width(C, gy) if y is None else vector_width(C, gy, y)
    rows = rows_to_spread(window, N, H, W)
    grid, lanes = cut(rows, C, V, THREADS, BLOCKS)
    launch(
        "pool.cu", "max_pool_gradient", grid, THREADS,
        gy, y, winner, gx, rows, lanes, C, H, W, OH, OW,
        TX=type_name(gy), V=V, RELU=y is not None, **window_constants(window),
    )  # fmt: skip
    return gx


def pooled_shape(x: Array, window: Window) -> tuple[int, ...]:
    """The shape of y."""
    return *x.shape[:2], *window.output_size(*x.shape[2:])


def _pools(op, xp, x):
    return images(xp, x) and pools(op.window) and countable(pooled_shape(x, op.window))


def _pools_gradient(op, xp, gy, saved, needs):
    winner, shape = saved
    fits = pools(op.window) and winner.dtype == np.uint8 and countable(shape)
    return fits and images(xp, gy)


def _pools_rectified(op, xp, x):
    return _pools(op.pool, xp, x)


def _pools_rectified_gradient(op, xp, gy, saved, needs):
    y, *rest = saved
    return images(xp, gy, y) and _pools_gradient(op.pool, xp, gy, rest, needs)


@register(MaxPool2d, "forward", _pools)
def max_pool(op, xp, x):
    """One pass over x that writes y and winner."""
    y, winner = _pooled(x, op.window, relu=False)
    return y, (winner, x.shape)


@register(MaxPool2d, "backward", _pools_gradient)
def max_pool_gradient(op, xp, gy, saved, needs):
    """One pass over gx."""
    winner, shape = saved
    return (_pooled_gradient(gy, None, winner, shape, op.window),)


@register(ReLUPool, "forward", _pools_rectified)
def relu_pool(op, xp, x):
    """As max_pool."""
    y, winner = _pooled(x, op.pool.window, relu=True)
    return y, (y, winner, x.shape)


@register(ReLUPool, "backward", _pools_rectified_gradient)
def relu_pool_gradient(op, xp, gy, saved, needs):
    """As max_pool_gradient, with nothing where y is 0."""
    y, winner, shape = saved
    return (_pooled_gradient(gy, y, winner, shape, op.pool.window),)


# Average pooling ----------------------------------------------------------------------------------


def _averaged(x: Array, size: tuple[int, int], divisor: int, **constants: Any) -> Array:
    """y (N, C, *size)."""
    x = channels_last(x)
    (N, C, H, W), (OH, OW) = x.shape, size
    y = empty_images(N, C, OH, OW, x.dtype)
    V, rows = vector_width(C, x), N * OH * OW
    pixels = constants["KH"] * constants["KW"]
    shared = (H * W // (OH * OW) if constants["ADAPTIVE"] else pixels) >= _MANY
    threads = REDUCING_THREADS if shared else THREADS
    grid, lanes = cut(rows, C, V, threads, BLOCKS)
    if shared:
        grid = grid[0], min(rows, _MOST_BLOCKS)
    launch(
        "pool.cu", "average", grid, threads, x, y, rows, lanes, C, H, W, OH, OW, divisor, shared,
        TX=type_name(x), V=V, **constants,
    )  # fmt: skip
    return y


def _averaged_gradient(
    gy: Array, shape: tuple[int, ...], divisor: int, **constants: Any
) -> tuple[Array]:
    """gx, alone in a tuple."""
    gy = channels_last(gy)
    N, C, H, W = shape
    OH, OW = gy.shape[2:]
    gx = empty_images(N, C, H, W, gy.dtype)
    V, rows = vector_width(C, gy), N * H * W
    grid, lanes = cut(rows, C, V, THREADS, BLOCKS)
    launch(
        "pool.cu", "average_gradient", grid, THREADS, gy, gx, rows, lanes, C, H, W, OH, OW, divisor,
        TX=type_name(gy), V=V, **constants,
    )  # fmt: skip
    return (gx,)


def _window_constants(op: AvgPool2d) -> dict[str, Any]:
    constants = window_constants(op.window)
    return {**constants, "ADAPTIVE": False, "COUNT_BORDER": op.count_include_pad}


_GRID = {**window_constants(Window((1, 1))), "ADAPTIVE": True, "COUNT_BORDER": False}


def _fits(window: Window) -> bool:
    return window.dilation == (1, 1) and pools(window)


def _averages(op, xp, x):
    return _fits(op.window) and images(xp, x) and countable(pooled_shape(x, op.window))


def _averages_gradient(op, xp, gy, saved, needs):
    return _fits(op.window) and images(xp, gy) and countable(saved[0])


def _averages_grid(op, xp, x):
    return images(xp, x) and countable((*x.shape[:2], *op.output_size))


def _averages_grid_gradient(op, xp, gy, saved, needs):
    return images(xp, gy) and countable(saved[0])


@register(AvgPool2d, "forward", _averages)
def avg_pool(op, xp, x):
    """One pass over y, which adds up its windows."""
    divisor = op.divisor_override or 0
    y = _averaged(x, op.window.output_size(*x.shape[2:]), divisor, **_window_constants(op))
    return y, (x.shape,)


@register(AvgPool2d, "backward", _averages_gradient)
def avg_pool_gradient(op, xp, gy, saved, needs):
    """One pass over gx, which adds up its shares."""
    return _averaged_gradient(gy, saved[0], op.divisor_override or 0, **_window_constants(op))


@register(AdaptiveAvgPool2d, "forward", _averages_grid)
def adaptive_avg_pool(op, xp, x):
    """As avg_pool: regions are windows of many sizes."""
    return _averaged(x, op.output_size, 0, **_GRID), (x.shape,)


@register(AdaptiveAvgPool2d, "backward", _averages_grid_gradient)
def adaptive_avg_pool_gradient(op, xp, gy, saved, needs):
    """As avg_pool_gradient."""
    return _averaged_gradient(gy, saved[0], 0, **_GRID)
