"""Activations in Numba against the reference and, where they compute e^x, against float64."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import activation  # noqa: F401
from tinyconv.op import run, run_backward
from tinyconv.ops.activation import LeakyReLU, ReLU, ReLU6, Sigmoid, Tanh
from tinyconv.testing import kernel_error

from .cases import LAYOUTS, by_threads, laid_out, values

NEEDS = (True,)
OPS = {
    "relu": ReLU(), "relu6": ReLU6(), "leaky_relu": LeakyReLU(0.1), "tanh": Tanh(),
    "sigmoid": Sigmoid(),
}  # fmt: skip
each_op = pytest.mark.parametrize(("name", "op"), OPS.items(), ids=OPS)


@each_op
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple),
    layout=st.sampled_from(LAYOUTS),
    layout_of_gy=st.sampled_from(LAYOUTS),
)
def test_activation(name, op, shape, layout, layout_of_gy):
    x = laid_out(5 * values(shape), layout)
    assert tinyconv.which(op, "forward", x) == name
    y, saved = run(op, x)
    assert tinyconv.which(op, "backward", y, saved, NEEDS) == f"{name}_gradient"
    assert kernel_error(op, x) <= 1e-5
    gy = laid_out(values(shape, seed=1), layout_of_gy)
    (gx,), (expected,) = run_backward(op, gy, saved, NEEDS), op.backward(numpy, gy, saved, NEEDS)
    numpy.testing.assert_allclose(gx, expected, rtol=1e-6, atol=1e-6)


@each_op
def test_images_stay_channels_last(name, op):
    x = laid_out(values((2, 3, 4, 5)), "turned")
    y, saved = run(op, x)
    for result in (y, *saved, *run_backward(op, values(x.shape), saved, NEEDS)):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@each_op
def test_values_that_are_not_finite(name, op):
    x = numpy.array([numpy.nan, numpy.inf, -numpy.inf, 0, -0.0, 6, 1e30, -1e30], numpy.float32)
    x = numpy.repeat(x, 19)
    gy = numpy.tile(numpy.array([1, numpy.nan, numpy.inf, -1], numpy.float32), len(x) // 4)
    y, saved = run(op, x)
    with numpy.errstate(all="ignore"):
        numpy.testing.assert_allclose(y, op.forward(numpy, x)[0], rtol=1e-6)
        expected = op.backward(numpy, gy, saved, NEEDS)[0]
    gx = run_backward(op, gy, saved, NEEDS)[0]
    numpy.testing.assert_allclose(gx, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "exact", "relative"),
    [(Tanh(), numpy.tanh, 2e-7), (Sigmoid(), lambda x: 1 / (1 + numpy.exp(-x)), 5e-6)],
    ids=["tanh", "sigmoid"],
)
def test_accuracy(op, exact, relative):
    near = 10.0 ** numpy.linspace(-30, 0, 10_001)
    x = numpy.concatenate([numpy.linspace(-80, 80, 100_001), near, -near]).astype(numpy.float32)
    y, expected = run(op, x)[0], exact(x.astype(numpy.float64))
    assert numpy.abs(y - expected).max() <= 2e-7
    inside = expected != 0
    assert numpy.abs(y[inside] / expected[inside] - 1).max() <= relative
    assert numpy.abs(y).max() <= 1


@each_op
def test_threads(monkeypatch, name, op):
    x = values((7, 5, 3, 2))

    def compute():
        y, saved = run(op, x)
        return y, *run_backward(op, x, saved, NEEDS)

    first, *others = by_threads(monkeypatch, compute)
    for found in others:
        assert all(map(numpy.array_equal, found, first))


@each_op
def test_where_the_reference_is_used(name, op):
    x = values((4, 3))
    for other in (x.astype("float64"), x[:0]):
        assert tinyconv.which(op, "forward", other) == "reference"
        assert tinyconv.which(op, "backward", other, (other,), NEEDS) == "reference"
        assert tinyconv.which(op, "backward", x, (other,), NEEDS) == "reference"
