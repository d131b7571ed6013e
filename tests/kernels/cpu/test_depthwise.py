"""Depthwise convolution in Numba against the reference: every window, layout and multiplier."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyconv
from tinyconv.errors import ShapeError
from tinyconv.kernels.cpu import depthwise
from tinyconv.kernels.fused import PaddedConv2d
from tinyconv.op import run, run_backward
from tinyconv.ops.conv import Conv2d
from tinyconv.testing import kernel_error, relative_error

from .cases import LAYOUTS, by_threads, values
from .convolutions import check, check_where_it_is_not_finite, gradient_of, pairs

NAME = "depthwise_convolution"
NEEDS = (True, True, True)


@settings(max_examples=100)
@given(
    N=st.integers(1, 3),
    C=st.sampled_from([2, 3, 16, 17, 35]),
    multiplier=st.integers(1, 3),
    room=pairs(0, 9),
    kernel=pairs(1, 5),
    stride=pairs(1, 3),
    padding=pairs(0, 3),
    dilation=pairs(1, 2),
    with_bias=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
)
def test_every_window(N, C, multiplier, room, kernel, stride, padding, dilation, with_bias, layout):
    op = Conv2d(stride, padding, dilation, groups=C)
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    x = values((N, C, *(max(1, r) + more for r, more in zip(reach, room, strict=True))))
    w, b = values((C * multiplier, 1, *kernel), 1), values((C * multiplier,), 2)
    check(op, x, w, b if with_bias else None, layout, NAME)


@given(
    C=st.sampled_from([3, 16, 35]), size=pairs(5, 9), kernel=pairs(1, 5), stride=pairs(1, 2),
    padding=pairs(0, 1), before=pairs(0, 3), after=pairs(0, 3), layout=st.sampled_from(LAYOUTS),
)  # fmt: skip
def test_zeros_that_differ_at_the_ends(C, size, kernel, stride, padding, before, after, layout):
    op = PaddedConv2d(stride, padding, (1, 1), C, before, after)
    x, w, b = values((2, C, *size)), values((C, 1, *kernel), 1), values((C,), 2)
    check(op, x, w, b, layout, NAME)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("op", [Conv2d((1, 1), (1, 1), groups=40), Conv2d((2, 2), groups=40)])
def test_large_images_and_any_number_of_threads(op, multiplier, monkeypatch):
    O = 40 * multiplier
    x, w, b = values((2, 40, 71, 60)), values((O, 1, 3, 3), 1), values((O,), 2)
    first, *others = by_threads(monkeypatch, lambda: check(op, x, w, b, "turned", NAME))
    for y, gx, gw, gb in others:
        numpy.testing.assert_array_equal(y, first[0])
        assert relative_error(gx, first[1]) <= 1e-6
        assert relative_error(gw, first[2]) <= 5e-6
        assert relative_error(gb, first[3]) <= 5e-6


@given(C=st.integers(3, 20), kernel=pairs(1, 4), stride=pairs(1, 2), padding=pairs(0, 2))
def test_any_forward_goes_with_any_backward(C, kernel, stride, padding):
    op = Conv2d(stride, padding, groups=C)
    x, w, b = values((2, C, 9, 8)), values((C, 1, *kernel), 1), values((C,), 2)
    assert kernel_error(op, x, w, b) <= 1e-5
    _, saved = run(op, x, w, b)
    assert saved[0] is x
    assert saved[1] is w


@pytest.mark.parametrize("where", ["x", "w", "b", "gy"])
@pytest.mark.parametrize("value", [numpy.nan, numpy.inf])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_not_finite_goes_where_it_goes_in_the_reference(where, value, stride):
    op = Conv2d((stride, stride), (1, 1), groups=5)
    x, w, b = values((2, 5, 9, 10)), values((10, 1, 3, 3), 1), values((10,), 2)
    gy = gradient_of(op, x, w)
    {"x": x, "w": w, "b": b, "gy": gy}[where].reshape(-1)[7] = value
    check_where_it_is_not_finite(op, x, w, b, gy)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_new_memory_may_hold_anything(multiplier, monkeypatch):
    monkeypatch.setattr(
        depthwise, "empty", lambda shape, dtype=numpy.float32: numpy.full(shape, numpy.nan, dtype)
    )
    O = 5 * multiplier
    x, w, b = values((2, 5, 11, 12)), values((O, 1, 3, 3), 1), values((O,), 2)
    check(Conv2d((1, 2), (1, 1), groups=5), x, w, b, "contiguous", NAME)


def test_gradients_that_nobody_needs_are_none():
    op, x, w = Conv2d(groups=3), values((1, 3, 6, 6)), values((3, 1, 3, 3))
    y, saved = run(op, x, w, None)
    for needs in [(True, False, False), (False, True, False), (False, False, True)]:
        gradients = run_backward(op, numpy.ones_like(y), saved, needs)
        assert [g is not None for g in gradients] == list(needs)


def test_a_window_that_does_not_fit():
    with pytest.raises(ShapeError, match="window of 5 pixels"):
        run(Conv2d(groups=3), values((1, 3, 4, 4)), values((3, 1, 5, 5)), None)


def test_where_the_reference_is_used():
    op, x, w = Conv2d(groups=4), values((1, 4, 6, 6)), values((4, 1, 3, 3))
    y, _ = run(op, x, w, None)

    def names(op, x, w, b=None, gy=y):
        yield tinyconv.which(op, "forward", x, w, b)
        yield tinyconv.which(op, "backward", gy, (x, w), NEEDS)

    assert list(names(op, x, w)) == [NAME, f"{NAME}_backward"]
    double = numpy.float64
    for case in [
        (op, x.astype(double), w),
        (op, x, w.astype(double)),
        (op, x[:0], w),
        (Conv2d(groups=2), x, values((4, 2, 3, 3))),
    ]:
        assert list(names(*case)) == ["reference"] * 2
    assert next(names(op, x, w, numpy.zeros(4))) == "reference"
    assert list(names(op, x, w, gy=y.astype(double)))[1] == "reference"
