"""Activations and functions of one number, at ordinary, special and boundary values."""

import numpy as np
import pytest

import tinyconv.functional as F
from tinyconv import Tensor

torch = pytest.importorskip("torch")

from .compare import drawn  # noqa: E402

TF = torch.nn.functional

# Kinks, the ends of the floats' range and infinities: the gradients there are part of the check.
SPECIAL = np.array(
    [0.0, -0.0, 6.0, 1e-30, -1e-30, 1.0, -1.0, 5.999, 6.001, 20.0, -20.0, 88.0, -88.0, 104.0,
     -104.0, 710.0, -710.0, 1e4, -1e4, 1e30, -1e30, np.inf, -np.inf]
)  # fmt: skip

FUNCTIONS = {
    "relu": (F.relu, TF.relu),
    "relu6": (F.relu6, TF.relu6),
    "leaky_relu": (F.leaky_relu, TF.leaky_relu),
    "leaky_relu 0": (lambda x: F.leaky_relu(x, 0.0), lambda x: TF.leaky_relu(x, 0.0)),
    "leaky_relu -0.5": (lambda x: F.leaky_relu(x, -0.5), lambda x: TF.leaky_relu(x, -0.5)),
    "leaky_relu 1": (lambda x: F.leaky_relu(x, 1.0), lambda x: TF.leaky_relu(x, 1.0)),
    "tanh": (F.tanh, torch.tanh),
    "sigmoid": (F.sigmoid, torch.sigmoid),
    "abs": (lambda x: x.abs(), torch.abs),
    "exp": (lambda x: x.exp(), torch.exp),
    "log": (lambda x: x.log(), torch.log),
    "sqrt": (lambda x: x.sqrt(), torch.sqrt),
    "negative": (lambda x: -x, lambda x: -x),
}
for exponent in (0, 1, 2, 3, -1, -2, 0.5, -0.5, 2.5):
    FUNCTIONS[f"power {exponent}"] = (lambda x, e=exponent: x**e,) * 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(parity, name):
    # For roots of -0 and -inf PyTorch and IEEE 754's pow differ; numbers below 0 have none.
    values = np.abs(SPECIAL) if name.endswith(".5") else SPECIAL
    with np.errstate(all="ignore"):
        for value in values:  # one by one, so that the large ones hide no error of the small ones
            parity.check(*FUNCTIONS[name], np.array([value]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_stays_nan(parity, name):
    """The gradient at nan is left open: PyTorch's own depends on the processor's vector length."""
    ours, theirs = FUNCTIONS[name]
    x = np.array([np.nan, 1.0])
    parity.equal(ours(Tensor(x)), theirs(torch.from_numpy(x)))


@pytest.mark.parametrize("name", FUNCTIONS)
@drawn(3)
def test_ordinary_values(parity, draw, name):
    x = draw.normal(*draw.shape(0, 4)) * draw.one_of(1, 3)
    if name in ("log", "sqrt") or name.endswith(".5"):
        x = np.abs(x) + 0.05
    if "-" in name:
        x = np.where(np.abs(x) < 0.05, 1, x)
    parity.check(*FUNCTIONS[name], np.asarray(x))


@pytest.mark.parametrize(
    ("function", "reference"), [(F.softmax, TF.softmax), (F.log_softmax, TF.log_softmax)]
)
@drawn(25)
def test_softmax(parity, draw, function, reference):
    x = draw.normal(*draw.shape(1, 4, largest=7)) * draw.one_of(1, 10, 1000)
    if draw.chance(0.3):
        x += draw.one_of(1e4, -1e4)
    dim = draw.integer(-x.ndim, x.ndim - 1)
    parity.check(lambda x: function(x, dim), lambda x: reference(x, dim), x)


@pytest.mark.parametrize(
    ("function", "reference"), [(F.softmax, TF.softmax), (F.log_softmax, TF.log_softmax)]
)
def test_softmax_of_special_values(parity, function, reference):
    inf, nan = np.inf, np.nan
    x = np.array(
        [
            [0, -inf, 1],
            [-inf, -inf, 0],
            [-inf, -inf, -inf],
            [inf, 0, 0],
            [nan, 0, 1],
            [1e4, -1e4, 0],
        ]
    )
    with np.errstate(all="ignore"):
        parity.check(lambda x: function(x, 1), lambda x: reference(x, 1), x)
