"""Large arrays from memory that was used before.

The system hands out fresh memory page by page, each of them cleared when it is first touched: for
the maps of a large network that takes longer than to compute them. So the memory of a large array
is kept when the array is gone, for the next one of about its size.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from math import prod
from typing import Any

import numpy as np

_SMALLEST = 2**20  # bytes; below that the allocator keeps memory by itself
_KEPT = 2**29  # bytes that lie idle at most


class _Lease:
    """What an array's memory belongs to: it ends when the array and all views of it are gone."""

    def __init__(self, block: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.__array_interface__ = {
            "data": (block.ctypes.data, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }
        weakref.finalize(self, _give_back, block).atexit = False


_idle: OrderedDict[int, np.ndarray] = OrderedDict()  # blocks by their address, oldest first
_ended: deque[np.ndarray] = deque()  # a lease may end at any moment, also while _idle is in use
_lock = threading.Lock()


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A C-contiguous array whose values are not set yet."""
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    if size < _SMALLEST:
        return np.empty(shape, dtype)
    return np.asarray(_Lease(_block(size), shape, dtype))


def _block(size: int) -> np.ndarray:
    """Idle memory of at least `size` bytes and not much more, or new memory."""
    with _lock:
        _collect()
        fits = [b for b in _idle.values() if size <= b.nbytes <= size * 1.25]
        if fits:
            best = min(fits, key=lambda block: block.nbytes)
            return _idle.pop(best.ctypes.data)
    return np.empty(size, np.uint8)


def _give_back(block: np.ndarray) -> None:
    _ended.append(block)
    if sum(b.nbytes for b in list(_ended)) > _KEPT and _lock.acquire(blocking=False):
        try:
            _collect()
        finally:
            _lock.release()


def _collect() -> None:
    """Take in the blocks whose lease has ended, and let go of what is too much."""
    while _ended:
        block = _ended.popleft()
        _idle[block.ctypes.data] = block
    while sum(b.nbytes for b in _idle.values()) > _KEPT:
        _idle.popitem(last=False)
