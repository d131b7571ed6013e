"""Activations, softmax and log-softmax by the math module, and what happens at kinks and NaN."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv.functional as F
from tinyconv.tensor import Tensor

FORMULAS = {
    F.relu: lambda x: max(x, 0.0),
    F.relu6: lambda x: min(max(x, 0.0), 6.0),
    F.leaky_relu: lambda x: x if x > 0 else 0.01 * x,
    F.tanh: math.tanh,
    F.sigmoid: lambda x: 1 / (1 + math.exp(-x)),
}

NUMBERS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=8)


@pytest.mark.parametrize("function", FORMULAS)
@given(numbers=NUMBERS, dtype=st.sampled_from([numpy.float32, numpy.float64]))
def test_formula(function, numbers, dtype, backend):
    y = function(numpy.array(numbers, dtype))
    tolerance = 1e-14 if dtype == numpy.float64 else 1e-6
    assert y.dtype == dtype
    assert numpy.allclose(y.numpy(), [FORMULAS[function](x) for x in numbers], rtol=tolerance)


@given(numbers=NUMBERS)
def test_softmax(numbers, backend):
    total = sum(math.exp(x) for x in numbers)
    x = numpy.array(numbers).reshape(1, -1, 1)
    y = F.softmax(x, 1).numpy().reshape(-1)
    assert numpy.allclose(y, [math.exp(v) / total for v in numbers], rtol=1e-13)
    y = F.log_softmax(x, -2).numpy().reshape(-1)
    assert numpy.allclose(y, [v - math.log(total) for v in numbers], rtol=1e-12, atol=1e-12)


def gradient(function, value):
    x = Tensor(numpy.array([value]), requires_grad=True)
    function(x).backward()
    return x.grad.item()


def test_kinks_have_pytorchs_gradients():
    assert gradient(F.relu, 0.0) == 0
    assert gradient(F.relu, -0.0) == 0
    assert gradient(F.relu6, 0.0) == 0
    assert gradient(F.relu6, 6.0) == 0
    assert gradient(F.leaky_relu, 0.0) == 0.01
    assert gradient(lambda x: x.abs(), 0.0) == 0


@pytest.mark.parametrize("function", FORMULAS)
def test_nan_passes(function, backend):
    assert math.isnan(function(numpy.array([numpy.nan])).item())


def test_nan_passes_through_relus_gradient():
    x = Tensor(numpy.array([numpy.nan, 1, -1]), requires_grad=True)
    F.relu(x).backward(numpy.array([1, numpy.nan, numpy.nan]))
    assert numpy.isnan(x.grad.numpy()).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_nothing_overflows(dtype):
    x = numpy.array([-1e4, 0, 1e4], dtype)
    assert F.sigmoid(x).numpy().tolist() == [0, 0.5, 1]
    assert F.tanh(x).numpy().tolist() == [-1, 0, 1]
    assert F.softmax(x, 0).numpy().tolist() == [0, 0, 1]
    assert F.log_softmax(x, 0).numpy().tolist() == [-2e4, -1e4, 0]


def test_sigmoid_keeps_its_digits_far_below_zero():
    assert F.sigmoid(numpy.array([-80.0])).item() == pytest.approx(math.exp(-80), rel=1e-14)


def test_a_numpy_slope_does_not_promote():
    assert F.leaky_relu(numpy.ones(2, numpy.float32), numpy.float64(0.1)).dtype == numpy.float32
