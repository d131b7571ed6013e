"""What a step did: the ops it ran, in order, and the values that went from one to the next."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyconv.backend import Array, to_numpy, xp
from tinyconv.kernels.cpu.launch import set_capture
from tinyconv.kernels.fused import Together
from tinyconv.nn import Module, Parameter
from tinyconv.op import Direction, Gradients, Op, Saved, choose
from tinyconv.optim import Optimizer
from tinyconv.recorder import set_recorder
from tinyconv.tensor import Tensor


class CompileError(RuntimeError):
    """A step does something that a record of it could not repeat."""


@dataclass(eq=False)
class Value:
    """An array of the step. One that no op made is an argument, or `given` from outside."""

    shape: tuple[int, ...]
    dtype: Any
    argument: int | None = None
    given: Array | None = None

    @property
    def made(self) -> bool:
        return self.argument is None and self.given is None


@dataclass(eq=False)
class Call:
    """One run of an op: `inputs` and `saved` hold Values, None, and plain objects such as shapes.

    Forward has one output (None of an update) and `saved`; backward has a gradient for each input
    and `forward`, the call it belongs to. Its inputs are gy and what was saved.
    """

    op: Op
    direction: Direction
    inputs: tuple[Any, ...]
    outputs: tuple[Value | None, ...]
    saved: tuple[Any, ...] = ()
    needs: tuple[bool, ...] = ()
    forward: Call | None = None

    def reads(self) -> list[Value]:
        """The values that this call looks at."""
        return values((*self.inputs, *(self.saved if self.direction == "backward" else ())))

    def makes(self) -> list[Value]:
        """The values that this call gives rise to."""
        saved = self.saved if self.direction == "forward" else ()
        return [v for v in values((*self.outputs, *saved)) if v.made and v not in self.reads()]

    def mutated(self) -> list[Value]:
        """The values that this call writes to in place."""
        if self.direction == "backward":
            return []
        width, op = len(self.inputs), self.op
        if isinstance(op, Together):  # the same for each of its parameters
            width, op = op.width, op.op
        return values(x for i, x in enumerate(self.inputs) if i % width in op.mutates)


def values(things: Iterable[Any]) -> list[Value]:
    """Those of `things` that are Values."""
    return [thing for thing in things if isinstance(thing, Value)]


@dataclass
class Record:
    """A whole step: its calls, what it depends on, and what it returned."""

    calls: list[Call] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    gradients: list[tuple[Tensor, Value]] = field(default_factory=list)
    result: Any = None  # as the step returned it, with Values in the place of tensors


class _Nothing:
    """Takes the place of memory and execution: arrays are there, but nobody computes them.

    Zeros that nobody touches take no memory. They cannot be written to: what a step changes by
    itself, without an op, would not be in the record.
    """

    def __init__(self, value: int) -> None:
        self.value = value

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = np.zeros(shape, dtype)
        if self.value and array.nbytes < 65536:  # what looks at values sees others the second time
            array.fill(self.value)
        return _sealed(array)

    def launch(self, *_: Any) -> None: ...

    def launch_python(self, *_: Any) -> None: ...


def _sealed(array: Array, *others: Any) -> Array:
    """The array, no longer to be written to unless it is one of `others`."""
    if isinstance(array, np.ndarray) and not any(array is other for other in others):
        array.flags.writeable = False
    return array


def _checksum(array: Array) -> int:
    """Tells whether an array of CuPy was written to, which knows no arrays that cannot be.

    The sum of its bits as whole numbers: exact, in whatever order a reduction adds.
    """
    return int(array.view(f"u{array.itemsize}").sum(dtype=np.uint64))


class StepRecorder:
    """Takes a record of a step while it runs, without computing it (see op.Recorder).

    Kernels only make their results' arrays; ops that have no kernel are computed by their reference
    on whatever there is, with copies in the place of what they would write to. On a GPU, where that
    is quick, kernels compute too. So a step that is recorded changes nothing, except that it leaves
    senseless gradients behind. Arrays are told apart by their identity.
    """

    def __init__(self, arguments: list[Array], value: int = 0) -> None:
        self.record = Record()
        self.value = value
        self.xp = xp()
        self.gradients_before: list[tuple[Tensor, Tensor | None]] = []
        self._unsealed: list[Array] = []
        self._values: dict[int, Value] = {}
        self._watched: dict[int, Any] = {}  # weak references, whose end ends the entry above
        self._forwards: dict[int, Call] = {}  # by the identity of what they saved
        self._used: set[int] = set()
        self._checksums: dict[int, int] = {}  # on a GPU, by the identity of arrays
        for number, array in enumerate(arguments):
            self._enter(array, Value(array.shape, array.dtype, argument=number))

    def __enter__(self) -> StepRecorder:
        set_recorder(self)
        self._before = set_capture(_Nothing(self.value))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        set_recorder(None)
        set_capture(self._before)
        for array in self._unsealed:
            array.flags.writeable = True
        if isinstance(error, ValueError) and "read-only" in str(error):
            raise CompileError(f"{_IN_PLACE} ({error}); {_REASONS}") from error

    # What the engine hands over -----------------------------------------------------------------

    def run(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, Saved]:
        kernel = choose(op, "forward", self.xp, inputs)
        if kernel and self.xp is np:
            y, saved = kernel.compute(op, np, *inputs)
        else:
            given = [
                x.copy() if i in op.mutates and x is not None else x for i, x in enumerate(inputs)
            ]
            with np.errstate(all="ignore"):
                compute = kernel.compute if kernel else type(op).forward
                y, saved = compute(op, self.xp, *given)
            y = None if y is None else _sealed(self.xp.asarray(y), *inputs)  # sums are scalars
        ours = tuple(self._of(x) for x in inputs)
        made = None if y is None else self._made(y)
        call = Call(op, "forward", ours, (made,), tuple(self._made(s) for s in saved))
        self.record.calls.append(call)
        self._forwards[id(saved)] = call
        return y, saved

    def run_backward(self, op: Op, gy: Array, saved: Saved, needs: tuple[bool, ...]) -> Gradients:
        forward = self._forwards.get(id(saved)) if saved else None
        if saved and (forward is None or forward.op != op):
            raise CompileError(
                f"{type(op).__name__}: the step goes back through what was computed before it; "
                "the forward pass must be part of the step"
            )
        kernel = choose(op, "backward", self.xp, (gy, saved, needs))
        compute = kernel.compute if kernel else type(op).backward
        with np.errstate(all="ignore"):
            gradients = compute(op, self.xp, gy, saved, needs)
        gradients = tuple(
            None if g is None else _sealed(self.xp.asarray(g), gy, *saved) for g in gradients
        )
        ours, given = forward.saved if forward else (), self._of(gy)  # first: gy may be passed on
        made = tuple(None if g is None else self._made(g) for g in gradients)
        call = Call(op, "backward", (given,), made, ours, needs, forward)
        self.record.calls.append(call)
        return gradients

    def uses(self, thing: Any) -> None:
        passing = isinstance(thing, Tensor) and not isinstance(thing, Parameter)
        if id(thing) in self._used or (passing and not thing.requires_grad):
            return
        self._used.add(id(thing))
        if isinstance(thing, Tensor):
            self.gradients_before.append((thing, thing.grad))
            if isinstance(thing.data, np.ndarray) and thing.data.flags.writeable:
                self._unsealed.append(thing.data)
                _sealed(thing.data)
        lists: dict[type, list[Any]] = {
            Module: self.record.modules,
            Optimizer: self.record.optimizers,
            Tensor: self.record.tensors,
        }
        for kind, known in lists.items():
            if isinstance(thing, kind):
                known.append(thing)
        if isinstance(thing, Module) and thing._forward_hooks:
            raise CompileError(
                f"{self.record.modules[0]._naming(thing)} has a forward hook, and a record would "
                "not call it: remove() the hook first, or run the step without compile"
            )

    def value_read(self, what: str) -> None:
        raise CompileError(
            f"the step reads the value of a tensor ({what}), and what depends on a value cannot be "
            "repeated: return the tensor and read it after the step"
        )

    def finish(self, result: Any) -> Record:
        """The record of a step that returned `result`."""
        record = self.record
        record.result = self._result(result)
        for tensor in record.tensors:
            self._check(tensor.data)
            if tensor.grad is not None:
                self._check(tensor.grad.data)
            if tensor.grad is not None and id(tensor.grad.data) in self._values:
                value = self._values[id(tensor.grad.data)]
                if value.made:
                    record.gradients.append((tensor, value))
        return record

    # Values -------------------------------------------------------------------------------------

    def _enter(self, array: Array, value: Value) -> Value:
        key = id(array)
        self._values[key] = value
        self._watched[key] = weakref.ref(array, lambda _: self._forget(key))
        if self.xp is not np:
            self._checksums[key] = _checksum(array)
        return value

    def _forget(self, key: int) -> None:
        self._values.pop(key, None)
        self._checksums.pop(key, None)

    def _check(self, array: Array) -> None:
        """Raises CompileError where a known array of CuPy is no longer what it was."""
        before = self._checksums.get(id(array))
        if before is not None and before != _checksum(array):
            raise CompileError(f"{_IN_PLACE} (an array of shape {array.shape}); {_REASONS}")

    def _of(self, thing: Any) -> Any:
        """The value of an array; what is not an array stays as it is."""
        if not hasattr(thing, "dtype"):
            return thing
        if isinstance(thing, np.generic):
            return Value((), thing.dtype, given=np.asarray(thing))
        if known := self._values.get(id(thing)):
            self._check(thing)
            return known
        return self._enter(thing, Value(thing.shape, thing.dtype, given=thing))

    def _made(self, thing: Any) -> Any:
        """The value of an op's result."""
        if not hasattr(thing, "dtype") or isinstance(thing, np.dtype):
            return thing
        if isinstance(thing, np.generic):
            return Value((), thing.dtype)
        known = self._values.get(id(thing))
        return known or self._enter(thing, Value(thing.shape, thing.dtype))

    def _result(self, result: Any) -> Any:
        if isinstance(result, Tensor):
            value = self._values.get(id(result.data))
            if value is None:
                raise CompileError("the step returns a tensor that no op of the step computed")
            self._check(result.data)
            return value
        if type(result) in (tuple, list):
            return type(result)([self._result(item) for item in result])
        if type(result) is dict:
            return {key: self._result(item) for key, item in result.items()}
        if result is None or isinstance(result, bool | int | float | str):
            return result
        what = "array" if hasattr(result, "dtype") else type(result).__name__
        raise CompileError(
            f"the step returns an {what}; expected tensors, alone or in a tuple, list or dict"
        )


def same(first: Record, second: Record) -> None:
    """Check that two runs of a step did the same with the same arrays from outside.

    Raises CompileError that names the first difference.
    """
    matches: dict[Value, Value] = {}

    def check(a: Any, b: Any, call: Call) -> None:
        if not isinstance(a, Value) or not isinstance(b, Value):
            if isinstance(a, Value) or isinstance(b, Value) or a != b:
                raise _different(call, f"{a!r} the first time, {b!r} the second")
            return
        if matches.setdefault(a, b) is not b or (a.shape, a.dtype) != (b.shape, b.dtype):
            raise _different(call, "its inputs come from elsewhere the second time")
        if a.argument != b.argument or (a.given is None) != (b.given is None):
            raise _different(call, "its inputs come from elsewhere the second time")
        if a.given is not None and a.given is not b.given:
            _check_constant(a.given, b.given, call)

    if len(first.calls) != len(second.calls):
        raise CompileError(
            f"the step ran {len(first.calls)} ops the first time and {len(second.calls)} the "
            f"second on inputs of the same shapes; {_REASONS}"
        )
    for a, b in zip(first.calls, second.calls, strict=True):
        if a.op != b.op or a.direction != b.direction or a.needs != b.needs:
            raise _different(a, f"{b.direction} of {b.op} the second time")
        for x, y in zip(
            (*a.inputs, *a.outputs, *a.saved), (*b.inputs, *b.outputs, *b.saved), strict=True
        ):
            check(x, y, a)


_IN_PLACE = "the step changes an array in place outside of any op, which a record cannot repeat"

_REASONS = (
    "a step that is compiled must do the same every time: it begins with zero_grad(), has no "
    "branch that depends on data, and makes no arrays of its own"
)


def _different(call: Call, what: str) -> CompileError:
    return CompileError(f"{call.direction} of {call.op}: {what}; {_REASONS}")


def _check_constant(a: Array, b: Array, call: Call) -> None:
    """Single numbers from outside (the 1 that backward starts from) may be new but equal arrays."""
    if a.size != 1 or not np.array_equal(to_numpy(a), to_numpy(b), equal_nan=True):
        raise CompileError(
            f"{call.direction} of {call.op}: an array of shape {a.shape} was made by the step "
            f"outside of any op, and a record cannot make it anew; {_REASONS}"
        )
