"""Arithmetic with broadcasting, with numbers and arrays on either side."""

import operator

import numpy as np
import pytest

import tinyconv.functional as F
from tinyconv import Tensor

torch = pytest.importorskip("torch")

from .compare import drawn, torch_tensor  # noqa: E402

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]


def broadcast_shapes(draw):
    """Two shapes that broadcast: in either, an axis may be 1, and leading ones may be missing."""
    whole = draw.shape(0, 4, largest=4)
    return [
        tuple(1 if draw.chance(0.3) else n for n in whole[draw.integer(0, len(whole)) :])
        for _ in range(2)
    ]


def away_from_0(x):
    return np.asarray(np.where(np.abs(x) < 0.1, 1.0, x))


@pytest.mark.parametrize("operation", OPERATORS)
@drawn(25)
def test_two_tensors(parity, draw, operation):
    a, b = (draw.normal(*shape) for shape in broadcast_shapes(draw))
    frozen = draw.one_of((), (0,), (1,))
    parity.check(operation, operation, a, away_from_0(b), frozen=frozen)


@pytest.mark.parametrize("operation", OPERATORS)
@drawn(12)
def test_tensor_and_number_or_array(parity, draw, operation):
    a, b = (away_from_0(draw.normal(*shape)) for shape in broadcast_shapes(draw))
    other = draw.one_of(2, -3, 0.7, np.float32(0.7), np.float64(0.7), b, b)
    tensor_first = draw.chance(0.5)

    def call(convert):
        def function(x):
            dtype = str(x.dtype).removeprefix("torch.")
            value = convert(other.astype(dtype)) if other is b else other
            return operation(x, value) if tensor_first else operation(value, x)

        return function

    parity.check(call(lambda array: array), call(torch_tensor), a)


@pytest.mark.parametrize(
    ("function", "reference"), [(F.maximum, torch.maximum), (F.minimum, torch.minimum)]
)
@drawn(15)
def test_maximum_and_minimum(parity, draw, function, reference):
    shapes = broadcast_shapes(draw)
    if draw.chance(0.5):
        a, b = (draw.normal(*shape) for shape in shapes)
    else:  # with ties
        a, b = (np.asarray(draw.rng.integers(0, 3, shape), float) for shape in shapes)
    parity.check(function, reference, a, b)


def test_maximum_and_minimum_of_special_values(parity):
    values = np.array([0.0, 1.0, -np.inf, np.inf])
    a, b = (x.ravel() for x in np.meshgrid(values, values))
    parity.check(F.maximum, torch.maximum, a, b)
    parity.check(F.minimum, torch.minimum, a, b)
    nan = np.full_like(a, np.nan)
    parity.check(F.maximum, torch.maximum, a, nan, frozen=(0, 1))
    parity.check(F.minimum, torch.minimum, nan, a, frozen=(0, 1))


def test_special_values(parity):
    values = np.array([0.0, -0.0, 1.0, -2.0, -np.inf, np.inf, np.nan])
    a, b = (x.ravel() for x in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        for operation in OPERATORS:
            parity.check(operation, operation, a, b)


def test_a_tensor_used_many_times(parity):
    def function(x, w):
        y = x * w + x
        return (y * y - x / (w + 3)) * y.sum() + w

    rng = np.random.default_rng(0)
    parity.check(function, function, rng.random((3, 4)), rng.random((3, 4)))


def test_gradients_add_up_over_calls(parity):
    x = np.arange(4.0)
    ours, theirs = Tensor(x.copy(), requires_grad=True), torch_tensor(x, requires_grad=True)
    for factor in (2.0, 3.0):
        (ours * factor).sum().backward()
        (theirs * factor).sum().backward()
    parity.equal(ours.grad, theirs.grad)
