"""Linear layer and matrix product."""

import numpy as np
import pytest

import tinyconv.functional as F

torch = pytest.importorskip("torch")

from .compare import drawn  # noqa: E402


@drawn(25)
def test_linear(parity, draw):
    inputs, outputs = draw.pair(1, 7)
    x = draw.normal(*draw.shape(0, 3), inputs)
    w = draw.normal(outputs, inputs)
    frozen = draw.one_of((), (0,), (1,))
    if draw.chance(0.3):
        parity.check(F.linear, torch.nn.functional.linear, x, w, frozen=frozen)
    else:
        b = draw.normal(outputs)
        parity.check(F.linear, torch.nn.functional.linear, x, w, b, frozen=frozen)


def test_linear_of_an_empty_batch(parity):
    x, w, b = np.ones((0, 4)), np.ones((3, 4)), np.ones(3)
    parity.check(F.linear, torch.nn.functional.linear, x, w, b)


@drawn(40)
def test_matmul(parity, draw):
    """The axes before the last two broadcast; each of them may be 1 or missing on either side."""
    batch = draw.shape(0, 3, largest=3)
    sides = []
    for _ in range(2):
        start = draw.integer(0, len(batch))
        sides.append(tuple(1 if draw.chance(0.3) else n for n in batch[start:]))
    I, K, J = (draw.integer(1, 5) for _ in range(3))
    a, b = draw.normal(*sides[0], I, K), draw.normal(*sides[1], K, J)
    if draw.chance(0.5):
        parity.check(F.matmul, torch.matmul, a, b)
    else:
        parity.check(lambda a, b: a @ b, lambda a, b: a @ b, a, b)
