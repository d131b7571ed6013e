"""Operations that move values."""

import numpy as np
import pytest

import tinyconv.functional as F

torch = pytest.importorskip("torch")

from .compare import drawn  # noqa: E402


@drawn(25)
def test_flatten(parity, draw):
    x = draw.normal(*draw.shape(1, 5))
    start, end = sorted(draw.pair(0, x.ndim - 1))
    start, end = (i - x.ndim if draw.chance(0.3) else i for i in (start, end))
    parity.check(lambda x: F.flatten(x, start, end), lambda x: torch.flatten(x, start, end), x)
    parity.check(lambda x: x.flatten(), lambda x: x.flatten(), x)


def test_flatten_of_nothing_and_of_one_number(parity):
    parity.check(lambda x: F.flatten(x, 1), lambda x: torch.flatten(x, 1), np.zeros((0, 3, 4, 5)))
    parity.check(F.flatten, torch.flatten, np.array(3.0))


@drawn(25)
def test_reshape(parity, draw):
    x = draw.normal(*draw.shape(0, 4))
    factors = [1]
    rest = x.size
    for prime in (2, 2, 3, 5, 2, 3):
        if rest % prime == 0:
            factors.append(prime)
            rest //= prime
    shape = [*factors, rest]
    draw.rng.shuffle(shape)
    if draw.chance(0.5):
        shape[draw.integer(0, len(shape) - 1)] = -1
    parity.check(lambda x: x.reshape(*shape), lambda x: x.reshape(*shape), x)
    parity.check(lambda x: x.reshape(tuple(shape)), lambda x: x.reshape(tuple(shape)), x)


@drawn(25)
def test_permute_and_transpose(parity, draw):
    x = draw.normal(*draw.shape(1, 5))
    dims = draw.rng.permutation(x.ndim).tolist()
    dims = [d - x.ndim if draw.chance(0.3) else d for d in dims]
    parity.check(lambda x: x.permute(*dims), lambda x: x.permute(*dims), x)
    parity.check(lambda x: x.permute(tuple(dims)), lambda x: x.permute(tuple(dims)), x)
    a, b = draw.pair(-x.ndim, x.ndim - 1)
    parity.check(lambda x: x.transpose(a, b), lambda x: x.transpose(a, b), x)


@drawn(30)
def test_cat(parity, draw):
    shape = draw.shape(1, 4)
    dim = draw.integer(-len(shape), len(shape) - 1)
    arrays = []
    for _ in range(draw.integer(1, 4)):
        size = list(shape)
        size[dim] = draw.integer(0, 4)
        arrays.append(draw.normal(*size))
    frozen = draw.one_of((), (0,)) if len(arrays) > 1 else ()
    parity.check(lambda *xs: F.cat(xs, dim), lambda *xs: torch.cat(xs, dim), *arrays, frozen=frozen)


@drawn(50)
def test_pad(parity, draw):
    x = draw.normal(*draw.shape(1, 4))
    axes = draw.integer(1, x.ndim)
    pads = []
    for n in x.shape[::-1][:axes]:
        before = draw.integer(-n, 3)
        pads += [before, draw.integer(-(n + min(before, 0)), 3)]
    value = draw.one_of(0.0, -1.5, 7)
    parity.check(
        lambda x: F.pad(x, pads, value=value),
        lambda x: torch.nn.functional.pad(x, pads, value=value),
        x,
    )


@drawn(50)
def test_slices(parity, draw):
    x = draw.normal(*draw.shape(1, 4, largest=6))
    index = []
    for n in x.shape[: draw.integer(0, x.ndim)]:
        if draw.chance(0.2):
            index.append(None)
        if draw.chance(0.3):
            index.append(draw.integer(-n, n - 1))
        else:
            start, stop = (draw.one_of(None, draw.integer(-n - 2, n + 2)) for _ in range(2))
            index.append(slice(start, stop, draw.one_of(None, 1, 2, 3)))
    if draw.chance(0.3):
        index.append(...)
        if draw.chance(0.5):
            index.append(None)
    index = index[0] if len(index) == 1 else tuple(index)
    parity.check(lambda x: x[index], lambda x: x[index], x)
