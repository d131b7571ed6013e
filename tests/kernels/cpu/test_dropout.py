"""Dropout against the reference: the same numbers, bit for bit."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import dropout  # noqa: F401
from tinyconv.op import run, run_backward
from tinyconv.ops.dropout import Dropout
from tinyconv.testing import kernel_error

from .cases import LAYOUTS, by_threads, laid_out, values

NEEDS = (True, False)


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple),
    p=st.sampled_from([0.1, 0.5, 1 / 3, 0.999, 1.0]),
    seed=st.integers(0, 2**63 - 1),
    position=st.integers(0, 2**64 - 1),
    layout=st.sampled_from(LAYOUTS),
)
def test_dropout(shape, p, seed, position, layout):
    op, x = Dropout(p), laid_out(values(shape), layout)
    ours, theirs = (numpy.array([seed, position], numpy.uint64) for _ in range(2))
    assert tinyconv.which(op, "forward", x, ours) == "dropout_in_one_pass"
    y, saved = run(op, x, ours)
    assert tinyconv.which(op, "backward", y, saved, NEEDS) == "dropout_backward"
    with numpy.errstate(over="ignore"):
        expected, (scale,) = op.forward(numpy, x, theirs)
        assert kernel_error(op, x, theirs, needs=NEEDS) == 0
    assert numpy.array_equal(y, expected)
    assert numpy.array_equal(saved[0], scale)
    assert numpy.array_equal(ours, theirs)


def test_images_stay_channels_last():
    x, stream = laid_out(values((2, 3, 4, 5)), "turned"), numpy.zeros(2, numpy.uint64)
    y, saved = run(Dropout(), x, stream)
    for result in (y, saved[0], run_backward(Dropout(), y, saved, NEEDS)[0]):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


def test_values_that_are_not_finite():
    x = numpy.repeat(numpy.array([numpy.nan, numpy.inf, -numpy.inf, 1], numpy.float32), 9)
    y, (scale,) = run(Dropout(), x, numpy.zeros(2, numpy.uint64))
    assert set(scale) == {0, 2}
    with numpy.errstate(invalid="ignore"):
        numpy.testing.assert_array_equal(y, x * scale)


@pytest.mark.parametrize("layout", ["contiguous", "turned"])
def test_threads(monkeypatch, layout):
    x = laid_out(values((3, 5, 7, 2)), layout)

    def compute():
        stream = numpy.array([7, 0], numpy.uint64)
        return numpy.stack([run(Dropout(), x, stream)[0] for _ in range(2)]), stream

    first, *others = by_threads(monkeypatch, compute)
    for found in others:
        assert all(map(numpy.array_equal, found, first))


def test_where_the_reference_is_used():
    stream, x = numpy.zeros(2, numpy.uint64), values((4, 3))
    assert tinyconv.which(Dropout(), "forward", x.astype("float64"), stream) == "reference"
    assert tinyconv.which(Dropout(), "forward", x[:0], stream) == "reference"
    saved = (x.astype("float64"),)
    assert tinyconv.which(Dropout(), "backward", x, saved, NEEDS) == "reference"
