"""Pooling in Numba against the reference: every window, border and layout."""

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tinyconv
from tinyconv.errors import ShapeError
from tinyconv.kernels.cpu import pool
from tinyconv.kernels.fused import ReLUPool
from tinyconv.op import run, run_backward
from tinyconv.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyconv.ops.window import Window
from tinyconv.testing import kernel_error

from .cases import LAYOUTS, by_threads, laid_out, values

NEEDS = (True,)
TWO = Window((2, 2), (2, 2))


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


SHAPE = st.tuples(
    st.integers(1, 3), st.sampled_from([1, 3, 16, 17, 35]), st.integers(1, 9), st.integers(1, 9)
)
IMAGES = {"shape": SHAPE, "layout": st.sampled_from(LAYOUTS)}
WINDOW = {
    "kernel": pairs(1, 4), "stride": pairs(1, 4), "padding": pairs(0, 2), "ceil_mode": st.booleans()
}  # fmt: skip


def fitting(shape, *arguments):
    """The window, if it fits images of this shape."""
    window = Window(*arguments)
    assume(all(2 * p <= k for p, k in zip(window.padding, window.kernel, strict=True)))
    try:
        window.output_size(*shape[2:])
    except ShapeError:
        assume(False)
    return window


@given(dilation=pairs(1, 2), few_values=st.booleans(), rectified=st.booleans(), **IMAGES, **WINDOW)
def test_max_pool(
    shape, layout, kernel, stride, padding, dilation, ceil_mode, few_values, rectified
):
    window = fitting(shape, kernel, stride, padding, dilation, ceil_mode)
    assume(dilation == (1, 1) or padding == (0, 0))
    op = ReLUPool(MaxPool2d(window)) if rectified else MaxPool2d(window)
    x = values(shape)
    x = laid_out(numpy.round(x) if few_values else x, layout)  # then there are ties
    y, saved = run(op, x)
    expected, saved_by_reference = op.forward(numpy, x)
    numpy.testing.assert_array_equal(y, expected)
    numpy.testing.assert_array_equal(saved[-2], saved_by_reference[-2])  # the winner
    assert saved[-2].dtype == saved_by_reference[-2].dtype
    assert kernel_error(op, x) <= 1e-6
    name = "fused_relu_pool" if rectified else "max_pool"
    assert tinyconv.which(op, "forward", x) == name
    assert tinyconv.which(op, "backward", y, saved, NEEDS) == f"{name}_gradient"


@pytest.mark.parametrize("op", [MaxPool2d(TWO), ReLUPool(MaxPool2d(TWO))], ids=["plain", "relu"])
def test_values_that_are_not_finite(op):
    choices = numpy.array([numpy.nan, numpy.inf, -numpy.inf, 0, -1, 1], numpy.float32)
    x = numpy.random.default_rng(0).choice(choices, (2, 19, 8, 10))
    y, saved = run(op, x)
    expected, saved_by_reference = op.forward(numpy, x)
    numpy.testing.assert_array_equal(y, expected)
    numpy.testing.assert_array_equal(saved[-2], saved_by_reference[-2])
    gy = numpy.random.default_rng(1).choice(choices, y.shape)
    for whose in (saved, saved_by_reference):
        numpy.testing.assert_array_equal(
            run_backward(op, gy, whose, NEEDS)[0], op.backward(numpy, gy, whose, NEEDS)[0]
        )


@given(
    count_include_pad=st.booleans(), divisor_override=st.sampled_from([None, 3]), **IMAGES, **WINDOW
)
def test_avg_pool(
    shape, layout, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
):
    window = fitting(shape, kernel, stride, padding, (1, 1), ceil_mode)
    op, x = AvgPool2d(window, count_include_pad, divisor_override), laid_out(values(shape), layout)
    y, saved = run(op, x)
    numpy.testing.assert_allclose(y, op.forward(numpy, x)[0], rtol=1e-5, atol=1e-6)
    assert kernel_error(op, x) <= 1e-5
    assert tinyconv.which(op, "forward", x) == "avg_pool"
    assert tinyconv.which(op, "backward", y, saved, NEEDS) == "avg_pool_gradient"


@given(output_size=pairs(1, 11), **IMAGES)
def test_adaptive_avg_pool(shape, layout, output_size):
    op, x = AdaptiveAvgPool2d(output_size), laid_out(values(shape), layout)
    y, saved = run(op, x)
    numpy.testing.assert_allclose(y, op.forward(numpy, x)[0], rtol=1e-5, atol=1e-6)
    assert kernel_error(op, x) <= 1e-5
    assert tinyconv.which(op, "forward", x) == "adaptive_avg_pool"
    assert tinyconv.which(op, "backward", y, saved, NEEDS) == "adaptive_avg_pool_gradient"


OPS = [MaxPool2d(TWO), ReLUPool(MaxPool2d(TWO)), AvgPool2d(TWO), AdaptiveAvgPool2d((3, 3))]
each_op = pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)


@each_op
@pytest.mark.parametrize("channels", [6, 16])
def test_results_past_the_cache(monkeypatch, op, channels):
    """Large results are stored in another way, from any address on."""
    x = values((2, channels, 7, 6))
    expected, _ = run(op, x)
    monkeypatch.setattr(pool, "past_cache", lambda _: True)
    assert numpy.array_equal(run(op, x)[0], expected)
    assert kernel_error(op, x) <= 1e-6


@each_op
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_in_any_layout(op, layout):
    x = values((2, 5, 7, 6))
    y, saved = run(op, x)
    gy = laid_out(values(y.shape, seed=1), layout)
    expected = op.backward(numpy, gy, saved, NEEDS)[0]
    numpy.testing.assert_allclose(run_backward(op, gy, saved, NEEDS)[0], expected, atol=1e-6)
    one = numpy.broadcast_to(numpy.float32(1), y.shape)
    expected = op.backward(numpy, one, saved, NEEDS)[0]
    numpy.testing.assert_allclose(run_backward(op, one, saved, NEEDS)[0], expected, atol=1e-6)


@each_op
def test_threads(monkeypatch, op):
    x = values((2, 5, 9, 8))

    def compute():
        y, saved = run(op, x)
        return y, *run_backward(op, y, saved, NEEDS)

    first, *others = by_threads(monkeypatch, compute)
    for found in others:
        assert all(map(numpy.array_equal, found, first))


@each_op
def test_where_the_reference_is_used(op):
    x = values((1, 2, 4, 4))
    y, saved = run(op, x)
    assert tinyconv.which(op, "forward", x.astype("float64")) == "reference"
    assert tinyconv.which(op, "forward", x[:0]) == "reference"
    assert tinyconv.which(op, "backward", y.astype("float64"), saved, NEEDS) == "reference"


@pytest.mark.parametrize(
    "window",
    [
        Window((17, 17), (1, 1)),  # winners beyond 255
        Window((2, 2), (1, 1), (1, 1), (2, 2)),  # some windows may meet no pixel
        Window((2, 2), (1, 1), (2, 2)),
    ],
)
def test_windows_of_the_reference(window):
    x = values((1, 2, 20, 20))
    for op in (MaxPool2d(window), ReLUPool(MaxPool2d(window))):
        y, saved = op.forward(numpy, x)
        assert tinyconv.which(op, "forward", x) == "reference"
        assert tinyconv.which(op, "backward", y, saved, NEEDS) == "reference"
    if window.padding != (0, 0):
        assert tinyconv.which(AvgPool2d(window), "forward", x) == "reference"
