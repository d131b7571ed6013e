"""Arithmetic: values, broadcasting, dtypes, and gradients where no finite difference reaches."""

import itertools
import operator

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv.functional as F
from tinyconv.tensor import Tensor


@given(
    a=st.floats(-9, 9), b=st.floats(0.5, 9), name=st.sampled_from(["add", "sub", "mul", "truediv"])
)
def test_as_python_calculates(a, b, name, backend):
    function = getattr(operator, name)
    x, y = Tensor(numpy.array([a])), Tensor(numpy.array([b]))
    assert function(x, y).item() == function(a, b)
    assert function(x, b).item() == function(a, b)
    assert function(a, y).item() == function(a, b)


@given(
    shape=st.lists(st.integers(1, 3), max_size=4), cut=st.integers(0, 4), ones=st.integers(0, 15)
)
def test_broadcast_gradients_are_sums(shape, cut, ones, backend):
    # b keeps some of a's last axes, some of them as 1.
    small = [1 if ones >> i & 1 else n for i, n in enumerate(shape)][cut:]
    a = Tensor(numpy.ones(shape), requires_grad=True)
    b = Tensor(numpy.full(small, 2.0), requires_grad=True)
    gy = numpy.arange(1.0, numpy.prod(shape, dtype=int) + 1).reshape(shape)
    (a * b).backward(gy)
    expected = numpy.zeros(small)
    for index in numpy.ndindex(*shape):
        at = tuple(0 if n == 1 else i for i, n in zip(index[cut:], small, strict=True))
        expected[at] += gy[index]
    assert numpy.array_equal(b.grad.numpy(), expected)
    assert numpy.array_equal(a.grad.numpy(), 2 * gy)


def test_equal_values_share_the_gradient():
    for function in (F.maximum, F.minimum):
        a, b = (Tensor(numpy.array([1.0, 2.0]), requires_grad=True) for _ in range(2))
        function(a, b).sum().backward()
        assert a.grad.numpy().tolist() == b.grad.numpy().tolist() == [0.5, 0.5]


def test_maximum_and_minimum_with_numbers():
    x = numpy.array([-1.0, 3.0], numpy.float32)
    assert F.maximum(x, 0).numpy().tolist() == [0, 3]
    assert F.minimum(x, 1.5).numpy().tolist() == [-1, 1.5]
    assert F.maximum(x, 0).dtype == numpy.float32


def test_power():
    x = Tensor(numpy.array([0.0, 2.0]), requires_grad=True)
    (x**2).sum().backward()
    assert x.grad.numpy().tolist() == [0, 4]
    x = Tensor(numpy.array([0.0]), requires_grad=True)
    (x**0).backward()
    assert x.grad.item() == 0  # not 0 * 0**-1


NUMBERS = (2, 2.0, True, numpy.float64(2), numpy.float32(2), numpy.int64(2), numpy.uint8(2))


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_numbers_never_change_the_dtype(number, dtype, backend):
    x = Tensor(numpy.ones((2, 2), dtype))
    for function in (operator.add, operator.sub, operator.mul, operator.truediv):
        assert function(x, number).dtype == dtype
        assert function(number, x).dtype == dtype
    assert (x**number).dtype == dtype


def test_fractions_beside_whole_numbers_are_not_cut_off():
    x = Tensor([1, 2, 3])
    assert (x * 0.5).numpy().tolist() == [0.5, 1, 1.5]
    assert (x / 2).numpy().tolist() == [0.5, 1, 1.5]
    assert (x * 2).dtype == numpy.int64


def test_operands_of_all_kinds():
    x, array = Tensor(numpy.array([1.0, 2.0]), requires_grad=True), numpy.array([3.0, 5.0])
    pairs = itertools.product((operator.add, operator.sub, operator.mul, operator.truediv), (0, 1))
    for function, swapped in pairs:
        a, b = (array, x) if swapped else (x, array)
        expected = function(*(v.numpy() if isinstance(v, Tensor) else v for v in (a, b)))
        found = function(a, b)
        assert isinstance(found, Tensor)
        assert found.requires_grad
        assert numpy.array_equal(found.numpy(), expected)


def test_the_rest():
    x = numpy.array([1.0, 4.0])
    assert (-Tensor(x)).numpy().tolist() == [-1, -4]
    assert Tensor(-x).abs().numpy().tolist() == [1, 4]
    assert Tensor(x).sqrt().numpy().tolist() == [1, 2]
    assert numpy.allclose(Tensor(x).exp().log().numpy(), x, rtol=1e-15)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2,\) \(3,\)"):
        Tensor(numpy.ones(2)) + numpy.ones(3)


def test_cast_between_floats_carries_the_gradient_back(backend):
    x = Tensor(numpy.array([1.5, -2.5], numpy.float32), requires_grad=True)
    y = x.astype(numpy.float64)
    assert y.dtype == numpy.float64
    (y * numpy.array([3.0, 4.0])).sum().backward()
    assert x.grad.dtype == numpy.float32
    assert x.grad.numpy().tolist() == [3, 4]


def test_whole_numbers_take_the_dtype_of_a_float_beside_them(backend):
    x = Tensor(numpy.array([1.5, -2.5], numpy.float32))
    for whole in (numpy.array([2, 4]), Tensor(numpy.array([2, 4])), 2, numpy.int64(2)):
        assert (x * whole).dtype == numpy.float32
        assert (whole - x).dtype == numpy.float32
