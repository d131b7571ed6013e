"""Batch norm, alone or with the ReLU and the max pool beside it, in as few passes as there can be.

Forward in training is two launches: statistics, then y; in evaluation it is one. Backward is two,
sums and gx, or one of them where only that is asked for. What each moves stands in norm.cu.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda import when
from tinyconv.kernels.cuda.launch import PROCESSORS, launch, type_name
from tinyconv.kernels.cuda.layout import channels_last, empty, empty_images
from tinyconv.kernels.cuda.pool import (
    BLOCKS,
    THREADS,
    countable,
    images,
    pooled_shape,
    pools,
    rows_to_spread,
    window_constants,
)
from tinyconv.kernels.cuda.sums import (
    REDUCING_BLOCKS,
    REDUCING_THREADS,
    as_matrix,
    cut,
    vector_width,
)
from tinyconv.kernels.fused import NormReLUPool
from tinyconv.op import register
from tinyconv.ops.norm import BatchNorm
from tinyconv.ops.window import Window

# As BLOCKS: the gradient keeps more in registers.
_GRADIENT_BLOCKS = 3 * PROCESSORS


@dataclass(frozen=True)
class _Chain:
    """What is done to x around the norm; limits of ReLU as in norm.cu: 0 (none), 1 or 6."""

    norm: BatchNorm
    relu_first: int = 0
    relu_last: int = 0
    window: Window | None = None

    def constants(self):
        window = {} if self.window is None else window_constants(self.window)
        return {
            "TRAINING": self.norm.training,
            "RELU_FIRST": self.relu_first,
            "RELU_LAST": self.relu_last,
            "POOLED": self.window is not None,
            **window,
        }


def _chain(op: NormReLUPool) -> _Chain:
    limit = 6 if op.relu6 else 1
    first, last = (limit, 0) if op.relu_first else (0, limit)
    return _Chain(op.norm, first, last, _window(op))


def _window(op: NormReLUPool) -> Window | None:
    return None if op.pool is None else op.pool.window


def _sizes(x: Array) -> tuple[int, int, int, int]:
    """N, C, H, W; (N, C) are images of one pixel."""
    return x.shape if x.ndim == 4 else (*x.shape, 1, 1)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    return empty_images(*shape, dtype) if len(shape) == 4 else empty(shape, dtype)


def _normalise(chain: _Chain, x: Array, weight, bias, running_mean, running_var):
    """y, mean, inverse_std and winner (None without a pool) of x, which as_matrix has made."""
    norm, window = chain.norm, chain.window
    N, C, H, W = _sizes(x)
    OH, OW = (H, W) if window is None else window.output_size(H, W)
    V = vector_width(C, x)
    constants = {"TX": type_name(x), "V": V, **chain.constants()}
    mean, inverse_std, n = empty((C,)), empty((C,)), N * H * W
    if norm.training:
        grid, lanes = cut(n, C, V, REDUCING_THREADS, REDUCING_BLOCKS, 8)
        launch(
            "norm.cu", "statistics", grid, REDUCING_THREADS,
            x, mean, inverse_std, running_mean, running_var, empty((grid[1], C, 3)), n, lanes, C,
            float(norm.eps), float(norm.momentum), n / (n - 1), **constants,
        )  # fmt: skip
    y = _empty((N, C, OH, OW)[: x.ndim], x.dtype)
    winner = None if window is None else empty_images(N, C, OH, OW, np.uint8)
    rows = N * OH * OW
    grid, lanes = cut(rows, C, V, THREADS, BLOCKS)
    launch(
        "norm.cu", "normalise", grid, THREADS,
        x, y, winner, mean, inverse_std, weight, bias, running_mean, running_var,
        rows, lanes, C, H, W, OH, OW, float(norm.eps), **constants,
    )  # fmt: skip
    return y, mean, inverse_std, winner


def _normalise_gradient(chain: _Chain, gy: Array, saved, needs, y=None, winner=None):
    """The gradients of the op's inputs. saved is BatchNorm's; y is read if ReLU comes last."""
    norm, window = chain.norm, chain.window
    x, weight, mean, inverse_std = saved
    gy, x = as_matrix(gy), as_matrix(x)
    y = as_matrix(y) if chain.relu_last else None
    winner = None if winner is None else channels_last(winner)
    N, C, H, W = _sizes(x)
    OH, OW = _sizes(gy)[2:]
    V = vector_width(C, *(a for a in (gy, x, y) if a is not None))
    constants = {"TX": type_name(x), "V": V, **chain.constants()}
    gweight = gbias = gx = None
    if needs[1] or needs[2] or norm.training:
        gweight, gbias, rows = empty((C,)), empty((C,)), N * OH * OW
        grid, lanes = cut(rows, C, V, REDUCING_THREADS, REDUCING_BLOCKS, 8)
        launch(
            "norm.cu", "gradient_sums", grid, REDUCING_THREADS,
            gy, y, winner, x, mean, inverse_std, gweight, gbias, empty((grid[1], C, 2)),
            rows, lanes, C, H, W, OH, OW, **constants,
        )  # fmt: skip
    if needs[0]:
        gx = _empty(x.shape, x.dtype)
        rows = N * H * W if window is None else rows_to_spread(window, N, H, W)
        grid, lanes = cut(rows, C, V, THREADS, _GRADIENT_BLOCKS)
        launch(
            "norm.cu", "gradient", grid, THREADS,
            gy, y, winner, x, gx, weight, mean, inverse_std, gweight, gbias,
            rows, lanes, C, H, W, OH, OW, 1 / (N * H * W), **constants,
        )  # fmt: skip
    return gx, gweight if needs[1] else None, gbias if needs[2] else None, None, None


def _normalises(norm, xp, x, weight, bias, running_mean, running_var):
    vectors = [v for v in (weight, bias, running_mean, running_var) if v is not None]
    return (
        when.floats(xp, x)
        and when.float32(xp, *vectors)
        and x.ndim in (2, 4)
        and countable(x.shape)
        and all(v.shape == (x.shape[1],) and v.flags.c_contiguous for v in vectors)
        and (running_mean is None) == (running_var is None)
        and (norm.training or running_mean is not None)
        and not (norm.training and x.size == x.shape[1])  # no variance: the reference says so
    )


def _normalises_gradient(norm, xp, gy, saved, needs):
    x, *vectors = saved
    return (
        when.floats(xp, gy, x)
        and gy.dtype == x.dtype
        and x.ndim in (2, 4)
        and countable(x.shape)
        and when.float32(xp, *vectors)
        and all(v is None or v.flags.c_contiguous for v in vectors)
    )


def _normalises_images(op, xp, x, *vectors):
    if x.ndim != 4 or not _normalises(op.norm, xp, x, *vectors):
        return False
    window = _window(op)
    return window is None or (pools(window) and countable(pooled_shape(x, window)))


def _normalises_images_gradient(op, xp, gy, saved, needs):
    *plain, y, winner = saved
    fits = op.pool is None or (pools(op.pool.window) and winner.dtype == np.uint8)
    return fits and images(xp, gy, y) and _normalises_gradient(op.norm, xp, gy, plain, needs)


@register(BatchNorm, "forward", _normalises)
def batch_norm(op, xp, x, weight, bias, running_mean, running_var):
    """Statistics of x, then y: two passes over x, in evaluation one."""
    x = as_matrix(x)
    y, mean, inverse_std, _ = _normalise(_Chain(op), x, weight, bias, running_mean, running_var)
    return y, (x, weight, mean, inverse_std)


@register(BatchNorm, "backward", _normalises_gradient)
def batch_norm_gradient(op, xp, gy, saved, needs):
    """Sums over gy and x, then gx: two passes over both."""
    return _normalise_gradient(_Chain(op), gy, saved, needs)


@register(NormReLUPool, "forward", _normalises_images)
def norm_relu_pool(op, xp, x, weight, bias, running_mean, running_var):
    """Statistics of x, then y and winner: two passes over x, in evaluation one."""
    x = as_matrix(x)
    y, mean, inverse_std, winner = _normalise(
        _chain(op), x, weight, bias, running_mean, running_var
    )
    return y, (x, weight, mean, inverse_std, y, winner)


@register(NormReLUPool, "backward", _normalises_images_gradient)
def norm_relu_pool_gradient(op, xp, gy, saved, needs):
    """Sums over gy and x at the winners, then gx: two passes over x."""
    *plain, y, winner = saved
    return _normalise_gradient(_chain(op), gy, plain, needs, y, winner)
