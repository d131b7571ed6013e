"""Winograd convolution: right for every shape it takes, within the rounding that it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import launch, threads, winograd
from tinyconv.kernels.cpu.simd import LANES
from tinyconv.op import run, run_backward
from tinyconv.ops.conv import Conv2d
from tinyconv.testing import kernel_error, relative_error

# The largest difference over the largest value, to the exact result.
BOUND = 2e-5


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch):
    monkeypatch.setattr(winograd, "_FORMING", 0)


def arrays(N, C, O, H, W, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, C, H, W)).astype(np.float32)
    w = (rng.standard_normal((O, C, 3, 3)) / np.sqrt(9 * C)).astype(np.float32)
    return x, w, rng.standard_normal(O).astype(np.float32)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def strided(x):
    wide = np.full((*x.shape[:3], 2 * x.shape[3]), np.nan, np.float32)
    wide[..., ::2] = x
    return wide[..., ::2]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = [np.ascontiguousarray, channels_last, strided, read_only]


def errors(op, x, w, b, needs=(True, True, True)):
    """Relative errors of y, gx, gw, gb to the reference in float64."""
    y, saved = run(op, x, w, b)
    gy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    found = (y, *run_backward(op, gy, saved, needs))
    exact = [a.astype(np.float64) for a in (x, w, b)]
    expected, saved = op.forward(np, *exact)
    expected = (expected, *op.backward(np, gy.astype(np.float64), saved, needs))
    return [relative_error(a, b) for a, b in zip(found, expected, strict=True)]


@settings(max_examples=60)
@given(
    st.integers(1, 3), st.integers(LANES, LANES + 20), st.integers(LANES, 3 * LANES + 5),
    st.integers(5, 14), st.integers(5, 14), st.integers(0, 2), st.integers(0, 2),
    st.sampled_from(LAYOUTS), st.booleans(),
)  # fmt: skip
def test_every_shape(N, C, O, H, W, ph, pw, layout, with_bias):
    x, w, b = arrays(N, C, O, H, W)
    op = Conv2d(padding=(ph, pw))
    x, b = layout(x), b if with_bias else None
    assert tinyconv.which(op, "forward", x, w, b) == "winograd"
    assert kernel_error(op, x, w, b, needs=(True, True, with_bias)) <= BOUND


# Both ways to the weight gradient, several chunks, parts that end inside a panel.
@pytest.mark.parametrize(
    ("N", "C", "O", "size"), [(1, 64, 96, 4), (2, 256, 256, 8), (3, 16, 40, 40), (5, 48, 16, 23)]
)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_threads(N, C, O, size, number, monkeypatch):
    monkeypatch.setattr(launch, "_SMALLEST_PART", 1)
    monkeypatch.setattr(launch, "_SMALLEST_PART_ALONE", 1)
    before = threads.num_threads()
    threads.set_num_threads(number)
    try:
        assert max(errors(Conv2d(padding=(1, 1)), *arrays(N, C, O, size, size))) <= BOUND
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("C", [64, 512])
def test_the_bound_holds_for_many_channels(C):
    found = errors(Conv2d(padding=(1, 1)), *arrays(2, C, 64, 16, 16))
    assert max(found) <= BOUND


def test_a_large_mean_costs_no_more_digits_than_its_size():
    x, w, b = arrays(1, 64, 64, 12, 12)
    assert max(errors(Conv2d(), x + 100, w, b)) <= BOUND


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_shows(value):
    x, w, b = arrays(1, 16, 16, 8, 8)
    x[0, 3, 4, 4] = value
    y, _ = run(Conv2d(), x, w, b)
    expected, _ = Conv2d().forward(np, x, w, b)
    assert not np.isfinite(y[~np.isfinite(expected)]).any()


def test_gradients_that_nobody_needs_are_none():
    x, w, b = arrays(1, 16, 16, 8, 8)
    op = Conv2d()
    y, saved = run(op, x, w, b)
    gy = np.ones_like(y)
    for needs in [(True, False, False), (False, True, False), (False, False, True)]:
        gradients = run_backward(op, gy, saved, needs)
        assert [g is not None for g in gradients] == list(needs)


@pytest.mark.parametrize(
    ("op", "shape", "kernel", "dtype"),
    [
        (Conv2d(), (1, 16, 8, 8), 3, np.float64),
        (Conv2d(stride=(2, 2)), (1, 16, 8, 8), 3, np.float32),
        (Conv2d(dilation=(2, 2)), (1, 16, 8, 8), 3, np.float32),
        (Conv2d(), (1, 16, 8, 8), 5, np.float32),
        (Conv2d(), (1, 3, 8, 8), 3, np.float32),
        (Conv2d(padding=(3, 3)), (1, 16, 8, 8), 3, np.float32),
        (Conv2d(), (1, 16, 3, 3), 3, np.float32),  # one output of a tile of 16: nothing won
    ],
)
def test_where_it_does_not_run(op, shape, kernel, dtype):
    x = np.zeros(shape, dtype)
    w = np.zeros((16, shape[1], kernel, kernel), dtype)
    assert tinyconv.which(op, "forward", x, w, None) != "winograd"
