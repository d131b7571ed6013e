"""A plan on an NVIDIA GPU: the calls of a record as CUDA graphs, on memory that was planned once.

A launch costs the host some microseconds, more than a small layer takes to compute. So the launches
of a step are captured once, as a graph that the device repeats by itself. In a graph addresses are
fixed: the step runs twice before, on copies of all that it would change. The first time compiles
the kernels, the second one notes how long each array lives, from which all get their places in one
block. An op without a kernel is computed by its reference between two graphs.
Source: NVIDIA, CUDA C++ Programming Guide, "CUDA Graphs".
"""

from __future__ import annotations

import math
import statistics
import weakref
from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

from tinyconv.backend import Array, xp
from tinyconv.compiler.memory import Lifetime, place
from tinyconv.compiler.record import Call, CompileError, Value, values
from tinyconv.op import choose

_ALIGNMENT = 256  # bytes: as the device's own allocator does

_OTHER_MEMORY = (
    "the step needs other memory than when it was tried on copies of its weights: is one of them a "
    "view with gaps, or not aligned to 16 bytes?"
)


class GraphPlan:
    """A step as CUDA graphs. `run` repeats it; print it to see what it does.

    `arguments` are the arrays that each call's arguments are copied to, `arrays` those of the
    values that were to be kept. Raises CuPy's OutOfMemoryError where the step needs more memory
    than the device has left.
    """

    def __init__(self, calls: list[Call], arguments: list[Array], kept: list[Value]) -> None:
        self.calls = calls
        self.arguments = arguments
        self.kernels: list[str] = []
        self.runs = 0
        self._last_uses = _last_uses(calls, kept)
        self._stream = xp().cuda.Stream(non_blocking=True)
        self._held = self._given(kept)  # a graph knows addresses only
        pool = xp().get_default_memory_pool()
        with _Settled(self._stream):
            self._execute(_copies(self._held))
        pool.free_all_blocks()
        with _Settled(self._stream):
            rehearsal, copies = _Rehearsal(), _copies(self._held)
            with xp().cuda.using_allocator(rehearsal.malloc):
                self._execute(copies, rehearsal)
        offsets, size = place(rehearsal.lifetimes, _ALIGNMENT)
        sizes = [lifetime.size for lifetime in rehearsal.lifetimes]
        self._places = list(zip(offsets, sizes, strict=True))
        del rehearsal, copies
        pool.free_all_blocks()
        self.memory = xp().empty(size, xp().uint8)
        self._segments, arrays = self._capture(self._held)
        self.arrays = {value: arrays[value] for value in kept}

    def run(self) -> None:
        """Do the step once more, on what is in the arguments' arrays. The host does not wait."""
        for segment in self._segments:
            segment()
        self.runs += 1

    def milliseconds(self, repeats: int = 20) -> list[float]:
        """How long each call takes: medians of the device's clock, each call a graph of its own.

        It runs on copies of the weights, and no result changes. Calls that take less time than the
        host needs to launch them, some microseconds, show that.
        """
        if not self.runs:
            return [math.nan] * len(self.calls)
        cuda, copies = xp().cuda, _copies(self._held)
        kept = {id(a): (a, a.copy()) for a in self.arrays.values()}
        segments, _ = self._capture(copies, each_call=True)
        times = []
        for _ in range(repeats):
            events = [cuda.Event() for _ in range(len(segments) + 1)]
            for segment, event in zip(segments, events[:-1], strict=True):
                event.record()
                segment()
            events[-1].record()
            events[-1].synchronize()
            times.append([cuda.get_elapsed_time(a, b) for a, b in pairwise(events)])
        for array, before in kept.values():
            array[...] = before
        return [statistics.median(own) for own in zip(*times, strict=True)]

    def __str__(self) -> str:
        from tinyconv.compiler.table import table

        return table(self)

    def summary(self) -> str:
        """What the plan is made of."""
        between = sum(isinstance(segment, _ByReference) for segment in self._segments)
        graphs = len(self._segments) - between
        text = f"{graphs} CUDA graph{'s' * (graphs != 1)}"
        return text + f" with {between} ops by reference in between" * (between > 0)

    def timing(self) -> str:
        """What kind of time `milliseconds` gives."""
        return "each call by itself, median of 20"

    def _given(self, kept: list[Value]) -> dict[Value, Array]:
        """The arrays that the step finds: arguments, weights, statistics, states."""
        given: dict[Value, Array] = {}
        for value in chain(kept, *(call.reads() for call in self.calls)):
            if value.argument is not None:
                given[value] = self.arguments[value.argument]
            elif value.given is not None:
                given[value] = xp().asarray(value.given)
        return given

    def _capture(
        self, given: dict[Value, Array], each_call: bool = False
    ) -> tuple[list[Any], dict[Value, Array]]:
        """The step as graphs, and one for each call if wanted, and the arrays that are kept."""
        with _Settled(self._stream):
            capture = _Capture(self._stream, self.memory, self._places, each_call)
            try:
                with xp().cuda.using_allocator(capture.malloc):
                    arrays = self._execute(given, capture)
                capture.check_end()
            finally:
                capture.close()
        return capture.segments, arrays

    def _execute(
        self, given: dict[Value, Array], watch: _Rehearsal | _Capture | None = None
    ) -> dict[Value, Array]:
        """Run the calls in order, letting go of what nobody reads any more; the arrays left."""
        arrays, self.kernels = dict(given), []
        for number, call in enumerate(self.calls):
            kernel, results, compute = _prepared(call, arrays)
            self.kernels.append(kernel or "reference")
            if watch is not None:
                watch.begin(number, captured=kernel is not None)
            made = compute() if kernel or watch is None else watch.by_reference(compute, results)
            for value, array in zip(results, made, strict=True):
                if isinstance(value, Value) and value.made and value not in arrays:
                    arrays[value] = array
            del compute, made
            array = None
            for value in self._last_uses.get(number, ()):
                arrays.pop(value, None)
        return arrays


def _prepared(
    call: Call, arrays: dict[Value, Array]
) -> tuple[str | None, tuple[Any, ...], Callable[[], tuple[Any, ...]]]:
    """The name of a call's kernel (None: its reference), what it makes, and how to compute that."""
    op, module = call.op, xp()
    inputs = tuple(_array(thing, arrays) for thing in call.inputs)
    if call.direction == "forward":
        kernel = choose(op, "forward", module, inputs)
        function = kernel.compute if kernel else type(op).forward

        def forward() -> tuple[Any, ...]:
            y, saved = function(op, module, *inputs)
            return (y, *saved) if call.saved else (y,)

        return kernel.name if kernel else None, (*call.outputs, *call.saved), forward
    saved = tuple(_array(thing, arrays) for thing in call.saved)
    kernel = choose(op, "backward", module, (*inputs, saved, call.needs))
    function = kernel.compute if kernel else type(op).backward

    def backward() -> tuple[Any, ...]:
        return tuple(function(op, module, *inputs, saved, call.needs))  # type: ignore[call-arg]

    return kernel.name if kernel else None, call.outputs, backward


def _array(thing: Any, arrays: dict[Value, Array]) -> Any:
    """The array of a value; other things as they are."""
    return arrays[thing] if isinstance(thing, Value) else thing


def _copies(given: dict[Value, Array]) -> dict[Value, Array]:
    """Copies of all arrays as they lie in memory, one for each however many values share it."""
    copies = {id(array): array.copy("K") for array in given.values()}
    return {value: copies[id(array)] for value, array in given.items()}


def _last_uses(calls: list[Call], kept: list[Value]) -> dict[int, list[Value]]:
    """For each call: the values made in the step that nobody needs after it."""
    last: dict[Value, int] = {}
    for number, call in enumerate(calls):
        for value in (*call.reads(), *values((*call.outputs, *call.saved))):
            if value.made:
                last[value] = number
    ends: dict[int, list[Value]] = {}
    for value, number in last.items():
        if value not in kept:
            ends.setdefault(number, []).append(value)
    return ends


class _Settled:
    """Work on a stream of its own: what was under way is finished before, and this after."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        xp().cuda.Device().synchronize()
        self.stream.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.stream.__exit__(*error)
        xp().cuda.Device().synchronize()


class _Owner:
    """What an array's memory belongs to: gone when the array and all its views are."""


class _Rehearsal:
    """Computes as usual, and notes between which calls each array lives."""

    def __init__(self) -> None:
        self.lifetimes: list[Lifetime] = []
        self.now = 0
        self._pool = xp().cuda.MemoryPool()

    def begin(self, number: int, captured: bool) -> None:
        self.now = number

    def malloc(self, size: int) -> Any:
        lifetime, owner = Lifetime(max(size, 1)), _Owner()
        lifetime.use(self.now)
        self.lifetimes.append(lifetime)
        memory = self._pool.malloc(max(size, 1))
        weakref.finalize(owner, self._end, lifetime, memory).atexit = False
        return _pointer(memory.ptr, size, owner)

    def _end(self, lifetime: Lifetime, memory: Any) -> None:
        lifetime.use(self.now)

    def by_reference(self, compute: Callable[[], Any], results: tuple[Any, ...]) -> list[Any]:
        fresh = _fresh(results)
        _ByReference(compute, fresh)()
        return fresh


class _Capture:
    """Captures what is launched, instead of computing it.

    Array number i lies at its place in `memory`, an offset and a size in bytes. Raises CompileError
    where the step asks for other arrays than in its rehearsal, as it may for a weight that is not
    aligned, or has gaps, which its copy there had not. With each_call, every call is a graph by
    itself.
    """

    def __init__(
        self, stream: Any, memory: Array, places: list[tuple[int, int]], each_call: bool
    ) -> None:
        self.segments: list[Any] = []
        self._stream, self._memory, self._places = stream, memory, iter(places)
        self._each_call, self._capturing = each_call, False

    def begin(self, number: int, captured: bool) -> None:
        if self._each_call or not captured:
            self.close()
        if captured and not self._capturing:
            self._stream.begin_capture()
            self._capturing = True

    def malloc(self, size: int) -> Any:
        offset, planned = next(self._places, (0, 0))
        if max(size, 1) != planned:
            raise CompileError(_OTHER_MEMORY)
        return _pointer(self._memory.data.ptr + offset, size, self._memory)

    def check_end(self) -> None:
        """Raises CompileError where the rehearsal made more arrays."""
        if next(self._places, None) is not None:
            raise CompileError(_OTHER_MEMORY)

    def by_reference(self, compute: Callable[[], Any], results: tuple[Any, ...]) -> list[Any]:
        fresh = _fresh(results)
        self.segments.append(_ByReference(compute, fresh))
        return fresh

    def close(self) -> None:
        """End the graph that is being captured."""
        if self._capturing:
            self._capturing = False
            self.segments.append(self._stream.end_capture().launch)


class _ByReference:
    """A call that its reference computes at each run, into arrays of the plan."""

    def __init__(self, compute: Callable[[], Any], results: list[Any]) -> None:
        self.compute, self.results = compute, results

    def __call__(self) -> None:
        # What it needs in between lives outside of the plan.
        with xp().cuda.using_allocator(xp().get_default_memory_pool().malloc):
            for result, made in zip(self.results, self.compute(), strict=True):
                if result is not None:
                    result[...] = made


def _fresh(results: tuple[Any, ...]) -> list[Array | None]:
    """Arrays of the plan for a reference's results; None for what is not an array made here."""
    return [
        xp().empty(value.shape, value.dtype) if isinstance(value, Value) and value.made else None
        for value in results
    ]


def _pointer(address: int, size: int, owner: Any) -> Any:
    cuda = xp().cuda
    memory = cuda.UnownedMemory(address, max(size, 1), owner, cuda.Device().id)
    return cuda.MemoryPointer(memory, 0)
