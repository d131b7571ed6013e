"""From the calls of a record to a plan: launches on planned memory that can be repeated at will."""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyconv.backend import Array
from tinyconv.compiler.memory import Lifetime, block, place, view
from tinyconv.compiler.record import Call, Value
from tinyconv.kernels.cpu import launch as launching
from tinyconv.kernels.cpu import threads
from tinyconv.kernels.cpu.jit import KernelFunction
from tinyconv.kernels.cpu.runner import COLUMNS
from tinyconv.op import Op, choose


@dataclass
class Launch:
    """A kernel with its arguments packed, or a Python function with its arguments, of one call."""

    call: int
    function: Any
    arguments: tuple[Any, ...]
    items: int = 0
    parts: int = 0  # 0 for a Python function
    also: tuple[np.ndarray, ...] = ()
    words: np.ndarray | None = None

    def arrays(self) -> Iterator[np.ndarray]:
        """Every array that the launch may touch."""
        yield from _arrays((self.arguments, self.also))


def _arrays(things: Any) -> Iterator[np.ndarray]:
    for thing in things:
        if isinstance(thing, np.ndarray):
            yield thing
        elif isinstance(thing, tuple | list):
            yield from _arrays(thing)


class _Capture:
    """Notes launches and allocations down (see kernels/cpu/launch.py).

    Without `memory` every array gets memory of its own, which is never touched: that is to find
    out how long each one lives. With it, array number i lies at offset i.
    """

    def __init__(self, memory: np.ndarray | None = None, offsets: list[int] | None = None) -> None:
        self.memory, self.offsets = memory, offsets
        self.allocated: list[np.ndarray] = []
        self.launches: list[Launch] = []
        self.call = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if self.memory is None or self.offsets is None:
            array = np.empty(max(math.prod(shape), 1), dtype)[: math.prod(shape)].reshape(shape)
        else:
            array = view(self.memory, self.offsets[len(self.allocated)], shape, dtype)
        self.allocated.append(array)
        return array

    def launch(
        self,
        function: KernelFunction,
        arguments: tuple[Any, ...],
        items: int,
        parts: int,
        also: tuple[np.ndarray, ...],
    ) -> None:
        words = function.pack(arguments)
        self.launches.append(Launch(self.call, function, arguments, items, parts, also, words))

    def launch_python(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.launches.append(Launch(self.call, function, arguments))


def _forward_by_reference(op: Op, inputs: tuple[Any, ...], outputs: list[Any]) -> None:
    y, saved = op.forward(np, *inputs)
    _copy_all(outputs, (y, *saved))


def _backward_by_reference(
    op: Op, gy: Array, saved: tuple[Any, ...], needs: tuple[bool, ...], outputs: list[Any]
) -> None:
    _copy_all(outputs, op.backward(np, gy, saved, needs))


def _copy_all(outputs: list[Any], results: tuple[Any, ...]) -> None:
    for output, result in zip(outputs, results, strict=True):
        if output is not None:
            np.copyto(output, result)


class _Lowering:
    """Turns calls into launches, with arrays in the place of values."""

    def __init__(self, capture: _Capture, arguments: list[Array]) -> None:
        self.capture = capture
        self.arguments = arguments
        self.arrays: dict[Value, Array] = {}
        self.kernels: list[str] = []

    def lower(self, calls: list[Call]) -> None:
        before = launching.set_capture(self.capture)
        try:
            for number, call in enumerate(calls):
                self.capture.call = number
                if call.direction == "forward":
                    self._forward(call)
                else:
                    self._backward(call)
        finally:
            launching.set_capture(before)

    def array(self, thing: Any) -> Any:
        """The array of a value; other things as they are."""
        if not isinstance(thing, Value):
            return thing
        if thing.given is not None:
            return thing.given
        return self.arguments[thing.argument] if thing.argument is not None else self.arrays[thing]

    def _bind(self, things: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        for value, result in zip(things, results, strict=True):
            if isinstance(value, Value) and value.made and value not in self.arrays:
                assert (result.shape, result.dtype) == (value.shape, value.dtype), value
                self.arrays[value] = result

    def _fresh(self, things: tuple[Any, ...]) -> list[Array | None]:
        """New arrays for those values that are made here, None for the rest."""
        fresh: list[Array | None] = []
        for value in things:
            new = isinstance(value, Value) and value.made and value not in self.arrays
            fresh.append(launching.empty(value.shape, value.dtype) if new else None)
        self._bind(things, tuple(fresh))
        return fresh

    def _forward(self, call: Call) -> None:
        inputs = tuple(map(self.array, call.inputs))
        results = (*call.outputs, *call.saved)
        kernel = choose(call.op, "forward", np, inputs)
        self.kernels.append(kernel.name if kernel else "reference")
        if kernel:
            y, saved = kernel.compute(call.op, np, *inputs)
            if call.saved or y is not None:
                self._bind(results, (y, *saved))
            return
        fresh = self._fresh(results)
        launching.launch_python(_forward_by_reference, call.op, inputs, fresh)

    def _backward(self, call: Call) -> None:
        gy = self.array(call.inputs[0])
        saved = tuple(map(self.array, call.saved))
        kernel = choose(call.op, "backward", np, (gy, saved, call.needs))
        self.kernels.append(kernel.name if kernel else "reference")
        if kernel:
            self._bind(call.outputs, kernel.compute(call.op, np, gy, saved, call.needs))
            return
        fresh = self._fresh(call.outputs)
        launching.launch_python(_backward_by_reference, call.op, gy, saved, call.needs, fresh)


@dataclass
class _Native:
    """Launches that one native loop runs, as rows of a table (see kernels/cpu/runner.py)."""

    launches: list[Launch]
    table: np.ndarray
    ticks: np.ndarray


class _ThreadTrial:
    """Whether a plan runs faster on all threads or on one: tried out in its first few runs.

    Steps of a fraction of a millisecond are over before a second thread has woken up. The results
    are the same, since the parts of the work are.
    """

    _RUNS = 8
    _LONG = 0.01  # seconds: such a step is not in doubt

    def __init__(self) -> None:
        self._options = sorted({threads.num_threads(), 1}, reverse=True)
        self._best = dict.fromkeys(self._options, math.inf)
        self._runs = 0

    def next(self) -> int:
        """How many threads to use for the next run."""
        if self._runs < self._RUNS:
            return self._options[self._runs % len(self._options)]
        return min(self._options, key=self._best.__getitem__)

    def took(self, seconds: float) -> None:
        """Note how long it took."""
        if self._runs < self._RUNS:
            used = self.next()
            self._runs += 1
            self._best[used] = min(self._best[used], seconds)
            if used > 1 and seconds > self._LONG:
                self._runs = self._RUNS


@dataclass
class Plan:
    """A step as launches on memory of its own. `run` repeats it; print it to see what it does.

    `arguments` are the arrays that each call's arguments are copied to, `arrays` those of the
    values that were to be kept.
    """

    calls: list[Call]
    kernels: list[str]
    launches: list[Launch]
    memory: np.ndarray
    arguments: list[Array]
    arrays: dict[Value, Array]
    segments: list[_Native | Launch] = field(default_factory=list)
    seconds: float = 0.0
    runs: int = 0
    python_seconds: dict[int, float] = field(default_factory=dict)
    _threads: _ThreadTrial = field(default_factory=_ThreadTrial)

    def __post_init__(self) -> None:
        rows: list[Launch] = []
        for launch in [*self.launches, None]:
            if launch is not None and launch.parts:
                rows.append(launch)
                continue
            if rows:
                self.segments.append(_native(rows))
                rows = []
            if launch is not None:
                self.segments.append(launch)

    def run(self) -> None:
        """Do the step once more, on what is in the arguments' arrays."""
        began = time.perf_counter()
        most = self._threads.next()
        for segment in self.segments:
            if isinstance(segment, _Native):
                threads.run(segment.table, segment.ticks, most)
            else:
                start = time.perf_counter()
                segment.function(*segment.arguments)
                spent = time.perf_counter() - start
                self.python_seconds[segment.call] = (
                    self.python_seconds.get(segment.call, 0.0) + spent
                )
        seconds = time.perf_counter() - began
        self._threads.took(seconds)
        self.seconds += seconds
        self.runs += 1

    def milliseconds(self) -> list[float]:
        """How long each call took on average; the time is the first thread's."""
        if not self.runs:
            return [math.nan] * len(self.calls)
        ticks = [0] * len(self.calls)
        for segment in self.segments:
            if isinstance(segment, _Native):
                for launch, count in zip(segment.launches, segment.ticks, strict=True):
                    ticks[launch.call] += int(count)
        python = sum(self.python_seconds.values())
        per_tick = (self.seconds - python) / max(sum(ticks), 1)
        return [
            1e3 * (count * per_tick + self.python_seconds.get(i, 0.0)) / self.runs
            for i, count in enumerate(ticks)
        ]

    def summary(self) -> str:
        """What the plan is made of."""
        return f"{len(self.launches)} launches"

    def timing(self) -> str:
        """What kind of time `milliseconds` gives."""
        return f"mean of {self.runs} runs"

    def __str__(self) -> str:
        from tinyconv.compiler.table import table

        return table(self)


def _native(rows: list[Launch]) -> _Native:
    table = np.zeros((len(rows), COLUMNS), np.int64)
    for row, launch in zip(table, rows, strict=True):
        assert launch.words is not None
        row[:] = launching.row(launch.function, launch.words, launch.items, launch.parts)
    return _Native(rows, table, np.zeros(len(rows), np.int64))


def make_plan(calls: list[Call], arguments: list[Array], kept: list[Value]) -> Plan:
    """Plan the calls: launches, and one block of memory for all that they make.

    `arguments` are the buffers of the step's arguments, `kept` the values that must still be there
    when the step has ended.
    """
    rehearsal = _Lowering(_Capture(), arguments)
    rehearsal.lower(calls)
    lifetimes = _lifetimes(rehearsal, kept)
    offsets, size = place(lifetimes)
    memory = block(size)
    del rehearsal
    lowering = _Lowering(_Capture(memory, offsets), arguments)
    lowering.lower(calls)
    assert len(lowering.capture.allocated) == len(lifetimes)
    arrays = {value: lowering.array(value) for value in kept}
    return Plan(calls, lowering.kernels, lowering.capture.launches, memory, arguments, arrays)


def _lifetimes(lowering: _Lowering, kept: list[Value]) -> list[Lifetime]:
    """How long each allocated array is in use, told by the addresses that the launches touch."""
    allocated = lowering.capture.allocated
    lifetimes = [Lifetime(max(array.nbytes, 1)) for array in allocated]
    order = sorted(range(len(allocated)), key=lambda i: allocated[i].ctypes.data)
    starts = [allocated[i].ctypes.data for i in order]

    def use(array: np.ndarray, launch: int) -> None:
        address = np.lib.array_utils.byte_bounds(array)[0]
        found = bisect.bisect_right(starts, address) - 1
        if found >= 0:
            i = order[found]
            if address < starts[found] + max(allocated[i].nbytes, 1):
                lifetimes[i].use(launch)

    for number, launch in enumerate(lowering.capture.launches):
        for array in launch.arrays():
            use(array, number)
    for value in kept:
        array = lowering.array(value)
        if isinstance(array, np.ndarray):
            use(array, len(lowering.capture.launches))
    return lifetimes
