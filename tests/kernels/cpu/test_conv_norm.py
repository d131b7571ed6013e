"""Convolution, norm in evaluation, residual and activation in one pass, against the plain ops."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import conv_norm, depthwise, direct
from tinyconv.kernels.fused import ConvNormReLU, PaddedConv2d
from tinyconv.op import run
from tinyconv.ops.activation import ReLU, ReLU6
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.norm import BatchNorm

from .cases import LAYOUTS, by_threads, laid_out, values
from .convolutions import pairs

EVALUATION = BatchNorm(False, eps=1e-3)


def make_inputs(op, N, C, O, size, kernel, parts=("b", "weight", "bias", "residual")):
    """Inputs of ConvNormReLU; what is not named in `parts` is None or left out."""
    x, w = values((N, C, *size)), values((O, C // op.conv.groups, *kernel), 1)
    b, weight, bias, mean = (values((O,), seed) for seed in range(2, 6))
    vectors = [
        v if n in parts else None
        for n, v in zip(("b", "weight", "bias"), (b, weight, bias), strict=True)
    ]
    given = [x, w, *vectors, mean, 0.5 + values((O,), 6) ** 2]
    if "residual" in parts:
        given.append(values(op.conv.forward(numpy, x, w, None)[0].shape, 7))
    return given


def check(op, inputs, name):
    """Compare with the reference in float64, by the largest number before it is clipped."""
    assert tinyconv.which(op, "forward", *inputs) == name
    y, saved = run(op, *inputs)
    assert saved == ()
    exact = [None if a is None else a.astype(numpy.float64) for a in inputs]
    expected, _ = op.forward(numpy, *exact)
    unclipped, _ = ConvNormReLU(op.conv, op.norm, None).forward(numpy, *exact)
    assert (y.dtype, y.shape) == (numpy.float32, expected.shape)
    assert numpy.abs(y - expected).max() <= 1e-5 * max(1, numpy.abs(unclipped).max())
    return y


@settings(max_examples=60)
@given(
    depth=st.booleans(), N=st.integers(1, 3), C=st.sampled_from([1, 3, 16, 19, 40]),
    outputs=st.sampled_from([1, 5, 16, 24, 35]), size=pairs(5, 9), kernel=pairs(1, 5),
    stride=pairs(1, 2), padding=pairs(0, 2), before=pairs(0, 2), after=pairs(0, 2),
    relu=st.sampled_from([None, ReLU(), ReLU6()]), layout=st.sampled_from(LAYOUTS),
    parts=st.sets(st.sampled_from(["b", "weight", "bias", "residual"])),
)  # fmt: skip
def test_every_convolution(
    depth, N, C, outputs, size, kernel, stride, padding, before, after, relu, layout, parts
):  # fmt: skip
    O, groups = (2 * C, C) if depth else (outputs, 1)
    conv = PaddedConv2d(stride, padding, (1, 1), groups, before, after)
    op = ConvNormReLU(conv, EVALUATION, relu)
    inputs = make_inputs(op, N, C, O, size, kernel, parts)
    inputs = [None if a is None else laid_out(a, layout) for a in inputs]
    one = groups == 1 and C != 1
    name = "fused_direct_convolution" if one else "fused_depthwise_convolution"
    check(op, inputs, name)


@pytest.mark.parametrize("groups", [1, 48])
def test_any_number_of_threads(groups, monkeypatch):
    op = ConvNormReLU(Conv2d((1, 1), (0, 0), groups=groups), EVALUATION, ReLU6())
    inputs = make_inputs(op, 3, 48, 48, (21, 23), (1, 1) if groups == 1 else (3, 3))
    name = "fused_direct_convolution" if groups == 1 else "fused_depthwise_convolution"
    first, *others = by_threads(monkeypatch, lambda: check(op, inputs, name))
    for y in others:
        numpy.testing.assert_array_equal(y, first)


@pytest.mark.parametrize("groups", [1, 32])
def test_results_past_the_cache(groups, monkeypatch):
    monkeypatch.setattr(direct, "past_cache", lambda _: True)

    def aligned(shape, dtype=numpy.float32):
        raw = numpy.full(int(numpy.prod(shape)) + 16, numpy.nan, dtype)
        start = -raw.ctypes.data % 64 // 4
        return raw[start : start + raw.size - 16].reshape(shape)

    for module in (direct, depthwise):
        monkeypatch.setattr(module, "empty", aligned)
    for parts in (("residual",), ()):
        op = ConvNormReLU(Conv2d((1, 1), (1, 1), groups=groups), EVALUATION, ReLU())
        kernel = (3, 3) if groups > 1 else (2, 2)
        inputs = make_inputs(op, 2, 32, 32, (9, 10), kernel, parts)
        name = "fused_direct_convolution" if groups == 1 else "fused_depthwise_convolution"
        check(op, inputs, name)


@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("relu", [None, ReLU(), ReLU6()])
def test_what_is_not_finite_stays(groups, relu):
    op = ConvNormReLU(Conv2d((1, 1), (1, 1), groups=groups), EVALUATION, relu)
    for value in (numpy.nan, numpy.inf, -numpy.inf):
        inputs = make_inputs(op, 2, 5, 10, (6, 7), (3, 3))
        inputs[0].reshape(-1)[20] = value
        inputs[-1].reshape(-1)[3] = value
        with numpy.errstate(invalid="ignore"):
            expected, _ = op.forward(numpy, *inputs)
        y, _ = run(op, *inputs)
        numpy.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_statistics_count_when_it_runs():
    op = ConvNormReLU(Conv2d(), EVALUATION, None)
    inputs = make_inputs(op, 1, 4, 6, (3, 3), (1, 1))
    check(op, inputs, "fused_direct_convolution")
    inputs[5] += 1
    inputs[6] *= 2
    check(op, inputs, "fused_direct_convolution")


def test_new_memory_may_hold_anything(monkeypatch):
    for module in (conv_norm, depthwise, direct):
        monkeypatch.setattr(
            module, "empty", lambda shape, dtype=numpy.float32: numpy.full(shape, numpy.nan, dtype)
        )
    for groups in (1, 6):
        op = ConvNormReLU(Conv2d((2, 1), (1, 1), groups=groups), EVALUATION, ReLU6())
        name = "fused_direct_convolution" if groups == 1 else "fused_depthwise_convolution"
        check(op, make_inputs(op, 2, 6, 12, (8, 9), (3, 3)), name)


def test_where_the_reference_is_used():
    op = ConvNormReLU(Conv2d(), EVALUATION, None)
    inputs = make_inputs(op, 2, 4, 6, (5, 5), (3, 3))
    assert tinyconv.which(op, "forward", *inputs) == "fused_direct_convolution"
    for i in range(len(inputs)):
        wrong = [a.astype(numpy.float64) if i == j else a for j, a in enumerate(inputs)]
        assert tinyconv.which(op, "forward", *wrong) == "reference"
    assert tinyconv.which(op, "forward", *inputs[:-1], inputs[-1][:, :1]) == "reference"
    training = ConvNormReLU(Conv2d(), BatchNorm(True), None)
    assert tinyconv.which(training, "forward", *inputs) == "reference"
    two = ConvNormReLU(Conv2d(groups=2), EVALUATION, None)
    assert tinyconv.which(two, "forward", *make_inputs(two, 1, 4, 6, (5, 5), (3, 3))) == "reference"
    # Winograd's form saves more than the passes over memory.
    large = make_inputs(op, 8, 64, 64, (30, 30), (3, 3))
    assert tinyconv.which(Conv2d(), "forward", *large[:3]) == "winograd"
    assert tinyconv.which(op, "forward", *large) == "reference"
