"""Losses in one launch against the reference in float64, and what is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconv.op import run, run_backward, which
from tinyconv.ops.loss import (
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    NegativeLogLikelihood,
    Tally,
)

from .compare import LAYOUTS, error, laid_out, values, wide

NAMES = {
    CrossEntropy: ("cross_entropy_in_one_launch", "cross_entropy_backward_in_one_launch"),
    NegativeLogLikelihood: ("likelihood_in_one_launch", "likelihood_backward_in_one_launch"),
}
ALL = (True, False, False)


def labels(N, C, dtype, ignored=None):
    drawn = np.random.default_rng(N).integers(0, C, N).astype(dtype)
    if ignored is not None:
        drawn[::3] = ignored
    return drawn


def probabilities(N, C):
    p = np.abs(values((N, C), seed=5)) + 1e-3
    p[:, C // 2] = 0
    return (p / np.maximum(p.sum(axis=1, keepdims=True), 1e-3)).astype(np.float32)


def compare(cuda, op, x, target, weight, gy="contiguous"):
    """Both directions against float64, and backward from what the reference saves."""
    forward, backward = NAMES[type(op)]
    assert which(op, "forward", x, target, weight) == forward
    y, saved = run(op, x, target, weight)
    with np.errstate(all="ignore"):
        expected, expected_saved = op.forward(np, wide(x), wide(target), wide(weight))
    np.testing.assert_allclose(y.get(), expected, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(saved, expected_saved, strict=True):
        np.testing.assert_allclose(mine.get(), theirs, rtol=1e-5, atol=1e-6)
    g = laid_out(cuda, values(y.shape, seed=8), gy)
    assert which(op, "backward", g, saved, ALL) == backward
    with np.errstate(all="ignore"):
        (wanted, *_) = op.backward(np, wide(g), expected_saved, ALL)
    given = tuple(cuda.asarray(s.astype(np.float32)) for s in map(np.asarray, expected_saved))
    for known in (saved, given):
        gx, *nothing = run_backward(op, g, known, ALL)
        assert nothing == [None, None]
        assert error(gx.get(), wanted) <= 1e-5


@settings(max_examples=40)
@given(
    op=st.sampled_from([CrossEntropy, NegativeLogLikelihood]),
    sizes=st.sampled_from([(1, 1), (5, 2), (40, 3), (7, 10), (300, 10), (3, 100), (50, 1000)]),
    target=st.sampled_from(["int64", "int32", "float32"]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignored=st.sampled_from([None, -100, 0]),
    weighted=st.booleans(),
    layout=st.sampled_from(LAYOUTS[:3]),
    gy=st.sampled_from(LAYOUTS),
)  # fmt: skip
def test_class_losses(
    cuda, op, sizes, target, reduction, smoothing, ignored, weighted, layout, gy
):  # fmt: skip
    N, C = sizes
    op = op(reduction, -100 if ignored is None else ignored, smoothing)
    x = laid_out(cuda, values((N, C)), layout)
    chosen = probabilities(N, C) if target == "float32" else labels(N, C, target, ignored)
    weight = cuda.asarray(np.abs(values((C,), seed=3)) + 0.1) if weighted else None
    compare(cuda, op, x, laid_out(cuda, chosen, layout), weight, gy)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_many_rows(cuda, reduction):
    """So many that the last of several blocks adds up what they have found."""
    x, target = cuda.asarray(values((9000, 10))), cuda.asarray(labels(9000, 10, np.int64, -100))
    compare(cuda, CrossEntropy(reduction), x, target, None)


def test_all_ignored(cuda):
    x, target = cuda.asarray(values((4, 3))), cuda.asarray(np.full(4, -100))
    y, saved = run(CrossEntropy(), x, target, None)
    assert np.isnan(y.item())
    assert not run_backward(CrossEntropy(), cuda.ones_like(y), saved, ALL)[0].get().any()


@pytest.mark.parametrize("wrong", [-1, 3, 2**40])
@pytest.mark.parametrize("op", list(NAMES))
def test_a_class_that_does_not_exist_makes_the_loss_nan(cuda, op, wrong):
    x, target = cuda.asarray(values((4, 3))), np.array([0, wrong, 2, 1])
    weight = cuda.asarray(np.array([1, 2, 3], np.float32))
    for reduction in ("mean", "sum"):
        assert np.isnan(run(op(reduction), x, cuda.asarray(target), weight)[0].item())
    y, saved = run(op("none"), x, cuda.asarray(target), None)
    assert np.isnan(y.get()).tolist() == [False, True, False, False]
    gx = run_backward(op("none"), cuda.ones_like(y), saved, ALL)[0].get()
    assert np.isnan(gx).all(axis=1).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    "x",
    [
        [[1e30, -1e30, 0], [3e38, 3e38, -3e38], [80, -90, 100]],
        [[np.nan, 0, 1], [0, np.nan, 1], [0, 1, 2]],
        [[np.inf, 0, 1], [0, -np.inf, 1], [0, 1, 2]],
        [[-np.inf] * 3, [0, 1, np.inf], [np.inf, -np.inf, 2]],
    ],
)
def test_extremes_as_the_reference(cuda, x):
    x, target = np.array(x, np.float32), np.array([0, 2, 1])
    y, saved = run(CrossEntropy("none"), cuda.asarray(x), cuda.asarray(target), None)
    with np.errstate(all="ignore"):
        expected, (logp, q, _) = CrossEntropy("none").forward(np, x, target, None)
    np.testing.assert_allclose(y.get(), expected, rtol=1e-6)
    np.testing.assert_allclose(saved[0].get(), logp, rtol=1e-6)
    np.testing.assert_array_equal(saved[1].get(), q)


def test_the_same_every_time(cuda):
    x, target = cuda.asarray(values((9000, 10))), cuda.asarray(labels(9000, 10, np.int64))
    assert len({run(CrossEntropy(), x, target, None)[0].item() for _ in range(3)}) == 1


@pytest.mark.parametrize("pos_weight", [None, (), (5,), (7, 5)])
@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_binary_cross_entropy(cuda, pos_weight, layout):
    op = BinaryCrossEntropyWithLogits()
    x = laid_out(cuda, 20 * values((7, 5)), layout)
    target = cuda.asarray((values((7, 5), seed=1) > 0).astype(np.float32))
    weight = None
    if pos_weight is not None:
        weight = cuda.asarray(np.abs(values(pos_weight, seed=2)) + 0.5)
    assert which(op, "forward", x, target, weight) == "binary_cross_entropy"
    y, saved = run(op, x, target, weight)
    expected, expected_saved = op.forward(np, wide(x), wide(target), wide(weight))
    assert error(y.get(), expected) <= 1e-6
    gy = cuda.asarray(values((7, 5), seed=3))
    assert which(op, "backward", gy, saved, ALL) == "binary_cross_entropy_backward"
    gx, *_ = run_backward(op, gy, saved, ALL)
    assert error(gx.get(), op.backward(np, wide(gy), expected_saved, ALL)[0]) <= 1e-6


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [((1, 1), np.float32), ((6, 2), np.float32), ((7, 10), np.float16), ((300, 10), np.float16),
     ((40, 100), np.float32)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("target", ["int64", "int32", "float32"])
def test_tally(cuda, sizes, dtype, target):
    N, C = sizes
    x = np.round(values((N, C)), 0).astype(dtype)  # with ties: the first counts
    x[0, -1] = np.nan
    chosen = labels(N, C, target) if target != "float32" else np.round(probabilities(N, C), 1)
    totals, theirs = cuda.asarray(np.array([3.0, 5.0])), np.array([3.0, 5.0])
    loss = np.array(0.7, np.float32)
    given = totals, cuda.asarray(loss), cuda.asarray(x), cuda.asarray(chosen.astype(target))
    assert which(Tally(), "forward", *given) == "tally_in_one_launch"
    for _ in range(2):
        run(Tally(), *given)
        Tally().forward(np, theirs, loss.astype(np.float64), x, chosen)
    np.testing.assert_allclose(totals.get(), theirs, rtol=1e-12)


def test_where_the_reference_is_used(cuda):
    x, target = cuda.asarray(values((4, 3))), cuda.asarray(labels(4, 3, np.int64))
    images = cuda.asarray(values((2, 3, 4, 4))), cuda.zeros((2, 4, 4), np.int64)
    for inputs in [(x.astype(np.float64), target, None), (*images, None),
                   (x, target.astype(np.uint8), None),
                   (x, target, cuda.ones((3,), np.float64))]:  # fmt: skip
        assert which(CrossEntropy(), "forward", *inputs) == "reference"
    totals, loss = cuda.zeros((2,)), cuda.zeros((), np.float32)
    assert which(Tally(), "forward", totals, loss, *images) == "reference"
