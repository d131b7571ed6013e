"""How arrays lie in memory: the order of their axes, and which of them can be seen as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda.layout import empty


def order_of(x: Array) -> tuple[int, ...] | None:
    """The axes of x from the outermost in memory to the innermost; None where x has gaps."""
    if x.flags.c_contiguous:
        return tuple(range(x.ndim))
    axes = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    step = x.itemsize
    for axis in reversed(axes):
        if x.shape[axis] != 1:
            if x.strides[axis] != step:
                return None
            step *= x.shape[axis]
    return tuple(axes)


def order_for(x: Array) -> tuple[int, ...]:
    """The order in which to lay out a copy of x: its own, or of C where x has gaps."""
    return order_of(x) or tuple(range(x.ndim))


def empty_in(order: Sequence[int], shape: Sequence[int], dtype: Any = np.float32) -> Array:
    """An array without gaps whose axes lie in this order, and whose values are not set yet."""
    return seen_back(empty(tuple(shape[axis] for axis in order), dtype), order)


def seen_back(memory: Array, order: Sequence[int]) -> Array:
    """`memory` (C-contiguous), whose axes are those named by `order`, with its axes in order."""
    return memory.transpose(tuple(sorted(range(len(order)), key=order.__getitem__)))


def steps(x: Array, shape: Sequence[int]) -> list[int]:
    """How many numbers apart x's entries are along each axis of a shape that it is broadcast to."""
    own = [0 if n == 1 else step // x.itemsize for n, step in zip(x.shape, x.strides, strict=True)]
    return [0] * (len(shape) - x.ndim) + own


def merged(
    shape: Sequence[int], order: Sequence[int], inputs: Sequence[Sequence[int]]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """The axes of a shape in the order of memory, those made one along which all inputs go on.

    inputs are their steps. Returns the sizes, and for each of them the inputs' steps.
    """
    sizes: list[int] = []
    found: list[tuple[int, ...]] = []
    for axis in order:
        n, here = shape[axis], tuple(one[axis] for one in inputs)
        if n == 1:
            continue
        if found and all(outer == n * inner for outer, inner in zip(found[-1], here, strict=True)):
            sizes[-1] *= n
            found[-1] = here
        else:
            sizes.append(n)
            found.append(here)
    return sizes, found


def lies_in(x: Array, order: Sequence[int]) -> bool:
    """Whether x has no gaps and its axes lie in this order."""
    _, found = merged(x.shape, order, [steps(x, x.shape)])
    return found in ([], [(1,)])
