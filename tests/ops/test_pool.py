"""Pooling against loops over every window, and its known traps."""

import math

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F
from tinyconv.ops.pool import MaxPool2d
from tinyconv.ops.window import Window
from tinyconv.tensor import Tensor

from .drawing import pairs, values


def positions(n, k, s, p, d, ceil_mode):
    """The pixels of each window along an axis, those in the border too."""
    count = (math.ceil if ceil_mode else math.floor)((n + 2 * p - d * (k - 1) - 1) / s) + 1
    if ceil_mode and (count - 1) * s >= n + p:
        count -= 1
    return [[i * s - p + u * d for u in range(k)] for i in range(count)]


def max_pool_by_loops(x, gy, rows, columns):
    N, C, H, W = x.shape
    y = numpy.full((N, C, len(rows), len(columns)), -numpy.inf)
    gy = gy(y.shape)
    gx = numpy.zeros(x.shape)
    for n, c, i, j in numpy.ndindex(y.shape):
        inside = [(h, w) for h in rows[i] for w in columns[j] if 0 <= h < H and 0 <= w < W]
        first = max(inside, key=lambda at: x[n, c, *at])  # max() returns the first of equal ones
        y[n, c, i, j] = x[n, c, *first]
        gx[n, c, *first] += gy[n, c, i, j]
    return y, gx


def avg_pool_by_loops(x, gy, rows, columns, padding, count_include_pad, divisor_override):
    N, C, H, W = x.shape
    y = numpy.zeros((N, C, len(rows), len(columns)))
    gy = gy(y.shape)
    gx = numpy.zeros(x.shape)
    for n, c, i, j in numpy.ndindex(y.shape):
        inside = [(h, w) for h in rows[i] for w in columns[j] if 0 <= h < H and 0 <= w < W]
        with_border = [
            (h, w) for h in rows[i] for w in columns[j] if h < H + padding[0] and w < W + padding[1]
        ]
        pixels = divisor_override or len(with_border if count_include_pad else inside)
        for h, w in inside:
            y[n, c, i, j] += x[n, c, h, w] / pixels
            gx[n, c, h, w] += gy[n, c, i, j] / pixels
    return y, gx


def agree(y, x, expected, dtype):
    tolerance = 1e-12 if dtype == numpy.float64 else 1e-5
    for found, wanted in zip((y, x.grad), expected, strict=True):
        assert found.dtype == dtype
        assert numpy.allclose(found.numpy(), wanted, rtol=tolerance, atol=tolerance)


def fits(size, kernel, padding, dilation=(1, 1)):
    return all(
        n + 2 * p > d * (k - 1) and 2 * p <= k
        for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)
    )


POOL = {
    "NC": pairs(1, 2), "size": pairs(1, 8), "kernel": pairs(1, 4), "stride": pairs(1, 4),
    "padding": pairs(0, 2), "ceil_mode": st.booleans(),
    "dtype": st.sampled_from([numpy.float32, numpy.float64]), "few_values": st.booleans(),
}  # fmt: skip


@given(dilation=pairs(1, 2), **POOL)
def test_max_pool2d(
    NC, size, kernel, stride, padding, dilation, ceil_mode, dtype, few_values, backend
):
    windows = [
        positions(n, k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    assume(fits(size, kernel, padding, dilation))
    assume(  # a dilated window may step over a small image altogether
        all(any(0 <= i < n for i in w) for n, axis in zip(size, windows, strict=True) for w in axis)
    )
    x = values((*NC, *size), dtype)
    x = numpy.round(x * 1.5) if few_values else x  # then there are ties
    x = x.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    expected = max_pool_by_loops(x, values, *windows)
    x = Tensor(x, requires_grad=True)
    y = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    y.backward(values(y.shape))
    agree(y, x, expected, dtype)


@given(count_include_pad=st.booleans(), divisor=st.sampled_from([None, 3]), **POOL)
def test_avg_pool2d(
    NC,
    size,
    kernel,
    stride,
    padding,
    ceil_mode,
    dtype,
    few_values,
    count_include_pad,
    divisor,
    backend,
):
    assume(fits(size, kernel, padding))
    windows = [
        positions(n, k, s, p, 1, ceil_mode)
        for n, k, s, p in zip(size, kernel, stride, padding, strict=True)
    ]
    x = values((*NC, *size), dtype)
    expected = avg_pool_by_loops(x, values, *windows, padding, count_include_pad, divisor)
    x = Tensor(x, requires_grad=True)
    y = F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor)
    y.backward(values(y.shape))
    agree(y, x, expected, dtype)


@given(size=pairs(1, 8), output=pairs(1, 9), dtype=st.sampled_from([numpy.float32, numpy.float64]))
def test_adaptive_avg_pool2d(size, output, dtype, backend):
    def regions(n, parts):
        return [
            [k for k in range(n) if i * n / parts - 1 < k < (i + 1) * n / parts]
            for i in range(parts)
        ]

    rows, columns = (regions(n, parts) for n, parts in zip(size, output, strict=True))
    x = values((2, 1, *size), dtype)
    expected = avg_pool_by_loops(x, values, rows, columns, (0, 0), True, None)
    x = Tensor(x, requires_grad=True)
    y = F.adaptive_avg_pool2d(x, output)
    y.backward(values(y.shape))
    agree(y, x, expected, dtype)


# Known traps --------------------------------------------------------------------------------------


def test_a_tie_gives_the_whole_gradient_to_the_first_pixel(backend):
    x = Tensor(numpy.ones((1, 1, 2, 4)), requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert x.grad.numpy().tolist() == [[[[1, 0, 1, 0], [0, 0, 0, 0]]]]


def test_overlapping_windows_add_up():
    x = Tensor(numpy.array([[[[0, 0, 0], [0, 9, 0], [0, 0, 0.0]]]]), requires_grad=True)
    F.max_pool2d(x, 2, stride=1).sum().backward()
    assert x.grad.numpy()[0, 0, 1, 1] == 4


def test_a_window_of_minus_infinity_has_a_valid_index_and_gradient(backend):
    x = Tensor(numpy.full((1, 1, 4, 4), -numpy.inf), requires_grad=True)
    y = F.max_pool2d(x, 3, stride=2, padding=1)
    winner, _ = y.node.saved
    y.backward(numpy.ones((1, 1, 2, 2)))
    assert numpy.isneginf(y.numpy()).all()
    assert x.grad.numpy().sum() == 4  # nothing went into the border
    assert x.grad.numpy()[0, 0, ::2, ::2].tolist() == [[1, 0], [0, 0]]
    # Positions in the 3x3 windows: the first that is not in the border.
    assert winner.tolist() == [[[[4, 3], [1, 0]]]]


def test_a_dilated_window_of_minus_infinity(backend):
    # Rows of the three windows: -2 0 2 4, -1 1 3 5, 0 2 4 6; the first inside: 0, 1, 0.
    x = Tensor(numpy.full((1, 1, 5, 5), -numpy.inf), requires_grad=True)
    F.max_pool2d(x, 4, stride=1, padding=2, dilation=2).backward(numpy.ones((1, 1, 3, 3)))
    rows = numpy.array([2, 1, 0, 0, 0])
    assert numpy.array_equal(x.grad.numpy()[0, 0], numpy.outer(rows, rows))


def test_nan_passes_through_max_pool(backend):
    x = numpy.zeros((1, 1, 2, 6))
    x[0, 0, 0, 1] = x[0, 0, 1, 2] = numpy.nan
    x[0, 0, 1, 3] = numpy.inf
    x = Tensor(x, requires_grad=True)
    y = F.max_pool2d(x, 2)
    y.backward(numpy.array([[[[1, 2, 4.0]]]]))
    assert numpy.isnan(y.numpy()).tolist() == [[[[True, True, False]]]]
    assert x.grad.numpy().tolist() == [[[[0, 1, 0, 0, 4, 0], [0, 0, 2, 0, 0, 0]]]]


def test_the_border_is_minus_infinity():
    assert F.max_pool2d(numpy.full((1, 1, 2, 2), -5.0), 2, padding=1).numpy().max() == -5


def test_the_border_of_an_average_counts_or_not():
    x = numpy.full((1, 1, 2, 2), 4.0)
    assert F.avg_pool2d(x, 2, padding=1).numpy().tolist() == [[[[1, 1], [1, 1]]]]
    y = F.avg_pool2d(x, 2, padding=1, count_include_pad=False)
    assert y.numpy().tolist() == [[[[4, 4], [4, 4]]]]


def test_what_hangs_over_in_ceil_mode_never_counts():
    x = numpy.full((1, 1, 3, 3), 4.0)
    assert F.avg_pool2d(x, 2, ceil_mode=True).numpy().tolist() == [[[[4, 4], [4, 4]]]]


def test_more_than_256_positions_in_a_window():
    x = values((1, 1, 20, 20))
    x = Tensor(x, requires_grad=True)
    y = F.max_pool2d(x, 20)
    y.sum().backward()
    assert y.item() == x.numpy().max()
    assert x.grad.numpy().argmax() == x.numpy().argmax()


def test_what_is_saved_is_one_byte_for_each_output():
    _, (winner, _) = MaxPool2d(Window((2, 2), (2, 2))).forward(numpy, values((1, 3, 8, 8)))
    assert winner.dtype == numpy.uint8


def test_empty_batch():
    for pool in (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d):
        x = Tensor(numpy.ones((0, 3, 4, 4)), requires_grad=True)
        y = pool(x, 2)
        y.sum().backward()
        assert y.shape == (0, 3, 2, 2)
        assert x.grad.shape == x.shape


def test_padding_of_more_than_half_the_window():
    for pool in (F.max_pool2d, F.avg_pool2d):
        with pytest.raises(ValueError, match="padding: 2 is more than half of kernel_size 3"):
            pool(numpy.ones((1, 1, 8, 8)), 3, padding=2)
        with pytest.raises(ValueError, match="padding: 1 is more than half"):
            pool(numpy.ones((1, 1, 8, 8)), (3, 1), padding=1)
    with pytest.raises(ValueError, match="padding: 2"):  # dilation does not widen the border
        F.max_pool2d(numpy.ones((1, 1, 8, 8)), 3, padding=2, dilation=2)


def test_bad_arguments():
    with pytest.raises(tinyconv.ShapeError, match=r"max_pool2d: input has shape \(1, 8, 8\)"):
        F.max_pool2d(numpy.ones((1, 8, 8)), 2)
    with pytest.raises(tinyconv.ShapeError, match="window of 9 pixels"):
        F.avg_pool2d(numpy.ones((1, 1, 8, 8)), 9)
    with pytest.raises(ValueError, match="kernel_size: 0 found"):
        F.max_pool2d(numpy.ones((1, 1, 8, 8)), 0)
    with pytest.raises(ValueError, match="divisor_override"):
        F.avg_pool2d(numpy.ones((1, 1, 8, 8)), 2, divisor_override=0)
    with pytest.raises(ValueError, match="output_size: 0 found"):
        F.adaptive_avg_pool2d(numpy.ones((1, 1, 8, 8)), 0)
