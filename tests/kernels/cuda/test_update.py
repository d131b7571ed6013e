"""Updates of all parameters in one launch against the reference in float64, over many steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconv.kernels.cuda import update as kernels
from tinyconv.kernels.fused import Together
from tinyconv.op import run, which
from tinyconv.ops.update import (
    AdamUpdate,
    AdjustScale,
    CheckGradients,
    CountStep,
    RMSpropUpdate,
    Scaled,
    SGDUpdate,
)

from .compare import laid_out, values

SLOTS = {SGDUpdate: 1, AdamUpdate: 3, RMSpropUpdate: 3}
KEPT = {SGDUpdate: ("momentum",), AdamUpdate: (True, True, "amsgrad"),
        RMSpropUpdate: (True, "centered", "momentum")}  # fmt: skip

shared = {
    "weight_decay": st.sampled_from([0.0, 0.1]),
    "l1": st.sampled_from([0.0, 0.01]),
    "maximize": st.booleans(),
}
rates = st.sampled_from([0.0, 0.3, 0.9])
sgd = st.builds(SGDUpdate, **shared, momentum=rates, dampening=rates, nesterov=st.booleans())
adam = st.builds(
    AdamUpdate, **shared, betas=st.tuples(rates, st.sampled_from([0.9, 0.999])),
    eps=st.sampled_from([1e-8, 1e-3]), shrink=st.sampled_from([0.0, 0.1]), amsgrad=st.booleans(),
)  # fmt: skip
rmsprop = st.builds(
    RMSpropUpdate, **shared, alpha=st.sampled_from([0.9, 0.99]), eps=st.just(1e-3),
    momentum=rates, centered=st.booleans(),
)  # fmt: skip
EXAMPLES = [
    SGDUpdate(l1=0.1),
    SGDUpdate(momentum=0.9, nesterov=True),
    AdamUpdate(weight_decay=0.1, amsgrad=True),
    RMSpropUpdate(momentum=0.9, centered=True),
]


class Training:
    """Some parameters on the device and, in float64, on the host."""

    def __init__(self, cuda, op, shapes, layout="contiguous"):
        self.cuda, self.op, self.layout, self.steps = cuda, op, layout, 0
        self.ours, self.theirs = [], []
        for seed, shape in enumerate(shapes):
            p = values(shape, seed=seed)
            p.flat[0] = 0  # where the sign is 0
            kept = [getattr(op, k) if isinstance(k, str) else k for k in KEPT[type(op)]]
            slots = [np.zeros(shape) if k else None for k in kept]
            self.theirs.append([p.astype(np.float64), p, np.array(0.0), np.array(0.0), *slots])
            self.ours.append(
                [laid_out(cuda, p, layout), None, cuda.zeros(()), cuda.zeros(()),
                 *(None if s is None else laid_out(cuda, s.astype(np.float32), layout)
                   for s in slots)]
            )  # fmt: skip

    def step(self, scale=1.0):
        """New gradients and rates, the same for both."""
        self.steps += 1
        for ours, theirs in zip(self.ours, self.theirs, strict=True):
            g = np.sin(values(theirs[0].shape, seed=self.steps)) * np.float32(scale)
            theirs[1], ours[1] = g.astype(np.float64), laid_out(self.cuda, g, self.layout)
            theirs[2][...], theirs[3][...] = 0.01 / self.steps, self.steps
            ours[2][...], ours[3][...] = 0.01 / self.steps, self.steps

    def together(self):
        return [x for one in self.ours for x in one]

    def expected(self, op=None, *before):
        for one in self.theirs:
            (op or self.op).forward(np, *before, *one)

    def same(self, tolerance=2e-6):
        for ours, theirs in zip(self.ours, self.theirs, strict=True):
            for i in (0, *range(4, len(ours))):
                if ours[i] is not None:
                    difference = np.abs(ours[i].get() - theirs[i]).max()
                    assert difference <= tolerance * max(np.abs(theirs[i]).max(), 1e-2), i


@settings(max_examples=40)
@given(
    op=sgd | adam | rmsprop,
    shape=st.sampled_from([(1,), (5,), (3, 7), (2, 3, 4, 3), (130,), (1100,)]),
    layout=st.sampled_from(["contiguous", "turned"]),
)
def test_ten_steps(cuda, op, shape, layout):
    training = Training(cuda, op, [shape], layout)
    for _ in range(10):
        training.step()
        (inputs,) = training.ours
        assert which(op, "forward", *inputs) == "update_in_place"
        run(op, *inputs)
        training.expected()
    # The difference v - mean^2 loses digits where the gradient hardly changes.
    training.same(1e-4 if getattr(op, "centered", False) else 5e-6)


@pytest.mark.parametrize("op", EXAMPLES)
@pytest.mark.parametrize("count", [5, 60, 61, 130])
def test_all_parameters_together(cuda, op, count):
    shapes = [(3, 2, 1, 5), (3,), (70, 40), (1,), (9, 3)] * 26
    training = Training(cuda, op, shapes[:count])
    together = Together(op, len(training.ours[0]))
    for _ in range(2):
        training.step()
        assert which(together, "forward", *training.together()) == "updates_in_one_launch"
        run(together, *training.together())
        training.expected()
    training.same(1e-4 if getattr(op, "centered", False) else 5e-6)


@pytest.mark.parametrize("op", EXAMPLES)
def test_gradients_that_lie_otherwise(cuda, op):
    training = Training(cuda, op, [(8, 9, 10)])
    training.step()
    (inputs,) = training.ours
    inputs[1] = laid_out(cuda, inputs[1].get(), "turned")
    run(op, *inputs)
    training.expected()
    training.same()


def test_an_array_at_an_odd_address(cuda):
    training = Training(cuda, AdamUpdate(), [(301,)])
    training.step()
    (inputs,) = training.ours
    for i in (0, 1, 4, 5):
        larger = cuda.zeros((302,), np.float32)
        larger[1:] = inputs[i]
        inputs[i] = larger[1:]
    run(AdamUpdate(), *inputs)
    training.expected()
    training.same()


@pytest.mark.parametrize("op", EXAMPLES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(cuda, op, value):
    training = Training(cuda, op, [(40,)])
    training.step()
    (ours,), (theirs,) = training.ours, training.theirs
    for i, place in ((0, 3), (1, 5), (len(ours) - 1, 7)):
        if ours[i] is not None:
            ours[i][place] = theirs[i][place] = value
    run(op, *ours)
    with np.errstate(all="ignore"):
        training.expected()
    for i in (0, *range(4, len(ours))):
        if ours[i] is not None:
            np.testing.assert_allclose(ours[i].get(), theirs[i], rtol=1e-5, atol=1e-6)


def test_counts(cuda):
    counts = [cuda.asarray(np.array(n, np.int64 if n % 2 else np.float64)) for n in range(300)]
    assert which(CountStep(), "forward", counts[0]) == "update_in_place"
    run(CountStep(), counts[0])
    together = Together(CountStep(), 1)
    assert which(together, "forward", *counts) == "updates_in_one_launch"
    run(together, *counts)
    assert [t.item() for t in counts] == [2, *range(2, 301)]
    assert counts[1].dtype == np.int64


@pytest.mark.parametrize("op", EXAMPLES)
@pytest.mark.parametrize("overflow", [False, True])
def test_scaled(cuda, op, overflow):
    scaling = cuda.asarray(np.array([1024, overflow, 5], np.float32))
    training = Training(cuda, op, [(3, 4), (200,)])
    training.step(scale=1024)
    before = [one[0].get() for one in training.ours]
    scaled = Together(Scaled(op), 1 + len(training.ours[0]))
    inputs = [x for one in training.ours for x in (scaling, *one)]
    assert which(scaled, "forward", *inputs) == "updates_in_one_launch"
    run(scaled, *inputs)
    if overflow:
        for one, p in zip(training.ours, before, strict=True):
            np.testing.assert_array_equal(one[0].get(), p)
    training.expected(Scaled(op), np.array([1024, overflow, 5]))
    training.same()
    assert which(Scaled(op), "forward", *inputs[: scaled.width]) == "scaled_update_in_place"


@pytest.mark.parametrize("overflow", [False, True])
def test_scaled_counts(cuda, overflow):
    scaling = cuda.asarray(np.array([1024, overflow, 5], np.float32))
    counts = [cuda.asarray(np.array(n, np.float64)) for n in range(3)]
    run(Scaled(CountStep()), scaling, counts[0])
    run(Together(Scaled(CountStep()), 2), *(x for t in counts for x in (scaling, t)))
    assert [t.item() for t in counts] == ([0, 1, 2] if overflow else [2, 2, 3])


@pytest.mark.parametrize("sizes", [(1,), (3, 128, 1), (5000, 7, 300), (4,) * 500])
def test_gradients_are_checked(cuda, sizes):
    gradients = [cuda.asarray(values((n,), seed=n)) for n in sizes]
    scaling = cuda.asarray(np.array([8, 1, 5], np.float32))
    assert which(CheckGradients(), "forward", scaling, *gradients) == "check_in_one_launch"
    run(CheckGradients(), scaling, *gradients)
    assert scaling.get().tolist() == [8, 0, 5]
    for place, value in ((0, np.inf), (len(sizes) // 2, np.nan), (-1, -np.inf)):
        before = gradients[place][-1].item()
        gradients[place][-1] = value
        run(CheckGradients(), scaling, *gradients)
        assert scaling.get().tolist() == [8, 1, -1]
        gradients[place][-1] = before
        run(CheckGradients(), scaling, *gradients)
        assert scaling.get().tolist() == [8, 0, -1]  # until the scale is adjusted


@pytest.mark.parametrize("state", [(8, 0, 0), (8, 0, 2), (8, 1, -1), (8, 0, -1)])
def test_the_scale_is_adjusted(cuda, state):
    op = AdjustScale(growth=2.0, backoff=0.25, interval=3)
    ours, theirs = cuda.asarray(np.array(state, np.float32)), np.array(state, np.float64)
    assert which(op, "forward", ours) == "adjust_on_the_device"
    run(op, ours)
    op.forward(np, theirs)
    np.testing.assert_array_equal(ours.get(), theirs)


def test_where_the_reference_is_used(cuda):
    op = AdamUpdate(amsgrad=True)
    training = Training(cuda, op, [(4, 6)])
    training.step()
    inputs = training.ours[0]
    rows, turned = cuda.zeros((8, 6), np.float32)[::2], laid_out(cuda, values((4, 6)), "turned")
    wrongs = [(0, rows), (0, inputs[0].astype(float)), (1, inputs[1].astype(float)), (2, 0.1),
              (3, cuda.zeros((), np.float32)), (4, turned), (6, None)]  # fmt: skip
    for i, wrong in wrongs:
        given = [wrong if i == j else x for j, x in enumerate(inputs)]
        assert which(op, "forward", *given) == "reference"
        assert which(Together(op, 7), "forward", *inputs, *given) == "reference"
    scalings = [cuda.ones((3,), np.float32) for _ in range(2)]  # one for all, or it takes two steps
    given = [x for scaling in scalings for x in (scaling, *inputs)]
    assert which(Together(Scaled(op), 8), "forward", *given) == "reference"


def test_the_arguments_fit_into_a_launch():
    for rows, width in ((kernels._PARAMETERS, 7), (kernels._ARRAYS, 1)):
        (table,) = kernels._tables([[None] * width] * rows, [1] * rows, rows)
        assert table.nbytes + kernels._settings.itemsize + 8 <= 4096
