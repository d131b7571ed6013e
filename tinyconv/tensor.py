"""Tensor: an array that remembers how it was computed, so that backward() can find its gradient."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from tinyconv.backend import Array, array_module, asarray, to_module, to_numpy
from tinyconv.errors import ShapeError
from tinyconv.op import Op, Saved, run, run_backward
from tinyconv.ops import elementwise, linear, reduce, shape
from tinyconv.recorder import recorder

_recording = True
_calls = itertools.count()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside of it, nothing remembers how it was computed (also usable as a decorator)."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


def is_grad_enabled() -> bool:
    """Whether calls are remembered for backward(): not inside of no_grad()."""
    return _recording


@dataclass(eq=False)
class Node:
    """One call of an op whose output has a gradient: what backward() walks along.

    `inputs` holds, for each input of the call that has a gradient, the node that computed it, or
    the tensor itself where it is a leaf; None for the others. It holds no array that the op did not
    save, so that everything else is freed as soon as the forward pass drops it.
    """

    op: Op
    inputs: tuple[Node | Tensor | None, ...]
    saved: Saved | None
    dtype: Any
    retains: Tensor | None = None  # the output, where its gradient was asked for
    number: int = field(default_factory=_calls.__next__)  # the calls in the order of time


def apply(op: Op, *inputs: Any) -> Tensor:
    """Run `op` on tensors (and plain arrays or None), remembered where a gradient is wanted."""
    arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
    y, saved = run(op, *arrays)
    if record := recorder():
        for x in inputs:
            if isinstance(x, Tensor) and x.node is None:
                record.uses(x)
    output = Tensor._of(y)
    if _recording:
        sources = tuple(
            (x.node or x) if isinstance(x, Tensor) and x.requires_grad else None for x in inputs
        )
        if any(source is not None for source in sources):
            output.requires_grad = True
            output.node = Node(op, sources, saved, output.dtype)
    return output


class Tensor:
    """An array on the backend in use, with a gradient; names and behaviour are PyTorch's.

    An array keeps its dtype and, on the CPU, its memory; Python floats and lists of them become
    float32. Whole numbers among themselves follow NumPy's rules for dtypes. `a == b` compares
    identity: compare values through numpy(). What was changed in place between forward and backward
    gives wrong gradients, without an error. Raises TypeError where requires_grad is asked of
    anything but floats.
    """

    __array_ufunc__ = None  # so that `array * tensor` comes to Tensor.__rmul__

    data: Array
    requires_grad: bool = False
    grad: Tensor | None = None
    node: Node | None = None

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if not hasattr(data, "dtype"):
            data = numpy.asarray(data)
            data = data.astype(numpy.float32) if data.dtype == numpy.float64 else data
        self.data = asarray(data)
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"requires_grad: only floats have gradients, found {self.data.dtype}")
        self.requires_grad = requires_grad

    @classmethod
    def _of(cls, data: Array) -> Tensor:
        """A tensor around an op's result (NumPy's full sums are scalars, not arrays)."""
        tensor = Tensor.__new__(Tensor)
        tensor.data = numpy.asarray(data) if isinstance(data, numpy.generic) else data
        return tensor

    # Backward -------------------------------------------------------------------------------------

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add d(self)/d(leaf) to the `.grad` of every leaf that requires a gradient.

        `gradient` (this tensor's shape) is the gradient to start from, 1 for a single number.
        Frees what the forward pass saved unless retain_graph. Raises RuntimeError where there is
        no graph or it was freed, ShapeError (a ValueError) for a gradient of another shape.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor was not computed from one that requires_grad")
        if gradient is None and self.data.size != 1:
            raise RuntimeError(f"backward: shape {self.shape} has no single value: pass `gradient`")
        module = array_module(self.data)
        if gradient is None:
            seed = module.ones_like(self.data)
        else:
            seed = to_module(module, gradient, self.dtype)
        if seed.shape != self.shape:
            raise ShapeError(f"backward: gradient has shape {seed.shape}, expected {self.shape}")
        if self.node is None:
            self._receive(_copy(seed))
            return
        # The gradients that have arrived so far. Going back in the order of the calls, all that
        # used an output has given its share before the call that computed it is reached.
        arrived: dict[Node, Array] = {self.node: seed}
        for node in _calls_up_to(self.node):
            gy = arrived.pop(node)
            if node.retains is not None:
                node.retains._receive(_copy(gy))
            if node.saved is None:
                raise RuntimeError(
                    "backward: this graph was used and freed; call the first "
                    "backward with retain_graph=True to use it twice"
                )
            needs = tuple(source is not None for source in node.inputs)
            gradients = run_backward(node.op, gy, node.saved, needs)
            for source, gx in zip(node.inputs, gradients, strict=True):
                if source is None:
                    continue
                if gx is None:
                    raise RuntimeError(f"backward: {node.op} has no gradient for one of its inputs")
                if gx.dtype != source.dtype:
                    gx = run(elementwise.Cast(source.dtype), gx)[0]
                if isinstance(source, Tensor):
                    # A leaf keeps its gradient: it must not share memory with another one's.
                    source._receive(gx if gx.flags.owndata and gx is not gy else _copy(gx))
                elif source in arrived:
                    arrived[source] = run(elementwise.Add(), arrived[source], gx)[0]
                else:
                    arrived[source] = gx
            if not retain_graph:
                node.saved = None

    def _receive(self, gradient: Array) -> None:
        if self.grad is not None:
            gradient = run(elementwise.Add(), self.grad.data, gradient)[0]
        self.grad = Tensor._of(gradient)
        if record := recorder():
            record.uses(self)

    def retain_grad(self) -> None:
        """Keep the gradient of this intermediate tensor in `.grad`, as a leaf does."""
        if self.node is not None:
            self.node.retains = self

    def detach(self) -> Tensor:
        """The same array as a tensor that no gradient flows through."""
        return Tensor._of(self.data)

    # Looking at values ----------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
        return numpy.array(self.numpy(), dtype, copy=copy)

    def numpy(self) -> numpy.ndarray:
        """The values as a NumPy array (shared with the tensor on the CPU)."""
        _tell_read("numpy()")
        return to_numpy(self.data)

    def item(self) -> float | int:
        """The value of a tensor that holds exactly one."""
        _tell_read("item()")
        return self.data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(f"a tensor of shape {self.shape} is neither true nor false")
        return bool(self.item())

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        values = numpy.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=200)
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({values}, dtype={self.dtype}{grad})"

    def _operand(self, value: Any) -> Tensor:
        """A number or an array that stands beside this tensor in an operation, on its device."""
        dtype = None
        if isinstance(value, int | numpy.integer):
            dtype = self.dtype
        elif isinstance(value, float | numpy.floating):
            dtype = self.dtype if self.dtype.kind == "f" else numpy.float32
        return Tensor._of(to_module(array_module(self.data), value, dtype))

    # Arithmetic -----------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return _binary(elementwise.Add(), self, other)

    def __sub__(self, other: Any) -> Tensor:
        return _binary(elementwise.Subtract(), self, other)

    def __mul__(self, other: Any) -> Tensor:
        return _binary(elementwise.Multiply(), self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return _binary(elementwise.Divide(), self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _binary(elementwise.Subtract(), other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary(elementwise.Divide(), other, self)

    def __matmul__(self, other: Any) -> Tensor:
        other = other if isinstance(other, Tensor) else Tensor(other)
        if self.ndim < 2 or other.ndim < 2 or self.shape[-1] != other.shape[-2]:
            raise ShapeError(f"matmul: shapes {self.shape} and {other.shape} do not fit")
        return _binary(linear.MatMul(), self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return Tensor(other) @ self

    __radd__ = __add__
    __rmul__ = __mul__

    def maximum(self, other: Any) -> Tensor:
        return _binary(elementwise.Maximum(), self, other)

    def minimum(self, other: Any) -> Tensor:
        return _binary(elementwise.Minimum(), self, other)

    def astype(self, dtype: Any) -> Tensor:
        """The values in another dtype; between floats the gradient flows back."""
        return apply(elementwise.Cast(numpy.dtype(dtype)), self)

    def __pow__(self, exponent: float) -> Tensor:
        return apply(elementwise.Power(float(exponent)), self)

    def __neg__(self) -> Tensor:
        return apply(elementwise.Negative(), self)

    def abs(self) -> Tensor:
        return apply(elementwise.Absolute(), self)

    def exp(self) -> Tensor:
        return apply(elementwise.Exp(), self)

    def log(self) -> Tensor:
        return apply(elementwise.Log(), self)

    def sqrt(self) -> Tensor:
        return apply(elementwise.Sqrt(), self)

    # Reductions: dim is an axis, several axes, or None for all ------------------------------------

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(reduce.Sum(_axes(dim), keepdim), self)

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(reduce.Mean(_axes(dim), keepdim), self)

    def amax(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(reduce.Amax(_axes(dim), keepdim), self)

    def amin(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(reduce.Amin(_axes(dim), keepdim), self)

    # Shapes ---------------------------------------------------------------------------------------

    def reshape(self, *sizes: Any) -> Tensor:
        """The same values in another shape, given as numbers or one tuple; one may be -1."""
        return apply(shape.Reshape(_numbers(sizes)), self)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from start_dim to end_dim as one; a single number becomes shape (1,)."""
        sizes = self.shape or (1,)
        start, end = range(len(sizes))[start_dim], range(len(sizes))[end_dim]
        return self.reshape(*sizes[:start], math.prod(sizes[start : end + 1]), *sizes[end + 1 :])

    def permute(self, *dims: Any) -> Tensor:
        """The axes in another order, given as numbers or one tuple."""
        return apply(shape.Permute(_numbers(dims)), self)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes swapped."""
        dims = list(range(self.ndim))
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
        return self.permute(*dims)

    def __getitem__(self, index: Any) -> Tensor:
        """A part by integers, slices, None and `...`; raises TypeError for arrays as indices."""
        parts = index if isinstance(index, tuple) else (index,)
        plain = (int, numpy.integer, slice, type(None), type(Ellipsis))
        for part in parts:
            if not isinstance(part, plain):
                raise TypeError(f"index: {type(part).__name__} found, expected ints and slices")
        return apply(shape.Slice(parts), self)


def _copy(array: Array) -> Array:
    return run(elementwise.Cast(array.dtype), array)[0]


def _tell_read(what: str) -> None:
    if record := recorder():
        record.value_read(what)


def _calls_up_to(last: Node) -> list[Node]:
    """The call `last` and all that led to it, latest first."""
    found: set[Node] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(source for source in node.inputs if isinstance(source, Node))
    return sorted(found, key=lambda node: node.number, reverse=True)


def _binary(op: Op, a: Any, b: Any) -> Tensor:
    """`op` of two tensors, or of one and an array or number.

    Numbers and whole-number arrays take the dtype of a float tensor beside them, as in PyTorch.
    """
    tensor = a if isinstance(a, Tensor) else b
    a, b = (x if isinstance(x, Tensor) else tensor._operand(x) for x in (a, b))
    if a.dtype.kind == "f" != b.dtype.kind:
        b = b.astype(a.dtype)
    elif b.dtype.kind == "f" != a.dtype.kind:
        a = a.astype(b.dtype)
    return apply(op, a, b)


def _numbers(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Arguments (2, 3), or one ((2, 3),) as PyTorch takes it too."""
    return given if len(given) != 1 or isinstance(given[0], int) else tuple(given[0])


def _axes(dim: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """The axes of a reduction; none given means all, as in PyTorch."""
    return (dim,) if isinstance(dim, int) else tuple(dim or ()) or None
