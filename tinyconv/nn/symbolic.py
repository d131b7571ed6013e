"""Symbolic tensors: what layers are called on while a network is put together (see nn.Model)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy

from tinyconv.errors import ShapeError
from tinyconv.tensor import Tensor, no_grad

if TYPE_CHECKING:
    from tinyconv.nn.module import Module

_calls = itertools.count()


@dataclass(eq=False)
class Call:
    """One use of a layer on symbolic tensors (and plain values), to be repeated on real ones."""

    layer: Module
    arguments: tuple[Any, ...]
    settings: dict[str, Any]
    several: bool  # the layer returns a tuple
    outputs: tuple[SymbolicTensor, ...] = ()
    number: int = field(default_factory=_calls.__next__)  # the calls in the order of time


class SymbolicTensor:
    """The result of a layer, still to be computed: a shape without values.

    `shape` is (None, ...), None being the number of images. Layers called on symbolic tensors give
    symbolic tensors; + - * of two, or of one and a number, are layers too (nn.Add and so on).
    All else, a function of tinyconv.functional too, belongs into the forward of a module.
    """

    __array_ufunc__ = None  # so that `array + symbolic` comes to __radd__

    def __init__(self, shape: tuple[Any, ...], call: Call | None) -> None:
        self.shape = shape
        self.call = call

    def __repr__(self) -> str:
        source = f"output of {layer_name(self.call.layer)}" if self.call else "input"
        return f"{source} of shape {_text(self.shape)}"

    # The layers that add and multiply are modules, which are made to know this class.

    def __add__(self, other: Any) -> SymbolicTensor:
        from tinyconv.nn.merge import Add

        return Add()(self, other)

    def __sub__(self, other: Any) -> SymbolicTensor:
        from tinyconv.nn.merge import Subtract

        return Subtract()(self, other)

    def __rsub__(self, other: Any) -> SymbolicTensor:
        from tinyconv.nn.merge import Subtract

        return Subtract()(other, self)

    def __mul__(self, other: Any) -> SymbolicTensor:
        from tinyconv.nn.merge import Multiply

        return Multiply()(self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def _no_values(self, *_: Any, **__: Any) -> NoReturn:
        """Raises TypeError, in the place of all that looks at values."""
        raise TypeError(
            f"the {self!r} is symbolic and has no values: only layers (modules) take it, and "
            "+ - * with another one or a number; call the nn.Model that comes of it on arrays"
        )

    numpy = item = __array__ = __bool__ = __float__ = __int__ = _no_values
    __len__ = __iter__ = __getitem__ = __contains__ = _no_values
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _no_values
    __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __neg__ = __abs__ = _no_values
    __lt__ = __le__ = __gt__ = __ge__ = _no_values


class Input(SymbolicTensor):
    """Where a functional model begins: nn.Input((1, 28, 28)) is a batch of such images.

    `shape` is that of one image, without the batch. Raises ValueError for other than whole numbers
    from 1.
    """

    def __init__(self, shape: Sequence[int], name: str = "") -> None:
        sizes = tuple(shape) if isinstance(shape, Sequence) else ()
        if not sizes or not all(isinstance(n, int | numpy.integer) and n > 0 for n in sizes):
            raise ValueError(f"Input: shape {shape!r} found, expected sizes such as (1, 28, 28)")
        super().__init__((None, *map(int, sizes)), None)
        self.name = name

    def __repr__(self) -> str:
        return f"{f'input {self.name!r}' if self.name else 'input'} of shape {_text(self.shape)}"


def symbolic_call(layer: Module, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """What the layer returns for symbolic tensors: one, or a tuple of them.

    The layer is asked for its shapes with no_grad, in evaluation mode and without its hooks, so
    that nothing of it changes. Raises ShapeError that names the layer and where its inputs come
    from where it cannot take them, TypeError where it returns anything but tensors, for symbolic
    tensors in lists or by keyword and for tensors that no layer holds.
    """
    nested = [a for a in arguments if not isinstance(a, SymbolicTensor)]
    if contains([*nested, settings], SymbolicTensor):
        raise TypeError(
            f"{layer_name(layer)}: symbolic tensors found in a list or by keyword: give them one "
            "after another, layer(x, y)"
        )
    if contains([arguments, settings], Tensor):
        raise TypeError(
            f"{layer_name(layer)}: a Tensor or Parameter found beside a symbolic tensor, which the "
            "model would not know: a layer has to hold it, a module whose forward uses it"
        )
    try:
        images, result = _dry_run(layer, arguments, settings)
    except ValueError as error:
        inputs = " and ".join(f"the {a!r}" for a in arguments if isinstance(a, SymbolicTensor))
        own = isinstance(error, ShapeError) and error.module is layer
        raise ShapeError(
            f"{layer_name(layer)} cannot take {inputs}: {error.args[0] if own else error}"
        ) from error
    several = isinstance(result, tuple | list)
    made = Call(layer, arguments, settings, several)
    made.outputs = tuple(_symbolic(y, images, made) for y in (result if several else (result,)))
    return made.outputs if several else made.outputs[0]


def _dry_run(layer: Module, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """A number of images and what the layer returns for so many: none, which costs nothing.

    One image where the layer cannot take an empty batch, as reshape(n, -1) cannot.
    """

    def run(images: int) -> Any:
        return layer(
            *(
                Tensor(numpy.zeros((images, *a.shape[1:]), layer.dtype))
                if isinstance(a, SymbolicTensor)
                else a
                for a in arguments
            ),
            **settings,
        )

    before = [(module, module.training, module._forward_hooks) for module in layer.modules()]
    layer.eval()
    for module, *_ in before:  # a hook expects real images
        module._forward_hooks = {}
    try:
        with no_grad():
            with suppress(Exception):
                return 0, run(0)
            return 1, run(1)
    finally:
        for module, training, hooks in before:
            module.training, module._forward_hooks = training, hooks


def _symbolic(y: Any, images: int, made: Call) -> SymbolicTensor:
    if not isinstance(y, Tensor):
        raise TypeError(
            f"{layer_name(made.layer)} returns {type(y).__name__}, expected a tensor or a tuple of "
            "them"
        )
    if y.shape[:1] != (images,):
        raise ShapeError(
            f"{layer_name(made.layer)} returns shape {y.shape} for {images} images, expected the "
            "number of images first"
        )
    return SymbolicTensor((None, *y.shape[1:]), made)


def contains(values: Iterable[Any], kind: type) -> bool:
    """Whether a `kind` is among the values, or in lists, tuples or dictionaries among them."""
    for value in values:
        if isinstance(value, kind):
            return True
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, list | tuple | dict) and contains(inside, kind):
            return True
    return False


def layer_name(layer: Module) -> str:
    """A layer in one line."""
    return type(layer).__name__ if any(layer.children()) else repr(layer)


def _text(shape: tuple[Any, ...]) -> str:
    return f"({', '.join('N' if n is None else str(n) for n in shape)})"
