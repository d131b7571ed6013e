"""tinyconv.compile: a function that records itself and then replays what it recorded."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyconv import backend
from tinyconv.backend import Array, asarray, backend_name, kernels_wanted, precision, xp
from tinyconv.compiler.fuse import rewrite
from tinyconv.compiler.record import Call, CompileError, Record, StepRecorder, Value, same
from tinyconv.recorder import recorder
from tinyconv.tensor import Tensor, is_grad_enabled

if TYPE_CHECKING:
    from tinyconv.compiler.graph import GraphPlan
    from tinyconv.compiler.plan import Plan

__all__ = ["CompileError", "CompiledStep", "compile"]


def compile(step: Callable[..., Any], strict: bool = True) -> CompiledStep:
    """Make a function of tensors or arrays fast: record what it does once, then replay that.

    The step does a whole training step (zero_grad, forward, loss, backward, optimiser step), or a
    part, or a forward pass alone, and returns tensors (one, or several in a tuple, list or dict) or
    None. The first call with arguments of new shapes and dtypes runs the function twice without
    computing anything, to see what it does and that it does the same again; every call replays
    that: chains of ops fused, in memory planned once, without Python in between. Learning rates may
    change from call to call; a change of anything else (train or eval mode, frozen weights, other
    settings) is noticed, and recorded anew.

    Raises CompileError for a step that cannot be recorded, e.g. one that looks at a value with
    item(), or a layer in it has a forward hook; with strict=False such a step runs as it is, and
    `refusal` holds the error. The gradients of the last call are in `.grad` until the next one.
    """
    return CompiledStep(step, strict)


class CompiledStep:
    """A step that replays itself; made by tinyconv.compile."""

    def __init__(self, step: Callable[..., Any], strict: bool = True) -> None:
        self.step = step
        self.strict = strict
        self.refusal: CompileError | None = None
        self._replays: dict[Any, _Replay] = {}  # the latest used last
        self._lock = threading.RLock()
        self._latest: _Replay | None = None
        self.__doc__ = getattr(step, "__doc__", None)

    @property
    def plan(self) -> Any:
        """What the last call did, to print as a table; None before the first one."""
        return self._latest.plan if self._latest else None

    def __call__(self, *arguments: Any) -> Any:
        if self.refusal or recorder() is not None:
            return self.step(*arguments)  # also inside another step
        with self._lock:  # a plan has one memory: one call at a time
            arrays, key = _signature(arguments)
            replay = self._replays.pop(key, None)
            if replay is None or not replay.holds():
                if replay is not None:  # what changed for these shapes has changed for all
                    self._replays.clear()
                try:
                    replay = _Replay(self._record(arguments), arrays)
                except CompileError as error:
                    if self.strict:
                        raise
                    self.refusal = error
                    return self.step(*arguments)
            self._replays[key] = self._latest = replay
            if len(self._replays) > _MOST_PLANS:
                del self._replays[next(iter(self._replays))]
            return replay.run(arrays)

    def _record(self, arguments: tuple[Any, ...]) -> Record:
        """The record of a call, taken twice, with other values the second time."""
        records: list[Record] = []
        before: list[tuple[Tensor, Tensor | None]] = []
        try:
            for value in range(2):
                stand_ins = [_stand_in(argument, value) for argument in arguments]
                arrays = [a.data if isinstance(a, Tensor) else a for a in stand_ins]
                held = [a for a in arrays if _is_array(a)]
                with StepRecorder(held, value) as recording:
                    # Gradients stay for the second time: a step that adds to them shows itself.
                    before = before or recording.gradients_before
                    records.append(recording.finish(self.step(*stand_ins)))
        finally:
            for tensor, gradient in before:
                tensor.grad = gradient
        same(*records)
        return records[1]


# Plans that a step keeps, one for each set of shapes: each has a memory of its own.
_MOST_PLANS = 8


def _is_array(thing: Any) -> bool:
    return isinstance(thing, np.ndarray | xp().ndarray)


def _stand_in(argument: Any, value: int) -> Any:
    """A copy of an array or tensor to record with, so that it is nothing else than the argument."""
    if isinstance(argument, Tensor):
        return Tensor._of(_stand_in(argument.data, value))
    if not _is_array(argument):
        return argument
    array = asarray(argument)
    copy = array.copy("K") + array.dtype.type(value)  # in memory as the argument is
    if isinstance(copy, np.ndarray):
        copy.flags.writeable = False
    return copy


def _signature(arguments: tuple[Any, ...]) -> tuple[list[Array], Any]:
    """The arrays among a call's arguments, and what a record of the call is valid for."""
    arrays: list[Array] = []
    key: list[Any] = [backend_name(), precision(), kernels_wanted(), is_grad_enabled()]
    for number, argument in enumerate(arguments):
        if isinstance(argument, Tensor):
            if argument.requires_grad:
                raise CompileError(
                    f"argument {number} requires a gradient: a compiled step takes data as "
                    "arguments; weights it reaches by itself"
                )
            argument = argument.data
        if _is_array(argument):
            arrays.append(argument)
            key.append((argument.shape, argument.dtype.str))
        elif argument is None or isinstance(argument, bool | int | float | str):
            key.append((type(argument), argument))
        else:
            raise TypeError(
                f"argument {number} is {type(argument).__name__}: a compiled step takes tensors, "
                "arrays, numbers, strings and None"
            )
    return arrays, tuple(key)


def _state(record: Record) -> tuple[list[Any], list[Any]]:
    """What a record was made under besides the arguments: objects by identity, and settings.

    The objects are held, so that no other one can come to have the same identity.
    """
    objects: list[Any] = [backend._random]
    settings: list[Any] = []
    for tensor in record.tensors:
        objects.append(tensor.data)
        settings.append(tensor.requires_grad)
    for module in record.modules:
        objects += module.__dict__.values()  # modes and settings: other values, other objects
        for register in (module._parameters, module._modules, module._buffers):
            objects += register.values()
    for optimizer in record.optimizers:
        objects.append(optimizer.state)
        for group in optimizer.param_groups:
            objects += group["params"]
            settings.append({k: v for k, v in group.items() if k not in ("lr", "params")})
    return objects, settings


class _Replay:
    """A plan, and what has to be so for it to be right."""

    def __init__(self, record: Record, arrays: list[Array]) -> None:
        self.record = record
        self.state = _state(record)
        kept = [*_values(record.result), *(value for _, value in record.gradients)]
        # In memory as the batches come: channels last stays channels last.
        self.arguments = [_room(array) for array in arrays]
        self.plan = _make_plan(rewrite(record, kept), self.arguments, kept)
        self.gradients = [(tensor, self.plan.arrays[value]) for tensor, value in record.gradients]

    def holds(self) -> bool:
        """Whether weights, modes and settings are still those of the record."""
        (objects, settings), (before, settings_before) = _state(self.record), self.state
        return (
            len(objects) == len(before)
            and all(map(operator.is_, objects, before))
            and settings == settings_before
        )

    def run(self, arrays: list[Array]) -> Any:
        for ours, given in zip(self.arguments, arrays, strict=True):
            ours[...] = asarray(given)
        for optimizer in self.record.optimizers:
            optimizer.set_rates()
        self.plan.run()
        for tensor, gradient in self.gradients:
            tensor.grad = Tensor._of(gradient)
        return _filled(self.record.result, self.plan.arrays)


def _make_plan(calls: list[Call], arguments: list[Array], kept: list[Value]) -> Plan | GraphPlan:
    if backend_name() == "numpy":
        from tinyconv.compiler.plan import make_plan

        return make_plan(calls, arguments, kept)
    from tinyconv.compiler.graph import GraphPlan

    return GraphPlan(calls, arguments, kept)


def _room(array: Array) -> Array:
    """An array on the backend in use that is as `array` is, but for its values."""
    if isinstance(array, np.ndarray):
        array = np.empty_like(array)  # only its order counts
    return xp().empty_like(asarray(array))


def _values(result: Any) -> list[Value]:
    """The values in a step's result."""
    if isinstance(result, Value):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    return [v for item in result for v in _values(item)] if isinstance(result, tuple | list) else []


def _filled(result: Any, arrays: dict[Value, Array]) -> Any:
    """The step's result with tensors, copies that the next call leaves alone."""
    if isinstance(result, Value):
        return Tensor._of(arrays[result].copy())
    if isinstance(result, dict):
        return {key: _filled(item, arrays) for key, item in result.items()}
    if isinstance(result, tuple | list):
        return type(result)([_filled(item, arrays) for item in result])
    return result
