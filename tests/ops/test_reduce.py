"""Sums, means, maxima and minima against loops, and equal extremes."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyconv.tensor import Tensor

from .drawing import values

PYTHON = {"sum": math.fsum, "mean": lambda v: math.fsum(v) / len(v), "amax": max, "amin": min}


@given(
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    keepdim=st.booleans(),
    data=st.data(),
    dtype=st.sampled_from([numpy.float32, numpy.float64]),
)
@pytest.mark.parametrize("method", PYTHON)
def test_against_loops(method, shape, keepdim, data, dtype, backend):
    axes = range(-len(shape), len(shape))
    dim = data.draw(
        st.one_of(
            st.none(),
            st.sampled_from(axes),
            st.lists(st.sampled_from(axes), min_size=1, unique_by=lambda a: a % len(shape)).map(
                tuple
            ),
        )
    )
    x = values(shape, dtype)
    reduced = range(len(shape)) if dim is None else [a % len(shape) for a in numpy.atleast_1d(dim)]
    groups: dict[tuple[int, ...], list[float]] = {}
    for index in numpy.ndindex(*shape):
        key = tuple(0 if a in reduced else i for a, i in enumerate(index))
        groups.setdefault(key, []).append(float(x[index]))
    expected = numpy.zeros([1 if a in reduced else n for a, n in enumerate(shape)])
    for key, numbers in groups.items():
        expected[key] = PYTHON[method](numbers)
    if not keepdim:
        expected = expected.reshape([n for a, n in enumerate(shape) if a not in reduced])
    found = getattr(Tensor(x), method)(dim, keepdim)
    tolerance = 1e-14 if dtype == numpy.float64 else 1e-6
    assert found.shape == expected.shape
    assert found.dtype == dtype
    assert numpy.allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_equal_extremes_share_the_gradient():
    for method in ("amax", "amin"):
        x = Tensor(numpy.array([[2.0, 2, 2, 2], [1, 1, 1, 1]]), requires_grad=True)
        getattr(x, method)(1).backward(numpy.array([4.0, 8.0]))
        assert x.grad.numpy().tolist() == [[1] * 4, [2] * 4]


def test_the_input_is_not_kept_for_a_sum():
    x = Tensor(numpy.ones((2, 3)), requires_grad=True)
    for y in (x.sum(), x.mean(1)):
        assert y.node.saved == ((2, 3),)
