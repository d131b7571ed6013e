"""Fully connected layers and matrix products by blocks against NumPy's."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import linear  # noqa: F401
from tinyconv.op import run, run_backward
from tinyconv.ops.linear import Linear, MatMul
from tinyconv.testing import kernel_error, relative_error

from .cases import LAYOUTS, by_threads, laid_out, values

layouts = st.sampled_from(LAYOUTS)


def check_kernels(op, inputs, name):
    y, saved = run(op, *inputs)
    assert tinyconv.which(op, "forward", *inputs) == f"{name}_by_blocks"
    found = tinyconv.which(op, "backward", y, saved, (True, True, True))
    assert found == f"{name}_backward_by_blocks"


@settings(max_examples=60)
@given(
    rows=st.integers(1, 80),
    I=st.integers(1, 80),
    O=st.integers(1, 80),
    bias=st.booleans(),
    layout=st.tuples(layouts, layouts),
)
def test_linear(rows, I, O, bias, layout):
    x, w = laid_out(values((rows, I)), layout[0]), laid_out(values((O, I), 1), layout[1])
    inputs = x, w, values((O,), 2) if bias else None
    check_kernels(Linear(), inputs, "linear")
    assert kernel_error(Linear(), *inputs) <= 1e-5


@pytest.mark.parametrize(
    ("rows", "I", "O"),
    [
        (1, 5000, 3),  # more than one stretch of the sum
        (130, 2100, 5),  # more than one tile of rows
        (300, 30, 40),  # the weight transposed
        (3000, 3, 4),  # cut by rows
        (40, 30, 1100),  # a panel that is not as deep as the sum
    ],
)
def test_linear_of_other_sizes(rows, I, O):
    assert kernel_error(Linear(), values((rows, I)), values((O, I), 1), values((O,), 2)) <= 1e-5


@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 3, 7), (2, 1, 3, 7)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_any_rank(shape, layout):
    inputs = laid_out(values(shape), layout), values((5, 7), 1), values((5,), 2)
    check_kernels(Linear(), inputs, "linear")
    assert kernel_error(Linear(), *inputs) <= 1e-5


@pytest.mark.parametrize("only", range(3))
def test_only_what_is_asked_for(only):
    needs = tuple(i == only for i in range(3))
    x, w, b = values((5, 7)), values((3, 7), 1), values((3,), 2)
    y, saved = run(Linear(), x, w, b)
    gradients = run_backward(Linear(), y, saved, needs)
    assert tuple(g is not None for g in gradients) == needs
    assert kernel_error(Linear(), x, w, b, needs=needs) <= 1e-5


@settings(max_examples=40)
@given(
    I=st.integers(1, 70), K=st.integers(1, 70), J=st.integers(1, 70),
    layout=st.tuples(layouts, layouts),
)  # fmt: skip
def test_matmul(I, K, J, layout):
    inputs = laid_out(values((I, K)), layout[0]), laid_out(values((K, J), 1), layout[1])
    check_kernels(MatMul(), inputs, "matmul")
    assert kernel_error(MatMul(), *inputs) <= 1e-5


def test_where_the_reference_is_used():
    x, w = values((4, 6)), values((5, 6))
    assert tinyconv.which(Linear(), "forward", x.astype("float64"), w, None) == "reference"
    assert tinyconv.which(Linear(), "forward", x[:0], w, None) == "reference"
    saved = x, w.astype("float64")
    gy = values((4, 5))
    assert tinyconv.which(Linear(), "backward", gy, saved, (True,) * 3) == "reference"
    assert tinyconv.which(MatMul(), "forward", values((2, 4, 6)), values((6, 3))) == "reference"
    saved, gy = (values((2, 4, 6)), values((6, 3))), values((2, 4, 3))
    assert tinyconv.which(MatMul(), "backward", gy, saved, (True, True)) == "reference"


@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
def test_values_that_are_not_finite(rows, value):
    x, w, b = values((rows, 9)), values((7, 9), 1), values((7,), 2)
    x[1, 2], w[3, 8], b[5] = value, value, value
    gy = values((rows, 7), 3)
    y, saved = run(Linear(), x, w, b)
    found = y, *run_backward(Linear(), gy, saved, (True,) * 3)
    with numpy.errstate(invalid="ignore"):
        expected, _ = Linear().forward(numpy, x, w, b)
        gradients = Linear().backward(numpy, gy, saved, (True,) * 3)
    for ours, theirs in zip(found, (expected, *gradients), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "I", "O"), [(4, 70, 90), (90, 70, 20), (200, 3, 2), (9, 40, 33)])
def test_threads(monkeypatch, rows, I, O):
    x, w, b, gy = values((rows, I)), values((O, I), 1), values((O,), 2), values((rows, O), 3)

    def compute():
        y, saved = run(Linear(), x, w, b)
        return y, *run_backward(Linear(), gy, saved, (True,) * 3)

    first, *others = by_threads(monkeypatch, compute)
    for found in others:
        assert all(relative_error(a, b) <= 1e-6 for a, b in zip(found, first, strict=True))
