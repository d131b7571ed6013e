"""A plan as a table: what runs, on which shapes, by which kernel, and how long it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tinyconv.compiler.record import Call, Value, values
from tinyconv.kernels.fused import ConvNormReLU, Together
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.linear import Linear, MatMul
from tinyconv.ops.update import Scaled

if TYPE_CHECKING:
    from tinyconv.compiler.graph import GraphPlan
    from tinyconv.compiler.plan import Plan


def flops(call: Call) -> int:
    """Multiplications and additions of the products in a call by their definition, 0 elsewhere."""
    op = call.op.conv if isinstance(call.op, ConvNormReLU) else call.op
    if not isinstance(op, Conv2d | Linear | MatMul):
        return 0
    back = call.direction == "backward"
    x, w = values(call.saved if back else call.inputs)[:2]
    y = values(call.inputs)[0] if back else values(call.outputs)[0]
    inner = math.prod(w.shape[1:]) if isinstance(op, Conv2d) else x.shape[-1]
    return 2 * math.prod(y.shape) * inner * (sum(call.needs[:2]) if back else 1)


def traffic(call: Call) -> int:
    """Bytes of the arrays that a call reads and writes; twice for those changed in place."""
    touched = [*{*call.reads(), *call.makes()}, *set(call.mutated())]
    return sum(math.prod(v.shape) * v.dtype.itemsize for v in touched)


def table(plan: Plan | GraphPlan) -> str:
    """The plan's calls, a line each."""
    milliseconds = plan.milliseconds()
    header = ("op", "shape", "kernel", "MB", "GFLOP", "ms")
    rows = [
        (
            name(call),
            shape(call),
            plan.kernels[i],
            f"{traffic(call) / 1e6:.2f}",
            f"{flops(call) / 1e9:.2f}" if flops(call) else "",
            f"{milliseconds[i]:.3f}" if plan.runs else "",
        )
        for i, call in enumerate(plan.calls)
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: tuple[str, ...]) -> str:
        left = [text.ljust(width) for text, width in zip(row[:3], widths[:3], strict=True)]
        right = [text.rjust(width) for text, width in zip(row[3:], widths[3:], strict=True)]
        return "  ".join([*left, *right]).rstrip()

    total = sum(milliseconds) if plan.runs else 0.0
    end = f"{plan.summary()}, {plan.memory.nbytes / 1e6:.1f} MB of memory"
    if plan.runs:
        end += f", {total:.3f} ms ({plan.timing()})"
    return "\n".join([line(header), line(tuple("-" * w for w in widths)), *map(line, rows), end])


def name(call: Call) -> str:
    """What a call does, for people."""
    if isinstance(call.op, Together):
        count, op = len(call.inputs) // call.op.width, call.op.op
        return f"{type(op.op if isinstance(op, Scaled) else op).__name__} x {count}"
    return type(call.op).__name__ + (" backward" if call.direction == "backward" else "")


def shape(call: Call) -> str:
    """The shape of what it makes, or on the way back of the gradient that comes in."""
    outputs = values(call.outputs)
    shown: Value | None = outputs[0] if outputs else None
    if call.direction == "backward" and call.inputs:
        shown = call.inputs[0]
    return "x".join(map(str, shown.shape)) if shown is not None else ""
