"""Dropout: the numbers of the reference, bit for bit, in every layout."""

import numpy as np
import pytest

from tinyconv.op import run, run_backward, which
from tinyconv.ops.dropout import Dropout

from .compare import LAYOUTS, laid_out, values


@pytest.mark.parametrize("p", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(5,), (3, 700), (2, 33, 5, 3), (3, 4, 50, 9), (2, 1, 3, 3)])
def test_the_references_numbers(cuda, p, layout, dtype, shape):
    op, x = Dropout(p), laid_out(cuda, values(shape, dtype), layout)
    ours, theirs = (m.asarray(np.array([3, 2**40], np.uint64)) for m in (cuda, np))
    for _ in range(2):  # the second time from where the first has left the stream
        assert which(op, "forward", x, ours) == "dropout_in_one_pass"
        y, saved = run(op, x, ours)
        expected, expected_saved = op.forward(np, x.get(), theirs)
        np.testing.assert_array_equal(y.get(), expected, strict=True)
        np.testing.assert_array_equal(saved[0].get(), expected_saved[0], strict=True)
        np.testing.assert_array_equal(ours.get(), theirs, strict=True)
    gy = laid_out(cuda, values(shape, dtype, seed=1))
    assert which(op, "backward", gy, saved, (True, False)) == "dropout_backward"
    gx, nothing = run_backward(op, gy, saved, (True, False))
    assert nothing is None
    wanted, _ = op.backward(np, gy.get(), expected_saved, (True, False))
    np.testing.assert_array_equal(gx.get(), wanted, strict=True)


def test_an_odd_address(cuda):
    x = cuda.asarray(values((1001,)))[1:]
    ours, theirs = (m.asarray(np.array([5, 0], np.uint64)) for m in (cuda, np))
    y, _ = run(Dropout(0.5), x, ours)
    np.testing.assert_array_equal(y.get(), Dropout(0.5).forward(np, x.get(), theirs)[0])


def test_where_the_reference_is_used(cuda):
    x, stream = cuda.asarray(values((4, 5), np.float64)), cuda.zeros((2,), np.uint64)
    assert which(Dropout(0.5), "forward", x, stream) == "reference"
