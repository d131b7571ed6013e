"""Direct convolution in Numba against the reference: every window, layout, number of channels."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyconv
from tinyconv import op as op_module
from tinyconv.errors import ShapeError
from tinyconv.kernels.cpu import direct
from tinyconv.kernels.fused import PaddedConv2d
from tinyconv.op import run, run_backward
from tinyconv.ops.conv import Conv2d
from tinyconv.testing import kernel_error, relative_error

from .cases import LAYOUTS, by_threads, values
from .convolutions import check, check_where_it_is_not_finite, gradient_of, pairs

NEEDS = (True, True, True)


@pytest.fixture(autouse=True)
def _no_winograd(monkeypatch):
    """It is asked first; here its cases go to the direct kernels as well."""
    mine = {
        key: [kernel for kernel in kernels if kernel.name != "winograd"]
        for key, kernels in op_module._kernels.items()
    }
    for key, kernels in mine.items():
        mine[key] = [kernel for kernel in kernels if kernel.name != "winograd_backward"]
    monkeypatch.setattr(op_module, "_kernels", mine)


@settings(max_examples=150)
@given(
    N=st.integers(1, 3),
    C=st.sampled_from([1, 2, 3, 16, 17]),
    O=st.sampled_from([1, 2, 5, 6, 16, 17, 33, 70]),
    room=pairs(0, 9),
    kernel=pairs(1, 5),
    stride=pairs(1, 3),
    padding=pairs(0, 3),
    dilation=pairs(1, 2),
    with_bias=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
)
def test_every_window(N, C, O, room, kernel, stride, padding, dilation, with_bias, layout):
    op = Conv2d(stride, padding, dilation)
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    x = values((N, C, *(max(1, r) + more for r, more in zip(reach, room, strict=True))))
    w, b = values((O, C, *kernel), 1), values((O,), 2) if with_bias else None
    check(op, x, w, b, layout, "direct_convolution")


@given(
    C=st.sampled_from([1, 3, 17]), O=st.sampled_from([1, 5, 16, 40]), size=pairs(5, 9),
    kernel=pairs(1, 5), stride=pairs(1, 2), padding=pairs(0, 1), before=pairs(0, 3),
    after=pairs(0, 3), layout=st.sampled_from(LAYOUTS),
)  # fmt: skip
def test_zeros_that_differ_at_the_ends(C, O, size, kernel, stride, padding, before, after, layout):
    op = PaddedConv2d(stride, padding, before=before, after=after)
    x, w, b = values((2, C, *size)), values((O, C, *kernel), 1), values((O,), 2)
    check(op, x, w, b, layout, "direct_convolution")


# Several strips, panels and blocks; long sums; pixels of several rows and images together.
LARGE = [
    (Conv2d(padding=(1, 1)), (2, 40, 42, 60), (70, 3, 3)),
    (Conv2d(padding=(1, 1)), (1, 3, 90, 91), (6, 3, 3)),
    (Conv2d(), (1, 3, 90, 91), (6, 3, 3)),
    (Conv2d((2, 2), (3, 3)), (2, 3, 64, 64), (40, 7, 7)),
    (Conv2d(dilation=(2, 2)), (1, 24, 60, 60), (20, 3, 3)),
    (Conv2d(), (3, 200, 12, 11), (40, 1, 1)),
    (Conv2d((2, 2)), (3, 64, 31, 31), (80, 1, 1)),
    (Conv2d(padding=(1, 1)), (2, 300, 7, 7), (64, 3, 3)),
    (Conv2d(), (5, 1, 28, 28), (6, 5, 5)),
    (Conv2d(), (5, 6, 12, 12), (16, 5, 5)),
    (PaddedConv2d((2, 2), after=(1, 1)), (2, 3, 90, 90), (32, 3, 3)),
    (PaddedConv2d(before=(2, 0), after=(1, 0)), (2, 20, 90, 31), (16, 4, 1)),
]


@pytest.mark.parametrize(("op", "x", "w"), LARGE)
def test_large_images_and_any_number_of_threads(op, x, w, monkeypatch):
    x, w, b = values(x), values((w[0], x[1], *w[1:]), 1), values((w[0],), 2)
    first, *others = by_threads(
        monkeypatch, lambda: check(op, x, w, b, "turned", "direct_convolution")
    )
    for y, gx, gw, gb in others:
        numpy.testing.assert_array_equal(y, first[0])
        assert relative_error(gx, first[1]) <= 1e-6
        assert relative_error(gw, first[2]) <= 5e-6
        assert relative_error(gb, first[3]) <= 5e-6


@given(O=st.integers(3, 20), kernel=pairs(1, 4), stride=pairs(1, 2), padding=pairs(0, 2))
def test_any_forward_goes_with_any_backward(O, kernel, stride, padding):
    op = Conv2d(stride, padding)
    x, w, b = values((2, 4, 9, 8)), values((O, 4, *kernel), 1), values((O,), 2)
    assert kernel_error(op, x, w, b) <= 1e-5
    y, saved = run(op, x, w, b)
    assert saved[0] is x
    assert saved[1] is w
    assert y.shape == op.forward(numpy, x, w, b)[0].shape


@pytest.mark.parametrize("O", [5, 16])
@pytest.mark.parametrize("op", [Conv2d(padding=(1, 2)), Conv2d((2, 1), (1, 1), (1, 2)), Conv2d()])
@pytest.mark.parametrize("where", ["x", "w", "b", "gy"])
@pytest.mark.parametrize("value", [numpy.nan, numpy.inf])
def test_what_is_not_finite_goes_where_it_goes_in_the_reference(O, op, where, value):
    x, w, b = values((2, 3, 9, 10)), values((O, 3, 3, 3), 1), values((O,), 2)
    gy = gradient_of(op, x, w)
    {"x": x, "w": w, "b": b, "gy": gy}[where].reshape(-1)[7 % O] = value
    x[0, 1, 5, 6] = value if where == "x" else 1
    check_where_it_is_not_finite(op, x, w, b, gy)


@pytest.mark.parametrize("O", [3, 20])
@pytest.mark.parametrize("op", [Conv2d(padding=(1, 1)), Conv2d((2, 2), (1, 1), (2, 2))])
def test_new_memory_may_hold_anything(O, op, monkeypatch):
    monkeypatch.setattr(
        direct, "empty", lambda shape, dtype=numpy.float32: numpy.full(shape, numpy.nan, dtype)
    )
    x, w, b = values((2, 5, 11, 12)), values((O, 5, 3, 3), 1), values((O,), 2)
    check(op, x, w, b, "contiguous", "direct_convolution")


def test_gradients_that_nobody_needs_are_none():
    op, x, w = Conv2d(), values((1, 3, 6, 6)), values((4, 3, 3, 3))
    y, saved = run(op, x, w, None)
    for needs in [(True, False, False), (False, True, False), (False, False, True)]:
        gradients = run_backward(op, numpy.ones_like(y), saved, needs)
        assert [g is not None for g in gradients] == list(needs)


def test_a_window_that_does_not_fit():
    x, w = values((1, 3, 4, 4)), values((4, 3, 5, 5))
    assert tinyconv.which(Conv2d(), "forward", x, w, None) == "direct_convolution"
    with pytest.raises(ShapeError, match="window of 5 pixels"):
        run(Conv2d(), x, w, None)


def test_where_the_reference_is_used():
    op, x, w = Conv2d(), values((1, 4, 6, 6)), values((4, 4, 3, 3))
    y, _ = run(op, x, w, None)

    def names(op, x, w, b=None, gy=y):
        yield tinyconv.which(op, "forward", x, w, b)
        yield tinyconv.which(op, "backward", gy, (x, w), NEEDS)

    kernels = ["direct_convolution", "direct_convolution_backward"]
    assert list(names(op, x, w)) == kernels
    double = numpy.float64
    for case in [
        (op, x.astype(double), w),
        (op, x, w.astype(double)),
        (op, x[:0], w),
        (Conv2d(groups=2), x, w[:, :2]),
    ]:
        assert list(names(*case)) == ["reference"] * 2
    assert next(names(op, x, w, numpy.zeros(4))) == "reference"
    assert next(names(op, x, w[:, :3])) == "reference"
    assert list(names(op, x, w, gy=y.astype(double)))[1] == "reference"
