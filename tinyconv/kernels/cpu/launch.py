"""How kernels get memory and work done: `empty` and `launch`, now or noted down for later.

A way to compute an op in this package is a plain Python function that allocates its results with
`empty` and does all its work on the contents of arrays through `launch`; by itself it looks at
shapes only, and makes views. Eager, both act at once. While a step is compiled nothing is computed:
the launches are noted down with their arrays, to be repeated as often as wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tinyconv.kernels.cpu import reuse, threads
from tinyconv.kernels.cpu.jit import KernelFunction


class Capture(Protocol):
    """What takes the place of memory and execution while launches are noted down."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray: ...

    def launch(
        self,
        function: KernelFunction,
        arguments: tuple[Any, ...],
        items: int,
        parts: int,
        also: tuple[np.ndarray, ...],
    ) -> None: ...

    def launch_python(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None: ...


class _State(threading.local):
    capture: Capture | None = None


_state = _State()


def set_capture(capture: Capture | None) -> Capture | None:
    """Note this thread's launches down in `capture` from now on (None: execute); the one before."""
    before, _state.capture = _state.capture, capture
    return before


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """A C-contiguous array whose values are not set yet."""
    if _state.capture is not None:
        return _state.capture.empty(shape, dtype)
    return reuse.empty(shape, dtype)


def launch(
    function: KernelFunction,
    *arguments: Any,
    items: int = 1,
    parts: int = 1,
    also: tuple[np.ndarray, ...] = (),
) -> None:
    """Call function(*arguments, part, begin, end) for `parts` equal parts of range(items).

    The parts run at the same time; each may have memory of its own, by its number `part`. `also`
    names arrays that the function reaches through addresses in a table among its arguments.
    """
    if _state.capture is not None:
        _state.capture.launch(function, arguments, items, parts, also)
        return
    words = function.pack(arguments)
    table = np.array([row(function, words, items, parts)], np.int64)
    threads.run(table, np.zeros(1, np.int64))


def row(function: KernelFunction, words: np.ndarray, items: int, parts: int) -> tuple[int, ...]:
    """A launch as a row of runner.py's table; `words`, its packed arguments, must be kept alive."""
    return function.address, words.ctypes.data, len(words), items, parts


def launch_python(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a Python function on arrays: for rare work that NumPy does well."""
    if _state.capture is not None:
        _state.capture.launch_python(function, arguments)
    else:
        function(*arguments)


# Below this, a second thread costs more than it brings: in a plan all threads are awake already, a
# single launch has to wake them.
_SMALLEST_PART, _SMALLEST_PART_ALONE = 20_000, 100_000  # nanoseconds


def parts_for(items: int, nanoseconds: float) -> int:
    """Into how many parts to cut `items` whose work takes so long, in all, on one thread."""
    smallest = _SMALLEST_PART if _state.capture is not None else _SMALLEST_PART_ALONE
    return max(1, min(threads.num_threads(), items, int(nanoseconds // smallest)))
