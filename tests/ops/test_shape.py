"""Operations that move values: where each value goes, and where its gradient comes back."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F
from tinyconv.tensor import Tensor


def counted(*shape):
    return Tensor(numpy.arange(1.0, numpy.prod(shape, dtype=int) + 1).reshape(shape), True)


def check(y, x, expected):
    """y holds `expected`, and each value's gradient comes back to where the value came from."""
    assert numpy.array_equal(y.numpy(), expected)
    y.backward(y.numpy() * 10)
    moved = numpy.isin(x.numpy(), expected)
    assert numpy.array_equal(x.grad.numpy(), x.numpy() * 10 * moved)


def test_reshape_and_flatten(backend):
    for shape in ((6, 4), (2, -1), (-1,)):
        x = counted(2, 3, 4)
        check(x.reshape(shape), x, x.numpy().reshape(shape))
        x = counted(2, 3, 4)
        check(x.reshape(*shape), x, x.numpy().reshape(shape))
    x = counted(2, 3, 4)
    assert x.flatten().shape == (24,)
    assert x.flatten(1).shape == F.flatten(x, 1).shape == (2, 12)
    assert x.flatten(0, 1).shape == x.flatten(-3, -2).shape == (6, 4)


def test_flatten_an_empty_batch():
    assert Tensor(numpy.ones((0, 3, 2))).flatten(1).shape == (0, 6)


def test_flatten_of_axes_that_are_not_there():
    with pytest.raises(IndexError):
        counted(2, 3).flatten(2)


def test_permute_and_transpose(backend):
    x = counted(2, 3, 4)
    check(x.permute(2, 0, 1), x, numpy.transpose(x.numpy(), (2, 0, 1)))
    x = counted(2, 3, 4)
    check(x.transpose(0, -1), x, numpy.swapaxes(x.numpy(), 0, 2))


@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4), dim=st.sampled_from([0, 1, -1]))
def test_cat(sizes, dim, backend):
    shapes = [(n, 2) if dim == 0 else (2, n) for n in sizes]
    tensors = [counted(*shape) for shape in shapes]
    y = F.cat(tensors, dim)
    y.backward(numpy.arange(y.data.size).reshape(y.shape))
    start = 0
    for x, n in zip(tensors, sizes, strict=True):
        part = (slice(start, start + n),) if dim == 0 else (slice(None), slice(start, start + n))
        assert numpy.array_equal(y.numpy()[part], x.numpy())
        assert numpy.array_equal(x.grad.numpy(), numpy.arange(y.data.size).reshape(y.shape)[part])
        start += n


def test_cat_of_shapes_that_differ():
    with pytest.raises(tinyconv.ShapeError, match=r"\(2, 3\), \(3, 2\) differ outside of dim 0"):
        F.cat([numpy.ones((2, 3)), numpy.ones((3, 2))])
    with pytest.raises(ValueError, match="no tensors"):
        F.cat([])


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    columns=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    rows=st.one_of(st.just(()), st.tuples(st.integers(-3, 3), st.integers(-3, 3))),
)
def test_pad(shape, columns, rows, backend):
    x = counted(*shape)
    amounts = [rows or (0, 0), columns]
    if any(min(b, 0) + n + min(a, 0) < 0 for n, (b, a) in zip(shape, amounts, strict=True)):
        with pytest.raises(tinyconv.ShapeError, match="cuts more off"):
            F.pad(x, (*columns, *rows))
        return
    (top, bottom), (left, right) = amounts
    H, W = shape
    expected = numpy.full((top + H + bottom, left + W + right), -1.0)
    for i, j in numpy.ndindex(expected.shape):
        if 0 <= i - top < H and 0 <= j - left < W:
            expected[i, j] = x.numpy()[i - top, j - left]
    y = F.pad(x, (*columns, *rows), value=-1)
    check(y, x, expected)


def test_pad_of_bad_lists():
    with pytest.raises(ValueError, match="mode: 'reflect' found"):
        F.pad(numpy.ones(3), (1, 1), mode="reflect")
    for amounts in ((1,), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="expected pairs for at most 1 axes"):
            F.pad(numpy.ones(3), amounts)


INDICES = [
    1, -1, numpy.int64(1), slice(1, 3), slice(None, None, 2), slice(None, None, -1), (0, 1),
    (slice(None), 1, slice(0, 2)), ..., (..., 0), None, (None, 1, None), (slice(5, 9),),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_slice(index, backend):
    x = counted(3, 2, 4)
    check(x[index], x, x.numpy()[index])


@pytest.mark.parametrize("index", [[0, 1], numpy.array([0, 1]), 1.0, "a"], ids=str)
def test_indices_that_are_not_taken(index):
    with pytest.raises(TypeError, match=f"index: {type(index).__name__} found"):
        counted(3, 2)[index]


def test_index_out_of_range():
    with pytest.raises(IndexError):
        counted(3)[3]
    assert [row.item() for row in counted(3)] == [1, 2, 3]
