"""summary: what a network is made of, a line for each layer, as torchinfo prints it."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from tinyconv import nn
from tinyconv.backend import array_module, random_state, set_random_state, synchronize
from tinyconv.compiler.record import Call, Value
from tinyconv.compiler.table import flops
from tinyconv.nn import Module
from tinyconv.op import Op, run, run_backward
from tinyconv.recorder import set_recorder
from tinyconv.tensor import Tensor, no_grad

_TIMED_PASSES = 3


@dataclass
class Layer:
    """One call of one layer. Figures are its own, without those of the layers inside.

    path            where it is in the network, "" for the network itself
    depth           how many calls it is inside of
    output_shapes   of what it returns, the batch included
    parameters      weights that no earlier layer has; `trainable` of them get gradients
    mult_adds       of its products: a convolution's N*O*OH*OW * C/groups*KH*KW, a linear layer's
                    N*O * I, a matrix product's; biases and all other operations are not counted
    reused          all its weights, and there are some, were used by an earlier call
    memory          bytes that its forward pass adds: results, and what is kept for backward
    forward_ms      milliseconds of its operations (0 where nothing was timed)
    backward_ms     the same going back
    """

    path: str
    kind: str
    depth: int
    parameters: int
    trainable: int
    reused: bool
    output_shapes: list[tuple[int, ...]] = field(default_factory=list)
    mult_adds: int = 0
    memory: int = 0
    forward_ms: float = 0.0
    backward_ms: float = 0.0


@dataclass
class Summary:
    """A network's layers in the order of their calls, and its totals; str() is a table.

    Memory is in bytes; the milliseconds are 0 where nothing was timed. `unused` counts weights
    that no layer of the forward pass has.
    """

    layers: list[Layer]
    parameters: int
    trainable: int
    unused: int
    input_memory: int
    parameter_memory: int
    depth: int
    timing: bool

    @property
    def frozen(self) -> int:
        """The weights that get no gradients."""
        return self.parameters - self.trainable

    @property
    def mult_adds(self) -> int:
        """The multiply-adds of all calls."""
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def forward_memory(self) -> int:
        """The bytes that the forward pass adds."""
        return sum(layer.memory for layer in self.layers)

    @property
    def forward_ms(self) -> float:
        """The milliseconds of all operations of the forward pass."""
        return sum(layer.forward_ms for layer in self.layers)

    @property
    def backward_ms(self) -> float:
        """The milliseconds of all operations of the backward pass."""
        return sum(layer.backward_ms for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values that JSON can hold."""
        names = ("frozen", "mult_adds", "forward_memory", "forward_ms", "backward_ms")
        return asdict(self) | {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return "\n".join([self._table(), *self._totals()])

    def _table(self) -> str:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("layer")
        table.add_column("output shape")
        for name in ("parameters", "mult-adds"):
            table.add_column(name, justify="right")
        for name in ("MB", "forward ms", "backward ms") if self.timing else ():
            table.add_column(name, justify="right")
        shown = _folded(self.layers, self.depth)
        for layer, branch in zip(shown, _branches(shown), strict=True):
            cells = [
                f"{branch}{layer.path.rpartition('.')[2]} {layer.kind}" if branch else layer.kind,
                ", ".join(map(str, layer.output_shapes)),
                _weights(layer),
                f"{layer.mult_adds:,}" if layer.mult_adds else "",
            ]
            if self.timing:
                times = (layer.forward_ms, layer.backward_ms)
                cells.append(f"{layer.memory / 1e6:.2f}" if layer.memory else "")
                cells += [f"{ms:.3f}" if ms else "" for ms in times]
            table.add_row(*cells)
        text = io.StringIO()
        console = Console(file=text, width=240, color_system=None, highlight=False)
        console.print(table, markup=False, emoji=False)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _totals(self) -> list[str]:
        kinds = [f"{self.trainable:,} trainable", f"{self.frozen:,} frozen"]
        kinds += [f"{self.unused:,} in no layer that was called"] if self.unused else []
        memory = {
            "input": self.input_memory,
            "forward pass": self.forward_memory,
            "parameters": self.parameter_memory,
        }
        lines = [
            "",
            f"parameters  {self.parameters:,}: {', '.join(kinds)}",
            f"mult-adds   {self.mult_adds:,}",
            f"memory      {', '.join(f'{name} {n / 1e6:.2f} MB' for name, n in memory.items())}",
        ]
        if self.timing:
            backward = f"backward {self.backward_ms:.2f} ms"
            if not self.backward_ms:
                backward = "no backward, as nothing gets a gradient (all frozen, or in no_grad)"
            lines.append(
                f"time        forward {self.forward_ms:.2f} ms, {backward}"
                f" (the operations of an eager pass, median of {_TIMED_PASSES})"
            )
        return lines


def summary(
    model: Module,
    input_size: Sequence[int] | Sequence[Sequence[int]],
    batch_size: int = 1,
    depth: int = 3,
    timing: bool = False,
) -> Summary:
    """What a network is made of: layers, output shapes, weights, multiply-adds, memory.

    `input_size` is the shape of one image (C, H, W), or a list of shapes for several inputs. The
    network is called once on random numbers, in evaluation mode. With timing=True it is called in
    the mode that it is in, forward and backward, eagerly: once to warm up and then three times,
    of which the medians are given. Nothing of the network changes, nor do random numbers. `depth`
    says how deep the table goes; deeper layers are counted in the one that holds them. Weights
    that are used again are counted once; multiply-adds of every use. Raises ShapeError where a
    layer cannot take its input, ValueError for sizes below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} found, expected 1 or more")
    several = len(input_size) > 0 and isinstance(input_size[0], Sequence)
    sizes: Any = input_size if several else [input_size]
    rng = np.random.default_rng(0)
    shapes = [(batch_size, *nn.Input(size).shape[1:]) for size in sizes]
    inputs = [Tensor(rng.random(shape).astype(model.dtype)) for shape in shapes]
    with _unchanged(model):
        if timing:
            passes = [_listen(model, inputs, backward=True) for _ in range(1 + _TIMED_PASSES)][1:]
            layers = [_median(calls) for calls in zip(*passes, strict=True)]
        else:
            model.eval()
            with no_grad():
                layers = _listen(model, inputs, backward=False)
            for layer in layers:  # a first pass has much to prepare
                layer.forward_ms = 0.0
    parameters = list(model.parameters())
    count = sum(p.data.size for p in parameters)
    return Summary(
        layers,
        parameters=count,
        trainable=sum(p.data.size for p in parameters if p.requires_grad),
        unused=count - sum(layer.parameters for layer in layers),
        input_memory=sum(x.data.nbytes for x in inputs),
        parameter_memory=sum(p.data.nbytes for p in parameters),
        depth=depth,
        timing=timing,
    )


# Listening to a network -------------------------------------------------------------------------


class _Saved(tuple):
    """What an op saved for its backward, and the layer that it belongs to."""

    layer: Layer


class _Listener:
    """Stands where a recorder does (see recorder.py), to see which layer runs which operations."""

    def __init__(self, model: Module) -> None:
        self.paths = {module: path for path, module in model.named_modules()}
        self.layers: list[Layer] = []
        self.inside: list[tuple[Module, Layer]] = []  # the calls under way, the innermost last
        self.seen: set[Any] = set()

    def uses(self, thing: Any) -> None:
        """A layer is called."""
        if not isinstance(thing, Module):
            return
        own = [p for p in thing._parameters.values() if p not in self.seen]
        inside = set(thing.parameters())
        layer = Layer(
            self._path(thing),
            type(thing).__name__,
            depth=len(self.inside),
            parameters=sum(p.data.size for p in own),
            trainable=sum(p.data.size for p in own if p.requires_grad),
            reused=bool(inside) and inside <= self.seen,
        )
        self.seen.update(own)
        self.layers.append(layer)
        self.inside.append((thing, layer))

    def _path(self, module: Module) -> str:
        """Where a module is that is called now: its name in the caller, where that holds it."""
        if self.inside:
            caller, layer = self.inside[-1]
            for name, held in caller._modules.items():
                if held is module:
                    return f"{layer.path}.{name}" if layer.path else name
        return self.paths.get(module, "")

    def returned(self, module: Module, inputs: Any, output: Any) -> None:
        """A hook: the call that began last is over."""
        self.inside.pop()[1].output_shapes = [tuple(y.shape) for y in _tensors(output)]

    def value_read(self, what: str) -> None:
        """Values are there to be read."""

    def run(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Run a forward operation, for the innermost layer."""
        (y, saved), ms = self._timed(run, op, *inputs)
        if not self.inside:
            return y, saved
        _, layer = self.inside[-1]
        layer.forward_ms += ms
        known = [x for x in inputs if hasattr(x, "dtype")]
        for array in (y, *saved):
            if hasattr(array, "nbytes") and not any(_shared(array, other) for other in known):
                layer.memory += array.nbytes
                known.append(array)
        if y is not None:
            layer.mult_adds += _mult_adds(op, inputs, y)
        ours = _Saved(saved)
        ours.layer = layer
        return y, ours

    def run_backward(
        self, op: Op, gy: Any, saved: tuple[Any, ...], needs: tuple[bool, ...]
    ) -> tuple[Any, ...]:
        """Run a backward operation, for the layer of its forward one."""
        gradients, ms = self._timed(run_backward, op, gy, saved, needs)
        if isinstance(saved, _Saved):
            saved.layer.backward_ms += ms
        return gradients

    def _timed(self, function: Any, *arguments: Any) -> tuple[Any, float]:
        """What the engine does without a recorder, and its milliseconds."""
        set_recorder(None)
        try:
            began = time.perf_counter()
            result = function(*arguments)
            synchronize()
            return result, 1e3 * (time.perf_counter() - began)
        finally:
            set_recorder(self)


def _listen(model: Module, inputs: list[Tensor], backward: bool) -> list[Layer]:
    """The layers of one pass, in the order of their calls."""
    listener = _Listener(model)
    handles = [module.register_forward_hook(listener.returned) for module in model.modules()]
    set_recorder(listener)
    try:
        output = model(*inputs)
        if backward:
            total = sum((y.sum() for y in _tensors(output)), start=Tensor(0.0))
            if total.requires_grad:
                total.backward()
    finally:
        set_recorder(None)
        for handle in handles:
            handle.remove()
    return listener.layers


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of what a module returns, in tuples, lists and dictionaries too."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list | dict):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Put back modes, running statistics, gradients and random numbers afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [b for module in model.modules() for b in module._buffers.values() if b is not None]
    copies = [buffer.copy() for buffer in buffers]
    gradients = [(p, p.grad) for p in model.parameters()]
    random = random_state()
    model.zero_grad()
    try:
        yield
    finally:
        set_random_state(random)
        for p, gradient in gradients:
            p.grad = gradient
        for buffer, copy in zip(buffers, copies, strict=True):
            buffer[...] = copy
        for module, training in modes:
            module.training = training


def _shared(a: Any, b: Any) -> bool:
    """Whether two arrays are parts of the same memory."""
    return a is b or bool(array_module(a).may_share_memory(a, b))


def _mult_adds(op: Op, inputs: tuple[Any, ...], y: Any) -> int:
    given = tuple(Value(x.shape, x.dtype) for x in inputs if hasattr(x, "dtype"))
    return flops(Call(op, "forward", given, (Value(y.shape, y.dtype),))) // 2


def _median(calls: tuple[Layer, ...]) -> Layer:
    """The same call of several passes, with the median of its times."""
    forward = statistics.median(call.forward_ms for call in calls)
    backward = statistics.median(call.backward_ms for call in calls)
    return replace(calls[0], forward_ms=forward, backward_ms=backward)


# The table --------------------------------------------------------------------------------------


def _folded(layers: list[Layer], depth: int) -> list[Layer]:
    """The layers down to `depth`, with the figures of those below added to them."""
    shown: list[Layer] = []
    for layer in layers:
        if layer.depth <= depth:
            shown.append(replace(layer))
            continue
        above = shown[-1]
        for name in ("parameters", "trainable", "mult_adds", "memory", "forward_ms", "backward_ms"):
            setattr(above, name, getattr(above, name) + getattr(layer, name))
    return shown


def _branches(layers: list[Layer]) -> list[str]:
    """The lines of a tree before each layer."""
    branches = []
    for i, layer in enumerate(layers):
        after = [other.depth for other in layers[i + 1 :]]
        lines = ""
        for depth in range(1, layer.depth + 1):
            # Whether another layer of this depth follows before the tree goes further up.
            goes_on = next((other for other in after if other <= depth), 0) == depth
            last = "├─ " if goes_on else "└─ "
            lines += last if depth == layer.depth else "│  " if goes_on else "   "
        branches.append(lines)
    return branches


def _weights(layer: Layer) -> str:
    """The number of weights in a layer, and whether they are trained."""
    if layer.reused:
        return "(reused)"
    frozen = layer.parameters - layer.trainable
    if not layer.parameters:
        return ""
    if frozen == layer.parameters:
        return f"{frozen:,} frozen"
    return f"{layer.parameters:,}" + (f", {frozen:,} frozen" if frozen else "")
