"""What the tests of CUDA kernels share: arrays in all layouts, and the comparison with float64."""

import numpy as np

from tinyconv.backend import array_module
from tinyconv.op import run, run_backward, which

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 2e-3}
LAYOUTS = ("contiguous", "turned", "gaps", "repeated")


def values(shape, dtype=np.float32, seed=0):
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def laid_out(xp, x, layout="contiguous"):
    """A copy of x on the device that lies so: "turned" is channels last, or axes reversed.

    "gaps" is every second row of a larger array, "repeated" a view of x's first row alone.
    """
    x = np.asarray(x)
    if x.ndim == 0:
        return xp.asarray(x)
    if layout == "turned":
        axes = (0, 2, 3, 1) if x.ndim == 4 else tuple(reversed(range(x.ndim)))
        return xp.asarray(x.transpose(axes).copy()).transpose(np.argsort(axes).tolist())
    if layout == "gaps":
        larger = xp.full((2 * len(x), *x.shape[1:]), 77, x.dtype)
        larger[::2] = xp.asarray(x)
        return larger[::2]
    if layout == "repeated":
        return xp.broadcast_to(xp.asarray(x[:1]), x.shape)
    return xp.asarray(x)


def error(found, expected):
    """||found - expected|| / ||expected||, infinity where shapes differ or a NaN is."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return np.inf
    size = np.linalg.norm(expected)
    difference = np.linalg.norm(found - expected)
    result = difference / size if size else difference
    return np.inf if np.isnan(result) else result


def wide(x):
    """x, on the host, with floats as float64."""
    x = x.get() if hasattr(x, "get") else x
    floats = hasattr(x, "dtype") and x.dtype.kind == "f"
    return x.astype(np.float64) if floats else x


def check(op, *inputs, forward, backward=None, gy="contiguous", needs=None, tolerance=None):
    """Compare both directions of `op` on device arrays with the reference in float64.

    forward and backward name the kernels that must be taken; gy says how its gradient lies. The
    result of forward is returned.
    """
    xp = array_module(inputs[0])
    assert which(op, "forward", *inputs) == forward
    y, saved = run(op, *inputs)
    expected, expected_saved = op.forward(np, *map(wide, inputs))
    tolerance = tolerance or TOLERANCE[y.dtype]
    assert error(y.get(), expected) <= tolerance
    if backward is None:
        return y
    needs = needs or tuple(x is not None and x.dtype.kind == "f" for x in inputs)
    g = laid_out(xp, values(y.shape, y.dtype, seed=8), gy)
    assert which(op, "backward", g, saved, needs) == backward
    found = run_backward(op, g, saved, needs)
    wanted = op.backward(np, wide(g), expected_saved, needs)
    for x, mine, theirs in zip(inputs, found, wanted, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.shape == x.shape
            assert error(mine.get(), theirs) <= tolerance
    return y
