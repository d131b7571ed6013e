"""The order of axes in memory, and which of them are one; NumPy's arrays lie as CuPy's do."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyconv.kernels.cuda.strides import lies_in, merged, order_of, seen_back, steps

shapes = st.lists(st.integers(1, 4), max_size=5).map(tuple)


@given(shape=shapes, data=st.data())
def test_the_order_tells_how_an_array_lies(shape, data):
    order = data.draw(st.permutations(range(len(shape))))
    memory = np.arange(np.prod(shape, dtype=int)).reshape([shape[axis] for axis in order])
    x = seen_back(memory, order)
    assert x.shape == shape
    assert lies_in(x, order)
    found = order_of(x)
    assert found is not None
    assert lies_in(x, found)
    assert x.transpose(found).flags.c_contiguous


def test_gaps_and_repetitions_have_no_order():
    x = np.zeros((4, 6))
    assert order_of(x[::2]) is None
    assert order_of(x[:, ::2]) is None
    assert order_of(x[:, ::-1]) is None
    assert order_of(np.broadcast_to(x[:1], x.shape)) is None
    assert order_of(x[:1, :]) == (0, 1)


def test_axes_along_which_all_inputs_go_on_are_one():
    shape, x, bias = (2, 3, 4, 5), np.zeros((2, 3, 4, 5)), np.zeros((4, 1))
    assert merged(shape, range(4), [steps(x, shape)]) == ([120], [(1,)])
    assert merged(shape, range(4), [steps(x, shape), steps(bias, shape)]) == (
        [6, 4, 5], [(20, 0), (5, 1), (1, 0)]
    )  # fmt: skip
    assert merged(shape, (0, 2, 3, 1), [steps(x, shape)]) == ([2, 20, 3], [(60,), (1,), (20,)])
