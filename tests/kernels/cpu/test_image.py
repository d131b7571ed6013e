"""Normalised photos against the formula in float64."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import image  # noqa: F401
from tinyconv.op import run
from tinyconv.ops.image import NormalizeImage
from tinyconv.testing import relative_error

from .cases import by_threads, laid_out

MEAN, STD = (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.2)


def photos(shape):
    return numpy.random.default_rng(0).integers(0, 256, shape, numpy.uint8)


def op_for(C, dtype="float32"):
    return NormalizeImage(MEAN[:C], STD[:C], numpy.dtype(dtype))


@given(
    N=st.integers(1, 3), H=st.integers(1, 12), W=st.integers(1, 12), C=st.integers(1, 4),
    layout=st.sampled_from(["contiguous", "read-only"]),
)  # fmt: skip
def test_normalize(N, H, W, C, layout):
    x, op = laid_out(photos((N, H, W, C)), layout), op_for(C)
    assert tinyconv.which(op, "forward", x) == "normalize_channels_last"
    y, saved = run(op, x)
    assert (y.dtype, saved) == (numpy.float32, ())
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    expected = ((x / 255 - MEAN[:C]) / STD[:C]).transpose(0, 3, 1, 2)
    assert relative_error(y, expected) <= 1e-6
    assert relative_error(y, op.forward(numpy, x)[0]) <= 1e-6


def test_threads(monkeypatch):
    x = photos((3, 11, 9, 3))
    first, *others = by_threads(monkeypatch, lambda: run(op_for(3), x)[0])
    assert all(numpy.array_equal(y, first) for y in others)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (photos((2, 4, 4, 3)), "float64"),
        (photos((2, 4, 4, 3)).astype("float32"), "float32"),
        (photos((4, 4, 4, 3))[::2], "float32"),
        (photos((0, 4, 4, 3)), "float32"),
    ],
)
def test_where_the_reference_is_used(x, dtype):
    assert tinyconv.which(op_for(3, dtype), "forward", x) == "reference"
