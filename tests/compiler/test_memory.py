"""Memory planning: arrays that live at the same time never overlap, and steps allocate nothing."""

import os

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv as tc
from tests.compiler.test_compile import Training, batches
from tinyconv.compiler.memory import ALIGNMENT, Lifetime, block, place, view


@st.composite
def lifetimes(draw):
    first = draw(st.integers(0, 20))
    return Lifetime(draw(st.integers(1, 5000)), first, first + draw(st.integers(0, 10)))


@given(st.lists(lifetimes(), max_size=30))
def test_arrays_that_meet_do_not_overlap(arrays):
    offsets, total = place(arrays)
    for i, a in enumerate(arrays):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + a.size <= total
        for j, b in enumerate(arrays[:i]):
            if a.first <= b.last and b.first <= a.last:
                assert offsets[i] >= offsets[j] + b.size or offsets[j] >= offsets[i] + a.size


@given(st.lists(lifetimes(), min_size=1, max_size=30))
def test_memory_is_shared(arrays):
    _, total = place(arrays)
    at_once = max(
        sum(-(-a.size // ALIGNMENT) * ALIGNMENT for a in arrays if a.first <= t <= a.last)
        for t in range(32)
    )
    assert at_once <= total <= 2 * at_once


def test_arrays_that_nobody_uses_take_nothing():
    assert place([Lifetime(1000)]) == ([0], 0)


def test_views():
    memory = block(1000)
    assert memory.ctypes.data % ALIGNMENT == 0
    array = view(memory, 128, (2, 3), np.float32)
    array[:] = 7
    assert (memory[128:152].view(np.float32) == 7).all()
    assert view(memory, 0, (), np.float64).shape == ()


# The whole claim, over 2,000 steps: TINYCONV_STRESS_STEPS=2000
STEPS = int(os.environ.get("TINYCONV_STRESS_STEPS", "150"))


@pytest.mark.parametrize("size", [6, 16])
def test_steps_allocate_nothing(size):
    training = Training()
    step = tc.compile(training.step)
    images, labels = batches(1, size=size)[0]
    process = psutil.Process()
    for _ in range(50):
        step(images, labels)
    before = process.memory_info().rss
    for _ in range(STEPS):
        step(images, labels)
    assert process.memory_info().rss - before < 1_000_000
