"""Op: one operation, forward and backward. run(): the one place that chooses how it is computed.

An op is a small frozen object that holds its settings (a stride, a slope) and no arrays. Its own
`forward` and `backward` are the reference: plain array code, written to be read. A faster way to
compute the same is a kernel, registered on the op's class; `run` takes the first kernel whose
condition holds, and the reference where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal

from tinyconv.backend import Array, array_module, kernels_wanted
from tinyconv.recorder import recorder

Saved = tuple[Any, ...]
Gradients = tuple[Array | None, ...]
Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class Op:
    """One operation on arrays of the library `xp`; subclasses hold its settings as fields.

    `forward(xp, *inputs)` returns the output and what `backward` needs to know of this call.
    `backward(xp, gy, saved, needs)` takes the gradient of the output and returns one gradient for
    each input, None where `needs` says that nobody asks. What is saved belongs to the op: every
    forward kernel saves the same, so that any forward goes with any backward.
    """

    # Positions of the inputs that forward writes to (running statistics, parameters in an update).
    mutates: ClassVar[tuple[int, ...]] = ()

    def forward(self, xp: ModuleType, *inputs: Any) -> tuple[Array, Saved]:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def backward(
        self, xp: ModuleType, gy: Array, saved: Saved, needs: tuple[bool, ...]
    ) -> Gradients:
        raise TypeError(f"{type(self).__name__} has no gradient")


@dataclass(frozen=True)
class Kernel:
    """A fast way to compute one direction of an op: called as `compute(op, xp, *arguments)`."""

    name: str
    compute: Callable[..., Any]
    when: Callable[..., bool]


_kernels: dict[tuple[type[Op], Direction], list[Kernel]] = {}


def register(op_type: type[Op], direction: Direction, when: Callable[..., bool]) -> Callable:
    """Decorate a function as a kernel of `op_type`, used where `when(op, xp, *arguments)` holds.

    Both take the arguments of the reference: `(op, xp, *inputs)` forward and
    `(op, xp, gy, saved, needs)` backward. Kernels are asked in the order of their registration.
    """

    def decorate(compute: Callable[..., Any]) -> Callable[..., Any]:
        kernel = Kernel(compute.__name__, compute, when)
        _kernels.setdefault((op_type, direction), []).append(kernel)
        return compute

    return decorate


def choose(
    op: Op, direction: Direction, xp: ModuleType, arguments: tuple[Any, ...]
) -> Kernel | None:
    """The first registered kernel whose condition holds, None where the reference is to be used."""
    if kernels_wanted():
        for kernel in _kernels.get((type(op), direction), ()):
            if kernel.when(op, xp, *arguments):
                return kernel
    return None


def which(op: Op, direction: Direction, *arguments: Any) -> str:
    """The name of the kernel that `run` would use for these arguments, or "reference"."""
    kernel = choose(op, direction, array_module(arguments[0]), arguments)
    return kernel.name if kernel else "reference"


def run(op: Op, *inputs: Any) -> tuple[Array, Saved]:
    """Compute `op` forward on arrays: its output, and what its backward needs."""
    if record := recorder():
        return record.run(op, inputs)
    xp = array_module(inputs[0])
    kernel = choose(op, "forward", xp, inputs)
    return kernel.compute(op, xp, *inputs) if kernel else op.forward(xp, *inputs)


def run_backward(op: Op, gy: Array, saved: Saved, needs: tuple[bool, ...]) -> Gradients:
    """Compute `op` backward: the gradient of each input from the gradient `gy` of its output."""
    if record := recorder():
        return record.run_backward(op, gy, saved, needs)
    xp = array_module(gy)
    kernel = choose(op, "backward", xp, (gy, saved, needs))
    if kernel:
        return kernel.compute(op, xp, gy, saved, needs)
    return op.backward(xp, gy, saved, needs)
