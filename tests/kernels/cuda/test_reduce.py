"""Sums and means against float64: all runs of summed and kept axes, and the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyconv.kernels.cuda import reduce as kernels
from tinyconv.op import run, which
from tinyconv.ops.reduce import Amax, Mean, Sum

from .compare import LAYOUTS, check, error, laid_out, values


@given(
    op=st.sampled_from([Sum, Mean]),
    shape=st.sampled_from(
        [(), (5,), (4, 9), (40, 3), (2, 3, 5, 7), (3, 1, 2, 33), (2, 2, 3, 2, 2)]
    ),
    axes=st.sets(st.integers(0, 3)),
    keepdim=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from([np.float32, np.float16]),
)
def test_all_axes(cuda, op, shape, axes, keepdim, layout, dtype):
    dim = tuple(axis for axis in axes if axis < len(shape)) or None
    x = laid_out(cuda, values(shape, dtype) + dtype(0.5), layout)
    y = check(op(dim, keepdim), x, forward=f"{op.__name__.lower()}_of_runs", backward="spread")
    assert y.dtype == dtype


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((300000,), [0]), ((7000, 6), [0]), ((7000, 6), [1]), ((2, 16, 40, 40), [0, 2, 3]),
     ((3, 5000, 2), [1]), ((20, 3, 700), [0, 2])],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["contiguous", "turned"])
def test_long_sums_keep_their_digits(cuda, shape, axes, layout):
    x = values(shape) + 1
    found = kernels.total(laid_out(cuda, x, layout), axes, 0.5)
    assert error(found.get(), 0.5 * x.astype(np.float64).sum(axis=tuple(axes))) <= 1e-6


def test_where_the_reference_is_used(cuda):
    x = cuda.asarray(values((4, 5)))
    assert which(Sum(), "forward", x.astype(np.float64)) == "reference"
    assert which(Amax(), "forward", x) == "reference"
    y, saved = run(Sum((0,)), x)
    assert which(Sum((0,)), "backward", y.astype(np.float64), saved, (True,)) == "reference"
