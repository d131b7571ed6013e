"""What the tests of convolution kernels share: results against the reference in float64."""

import numpy
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu.direct import Sizes
from tinyconv.op import run, run_backward

from .cases import laid_out, values

# Rounding errors allowed, as a part of the sum of the absolute values that were added up. One
# rounding is 6e-8; those of long sums mostly cancel.
BOUND = 1e-6


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def gradient_of(op, x, w, seed=3):
    """A gradient for the output of op(x, w)."""
    sizes = Sizes.of(op, x, w)
    return values((len(x), len(w), sizes.OH, sizes.OW), seed)


def check(op, x, w, b, layout, name):
    """Compare y and all gradients with the exact result, number by number; y, gx, gw, gb.

    `layout` is that of all arrays of images; `name` the kernel that must have computed them.
    """
    gy, needs = gradient_of(op, x, w), (True, True, b is not None)
    mine = [laid_out(x, layout), laid_out(w, layout), None if b is None else laid_out(b, layout)]
    gradient = laid_out(gy, layout)
    assert tinyconv.which(op, "forward", *mine) == name
    y, saved = run(op, *mine)
    assert tinyconv.which(op, "backward", gradient, saved, needs) == f"{name}_backward"
    found = (y, *run_backward(op, gradient, saved, needs))
    exact, size = (
        _reference(op, [None if a is None else change(a) for a in (x, w, b)], change(gy), needs)
        for change in (numpy.float64, lambda a: numpy.abs(a).astype(numpy.float64))
    )
    for a, e, s in zip(found, exact, size, strict=True):
        if e is not None:
            assert a.dtype == numpy.float32
            assert a.shape == e.shape
            assert (numpy.abs(a - e) <= BOUND * s).all()
    return found


def check_where_it_is_not_finite(op, x, w, b, gy):
    """Compare y and all gradients with the reference, NaN and infinity included."""
    needs = (True, True, True)
    y, saved = run(op, x, w, b)
    found = y, *run_backward(op, gy, saved, needs)
    y, saved = op.forward(numpy, x, w, b)
    with numpy.errstate(invalid="ignore"):
        expected = y, *op.backward(numpy, gy, saved, needs)
    for a, e in zip(found, expected, strict=True):
        numpy.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


def _reference(op, inputs, gy, needs):
    y, saved = op.forward(numpy, *inputs)
    return (y, *op.backward(numpy, gy, saved, needs))
