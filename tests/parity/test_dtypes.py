"""Which dtype comes out: PyTorch's rules, not NumPy's, wherever numbers and dtypes are mixed."""

import operator

import numpy as np
import pytest

import tinyconv.functional as F
from tinyconv import Tensor, nn

torch = pytest.importorskip("torch")

from .compare import torch_tensor  # noqa: E402

FLOATS = ["float32", "float64"]
INTEGERS = ["int64", "int32", "uint8"]
NUMBERS = [2, -1, 1.5, np.float64(1.5), np.float32(1.5), np.int64(2)]
EXACT = [operator.add, operator.sub, operator.mul]
OPERATORS = [*EXACT, operator.truediv]


def array(dtype):
    return np.array([3, 1, 2]).astype(dtype)


@pytest.mark.parametrize("operation", OPERATORS)
@pytest.mark.parametrize("b", FLOATS)
@pytest.mark.parametrize("a", FLOATS)
def test_floats(parity, operation, a, b):
    x, y = array(a), array(b)
    theirs = operation(torch_tensor(x), torch_tensor(y))
    parity.equal(operation(Tensor(x), Tensor(y)), theirs)
    parity.equal(operation(Tensor(x), y), theirs)
    parity.equal(operation(x, Tensor(y)), theirs)


@pytest.mark.parametrize("operation", EXACT)
@pytest.mark.parametrize("b", INTEGERS)
@pytest.mark.parametrize("a", INTEGERS)
def test_integers(parity, operation, a, b):
    theirs = operation(torch_tensor(array(a)), torch_tensor(array(b)))
    parity.equal(operation(Tensor(array(a)), Tensor(array(b))), theirs)


@pytest.mark.parametrize("operation", OPERATORS)
@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__} {n}")
@pytest.mark.parametrize("dtype", FLOATS)
def test_float_and_number(parity, operation, dtype, number):
    ours, theirs = Tensor(array(dtype)), torch_tensor(array(dtype))
    parity.equal(operation(ours, number), operation(theirs, number))
    plain = number.item() if isinstance(number, np.generic) else number
    parity.equal(operation(number, ours), operation(plain, theirs))


@pytest.mark.parametrize("operation", EXACT)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_and_number(parity, operation, dtype):
    ours, theirs = Tensor(array(dtype)), torch_tensor(array(dtype))
    parity.equal(operation(ours, 2), operation(theirs, 2))
    parity.equal(operation(5, ours), operation(5, theirs))


def test_pixels_beside_floats(parity):
    x, w = array("uint8"), array("float32")
    parity.equal(Tensor(x) * Tensor(w), torch_tensor(x) * torch_tensor(w))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["exp", "sqrt", "log", "abs", "sum", "mean", "amax", "amin"])
def test_functions(parity, dtype, name):
    parity.equal(getattr(Tensor(array(dtype)), name)(), getattr(torch_tensor(array(dtype)), name)())


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool"])
@pytest.mark.parametrize("name", ["sum", "amax", "amin"])
def test_reductions_of_integers(parity, dtype, name):
    parity.equal(getattr(Tensor(array(dtype)), name)(), getattr(torch_tensor(array(dtype)), name)())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("exponent", [2, 2.0, 0.5, np.float64(0.5), np.float32(3)])
def test_power(parity, dtype, exponent):
    parity.equal(Tensor(array(dtype)) ** exponent, torch_tensor(array(dtype)) ** float(exponent))


def test_lists_and_numbers_become_tensors_alike(parity):
    for value in ([1.5, 2.0], 1.5, [1, 2], 3, [[1, 2.5]], [True, False], True):
        parity.equal(Tensor(value), torch.tensor(value))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_keep_the_dtype(dtype):
    """Forward, gradients and running statistics of a whole network."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2), nn.LeakyReLU(),
        nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(2), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3), nn.Sigmoid(), nn.LogSoftmax(1),
    ).astype(dtype)  # fmt: skip
    x = Tensor(np.random.default_rng(0).random((4, 3, 10, 10)).astype(dtype), requires_grad=True)
    y = network(x)
    loss = F.nll_loss(y, np.array([0, 1, 2, 0]), weight=np.array([1.0, 2.0, 3.0], dtype))
    assert y.dtype == loss.dtype == dtype
    loss.backward()
    for tensor in (x, *network.parameters()):
        assert tensor.grad.dtype == tensor.dtype == dtype
    state = network.state_dict()
    assert {a.dtype.name for k, a in state.items() if "num_batches" not in k} == {dtype}
