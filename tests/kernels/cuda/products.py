"""What the tests of convolutions and matrix products share: results against float64."""

import numpy as np

import tinyconv
from tinyconv.op import run, run_backward, which

# How products may be computed: the type of the images, the precision of float32 numbers, and the
# error allowed. TF32 and float16 have 10 bits after the point: they round by 2.8e-4 on average.
MODES = {
    "tf32": (np.float32, "tf32", 5e-4),
    "float32": (np.float32, "float32", 2e-6),
    "half": (np.float16, "tf32", 6e-4),
}


def values(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def error(found, expected):
    """The norm of the difference of two arrays, divided by that of `expected`."""
    found = found.get().astype(np.float64)
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


def exact(arrays):
    return [None if a is None else a.astype(np.float64) for a in arrays]


def check(cuda, op, inputs, mode, forward, backward=None, turned=False):
    """Compare y, and with the name of a backward kernel all gradients, with the reference.

    inputs are NumPy's, the first of the type of the mode; turned: images lie channels last.
    """
    dtype, precision, bound = MODES[mode]
    tinyconv.use_backend("cupy", precision=precision)

    def put(a):
        if a is None or not (turned and a.ndim == 4):
            return None if a is None else cuda.asarray(a)
        return cuda.asarray(a.transpose(0, 2, 3, 1).copy()).transpose(0, 3, 1, 2)

    mine = [put(a) for a in inputs]
    assert which(op, "forward", *mine) == forward
    y, saved = run(op, *mine)
    expected, reference_saved = op.forward(np, *exact(inputs))
    assert y.dtype == dtype
    assert error(y, expected) <= bound
    if backward is None:
        return
    gy, needs = values(expected.shape, 9, dtype), tuple(a is not None for a in inputs)
    assert which(op, "backward", put(gy), saved, needs) == backward
    gradients = run_backward(op, put(gy), saved, needs)
    reference = op.backward(np, gy.astype(np.float64), reference_saved, needs)
    for found, wanted, a in zip(gradients, reference, inputs, strict=True):
        if a is not None:
            assert found.dtype == a.dtype
            assert error(found, wanted) <= bound
