"""Views and copies against the reference, bit for bit."""

import numpy as np
import pytest

from tinyconv.op import run, run_backward, which
from tinyconv.ops.shape import Concatenate, Pad, Permute, Reshape, Slice

from .compare import LAYOUTS, laid_out, values


def compare(cuda, op, *inputs, forward, backward, gy="contiguous"):
    """Both directions, bit for bit; the result and the first gradient."""
    arrays = [x.get() for x in inputs]
    assert which(op, "forward", *inputs) == forward
    y, saved = run(op, *inputs)
    expected, expected_saved = op.forward(np, *arrays)
    np.testing.assert_array_equal(y.get(), expected, strict=True)
    g, needs = values(expected.shape, expected.dtype), (True,) * len(inputs)
    here = laid_out(cuda, g, gy)
    assert which(op, "backward", here, saved, needs) == backward
    found = run_backward(op, here, saved, needs)
    wanted = op.backward(np, here.get(), expected_saved, needs)
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine.get(), theirs, strict=True)
    return y, found[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gy", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reshape(cuda, layout, gy, dtype):
    for shape, new in [((2, 16, 4, 5), (2, 320)), ((2, 33, 40, 1), (-1,)), ((6, 4), (3, 2, 2, 2)),
                       ((2, 3, 4, 5), (3, 2, 5, 4)), ((4, 10, 1, 1), (4, 10))]:  # fmt: skip
        x = laid_out(cuda, values(shape, dtype), layout)
        names = {"forward": "reshape_view", "backward": "reshape_back"}
        _, gx = compare(cuda, Reshape(new), x, **names, gy=gy)
        if len(shape) == 4 and len(new) != 4:
            assert gx.transpose(0, 2, 3, 1).flags.c_contiguous


def test_what_needs_no_copy_is_a_view(cuda):
    x = cuda.asarray(values((4, 6, 2, 2)))
    for op in (Reshape((4, 24)), Permute((1, 0, 2, 3)), Slice((slice(1, 3),)), Slice((0,))):
        y = run(op, x)[0]
        assert y.data.ptr >= x.data.ptr
        assert y.data.ptr < x.data.ptr + x.nbytes
    labels = cuda.arange(12)
    assert which(Reshape((3, 4)), "forward", labels) == "reshape_view"
    assert which(Reshape((6,)), "forward", labels.reshape(3, 4)[:, ::2]) == "reference"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_permute(cuda, layout):
    x = laid_out(cuda, values((2, 3, 4, 5)), layout)
    for dims in [(1, 0, 3, 2), (0, -1, 1, 2), (3, 2, 1, 0)]:
        compare(cuda, Permute(dims), x, forward="permute_view", backward="permute_back")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "index",
    [(slice(0, 1),), (1, slice(None, None, 2)), (Ellipsis, 0), (None, Ellipsis, slice(3, 1, -1)),
     (1, 2, 3, 4), (slice(None), slice(1, 3), slice(None), slice(0, 5, 3))],
    ids=str,
)  # fmt: skip
def test_slice(cuda, layout, index):
    x = laid_out(cuda, values((2, 3, 4, 5)), layout)
    compare(cuda, Slice(index), x, forward="slice_view", backward="slice_back")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    "op",
    [Pad((0, 0, 1, 2), (0, 0, 1, 2)), Pad((0, 1, 0, -1), (2, 0, 3, 1), -1.5),
     Pad((0, 0, -1, -1), (0, 0, -1, -1))],
)  # fmt: skip
def test_pad(cuda, op, layout, dtype):
    x = laid_out(cuda, values((2, 3, 4, 5), dtype), layout)
    y, _ = compare(cuda, op, x, forward="pad", backward="pad_back")
    if layout == "turned":
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous
        _, gx = compare(cuda, op, x, forward="pad", backward="pad_back", gy="turned")
        assert gx.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_concatenate(cuda, layout, dim):
    shapes = [[2, 3, 4, 5] for _ in range(3)]
    for n, shape in enumerate(shapes):
        shape[dim] = n + 1
    inputs = [laid_out(cuda, values(shape, seed=n), layout) for n, shape in enumerate(shapes)]
    y, _ = compare(cuda, Concatenate(dim), *inputs, forward="concatenate", backward="split")
    if layout == "turned":
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    mixed = inputs[0], inputs[1].astype(np.float16)
    assert which(Concatenate(dim), "forward", *mixed) == "reference"
