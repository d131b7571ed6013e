"""Views in other shapes: the same values as the reference, and no copy where none is needed."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import shape as kernels  # noqa: F401
from tinyconv.op import run, run_backward
from tinyconv.ops.shape import Permute, Reshape, Slice
from tinyconv.testing import kernel_error

from .cases import LAYOUTS, laid_out, values

layouts = st.sampled_from(LAYOUTS)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


@given(data=st.data(), shape=shapes, layout=layouts)
def test_reshape(data, shape, layout):
    rows = data.draw(st.sampled_from([n for n in range(1, 25) if math.prod(shape) % n == 0]))
    x, op = laid_out(values(shape), layout), Reshape((rows, -1))
    y, saved = run(op, x)
    assert tinyconv.which(op, "forward", x) == "reshape_view"
    assert tinyconv.which(op, "backward", y, saved, (True,)) == "reshape_back"
    assert numpy.may_share_memory(x, y) == numpy.may_share_memory(x, x.reshape(op.shape))
    gy = laid_out(values(y.shape, 1), layout)
    (gx,) = run_backward(op, gy, saved, (True,))
    assert numpy.array_equal(gx, gy.reshape(shape))
    assert kernel_error(op, x) == 0


@given(data=st.data(), shape=shapes, layout=layouts)
def test_permute(data, shape, layout):
    dims = data.draw(st.permutations(range(len(shape))))
    op = Permute(tuple(d - len(shape) * data.draw(st.integers(0, 1)) for d in dims))
    x = laid_out(values(shape), layout)
    y, saved = run(op, x)
    assert tinyconv.which(op, "forward", x) == "permute_view"
    assert tinyconv.which(op, "backward", y, saved, (True,)) == "permute_back"
    assert numpy.shares_memory(x, y)
    assert kernel_error(op, x) == 0


@pytest.mark.parametrize(
    "index", [(), 1, -1, (0, 1, 2), (slice(None, None, -2),), (None, ...), (..., None, 0),
              (slice(1, None), 0), (slice(5, None),)],
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_slice(index, layout):
    x, op = laid_out(values((3, 4, 5)), layout), Slice(index)
    y, _ = run(op, x)
    assert tinyconv.which(op, "forward", x) == "slice_view"
    assert y.size == 0 or numpy.shares_memory(x, y)
    assert kernel_error(op, x) == 0


def test_single_numbers():
    (y, saved), op = run(Reshape((1, 1)), numpy.float32(3)), Reshape((1, 1))
    assert y.tolist() == [[3]]
    assert run_backward(op, y, saved, (True,))[0].shape == ()


@pytest.mark.parametrize("op", [Reshape((4, 6)), Permute((1, 0)), Slice((0,))], ids=str)
@pytest.mark.parametrize("x", [values((6, 4)).astype("float64"), numpy.arange(24).reshape(6, 4)])
def test_where_the_reference_is_used(op, x):
    y, saved = op.forward(numpy, x)
    assert tinyconv.which(op, "forward", x) == "reference"
    assert tinyconv.which(op, "backward", y, saved, (True,)) == "reference"
