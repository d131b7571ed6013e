"""Pooling in CUDA against the reference: every kind of window, border, width and layout."""

import numpy as np
import pytest

from tinyconv.kernels.fused import ReLUPool
from tinyconv.op import run, run_backward, which
from tinyconv.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyconv.ops.window import Window

from .compare import laid_out, values

NEEDS = (True,)
TWO = Window((2, 2), (2, 2))
THREE = Window((3, 3), (2, 2), (1, 1))
WINDOWS = [
    Window((3, 2), (1, 2), (1, 0), ceil_mode=True),
    Window((2, 3), (2, 1), (1, 1), (2, 1)),  # some windows meet nothing but the border
    Window((5, 4), (5, 4)),
    Window((2, 2), (3, 3), ceil_mode=True),
    Window((17, 1), (2, 1), (8, 0)),
]


def images(shape, dtype=np.float32, few_values=False):
    x = values(shape)
    return (np.round(x) if few_values else x).astype(dtype)


def check_max(cuda, op, x):
    """Bitwise equality with the reference, forward and backward, whoever went forward."""
    expected, reference_saved = op.forward(np, x)
    gy = values(expected.shape, x.dtype, seed=1)
    gx = op.backward(np, gy, reference_saved, NEEDS)[0]
    name = "relu_pool" if isinstance(op, ReLUPool) else "max_pool"
    on_device = [a if isinstance(a, tuple) else cuda.asarray(a) for a in reference_saved]
    for put in (cuda.asarray, lambda a: laid_out(cuda, a, "turned")):
        device_x, device_gy = put(x), put(gy)
        assert which(op, "forward", device_x) == name
        y, saved = run(op, device_x)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y.get(), expected)
        winner, reference_winner = saved[-2], reference_saved[-2]
        assert winner.dtype == reference_winner.dtype
        np.testing.assert_array_equal(winner.get(), reference_winner)
        assert saved[-1] == x.shape
        for s in (saved, on_device):
            assert which(op, "backward", device_gy, s, NEEDS) == f"{name}_gradient"
            found = run_backward(op, device_gy, s, NEEDS)[0]
            assert found.dtype == x.dtype
            tolerance = {np.float32: 0, np.float16: 2e-3}[x.dtype.type]  # one rounding for several
            np.testing.assert_allclose(found.get(), gx, rtol=tolerance, atol=tolerance)
        with_reference = op.backward(cuda, device_gy, saved, NEEDS)[0]
        np.testing.assert_array_equal(with_reference.get(), gx)


@pytest.mark.parametrize("few_values", [False, True])  # few: there are ties
@pytest.mark.parametrize("C", [1, 3, 4, 6, 8, 17, 32])
def test_max_pool_of_two(cuda, C, few_values):
    check_max(cuda, MaxPool2d(TWO), images((2, C, 7, 9), few_values=few_values))


@pytest.mark.parametrize("few_values", [False, True])
@pytest.mark.parametrize("window", [THREE, *WINDOWS])
def test_max_pool(cuda, window, few_values):
    for shape in [(2, 4, 10, 11), (1, 8, 21, 5)]:
        check_max(cuda, MaxPool2d(window), images(shape, few_values=few_values))


@pytest.mark.parametrize("window", [TWO, THREE])
@pytest.mark.parametrize("few_values", [False, True])
def test_relu_pool(cuda, window, few_values):
    check_max(cuda, ReLUPool(MaxPool2d(window)), images((3, 4, 9, 8), few_values=few_values))


@pytest.mark.parametrize(("op", "C"), [(MaxPool2d(TWO), 8), (ReLUPool(MaxPool2d(THREE)), 3)])
def test_float16(cuda, op, C):
    check_max(cuda, op, images((2, C, 8, 9), np.float16, few_values=True))


@pytest.mark.parametrize("op", [MaxPool2d(TWO), ReLUPool(MaxPool2d(TWO)), MaxPool2d(THREE)])
def test_values_that_are_not_finite(cuda, op):
    choices = np.array([np.nan, np.inf, -np.inf, 0, -1, 1], np.float32)
    check_max(cuda, op, np.random.default_rng(0).choice(choices, (2, 4, 12, 14)))
    check_max(cuda, op, np.full((1, 4, 5, 6), -np.inf, np.float32))


def test_large_images_take_several_rounds(cuda):
    """More windows than threads: each takes several."""
    check_max(cuda, MaxPool2d(TWO), images((9, 4, 256, 256)))


AVERAGES = [
    AvgPool2d(TWO),
    AvgPool2d(THREE),
    AvgPool2d(Window((3, 2), (2, 1), (1, 1), ceil_mode=True)),
    AvgPool2d(Window((3, 2), (2, 1), (1, 1), ceil_mode=True), count_include_pad=False),
    AvgPool2d(Window((6, 7), (2, 3), (3, 0)), count_include_pad=False),  # shared by a block's lines
    AvgPool2d(TWO, divisor_override=3),
    *map(AdaptiveAvgPool2d, [(1, 1), (3, 2), (7, 12), (9, 11)]),
]


def check_average(cuda, op, x, bound):
    exact, saved = op.forward(np, x.astype(np.float64))
    gy = values(exact.shape, x.dtype, seed=1)
    gx = op.backward(np, gy.astype(np.float64), saved, NEEDS)[0]
    name = "avg_pool" if isinstance(op, AvgPool2d) else "adaptive_avg_pool"
    for put in (cuda.asarray, lambda a: laid_out(cuda, a, "turned")):
        assert which(op, "forward", put(x)) == name
        y, found_saved = run(op, put(x))
        assert found_saved == saved
        assert which(op, "backward", put(gy), found_saved, NEEDS) == f"{name}_gradient"
        found = run_backward(op, put(gy), found_saved, NEEDS)[0]
        for a, b in ((y, exact), (found, gx)):
            assert (a.shape, a.dtype) == (b.shape, x.dtype)
            np.testing.assert_allclose(a.get(), b, rtol=bound, atol=bound)


@pytest.mark.parametrize("op", AVERAGES)
def test_average(cuda, op):
    for shape in [(2, 4, 9, 11), (1, 8, 21, 16)]:
        check_average(cuda, op, images(shape), 1e-6)


@pytest.mark.parametrize("C", [3, 17, 160])
def test_global_average(cuda, C):
    check_average(cuda, AdaptiveAvgPool2d((1, 1)), images((3, C, 13, 9)), 1e-6)


@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_average_of_float16(cuda, size):
    check_average(cuda, AdaptiveAvgPool2d(size), images((2, 16, 12, 10), np.float16), 2e-3)


def test_the_output_is_channels_last(cuda):
    x = cuda.asarray(images((2, 4, 6, 6)))
    for op in (MaxPool2d(TWO), ReLUPool(MaxPool2d(TWO)), AvgPool2d(TWO), AdaptiveAvgPool2d((2, 2))):
        y, saved = run(op, x)
        winners = saved[-2:-1] if isinstance(op, MaxPool2d | ReLUPool) else ()
        for a in (y, *winners, run_backward(op, y, saved, NEEDS)[0]):
            assert a.transpose(0, 2, 3, 1).flags.c_contiguous


def test_where_the_reference_is_used(cuda):
    x = cuda.asarray(images((1, 4, 20, 20)))
    large = MaxPool2d(Window((17, 16)))  # a byte does not hold its positions
    for op, bad in [
        (large, x),
        (MaxPool2d(TWO), x.astype("float64")),
        (MaxPool2d(TWO), x[:0]),
        (ReLUPool(large), x),
        (AvgPool2d(TWO), x.astype("float64")),
        (AdaptiveAvgPool2d((2, 2)), x[:0]),
    ]:
        assert which(op, "forward", bad) == "reference"
    y, saved = large.forward(cuda, x)
    assert which(large, "backward", y, saved, NEEDS) == "reference"
