"""Matrix products against loops."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F
from tinyconv.tensor import Tensor

from .drawing import values


@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    I=st.integers(1, 4),
    O=st.integers(1, 4),
    bias=st.booleans(),
    dtype=st.sampled_from([numpy.float32, numpy.float64]),
)
def test_linear(batch, I, O, bias, dtype, backend):
    x, w, b = values((*batch, I), dtype), values((O, I), dtype).T.copy().T, values((O,), dtype)
    gy = values((*batch, O), dtype)
    y, gx, gw = numpy.zeros((*batch, O)), numpy.zeros(x.shape), numpy.zeros(w.shape)
    gb = numpy.zeros(O)
    for *at, o in numpy.ndindex(y.shape):
        at = tuple(at)
        y[*at, o] = sum(float(w[o, i]) * float(x[*at, i]) for i in range(I)) + bias * b[o]
        gx[at] += gy[*at, o] * w[o]
        gw[o] += gy[*at, o] * x[at]
        gb[o] += gy[*at, o]
    inputs = [Tensor(a, requires_grad=True) for a in (x, w, b)[: 2 + bias]]
    found = F.linear(*inputs)
    found.backward(gy)
    tolerance = 1e-13 if dtype == numpy.float64 else 1e-5
    for ours, expected in zip([found, *(a.grad for a in inputs)], (y, gx, gw, gb), strict=False):
        assert ours.dtype == dtype
        assert numpy.allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_matmul_multiplies_the_last_two_axes(backend):
    a, b = values((2, 1, 3, 4)), values((5, 4, 2))
    y = F.matmul(a, b)
    assert y.shape == (2, 5, 3, 2)
    expected = sum(a[1, 0, 2, k] * b[3, k, 1] for k in range(4))
    assert y.numpy()[1, 3, 2, 1] == pytest.approx(expected, rel=1e-14)
    assert numpy.array_equal((Tensor(a) @ b).numpy(), y.numpy())


def test_empty_batch():
    w = Tensor(values((2, 3)), requires_grad=True)
    y = F.linear(numpy.ones((0, 3)), w)
    y.sum().backward()
    assert y.shape == (0, 2)
    assert not w.grad.numpy().any()


def test_shapes_that_do_not_fit():
    with pytest.raises(
        tinyconv.ShapeError, match=r"\(2, 4\), weight \(5, 3\) expects \(\.\.\., 3\)"
    ):
        F.linear(numpy.ones((2, 4)), numpy.ones((5, 3)))
    with pytest.raises(tinyconv.ShapeError, match="weight"):
        F.linear(numpy.ones((2, 4)), numpy.ones(4))
    for bias in ((1,), (3,), (2, 5)):
        with pytest.raises(tinyconv.ShapeError, match=r"linear: bias has shape .* expected \(5,\)"):
            F.linear(numpy.ones((2, 4)), numpy.ones((5, 4)), numpy.ones(bias))
    for a, b in (((2, 3), (2, 3)), ((3,), (3,)), ((2, 3), (3,))):
        with pytest.raises(tinyconv.ShapeError, match="matmul: shapes"):
            F.matmul(numpy.ones(a), numpy.ones(b))
        with pytest.raises(tinyconv.ShapeError, match="matmul: shapes"):
            Tensor(numpy.ones(a)) @ Tensor(numpy.ones(b))
