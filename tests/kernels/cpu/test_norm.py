"""Batch norm in Numba, alone and with ReLU and max pool, against the reference."""

import dataclasses

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import norm, pool
from tinyconv.kernels.fused import NormReLUPool
from tinyconv.op import run, run_backward
from tinyconv.ops.norm import BatchNorm
from tinyconv.ops.pool import MaxPool2d
from tinyconv.ops.window import Window
from tinyconv.testing import relative_error

from .cases import LAYOUTS, by_threads, laid_out, values

NEEDS = (True, True, True, False, False)
POOLS = [None, *(MaxPool2d(Window(size, size)) for size in [(2, 2), (3, 2), (1, 1), (1, 4)])]


def vectors(C, affine=True, running=True):
    """weight (of both signs), bias, running_mean, running_var."""
    rng = numpy.random.default_rng(C)
    four = rng.normal(size=(4, C)).astype(numpy.float32)
    four[3] = 0.5 + four[3] ** 2
    return [
        v if wanted else None
        for v, wanted in zip(four, (affine, affine, running, running), strict=True)
    ]


def copies(arrays):
    return [None if a is None else a.copy() for a in arrays]


def in_float64(things):
    return [
        a.astype(numpy.float64) if hasattr(a, "dtype") and a.dtype == numpy.float32 else a
        for a in things
    ]


def check(op, x, others, needs=NEEDS, gy_layout="contiguous", bound=1e-5):
    """Compare forward, what is saved, what is moved in place, and every pairing of the backwards.

    Gradients are sums in which much cancels, so that the reference in float64 is the measure.
    """
    ours, theirs, exact = copies(others), copies(others), in_float64(others)
    y, saved = run(op, x, *ours)
    expected, saved_by_reference = op.forward(numpy, x, *theirs)
    exact_y, exact_saved = op.forward(numpy, x.astype(numpy.float64), *exact)
    assert y.shape == expected.shape
    assert numpy.abs(y - exact_y).max() <= bound * max(1, numpy.abs(exact_y).max())
    found, wanted = [*saved, *ours[2:]], [*exact_saved, *exact[2:]]
    for a, b, c in zip(found, wanted, [*saved_by_reference, *theirs[2:]], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.shape, a.dtype) == (c.shape, c.dtype)
            assert numpy.abs(a.astype(float) - b).max() <= bound * max(1, numpy.abs(b).max())

    gy = laid_out(values(y.shape, seed=1), gy_layout)
    wanted = op.backward(numpy, gy.astype(numpy.float64), exact_saved, needs)
    for gradients in (
        run_backward(op, gy, saved, needs),
        run_backward(op, gy, saved_by_reference, needs),
        op.backward(numpy, gy, saved, needs),
    ):
        assert [g is None for g in gradients] == [g is None for g in wanted]
        for a, b in zip(gradients, wanted, strict=True):
            if a is not None:
                assert a.shape == b.shape
                size = max(1, numpy.abs(b).max()) * numpy.sqrt(y.size / x.shape[1])
                assert numpy.abs(a - b).max() <= bound * size


COMMON = {
    "training": st.booleans(), "affine": st.booleans(), "layout": st.sampled_from(LAYOUTS),
    "C": st.sampled_from([1, 5, 6, 16, 17, 64, 70]),
}  # fmt: skip


@given(
    N=st.integers(1, 3), size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    running=st.booleans(), op=st.sampled_from(["norm", "fused"]), pool_op=st.sampled_from(POOLS),
    relu_first=st.booleans(), gy_layout=st.sampled_from(LAYOUTS), **COMMON,
)  # fmt: skip
def test_images(
    N, C, size, op, pool_op, relu_first, training, affine, running, layout, gy_layout
):  # fmt: skip
    x = laid_out(values((N, C, *size)), layout)
    one = x.size == C
    plain = BatchNorm(training and not one)
    others = vectors(C, affine, running or not plain.training)
    if op == "norm":
        name, op = "batch_norm", plain
    else:
        if pool_op and (pool_op.window.kernel[0] > size[0] or pool_op.window.kernel[1] > size[1]):
            pool_op = None
        name, op = "fused_norm_relu_pool", NormReLUPool(plain, pool_op, relu_first)
    assert tinyconv.which(op, "forward", x, *others) == name
    y, saved = run(op, x, *copies(others))
    assert tinyconv.which(op, "backward", y, saved, NEEDS) == f"{name}_gradient"
    # A variance of a few numbers near each other amplifies what they are rounded by.
    few = plain.training and x.size < 8 * C
    check(op, x, others, gy_layout=gy_layout, bound=1e-2 if few else 1e-5)


@given(N=st.integers(1, 3), size=st.tuples(st.integers(1, 9), st.integers(1, 9)), **COMMON)
def test_relu6(N, C, size, training, affine, layout):
    x, others = laid_out(5 * values((N, C, *size)), layout), vectors(C, affine)
    if affine:  # so that some values come out above 6
        others[1] += 5
    op = NormReLUPool(BatchNorm(training and x.size > C), None, False, relu6=True)
    y, saved = run(op, x, *copies(others))
    assert tinyconv.which(op, "forward", x, *others) == "fused_norm_relu_pool"
    assert tinyconv.which(op, "backward", y, saved, NEEDS) == "fused_norm_relu_pool_gradient"
    few = training and x.size < 8 * C
    check(op, x, others, gy_layout=layout, bound=1e-2 if few else 1e-5)


@given(N=st.integers(1, 40), **COMMON)
def test_vectors(N, C, training, affine, layout):
    x, others = laid_out(values((N, C)), layout), vectors(C, affine)
    op = BatchNorm(training and N > 1)
    assert tinyconv.which(op, "forward", x, *others) == "batch_norm"
    check(op, x, others, gy_layout=layout, bound=1e-2 if training and N < 8 else 1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu_first", [True, False])
def test_ties(training, relu_first):
    """Numbers with few digits normalise to equal ones: the first wins, after ReLU among zeros."""
    rng = numpy.random.default_rng(0)
    x = rng.choice(numpy.array([-2, -1, 0, 1, 2], numpy.float32), (4, 20, 9, 9))
    op, others = NormReLUPool(BatchNorm(training), POOLS[1], relu_first), vectors(20)
    y, (*_, winner) = run(op, x, *copies(others))
    assert tinyconv.which(op, "forward", x, *others) == "fused_norm_relu_pool"
    expected, (*_, expected_winner) = op.forward(numpy, x, *copies(others))
    numpy.testing.assert_allclose(y, expected, atol=1e-5)
    numpy.testing.assert_array_equal(winner, expected_winner)
    check(op, x, others)


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, True), (False, False, True)])
@pytest.mark.parametrize("training", [True, False])
def test_needs(needs, training):
    x, others = values((2, 6, 5, 8)), vectors(6)
    for op in (BatchNorm(training), NormReLUPool(BatchNorm(training), POOLS[1], False)):
        check(op, x, others, needs=(*needs, False, False))


@pytest.mark.parametrize("shape", [(6, 3, 40, 40), (4000, 3)])
@pytest.mark.parametrize("outlier", [False, True])
def test_small_variance_beside_a_large_mean(shape, outlier):
    x = 1e4 + 0.1 * values(shape)
    if outlier:  # as a pixel in a corner may be: no measure for the others
        x[(0, slice(None), *(0,) * (len(shape) - 2))] = 0
    op, others = BatchNorm(True), vectors(3)
    exact = in_float64(others)
    _, (_, _, mean, inverse_std) = run(op, x, *others)
    _, expected = op.forward(numpy, x.astype(numpy.float64), *exact)
    assert relative_error(mean, expected[2]) <= 1e-7
    assert relative_error(inverse_std, expected[3]) <= 1e-5
    assert relative_error(others[3], exact[3]) <= 1e-5


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("place", [0, 7, -1])
def test_training_on_a_value_that_is_not_finite(value, place):
    """It spoils its channel and no other one."""
    x, others = values((2, 5, 6, 8)), vectors(5)
    x[:, 2].reshape(-1)[place] = value
    x = x.copy()
    x[1, 2].reshape(-1)[place] = value
    for op in [BatchNorm(True), *(NormReLUPool(BatchNorm(True), p, False) for p in POOLS[:2])]:
        with numpy.errstate(invalid="ignore"):
            expected, saved = op.forward(numpy, x, *copies(others))
            gradients = op.backward(numpy, expected, saved, NEEDS)
        y, ours = run(op, x, *copies(others))
        numpy.testing.assert_allclose(y, expected, atol=1e-5)
        if saved[-1] is not None and saved[-1].dtype == numpy.uint8:
            numpy.testing.assert_array_equal(ours[-1], saved[-1])
        for a, b in zip(run_backward(op, expected, saved, NEEDS), gradients, strict=True):
            if a is not None:
                numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("relu_first", [True, False])
def test_evaluation_on_values_that_are_not_finite(relu_first):
    choices = numpy.array([numpy.nan, numpy.inf, -numpy.inf, 0, -1, 1], numpy.float32)
    x = numpy.random.default_rng(0).choice(choices, (2, 19, 8, 10))
    others = vectors(19)
    fused = [NormReLUPool(BatchNorm(False), p, relu_first) for p in POOLS]
    six = NormReLUPool(BatchNorm(False), None, False, relu6=True)
    for op in [BatchNorm(False), *fused, six]:
        expected, saved = op.forward(numpy, x, *others)
        y, ours = run(op, x, *others)
        numpy.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        if isinstance(op, NormReLUPool) and op.pool is not None:
            numpy.testing.assert_array_equal(ours[-1], saved[-1])
        needs = (True, False, False, False, False)
        gy = values(y.shape)
        with numpy.errstate(invalid="ignore"):
            wanted = op.backward(numpy, gy, saved, needs)[0]
        found = run_backward(op, gy, saved, needs)[0]
        numpy.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_results_past_the_cache(monkeypatch):
    for module in (norm, pool):
        monkeypatch.setattr(module, "past_cache", lambda _: True)
    for C in (5, 16):
        for pool_op in POOLS[:2]:
            check(NormReLUPool(BatchNorm(True), pool_op, False), values((2, C, 6, 8)), vectors(C))


@pytest.mark.parametrize("C", [3, 40])
def test_threads(monkeypatch, C):
    x = values((3, C, 20, 22))
    op = NormReLUPool(BatchNorm(True), POOLS[1], False)

    def compute():
        others = vectors(C)
        y, saved = run(op, x, *others)
        return y, *others[2:], *saved[2:4], *run_backward(op, y, saved, NEEDS)[:3]

    first, *others = by_threads(monkeypatch, compute)
    for found in others:
        for a, b in zip(found, first, strict=True):
            numpy.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * numpy.abs(b).max())


def test_the_output_is_channels_last():
    x = laid_out(values((2, 6, 4, 6)), "turned")
    op = NormReLUPool(BatchNorm(True), POOLS[1], False)
    y, saved = run(op, x, *vectors(6))
    assert saved[0] is x
    for a in (y, saved[-1], run_backward(op, y, saved, NEEDS)[0]):
        assert a.transpose(0, 2, 3, 1).flags.c_contiguous


def test_where_the_reference_is_used():
    x, others = values((2, 4, 6, 6)), vectors(4)
    plain, two = BatchNorm(True), POOLS[1]
    fused = NormReLUPool(plain, two, False)
    for op in (plain, fused):
        y, saved = run(op, x, *others)
        assert tinyconv.which(op, "forward", x.astype("float64"), *others) == "reference"
        assert tinyconv.which(op, "forward", x[:0], *others) == "reference"
        assert tinyconv.which(op, "forward", x[:1, :, :1, :1], *others) == "reference"
        assert tinyconv.which(op, "backward", y.astype("float64"), saved, NEEDS) == "reference"
        for i in (2, 3):  # they are written to
            for bad in (others[i].astype("float64"), numpy.repeat(others[i], 2)[::2], None):
                mixed = [*others[:i], bad, *others[i + 1 :]]
                assert tinyconv.which(op, "forward", x, *mixed) == "reference"
    assert tinyconv.which(plain, "forward", values((2, 4, 6)), *others) == "reference"
    for op in (NormReLUPool(plain, two, False, True), NormReLUPool(plain, None, True, True)):
        assert tinyconv.which(op, "forward", x, *others) == "reference"
    for window in (
        Window((2, 2), (1, 1)),
        Window((2, 2), (2, 2), (1, 1)),
        Window((2, 2), (2, 2), (0, 0), (2, 2)),
        Window((2, 2), (2, 2), ceil_mode=True),
    ):
        op = dataclasses.replace(fused, pool=MaxPool2d(window))
        y, saved = op.forward(numpy, x, *others)
        assert tinyconv.which(op, "forward", x, *others) == "reference"
        assert tinyconv.which(op, "backward", y, saved, NEEDS) == "reference"
