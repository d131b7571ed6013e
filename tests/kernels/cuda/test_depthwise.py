"""Depthwise convolution in CUDA against the reference in float64."""

import numpy as np
import pytest

from tinyconv.kernels.fused import ConvNormReLU, PaddedConv2d
from tinyconv.op import run, run_backward, which
from tinyconv.ops.activation import ReLU, ReLU6
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.norm import BatchNorm

from .compare import error, values, wide

NEEDS = (True, True, True)


def arrays(C, size, kernel, N=2, dtype=np.float32):
    """x, w, b."""
    return values((N, C, *size), dtype), values((C, 1, *kernel), seed=2), values(C, seed=3)


def check(cuda, op, x, w, b, needs=NEEDS, bound=1e-6):
    expected, saved = op.forward(np, *map(wide, (x, w, b)))
    gy = values(expected.shape, x.dtype, seed=1)
    gradients = op.backward(np, gy.astype(np.float64), saved, needs)
    inputs = [None if a is None else cuda.asarray(a) for a in (x, w, b)]
    assert which(op, "forward", *inputs) == "depthwise"
    y, saved = run(op, *inputs)
    assert which(op, "backward", cuda.asarray(gy), saved, needs) == "depthwise_backward"
    found = run_backward(op, cuda.asarray(gy), saved, needs)
    dtypes = [x.dtype, x.dtype, np.float32, np.float32]
    for a, b, dtype in zip((y, *found), (expected, *gradients), dtypes, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.shape, a.dtype) == (b.shape, dtype)
            assert error(a.get(), b) <= bound


@pytest.mark.parametrize("C", [2, 3, 8, 17, 68])
def test_channels(cuda, C):
    op = Conv2d((1, 1), (1, 1), groups=C)
    check(cuda, op, *arrays(C, (7, 9), (3, 3)))


@pytest.mark.parametrize(
    ("kernel", "settings"),
    [
        ((3, 3), {"stride": (2, 2), "padding": (1, 1)}),
        ((5, 5), {"padding": (2, 2)}),
        ((5, 5), {"stride": (2, 2), "padding": (2, 2)}),
        ((2, 4), {"stride": (3, 1), "padding": (0, 3)}),
        ((3, 2), {"stride": (1, 2), "padding": (4, 0), "dilation": (2, 3)}),
        ((7, 7), {"padding": (3, 3)}),
        ((1, 1), {"stride": (2, 3)}),
    ],
)
def test_windows(cuda, kernel, settings):
    check(cuda, Conv2d(**settings, groups=4), *arrays(4, (13, 11), kernel))


def test_another_padding_on_either_side(cuda):
    op = PaddedConv2d((2, 2), groups=6, before=(0, 1), after=(1, 2))
    check(cuda, op, *arrays(6, (8, 9), (3, 3)))


def test_several_blocks_and_rounds(cuda):
    """Threads with many strips each, and weights' gradients from several blocks."""
    op = Conv2d(padding=(1, 1), groups=8)
    check(cuda, op, *arrays(8, (150, 70), (3, 3), N=9))


def test_float16(cuda):
    for op in (Conv2d(padding=(1, 1), groups=16), Conv2d((2, 2), groups=16)):
        x, w, b = arrays(16, (10, 11), (3, 3), dtype=np.float16)
        check(cuda, op, x, w, b, bound=2e-3)


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_needs(cuda, needs):
    x, w, b = arrays(4, (6, 6), (3, 3))
    op = Conv2d(padding=(1, 1), groups=4)
    check(cuda, op, x, w, b if needs[2] else None, needs)


@pytest.mark.parametrize("relu", [None, ReLU(), ReLU6()])
@pytest.mark.parametrize("added", [False, True])
def test_norm_residual_and_relu(cuda, relu, added):
    x, w, b = arrays(8, (9, 10), (3, 3))
    rng = np.random.default_rng(2)
    vectors = [*rng.standard_normal((3, 8)), rng.uniform(0.5, 2, 8)]
    inputs = [x, w, b, *(v.astype(np.float32) for v in vectors)]
    op = ConvNormReLU(Conv2d(padding=(1, 1), groups=8), BatchNorm(False), relu)
    if added:
        inputs.append(5 * rng.standard_normal(x.shape).astype(np.float32))
    on_device = [cuda.asarray(a) for a in inputs]
    assert which(op, "forward", *on_device) == "depthwise_with_norm"
    expected, _ = op.forward(np, *map(wide, inputs))
    assert error(run(op, *on_device)[0].get(), expected) <= 1e-6


def test_where_the_reference_is_used(cuda):
    x, w, b = (cuda.asarray(a) for a in arrays(4, (20, 20), (3, 3)))
    op = Conv2d(groups=4)
    for bad in (x.astype("float64"), x[:0]):
        assert which(op, "forward", bad, w, b) == "reference"
    assert which(op, "forward", x, w.astype("float16"), b) == "reference"
    twice = cuda.concatenate([w, w])  # two outputs of each channel
    assert which(op, "forward", x, twice, None) == "reference"
    assert which(op, "forward", x, cuda.zeros((4, 1, 8, 8), "float32"), b) == "reference"
    wide = Conv2d(groups=4, dilation=(1, 7))
    assert which(wide, "forward", x, w, b) == "reference"
