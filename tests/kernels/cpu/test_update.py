"""Updates of all parameters in one launch against the reference, over fifty steps."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyconv
from tinyconv.kernels.cpu import update  # noqa: F401
from tinyconv.kernels.fused import Together
from tinyconv.op import run
from tinyconv.ops.update import AdamUpdate, CountStep, RMSpropUpdate, SGDUpdate

from .cases import LAYOUTS, by_threads, laid_out, values

SLOTS = {SGDUpdate: 1, AdamUpdate: 3, RMSpropUpdate: 3}

shared = {
    "weight_decay": st.sampled_from([0.0, 0.1]),
    "l1": st.sampled_from([0.0, 0.01]),
    "maximize": st.booleans(),
}
rates = st.sampled_from([0.0, 0.3, 0.9])
sgd = st.builds(
    SGDUpdate, **shared, momentum=rates, dampening=rates, nesterov=st.booleans()
)  # fmt: skip
adam = st.builds(
    AdamUpdate, **shared, betas=st.tuples(rates, st.sampled_from([0.9, 0.999])),
    eps=st.sampled_from([1e-8, 1e-3]), shrink=st.sampled_from([0.0, 0.1]), amsgrad=st.booleans(),
)  # fmt: skip
rmsprop = st.builds(
    RMSpropUpdate, **shared, alpha=st.sampled_from([0.9, 0.99]), eps=st.just(1e-3),
    momentum=rates, centered=st.booleans(),
)  # fmt: skip


def state(op, shape, seed=0):
    """p, g, lr, t and the optimiser's arrays, as they are before the first step."""
    slots = [numpy.zeros(shape, numpy.float32) for _ in range(SLOTS[type(op)])]
    p = values(shape, seed)
    p[..., 0] = 0  # where the sign is 0
    return [p, values(shape, seed + 1), numpy.array(0.0), numpy.array(0.0), *slots]


def copied(inputs):
    return [None if x is None else x.copy() for x in inputs]


def train(compute, parameters, steps=50):
    """The parameters after some steps with changing rates and gradients."""
    for n in range(steps):
        for p, g, lr, t, *_ in parameters:
            g.flags.writeable = True
            g[...] = 0.5 * p + numpy.sin(values(p.shape, n))
            lr[...] = 0.01 / (1 + n)
            t += 1
        compute(parameters)
    return parameters


def check(ours, theirs, tolerance=1e-6):
    for mine, expected in zip(ours, theirs, strict=True):
        for i in (0, *range(4, len(mine))):
            if mine[i] is not None:
                # Of numbers around 1: one that is close to 0 came there by a difference.
                scale = max(numpy.abs(expected[i]).max(), 0.01)
                assert numpy.abs(mine[i] - expected[i]).max() <= tolerance * scale


@settings(max_examples=60)
@given(
    op=sgd | adam | rmsprop,
    shape=st.sampled_from([(1,), (5,), (3, 7), (2, 3, 2, 3), (1100,)]),
    layout=st.sampled_from(LAYOUTS),
)
def test_fifty_steps(op, shape, layout):
    inputs = state(op, shape)
    theirs = copied(inputs)
    inputs[1] = laid_out(inputs[1], layout)
    assert tinyconv.which(op, "forward", *inputs) == "update_in_one_pass"
    ours = train(lambda parameters: run(op, *parameters[0]), [inputs])
    expected = train(lambda parameters: op.forward(numpy, *parameters[0]), [theirs])
    # The difference v - mean^2 loses digits where the gradient hardly changes.
    check(ours, expected, 1e-4 if getattr(op, "centered", False) else 1e-6)


@pytest.mark.parametrize(
    "op",
    [
        SGDUpdate(momentum=0.9, nesterov=True),
        SGDUpdate(l1=0.1),
        AdamUpdate(weight_decay=0.1, amsgrad=True),
        RMSpropUpdate(momentum=0.9, centered=True),
    ],
)
def test_all_parameters_together(monkeypatch, op):
    shapes = (3, 2, 1, 5), (3,), (70, 40), (1,), (9, 3)
    start = [state(op, shape, i) for i, shape in enumerate(shapes)]
    width = len(start[0])

    def together(parameters):
        inputs = [x for one in parameters for x in one]
        found = tinyconv.which(Together(op, width), "forward", *inputs)
        assert found == "updates_in_one_launch"
        run(Together(op, width), *inputs)

    def one_by_one(parameters):
        for one in parameters:
            op.forward(numpy, *one)

    expected = train(one_by_one, list(map(copied, start)))
    for found in by_threads(monkeypatch, lambda: train(together, list(map(copied, start)))):
        check(found, expected)


@pytest.mark.parametrize(
    ("op", "kept"),
    [(SGDUpdate(), 0), (SGDUpdate(momentum=0.5), 1), (AdamUpdate(), 2), (RMSpropUpdate(), 1)],
)
def test_arrays_that_are_not_needed_may_be_missing(op, kept):
    inputs = state(op, (5,))
    inputs[4 + kept :] = [None] * (len(inputs) - 4 - kept)
    assert tinyconv.which(op, "forward", *inputs) == "update_in_one_pass"
    theirs = copied(inputs)
    check(
        train(lambda parameters: run(op, *parameters[0]), [inputs]),
        train(lambda parameters: op.forward(numpy, *parameters[0]), [theirs]),
    )


@pytest.mark.parametrize(
    "op",
    [
        SGDUpdate(l1=0.1, momentum=0.9), AdamUpdate(), AdamUpdate(amsgrad=True),
        RMSpropUpdate(), RMSpropUpdate(l1=0.1, centered=True, momentum=0.9),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
def test_values_that_are_not_finite(op, value):
    ours = state(op, (40,))
    ours[2][...], ours[3][...] = 0.01, 1
    ours[0][3], ours[1][5] = value, value
    if len(ours) == 7:
        ours[6][7] = value
    theirs = copied(ours)
    run(op, *ours)
    with numpy.errstate(all="ignore"):
        op.forward(numpy, *theirs)
    for mine, expected in zip(ours, theirs, strict=True):
        numpy.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-7)


def test_counts():
    counts = [numpy.array(float(n)) for n in range(5)]
    assert tinyconv.which(CountStep(), "forward", counts[0]) == "count_step"
    run(CountStep(), counts[0])
    together = Together(CountStep(), 1)
    assert tinyconv.which(together, "forward", *counts) == "updates_in_one_launch"
    run(together, *counts)
    assert [float(t) for t in counts] == [2, 2, 3, 4, 5]


def test_where_the_reference_is_used():
    op = AdamUpdate(amsgrad=True)
    inputs = state(op, (4, 6))
    rows, turned = values((8, 6))[::2], laid_out(inputs[0], "turned")
    read_only = laid_out(inputs[0], "read-only")
    for i, wrong in [(0, rows), (0, turned), (0, read_only), (0, inputs[0].astype("float64")),
                     (1, inputs[1].astype("float64")), (2, 0.1), (3, numpy.float64(1)),
                     (4, turned), (5, inputs[5].astype("float64")), (6, None)]:  # fmt: skip
        given = [wrong if i == j else x for j, x in enumerate(inputs)]
        assert tinyconv.which(op, "forward", *given) == "reference"
        both = Together(op, 7)
        assert tinyconv.which(both, "forward", *inputs, *given) == "reference"
    assert tinyconv.which(CountStep(), "forward", numpy.zeros(())) == "count_step"
    assert tinyconv.which(CountStep(), "forward", numpy.zeros((), "float32")) == "reference"
