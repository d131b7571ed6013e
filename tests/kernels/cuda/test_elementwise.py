"""Arithmetic element by element against float64: layouts, broadcasting, casts, NaN."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconv.kernels.cuda import elementwise as kernels
from tinyconv.op import run, run_backward, which
from tinyconv.ops.elementwise import (
    Absolute,
    Add,
    Cast,
    Divide,
    Exp,
    Log,
    Maximum,
    Minimum,
    Multiply,
    Negative,
    Power,
    Sqrt,
    Subtract,
)

from .compare import LAYOUTS, check, laid_out, values, wide

BINARY = {
    Add: ("add", "add_backward"),
    Subtract: ("subtract", "subtract_backward"),
    Multiply: ("multiply", "multiply_backward"),
    Divide: ("divide", "divide_backward"),
    Maximum: ("greater_or_smaller", "maximum_backward"),
    Minimum: ("greater_or_smaller", "minimum_backward"),
}
UNARY = {
    Negative(): ("negate", "negate_backward"),
    Absolute(): ("of_input", "by_saved"),
    Log(): ("of_input", "by_saved"),
    Exp(): ("of_output", "by_saved"),
    Sqrt(): ("of_output", "by_saved"),
    Power(3.0): ("power", "power_backward"),
    Power(-0.5): ("power", "power_backward"),
    Power(0.0): ("power", "power_backward"),
}


def away_from_zero(x):
    return np.where(x < 0, x - 0.5, x + 0.5).astype(x.dtype)


@settings(max_examples=40)
@given(
    typed=st.sampled_from([*((op, np.float32) for op in BINARY), (Multiply, np.float16)]),
    shapes=st.sampled_from(
        [((2, 3, 5, 7), (2, 3, 5, 7)), ((2, 3, 5, 7), ()), ((), (4, 9)), ((2, 3, 5, 7), (3, 1, 1)),
         ((1, 3, 1, 1), (2, 3, 5, 7)), ((4, 1), (1, 9)), ((3,), (2, 2, 5, 3)), ((1,), ())]
    ),
    layouts=st.tuples(st.sampled_from(LAYOUTS[:3]), st.sampled_from(LAYOUTS[:3])),
    gy=st.sampled_from(LAYOUTS),
)  # fmt: skip
def test_two_inputs(cuda, typed, shapes, layouts, gy):
    op, dtype = typed
    a, b = (
        laid_out(cuda, away_from_zero(values(shape, dtype, seed)), layout)
        for seed, (shape, layout) in enumerate(zip(shapes, layouts, strict=True))
    )
    y = check(op(), a, b, forward=BINARY[op][0], backward=BINARY[op][1], gy=gy)
    assert y.dtype == dtype


def test_two_types(cuda):
    a = cuda.asarray(values((2, 3, 4, 5), np.float16))
    b = cuda.asarray(values((3, 1, 1)))
    y = check(Multiply(), a, b, forward="multiply", backward="multiply_backward", tolerance=1e-3)
    assert y.dtype == np.float32


@pytest.mark.parametrize(
    ("op", "dtype"),
    [*((op, np.float32) for op in UNARY), (Exp(), np.float16), (Power(3.0), np.float16)],
    ids=str,
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_input(cuda, op, dtype, layout):
    x = laid_out(cuda, np.abs(away_from_zero(values((2, 9, 3, 5), dtype))), layout)
    forward, backward = UNARY[op]
    check(op, x, forward=forward, backward=backward, gy="turned")


@pytest.mark.parametrize("size", [1, 7, 4 * 512, 4 * 512 + 1, 3 * 4 * 512 - 1])
@pytest.mark.parametrize("start", [0, 1])
def test_sizes_and_addresses_that_are_no_multiple_of_16_bytes(cuda, size, start):
    a, b = (cuda.asarray(values((size + 1,), seed=i))[start : start + size] for i in (0, 1))
    check(Add(), a, b, forward="add", backward="add_backward")
    half = [x.astype(np.float16)[: size // 2 + 1] for x in (a, b)]
    check(Add(), *half, forward="add", backward="add_backward")


def test_results_lie_as_images_do(cuda):
    x, y = (laid_out(cuda, values((2, 8, 9, 10), seed=i), "turned") for i in (0, 1))
    assert run(Add(), x, y)[0].strides == x.strides
    first = laid_out(cuda, values((2, 8, 9, 10)))  # channels first: transposed, then added
    assert run(Add(), first, x)[0].strides == x.strides
    assert run(Negative(), first)[0].strides == first.strides


@pytest.mark.parametrize("shape", [(2, 8, 9, 10), (2, 40, 33, 1), (3, 100, 7, 5), (2, 3, 30, 30)])
@pytest.mark.parametrize("dtypes", [(np.float32, np.float16), (np.float16, np.float32),
                                    (np.float32, np.float32)])  # fmt: skip
def test_copies_between_channels_first_and_last(cuda, shape, dtypes):
    x = values(shape, dtypes[0])
    for start, order in (("contiguous", (0, 2, 3, 1)), ("turned", (0, 1, 2, 3))):
        copy = kernels.copy(laid_out(cuda, x, start), order, dtypes[1])
        assert copy.transpose(order).flags.c_contiguous
        assert copy.dtype == dtypes[1]
        np.testing.assert_array_equal(copy.get(), x.astype(dtypes[1]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_casts(cuda, layout):
    x = values((3, 5, 2, 7)) * 1000
    x[0, 0, 0, :3] = 1e30, np.nan, 1e-7
    for start, end in [("float32", "float16"), ("float16", "float32"), ("float32", "float32")]:
        with np.errstate(over="ignore"):
            given = laid_out(cuda, x.astype(start), layout)
        assert which(Cast(np.dtype(end)), "forward", given) == "cast"
        y, saved = run(Cast(np.dtype(end)), given)
        assert y is not given
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(y.get(), given.get().astype(end))
        (back,) = run_backward(Cast(np.dtype(end)), y, saved, (True,))
        assert back.dtype == start


def test_a_gradient_that_needs_no_sum_is_passed_on(cuda):
    a, b, gy = (cuda.asarray(values((2, 3), seed=i)) for i in range(3))
    _, saved = run(Add(), a, b)
    ga, gb = run_backward(Add(), gy, saved, (True, True))
    assert ga is gy
    assert gb is gy
    assert run_backward(Add(), gy, saved, (False, True))[0] is None


def test_nan_and_infinity_as_the_reference(cuda):
    special = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan], np.float32)
    a, b = (x.ravel() for x in np.meshgrid(special, special))
    for op in BINARY:
        given = cuda.asarray(a), cuda.asarray(b)
        with np.errstate(all="ignore"):
            expected, saved = op().forward(np, a, b)
            wanted = op().backward(np, np.ones_like(a), saved, (True, True))
        y, saved = run(op(), *given)
        np.testing.assert_array_equal(y.get(), expected)
        found = run_backward(op(), cuda.ones_like(given[0]), saved, (True, True))
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(mine.get(), theirs)


def test_where_the_reference_is_used(cuda):
    x = cuda.asarray(values((2, 3)))
    for other in (x.astype(np.float64), x.astype(np.int64), cuda.zeros((0, 3), np.float32)):
        assert which(Add(), "forward", other, other) == "reference"
        assert which(Exp(), "forward", other) == "reference"
    assert which(Cast(np.dtype(np.float64)), "forward", x) == "reference"
    assert wide(run(Add(), x, x.astype(np.float64))[0]).dtype == np.float64
