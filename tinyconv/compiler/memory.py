"""Where each array of a plan lies, in one block that arrays share which do not meet in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a line of the cache, and a vector


@dataclass
class Lifetime:
    """An array of so many bytes, in use from launch `first` to launch `last`, both included."""

    size: int
    first: int = -1
    last: int = -1

    def use(self, launch: int) -> None:
        """Note that a launch uses it."""
        if self.first < 0:
            self.first = launch
        self.last = max(self.last, launch)


def place(lifetimes: list[Lifetime], alignment: int = ALIGNMENT) -> tuple[list[int], int]:
    """An offset in bytes for each array, and the size of the whole block.

    The largest come first, each at the lowest place that is free for as long as it lives. Arrays
    that no launch uses get no memory of their own.
    """
    offsets = [0] * len(lifetimes)
    placed: list[tuple[int, int, Lifetime]] = []  # begin, end, whose
    total = 0
    for i in sorted(range(len(lifetimes)), key=lambda i: -lifetimes[i].size):
        mine = lifetimes[i]
        if mine.first < 0:
            continue
        size = -(-mine.size // alignment) * alignment
        begin = 0
        for other_begin, other_end, other in placed:
            if other.last < mine.first or mine.last < other.first:
                continue
            if begin + size <= other_begin:
                break
            begin = max(begin, other_end)
        offsets[i] = begin
        total = max(total, begin + size)
        placed.append((begin, begin + size, mine))
        placed.sort(key=lambda entry: entry[0])
    return offsets, total


def block(size: int) -> np.ndarray:
    """`size` bytes of memory (uint8), aligned."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def view(memory: np.ndarray, offset: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array in a block of memory."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return memory[offset : offset + size].view(dtype).reshape(shape)
