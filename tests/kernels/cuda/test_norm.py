"""Batch norm in CUDA, alone and with ReLU and max pool, against the reference in float64."""

import numpy as np
import pytest

from tinyconv.kernels.fused import NormReLUPool
from tinyconv.op import run, run_backward, which
from tinyconv.ops.norm import BatchNorm
from tinyconv.ops.pool import MaxPool2d
from tinyconv.ops.window import Window

from .compare import error, laid_out, values, wide

NEEDS = (True, True, True, False, False)
TWO = MaxPool2d(Window((2, 2), (2, 2)))
THREE = MaxPool2d(Window((3, 3), (2, 2), (1, 1), ceil_mode=True))


def vectors(C, affine=True, running=True):
    """weight (of both signs), bias, running_mean, running_var."""
    four = values((4, C), seed=C)
    four[3] = 0.5 + four[3] ** 2
    return [
        v if wanted else None
        for v, wanted in zip(four, (affine, affine, running, running), strict=True)
    ]


def on(xp, things):
    """Copies of the arrays among things in the library xp."""
    return [xp.array(a) if hasattr(a, "dtype") else a for a in things]


def check(cuda, op, x, others, needs=NEEDS, bound=1e-5):
    """Compare forward, what is saved, what is moved in place, and every pairing of the backwards.

    The reference in float64 is the measure, for each array as a whole.
    """
    name = "batch_norm" if isinstance(op, BatchNorm) else "norm_relu_pool"
    exact = [wide(a) for a in others]
    exact_y, exact_saved = op.forward(np, x.astype(np.float64), *exact)
    gy = values(exact_y.shape, x.dtype, seed=1)
    wanted = op.backward(np, gy.astype(np.float64), exact_saved, needs)
    for put in (cuda.asarray, lambda a: laid_out(cuda, a, "turned")):
        ours, theirs = on(cuda, others), on(cuda, others)
        assert which(op, "forward", put(x), *ours) == name
        y, saved = run(op, put(x), *ours)
        expected, saved_by_reference = op.forward(cuda, put(x), *theirs)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
        assert error(y.get(), exact_y) <= bound
        found, right = [*saved, *ours[2:]], [*exact_saved, *exact[2:]]
        for a, b, c in zip(found, right, [*saved_by_reference, *theirs[2:]], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert (a.shape, a.dtype) == (c.shape, c.dtype)
                assert error(a.get(), b) <= bound
        for gradients in (
            run_backward(op, put(gy), saved, needs),
            run_backward(op, put(gy), saved_by_reference, needs),
            op.backward(cuda, put(gy), saved, needs),
        ):
            assert [g is None for g in gradients] == [g is None for g in wanted]
            for a, b in zip(gradients, wanted, strict=True):
                if a is not None:
                    assert a.shape == b.shape
                    assert error(a.get(), b) <= bound
        assert which(op, "backward", put(gy), saved, needs) == f"{name}_gradient"
        gx, gweight, gbias, *_ = run_backward(op, put(gy), saved, needs)
        assert gx is None or gx.dtype == x.dtype
        assert all(g is None or g.dtype == np.float32 for g in (gweight, gbias))


@pytest.mark.parametrize("C", [1, 3, 4, 6, 8, 17, 32])
def test_batch_norm(cuda, C):
    check(cuda, BatchNorm(True), values((3, C, 7, 9)), vectors(C))
    check(cuda, BatchNorm(True), values((37, C)), vectors(C))


@pytest.mark.parametrize("C", [3, 8])
def test_evaluation(cuda, C):
    check(cuda, BatchNorm(False), values((3, C, 7, 9)), vectors(C))
    check(cuda, BatchNorm(False), values((37, C)), vectors(C))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("running", [True, False])
def test_without_parameters_or_running_statistics(cuda, affine, running):
    op = BatchNorm(True, momentum=0.3, eps=1e-2)
    check(cuda, op, values((4, 8, 5, 6)), vectors(8, affine, running))


CHAINS = [
    NormReLUPool(BatchNorm(True), TWO, relu_first=False),
    NormReLUPool(BatchNorm(True), TWO, relu_first=True),
    NormReLUPool(BatchNorm(True), THREE, relu_first=False),
    NormReLUPool(BatchNorm(True), None, relu_first=False),
    NormReLUPool(BatchNorm(True), None, relu_first=True),
    NormReLUPool(BatchNorm(True), None, relu_first=False, relu6=True),
    NormReLUPool(BatchNorm(True), TWO, relu_first=True, relu6=True),
    NormReLUPool(BatchNorm(False), TWO, relu_first=False),
    NormReLUPool(BatchNorm(False), THREE, relu_first=True),
]


@pytest.mark.parametrize("op", CHAINS)
def test_chains(cuda, op):
    for shape in [(3, 4, 9, 11), (2, 32, 8, 6)]:
        others = vectors(shape[1])
        x = values(shape)
        if op.relu6:  # so that some values are above 6
            others[1] += 5
            x *= 5
        check(cuda, op, x, others)


@pytest.mark.parametrize("C", [1, 3, 17])
def test_chain_of_few_channels(cuda, C):
    check(cuda, CHAINS[0], values((3, C, 9, 8)), vectors(C))


def test_several_blocks_and_rounds(cuda):
    """Blocks whose results another one brings together, and threads with many rows each."""
    for op in CHAINS[0], BatchNorm(True):
        check(cuda, op, values((5, 8, 90, 92)), vectors(8))


def test_float16(cuda):
    """Statistics and parameters are float32; y and gx are float16."""
    for op in (CHAINS[0], CHAINS[3]):
        check(cuda, op, values((3, 16, 10, 11), np.float16), vectors(16), bound=2e-3)


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, True), (False, False, True)])
def test_needs(cuda, needs):
    x, others = values((2, 8, 5, 8)), vectors(8)
    for op in (CHAINS[0], CHAINS[7], BatchNorm(True), BatchNorm(False)):
        check(cuda, op, x, others, needs=(*needs, False, False))


@pytest.mark.parametrize("op", [CHAINS[0], CHAINS[1], CHAINS[2], CHAINS[7]])
def test_ties(cuda, op):
    """Numbers with few digits normalise to equal ones: the first wins, after ReLU among zeros."""
    choices = np.array([-2, -1, 0, 1, 2], np.float32)
    x, others = np.random.default_rng(0).choice(choices, (4, 8, 9, 9)), vectors(8)
    _, (*_, winner) = run(op, cuda.asarray(x), *on(cuda, others))
    _, (*_, expected) = op.forward(np, x, *on(np, others))
    np.testing.assert_array_equal(winner.get(), expected)
    check(cuda, op, x, others)


@pytest.mark.parametrize("shape", [(6, 3, 40, 40), (4000, 4), (2, 8, 300, 300)])
@pytest.mark.parametrize("outlier", [False, True])
def test_small_variance_beside_a_large_mean(cuda, shape, outlier):
    x = 1e4 + 0.1 * values(shape)
    if outlier:  # as a pixel in a corner may be
        x[(0, slice(None), *(0,) * (len(shape) - 2))] = 0
    others = vectors(shape[1])
    exact, ours = [wide(a) for a in others], on(cuda, others)
    op = BatchNorm(True)
    _, (_, _, mean, inverse_std) = run(op, cuda.asarray(x), *ours)
    _, expected = op.forward(np, x.astype(np.float64), *exact)
    assert error(mean.get(), expected[2]) <= 2e-7
    assert error(inverse_std.get(), expected[3]) <= 1e-5
    assert error(ours[3].get(), exact[3]) <= 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, -1])
def test_training_on_a_value_that_is_not_finite(cuda, value, place):
    """It spoils its channel and no other one."""
    x, others = values((2, 8, 6, 8)), vectors(8)
    x[1, 2].reshape(-1)[place] = value
    for op in (BatchNorm(True), CHAINS[0], CHAINS[3]):
        with np.errstate(invalid="ignore"):
            expected, saved = op.forward(np, x, *on(np, others))
            gradients = op.backward(np, expected, saved, NEEDS)
        y, ours = run(op, cuda.asarray(x), *on(cuda, others))
        np.testing.assert_allclose(y.get(), expected, atol=1e-5)
        if op == CHAINS[0]:
            np.testing.assert_array_equal(ours[-1].get(), saved[-1])
        found = run_backward(op, cuda.asarray(expected), ours, NEEDS)
        for a, b in zip(found[:3], gradients[:3], strict=True):
            np.testing.assert_allclose(a.get(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", [BatchNorm(False), *CHAINS[7:]])
def test_evaluation_on_values_that_are_not_finite(cuda, op):
    choices = np.array([np.nan, np.inf, -np.inf, 0, -1, 1], np.float32)
    x, others = np.random.default_rng(0).choice(choices, (2, 8, 8, 10)), vectors(8)
    expected, saved = op.forward(np, x, *others)
    y, ours = run(op, cuda.asarray(x), *on(cuda, others))
    np.testing.assert_allclose(y.get(), expected, rtol=1e-5, atol=1e-5)
    gy, needs = values(y.shape), (True, False, False, False, False)
    with np.errstate(invalid="ignore"):
        wanted = op.backward(np, gy, saved, needs)[0]
    found = run_backward(op, cuda.asarray(gy), ours, needs)[0]
    np.testing.assert_allclose(found.get(), wanted, rtol=1e-5, atol=1e-6)


def test_saved_statistics_are_not_the_running_ones(cuda):
    """A later training step moves those in place before backward is asked."""
    x, others = cuda.asarray(values((4, 8))), on(cuda, vectors(8))
    _, (_, _, mean, _) = run(BatchNorm(False), x, *others)
    before = mean.get()
    run(BatchNorm(True), x, *others)
    np.testing.assert_array_equal(mean.get(), before)
    assert not np.array_equal(others[2].get(), before)


def test_the_result_is_the_same_every_time(cuda):
    x = cuda.asarray(values((5, 8, 60, 62)))
    op = CHAINS[0]

    def compute():
        others = on(cuda, vectors(8))
        y, saved = run(op, x, *others)
        arrays = (y, *others[2:], *saved[2:4], *run_backward(op, y, saved, NEEDS)[:3])
        return [a.get() for a in arrays]

    first = compute()
    for a, b in zip(compute(), first, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_output_is_channels_last(cuda):
    x = cuda.asarray(values((2, 8, 4, 6)))
    y, saved = run(CHAINS[0], x, *on(cuda, vectors(8)))
    for a in (y, saved[0], saved[-1], run_backward(CHAINS[0], y, saved, NEEDS)[0]):
        assert a.transpose(0, 2, 3, 1).flags.c_contiguous
    x = laid_out(cuda, values((2, 8, 4, 6)), "turned")
    assert run(CHAINS[0], x, *on(cuda, vectors(8)))[1][0] is x


def test_where_the_reference_is_used(cuda):
    x, others = cuda.asarray(values((2, 4, 6, 6))), on(cuda, vectors(4))
    for op in (BatchNorm(True), CHAINS[0]):
        y, saved = run(op, x, *others)
        assert which(op, "forward", x.astype("float64"), *others) == "reference"
        assert which(op, "forward", x[:0], *others) == "reference"
        assert which(op, "forward", x[:1, :, :1, :1], *others) == "reference"
        assert which(op, "backward", y.astype("float64"), saved, NEEDS) == "reference"
        for i in (2, 3):  # they are written to
            apart = cuda.zeros(8, "float32")[::2]
            for bad in (others[i].astype("float64"), apart, None):
                mixed = [*others[:i], bad, *others[i + 1 :]]
                assert which(op, "forward", x, *mixed) == "reference"
    assert which(BatchNorm(True), "forward", cuda.zeros((2, 4, 6), "float32"), *others) == (
        "reference"
    )
    large = NormReLUPool(BatchNorm(True), MaxPool2d(Window((17, 16))), False)
    x = cuda.asarray(values((2, 4, 20, 20)))
    assert which(large, "forward", x, *others) == "reference"
    y, saved = large.forward(cuda, x, *others)
    assert which(large, "backward", y, saved, NEEDS) == "reference"
