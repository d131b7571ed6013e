"""Activations and softmax against the reference in float64."""

import numpy as np
import pytest

from tinyconv.op import run, run_backward, which
from tinyconv.ops.activation import LeakyReLU, LogSoftmax, ReLU, ReLU6, Sigmoid, Softmax, Tanh

from .compare import LAYOUTS, check, laid_out, values

BY_OUTPUT = [ReLU(), ReLU6(), Tanh(), Sigmoid()]


@pytest.mark.parametrize(
    ("op", "dtype"),
    [*((op, np.float32) for op in (*BY_OUTPUT, LeakyReLU(0.2))),
     (ReLU(), np.float16), (Tanh(), np.float16)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_activations(cuda, op, dtype, layout):
    x = laid_out(cuda, 5 * values((2, 9, 5, 7), dtype), layout)
    name = "leaky_relu" if isinstance(op, LeakyReLU) else "activation"
    for gy in LAYOUTS:
        y = check(op, x, forward=name, backward=f"{name}_backward", gy=gy)
        assert y.dtype == dtype
    if layout == "turned":
        assert y.strides == x.strides


@pytest.mark.parametrize("op", [*BY_OUTPUT, LeakyReLU(0.2)], ids=str)
def test_special_values_as_the_reference(cuda, op):
    x = np.array([0, -0.0, 6, np.inf, -np.inf, np.nan, 1e30, -1e30, 100, -100, 1e-30], np.float32)
    with np.errstate(all="ignore"):
        expected, expected_saved = op.forward(np, x)
        (wanted,) = op.backward(np, np.ones_like(x), expected_saved, (True,))
    y, saved = run(op, cuda.asarray(x))
    (gx,) = run_backward(op, cuda.ones_like(y), saved, (True,))
    np.testing.assert_allclose(y.get(), expected, rtol=1e-6, atol=1e-38)
    np.testing.assert_allclose(gx.get(), wanted, rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("op", [Softmax, LogSoftmax])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 10), np.float16), ((3, 2), np.float32), ((70, 3), np.float32), ((2, 1000), np.float32),
     ((1, 1500), np.float32), ((2, 3, 40), np.float32), ((10,), np.float32)],
    ids=str,
)  # fmt: skip
def test_softmax_of_the_last_axis(cuda, op, shape, dtype):
    x = cuda.asarray(3 * values(shape, dtype))
    check(op(-1), x, forward="softmax_of_rows", backward="softmax_of_rows_backward")


@pytest.mark.parametrize("op", [Softmax, LogSoftmax])
def test_softmax_of_channels(cuda, op):
    x = laid_out(cuda, values((2, 9, 3, 4)), "turned")
    for gy in LAYOUTS:
        y = check(op(1), x, forward="softmax_of_rows", backward="softmax_of_rows_backward", gy=gy)
        assert y.strides == x.strides


@pytest.mark.parametrize("op", [Softmax(-1), LogSoftmax(-1)])
def test_softmax_of_extremes(cuda, op):
    x = np.array([[1e30, -1e30, 0], [3e38, 3e38, -3e38], [np.nan, 0, 1], [np.inf, 0, 1],
                  [0, -np.inf, 1], [-np.inf] * 3], np.float32)  # fmt: skip
    with np.errstate(all="ignore"):
        expected = op.forward(np, x)[0]
    np.testing.assert_allclose(run(op, cuda.asarray(x))[0].get(), expected, rtol=1e-6, atol=1e-7)


def test_where_the_reference_is_used(cuda):
    x = cuda.asarray(values((4, 5, 6)))
    wide = x.astype(np.float64)
    for given, op in [(x, Softmax(1)), (x[:, ::2], Softmax(2)), (x[..., :1], LogSoftmax(2)),
                      (wide, Softmax(2)), (wide, ReLU())]:  # fmt: skip
        assert which(op, "forward", given) == "reference"
    y, saved = run(Softmax(1), x)
    assert which(Softmax(1), "backward", y, saved, (True,)) == "reference"
