"""Sums, means, maxima and minima."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from .compare import drawn  # noqa: E402


def drawn_dim(draw, ndim):
    """None, one axis or several, some of them counted from the end; in a tuple or a list."""
    kind = draw.one_of("all", "one", "several", "several")
    if kind == "all" or ndim == 0:
        return None
    if kind == "one":
        return draw.integer(-ndim, ndim - 1)
    axes = draw.rng.permutation(ndim)[: draw.integer(0, ndim)].tolist()
    return draw.one_of(tuple, list)(axis - ndim if draw.chance(0.3) else axis for axis in axes)


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin"])
@drawn(30)
def test_reduction(parity, draw, name):
    shape = draw.shape(0, 4)
    if draw.chance(0.5):
        x = np.asarray(draw.normal(*shape))
    else:  # with ties
        x = np.asarray(draw.rng.integers(0, 3, shape), float)
    dim, keepdim = drawn_dim(draw, x.ndim), draw.chance(0.5)
    theirs = () if dim is None else dim

    def reference(x):
        return getattr(x, name)(theirs, keepdim)

    parity.check(lambda x: getattr(x, name)(dim, keepdim), reference, x)


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin"])
def test_without_arguments_and_with_special_values(parity, name):
    for x in ([[1.0, np.nan], [2.0, 3.0]], [[np.inf, 1.0], [np.inf, -np.inf]], [[-0.0, 0.0]]):
        with np.errstate(all="ignore"):
            parity.check(lambda x: getattr(x, name)(), lambda x: getattr(x, name)(), np.array(x))
            parity.check(lambda x: getattr(x, name)(1), lambda x: getattr(x, name)(1), np.array(x))


def test_sum_of_nothing(parity):
    parity.check(lambda x: x.sum(0), lambda x: x.sum(0), np.zeros((0, 3)))
    parity.check(lambda x: x.sum(), lambda x: x.sum(), np.zeros((2, 0)))
