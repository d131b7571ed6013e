"""Cross-entropy in one pass against the reference."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import loss  # noqa: F401
from tinyconv.op import run, run_backward
from tinyconv.ops.loss import CrossEntropy
from tinyconv.testing import kernel_error, relative_error

from .cases import LAYOUTS, by_threads, laid_out, values

ALL = (True, False, False)


def labels(N, C, ignored=None):
    drawn = numpy.random.default_rng(N).integers(0, C, N)
    if ignored is not None:
        drawn[::3] = ignored
    return drawn


def both(op, x, target, gy=None):
    """Loss and gradient by the kernels and by the reference."""
    results = []
    with numpy.errstate(all="ignore"):
        y, saved = run(op, x, target, None)
        gy = numpy.ones_like(y) if gy is None else gy
        results.append((y, *saved, run_backward(op, gy, saved, ALL)[0]))
        y, saved = op.forward(numpy, x, target, None)
        results.append((y, *saved, op.backward(numpy, gy, saved, ALL)[0]))
    return results


@given(
    N=st.integers(1, 40),
    C=st.integers(1, 40),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignored=st.sampled_from([None, -100, 0, 7]),
    layout=st.sampled_from(LAYOUTS),
    target_layout=st.sampled_from(LAYOUTS),
)
def test_cross_entropy(N, C, reduction, smoothing, ignored, layout, target_layout):
    op = CrossEntropy(reduction, -100 if ignored is None else ignored, smoothing)
    x = laid_out(values((N, C)), layout)
    target = laid_out(labels(N, C, -100 if ignored is None else min(ignored, C - 1)), target_layout)
    y, saved = run(op, x, target, None)
    assert tinyconv.which(op, "forward", x, target, None) == "cross_entropy_in_one_pass"
    found = tinyconv.which(op, "backward", y, saved, ALL)
    assert found == "cross_entropy_backward_in_one_pass"
    if not (reduction == "mean" and saved[2] == 0):  # the mean of nothing: see below
        assert kernel_error(op, x, target, None) <= 1e-5
    ours, theirs = both(op, x, target)
    for a, b in zip(ours, theirs, strict=True):
        assert (numpy.shape(a), a.dtype) == (numpy.shape(b), b.dtype)
        numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        [[1e30, -1e30, 0], [3e38, 3e38, -3e38], [80, -90, 100]],
        [[numpy.nan, 0, 1], [0, numpy.nan, 1], [0, 1, 2]],
        [[numpy.inf, 0, 1], [0, -numpy.inf, 1], [0, 1, 2]],
        [[-numpy.inf] * 3, [0, 1, numpy.inf], [numpy.inf, -numpy.inf, 2]],
    ],
)
@pytest.mark.parametrize("target", [[0, 1, 2], [1, 0, -100], [-100, -100, -100]])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_large_and_other_scores(x, target, reduction, smoothing):
    op = CrossEntropy(reduction, label_smoothing=smoothing)
    ours, theirs = both(op, numpy.array(x, numpy.float32), numpy.array(target))
    for a, b in zip(ours, theirs, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("label", [-1, 3, -100, 2**62, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_class_that_is_none(label, reduction):
    x, target = values((4, 3)), numpy.array([0, 1, label, 2])
    op = CrossEntropy(reduction, ignore_index=255)
    y, saved = run(op, x, target, None)
    assert math.isnan(y)
    (gx, *_) = run_backward(op, numpy.ones((), numpy.float32), saved, ALL)
    assert numpy.isnan(gx).all(axis=1).tolist() == [False, False, True, False]


def test_a_gradient_that_is_a_scalar():
    x, target, op = values((4, 3)), labels(4, 3), CrossEntropy()
    _, saved = run(op, x, target, None)
    (gx, *_) = run_backward(op, numpy.float32(2), saved, ALL)
    assert relative_error(gx, op.backward(numpy, numpy.float32(2), saved, ALL)[0]) <= 1e-6


def test_where_the_reference_is_used():
    x, target, op = values((4, 3)), labels(4, 3), CrossEntropy()
    maps = values((4, 3, 2)), numpy.zeros((4, 2), numpy.int64)
    for inputs in (
        (x.astype("float64"), target, None),
        (x, target.astype("int32"), None),
        (x, values((4, 3)), None),
        (x, target, numpy.ones(3, numpy.float32)),
        (*maps, None),
    ):
        assert tinyconv.which(op, "forward", *inputs) == "reference"
    _, saved = op.forward(numpy, *maps, None)
    assert tinyconv.which(op, "backward", numpy.float32(1), saved, ALL) == "reference"


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_threads(monkeypatch, reduction):
    op, x, target = CrossEntropy(reduction, 1, 0.1), values((37, 5)), labels(37, 5, 1)
    first, *others = by_threads(monkeypatch, lambda: both(op, x, target))
    for ours, theirs in (first, *others):
        assert max(map(relative_error, ours, theirs)) <= 1e-5
        assert all(map(numpy.array_equal, ours, first[0]))
