"""A CUDA graph of each op does what the op does, with what its inputs hold when it is launched."""

import numpy as np
import pytest

from tinyconv.kernels.fused import Together
from tinyconv.op import run, run_backward, which
from tinyconv.ops import activation, dropout, elementwise, image, loss, reduce, shape, update

from .compare import laid_out, values

LABELS, POSITION = np.array([1, 0, 2, 1]), np.array([3, 7], np.uint64)
PHOTOS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
IMAGES, ROWS, NUMBER = values((2, 9, 4, 5)), values((4, 3)), np.array(1.5, np.float32)
SCALING = np.array([4, 0, 1], np.float32)
PARAMETER = [values((5, 3)), values((5, 3)), np.array(0.1), np.array(2.0), *[np.ones((5, 3))] * 3]
PARAMETER = [x.astype(np.float32) if x.ndim else x for x in PARAMETER]

FORTH_AND_BACK = [
    (activation.ReLU(), IMAGES), (activation.Softmax(-1), ROWS),
    (elementwise.Add(), IMAGES, IMAGES), (elementwise.Multiply(), IMAGES, NUMBER),
    (elementwise.Divide(), IMAGES, values((9, 1, 1))),
    (elementwise.Cast(np.dtype(np.float16)), IMAGES), (reduce.Sum((0, 2)), IMAGES),
    (reduce.Mean(), IMAGES), (shape.Reshape((2, 180)), IMAGES), (shape.Permute((1, 0)), ROWS),
    (shape.Slice((slice(1, 3),)), ROWS), (shape.Pad((0, 1), (2, 0), 1.0), ROWS),
    (shape.Concatenate(1), IMAGES, IMAGES), (dropout.Dropout(0.5), IMAGES, POSITION),
    (loss.CrossEntropy(), ROWS, LABELS, None), (loss.NegativeLogLikelihood(), ROWS, LABELS, None),
    (loss.BinaryCrossEntropyWithLogits(), ROWS, ROWS, None),
]  # fmt: skip
FORTH = [
    (image.NormalizeImage((0.5,) * 3, (0.2,) * 3, np.dtype(np.float32)), PHOTOS),
    (image.Gather(), PHOTOS, LABELS), (update.AdamUpdate(amsgrad=True), *PARAMETER),
    (update.SGDUpdate(momentum=0.9), *PARAMETER[:5]), (update.RMSpropUpdate(), *PARAMETER),
    (Together(update.AdamUpdate(), 7), *PARAMETER, *PARAMETER),
    (update.Scaled(update.AdamUpdate()), SCALING, *PARAMETER), (update.AdjustScale(), SCALING),
    (update.CheckGradients(), SCALING, ROWS), (update.CountStep(), np.array(3.0)),
    (loss.Tally(), np.array([1.0, 2.0]), NUMBER, ROWS, LABELS),
]  # fmt: skip


ALL = [*((op, given, True) for op, *given in FORTH_AND_BACK),
       *((op, given, False) for op, *given in FORTH)]  # fmt: skip


@pytest.mark.parametrize(("op", "given", "back"), ALL, ids=[type(op).__name__ for op, *_ in ALL])
def test_capture(cuda, op, given, back):
    def layout(x):
        return "turned" if x.ndim == 4 and x.dtype == np.float32 else "contiguous"

    def on_device(inputs):
        return [None if x is None else laid_out(cuda, x, layout(x)) for x in inputs]

    def on_host(arrays):
        return [None if x is None else x.get() for x in arrays]

    def compute(inputs):
        assert which(op, "forward", *inputs) != "reference"
        y, saved = run(op, *inputs)
        if not back:
            return [] if y is None else [y]
        needs = tuple(x is not None and x.dtype.kind == "f" for x in inputs)
        assert which(op, "backward", y, saved, needs) != "reference"
        return [y, *(g for g in run_backward(op, y, saved, needs) if g is not None)]

    stream, pool = cuda.cuda.Stream(non_blocking=True), cuda.cuda.MemoryPool()
    with stream:
        inputs = on_device(given)
        with cuda.cuda.using_allocator(pool.malloc):  # what the graph writes to is for it alone
            compute(on_device(given))  # compiles, and leaves memory to take again
            stream.begin_capture()
            results = compute(inputs)
            graph = stream.end_capture()
        for x, known in zip(on_host(inputs), given, strict=True):  # nothing is done yet
            assert x is None or np.array_equal(x, known)
        for x in inputs:
            if x is not None and x.dtype == np.float32 and x.ndim > 1:
                x *= 2
        before = on_host(inputs)
        graph.launch(stream)
        found = on_host([*results, *inputs])
        inputs = on_device(before)
        expected = on_host([*compute(inputs), *inputs])
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs, strict=True)
