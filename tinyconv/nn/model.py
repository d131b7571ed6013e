"""Model: a network as a graph of layers, the functional way of putting one together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from tinyconv.errors import ShapeError
from tinyconv.nn.module import Module
from tinyconv.nn.symbolic import Call, SymbolicTensor


@dataclass(frozen=True)
class _Value:
    """A tensor of the forward pass, by its number."""

    number: int


@dataclass(frozen=True)
class _Step:
    """One call of a layer in the forward pass; the values in `last` are not needed after it."""

    layer: str
    arguments: tuple[Any, ...]
    settings: dict[str, Any]
    outputs: tuple[_Value, ...]
    several: bool
    last: tuple[_Value, ...]


class Model(Module):
    """All layers between symbolic tensors, as one module.

        x = nn.Input((1, 28, 28))
        y = nn.Conv2d(1, 8, 3, padding=1)(x)
        y = y + nn.ReLU()(y)
        model = nn.Model(x, nn.Linear(6272, 10)(nn.Flatten()(y)))

    `inputs` and `outputs` are symbolic tensors, one or a list of them. The module takes the inputs
    one after another, any number of images but in the shapes that were given, and returns one
    tensor, or a tuple where `outputs` is a list. A layer that was called several times is there
    once, with one set of weights.

    Layers are named by their class and their number among those of the class, in the order of their
    first calls: "conv2d_1", "conv2d_2"; `names` gives other ones, {"stem": layer}. So names, and
    with them the keys of state_dict(), depend on this network alone. A layer may be replaced by
    assigning another one to its name.

    A cycle cannot arise: a tensor is there only after the call that computes it. Raises ValueError
    for an input that is missing, unused or given twice, and for names that cannot be used;
    TypeError for anything else than symbolic tensors.
    """

    def __init__(
        self,
        inputs: SymbolicTensor | Sequence[SymbolicTensor],
        outputs: SymbolicTensor | Sequence[SymbolicTensor],
        names: dict[str, Module] | None = None,
    ) -> None:
        super().__init__()
        starts, ends = _symbolic("inputs", inputs), _symbolic("outputs", outputs)
        for x in starts:
            if starts.count(x) > 1:
                raise ValueError(f"Model: the {x!r} is given twice")
        calls = _calls_between(starts, ends)
        layers = _named(calls, names or {})
        self.input_shapes = [x.shape for x in starts]
        self._inputs = [repr(x) for x in starts]
        self.several = isinstance(outputs, list | tuple)
        self._plan(calls, starts, ends, {layer: name for name, layer in layers.items()})
        for name, layer in layers.items():
            if not name or "." in name or hasattr(self, name):
                raise ValueError(f"Model: {name!r} cannot be the name of a layer")
            setattr(self, name, layer)

    def _plan(
        self,
        calls: list[Call],
        starts: list[SymbolicTensor],
        ends: list[SymbolicTensor],
        names: dict[Module, str],
    ) -> None:
        """Note down what forward does, without keeping the symbolic tensors and their layers."""
        values: dict[SymbolicTensor, _Value] = {}
        for x in [*starts, *(y for call in calls for y in call.outputs)]:
            values[x] = _Value(len(values))
        last_use = {y: call for call in calls for y in call.outputs}
        last_use |= {x: call for call in calls for x in _tensors(call.arguments)}
        self._steps = tuple(
            _Step(
                names[call.layer],
                tuple(values[a] if isinstance(a, SymbolicTensor) else a for a in call.arguments),
                call.settings,
                tuple(values[y] for y in call.outputs),
                call.several,
                tuple(values[x] for x, last in last_use.items() if last is call and x not in ends),
            )
            for call in calls
        )
        self._starts = tuple(values[x] for x in starts)
        self._ends = tuple(values[y] for y in ends)

    def forward(self, *inputs: Any) -> Any:
        if len(inputs) != len(self._starts):
            shapes = ", ".join(str(shape) for shape in self.input_shapes)
            raise TypeError(
                f"Model: {len(inputs)} inputs found, expected {len(self._starts)}, of the shapes "
                f"{shapes.replace('None', 'N')}"
            )
        for x, shape, name in zip(inputs, self.input_shapes, self._inputs, strict=True):
            if numpy.shape(x)[1:] != shape[1:]:
                raise ShapeError(f"shape {numpy.shape(x)} found for the {name}")
        values: dict[_Value, Any] = dict(zip(self._starts, inputs, strict=True))
        for step in self._steps:
            layer = self._modules[step.layer]
            result = layer(
                *(values[a] if isinstance(a, _Value) else a for a in step.arguments),
                **step.settings,
            )
            values.update(zip(step.outputs, result if step.several else (result,), strict=True))
            for value in step.last:  # what no later layer takes need not stay in memory
                del values[value]
        results = tuple(values[y] for y in self._ends)
        return results if self.several else results[0]


def _symbolic(what: str, given: Any) -> list[SymbolicTensor]:
    """One symbolic tensor or several, as a list."""
    tensors = list(given) if isinstance(given, list | tuple) else [given]
    if not tensors:
        raise ValueError(f"Model: {what} is empty, expected symbolic tensors")
    for x in tensors:
        if not isinstance(x, SymbolicTensor):
            raise TypeError(
                f"Model: {what} has {type(x).__name__}, expected symbolic tensors: "
                "nn.Input(...), and what layers return for it"
            )
    return tensors


def _tensors(arguments: tuple[Any, ...]) -> list[SymbolicTensor]:
    return [a for a in arguments if isinstance(a, SymbolicTensor)]


def _calls_between(starts: list[SymbolicTensor], ends: list[SymbolicTensor]) -> list[Call]:
    """The calls that lead from the inputs to the outputs, in the order they were made."""
    found: set[Call] = set()
    reached: set[SymbolicTensor] = set()
    waiting: list[tuple[SymbolicTensor, str]] = [(y, "an output") for y in ends]
    while waiting:
        x, taker = waiting.pop()
        reached.add(x)
        if x in starts:
            continue
        if x.call is None:
            raise ValueError(f"Model: the {x!r}, which {taker} needs, is not among the inputs")
        if x.call not in found:
            found.add(x.call)
            waiting += [(a, repr(x.call.layer)) for a in _tensors(x.call.arguments)]
    for x in starts:
        if x not in reached:
            raise ValueError(f"Model: the {x!r} is among the inputs, but no output depends on it")
    return sorted(found, key=lambda call: call.number)


def _named(calls: list[Call], names: dict[str, Module]) -> dict[str, Module]:
    """The layers of the calls, each once, under the names that are given or made for them."""
    layers = list(dict.fromkeys(call.layer for call in calls))
    for name, layer in names.items():
        if layer not in layers:
            raise ValueError(f"Model: names has {name!r} for {layer!r}, which is not in the graph")
    given = {layer: name for name, layer in names.items()}
    if len(given) < len(names):
        raise ValueError(f"Model: names has one layer twice, in {', '.join(names)}")
    counts: Counter[str] = Counter()
    named: dict[str, Module] = {}
    for layer in layers:
        kind = type(layer).__name__.lower()
        counts[kind] += 1
        name = given.get(layer, f"{kind}_{counts[kind]}")
        if name in named:
            raise ValueError(f"Model: two layers have the name {name!r}")
        named[name] = layer
    return named
