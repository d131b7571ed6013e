"""Sums, differences and products against NumPy's."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import elementwise  # noqa: F401
from tinyconv.op import run, run_backward
from tinyconv.ops.elementwise import Add, Multiply, Subtract
from tinyconv.testing import kernel_error

from .cases import LAYOUTS, by_threads, laid_out, values

NAMES = {
    Add(): ("add", "pass_on"),
    Subtract(): ("subtract", "pass_on_and_negate"),
    Multiply(): ("multiply", "multiply_by_the_other"),
}
layouts = st.sampled_from(LAYOUTS)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)
BOTH = (True, True)


@given(op=st.sampled_from(list(NAMES)), shape=shapes, layout=st.tuples(layouts, layouts))
def test_elementwise(op, shape, layout):
    a, b = laid_out(values(shape), layout[0]), laid_out(values(shape, 1), layout[1])
    y, saved = run(op, a, b)
    found = tinyconv.which(op, "forward", a, b), tinyconv.which(op, "backward", y, saved, BOTH)
    assert found == NAMES[op]
    assert kernel_error(op, a, b) <= 1e-7
    assert kernel_error(op, a, b, needs=(False, True)) <= 1e-7


@pytest.mark.parametrize("op", NAMES, ids=str)
def test_images_stay_channels_last(op):
    a, b = laid_out(values((2, 3, 4, 5)), "turned"), laid_out(values((2, 3, 4, 5), 1), "turned")
    y, saved = run(op, a, b)
    for result in (y, *run_backward(op, y, saved, BOTH)):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("op", NAMES, ids=str)
def test_single_numbers(op):
    a, b = numpy.float32(2), numpy.array(3, numpy.float32)
    y, saved = run(op, a, b)
    assert y == op.forward(numpy, a, b)[0]
    assert run_backward(op, y, saved, BOTH) == op.backward(numpy, y, saved, BOTH)


@pytest.mark.parametrize("op", NAMES, ids=str)
def test_values_that_are_not_finite(op):
    given = numpy.array([numpy.nan, numpy.inf, -numpy.inf, 0, 1], numpy.float32)
    a, b = (x.reshape(-1) for x in numpy.meshgrid(given, given))
    y, saved = run(op, a, b)
    gradients = run_backward(op, a, saved, BOTH)
    with numpy.errstate(all="ignore"):
        expected = op.forward(numpy, a, b)[0], *op.backward(numpy, a, saved, BOTH)
    for ours, theirs in zip((y, *gradients), expected, strict=True):
        numpy.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("op", NAMES, ids=str)
def test_where_the_reference_is_used(op):
    a, row = values((4, 3)), values((1, 3))
    for inputs in ((a, row), (a.astype("float64"), a), (a[:0], a[:0])):
        y, saved = op.forward(numpy, *inputs)
        assert tinyconv.which(op, "forward", *inputs) == "reference"
        assert tinyconv.which(op, "backward", y, saved, BOTH) == "reference"


@pytest.mark.parametrize("op", NAMES, ids=str)
def test_threads(monkeypatch, op):
    a, b = values((7, 11)), values((7, 11), 1)
    first, *others = by_threads(monkeypatch, lambda: run(op, a, b)[0])
    assert all(numpy.array_equal(y, first) for y in others)
