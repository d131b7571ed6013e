"""What the tests of the ops draw."""

import numpy
from hypothesis import strategies as st


def values(shape, dtype=numpy.float64):
    """Numbers in +-1 that repeat with no short period, the same each time."""
    return numpy.sin(numpy.arange(1.0, numpy.prod(shape) + 1) ** 2).reshape(shape).astype(dtype)


def pairs(low, high):
    """(rows, columns), each from low to high."""
    return st.tuples(st.integers(low, high), st.integers(low, high))
