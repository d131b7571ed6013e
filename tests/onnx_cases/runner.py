"""A runner of ONNX models on tinyconv: a table from ONNX's nodes to calls of tinyconv.

Only so much of ONNX as tinyconv has ops for. ONNX names what PyTorch does differently: padding may
be asymmetric or derived ("SAME_UPPER"), axes are attributes in old versions and inputs in new ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy
import onnx
from onnx import helper, numpy_helper

import tinyconv.functional as F
from tinyconv import Tensor, optim

Attributes = dict[str, Any]


class NotExpressible(Exception):
    """What the node asks for, tinyconv (and mostly PyTorch too) does not have."""


def run(model: onnx.ModelProto, inputs: list[Any]) -> list[numpy.ndarray]:
    """The outputs of a model. Raises NotExpressible where a node asks for what tinyconv has not."""
    opset = max(i.version for i in model.opset_import)
    values: dict[str, Any] = {"": None}
    for tensor in model.graph.initializer:
        values[tensor.name] = Tensor(numpy_helper.to_array(tensor))
    free = [value.name for value in model.graph.input if value.name not in values]
    for name, value in zip(free, inputs, strict=False):  # optional inputs may be left out
        if not hasattr(value, "dtype"):
            raise NotExpressible("a sequence or an optional value")
        values[name] = Tensor(value)
    with numpy.errstate(all="ignore"):
        for node in model.graph.node:
            attributes = {a.name: _attribute(a) for a in node.attribute}
            attributes.update(opset=opset, outputs=len(node.output))
            results = OPS[node.op_type](attributes, *(values[name] for name in node.input))
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(node.output, results, strict=False))
    missing = [value.name for value in model.graph.output if value.name not in values]
    if missing:
        raise NotExpressible(f"output {missing[0]!r}")
    return [values[value.name].numpy() for value in model.graph.output]


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _ints(value: Any) -> list[int] | None:
    """Axes or sizes: an attribute (a list) in old versions, an input (a tensor) in new ones."""
    return value.numpy().tolist() if isinstance(value, Tensor) else value


# Windows ------------------------------------------------------------------------------------------


def _window(at: Attributes, x: Tensor, kernel: Any) -> tuple[Any, Any, tuple[int, int, int, int]]:
    """Stride, dilation and padding (top, left, bottom, right) of a node over images."""
    if x.ndim != 4:
        raise NotExpressible("windows over one or three axes")
    stride = tuple(at.get("strides", (1, 1)))
    dilation = tuple(at.get("dilations", (1, 1)))
    auto = at.get("auto_pad", "NOTSET")
    if not auto.startswith("SAME"):
        return stride, dilation, tuple(at.get("pads", (0, 0, 0, 0)))
    before, after = [], []
    for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        before.append(first)
        after.append(total - first)
    return stride, dilation, (*before, *after)


def _pad(x: Any, pads: tuple[int, int, int, int], value: float = 0.0) -> Tensor:
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)


def _symmetric(pads: tuple[int, int, int, int]) -> bool:
    return pads[:2] == pads[2:]


def conv(at: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    stride, dilation, pads = _window(at, x, w.shape[2:])
    padding = pads[:2]
    if not _symmetric(pads):
        x, padding = _pad(x, pads), (0, 0)
    return F.conv2d(x, w, b, stride, padding, dilation, at.get("group", 1))


def max_pool(at: Attributes, x: Tensor) -> Tensor:
    kernel = tuple(at["kernel_shape"])
    stride, dilation, pads = _window(at, x, kernel)
    padding = pads[:2]
    if not _symmetric(pads) or any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        x, padding = _pad(x, pads, value=-math.inf), (0, 0)
    return F.max_pool2d(x, kernel, stride, padding, dilation, bool(at.get("ceil_mode", 0)))


def average_pool(at: Attributes, x: Tensor) -> Tensor:
    kernel = tuple(at["kernel_shape"])
    stride, dilation, pads = _window(at, x, kernel)
    if dilation != (1, 1):
        raise NotExpressible("average pooling with dilation")
    ceil, border_counts = bool(at.get("ceil_mode", 0)), bool(at.get("count_include_pad", 0))
    if _symmetric(pads) and all(2 * p <= k for p, k in zip(pads[:2], kernel, strict=True)):
        return F.avg_pool2d(x, kernel, stride, pads[:2], ceil, border_counts)
    y = F.avg_pool2d(_pad(x, pads), kernel, stride, ceil_mode=ceil)
    if border_counts:
        return y
    pixels = F.avg_pool2d(_pad(numpy.ones_like(x.data), pads), kernel, stride, ceil_mode=ceil)
    return y / pixels


def global_average_pool(at: Attributes, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1)


def global_max_pool(at: Attributes, x: Tensor) -> Tensor:
    return F.max_pool2d(x, x.shape[2:])


def col2im(at: Attributes, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    if len(image) != 2:
        raise NotExpressible("windows over one or three axes")
    pads = tuple(at.get("pads", (0, 0, 0, 0)))
    if not _symmetric(pads):
        raise NotExpressible("fold with asymmetric padding")
    dilation, stride = tuple(at.get("dilations", (1, 1))), tuple(at.get("strides", (1, 1)))
    return F.fold(x, _ints(image), _ints(block), dilation, pads[:2], stride)


# Normalisation, products, dropout -----------------------------------------------------------------


def batch_normalization(
    at: Attributes, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> tuple[Tensor, ...]:
    """ONNX's momentum is 1 - PyTorch's, and it stores the batch's biased variance."""
    training, momentum = bool(at.get("training_mode", 0)), 1 - at.get("momentum", 0.9)
    mean, moved = mean.numpy().copy(), var.numpy().copy()
    y = F.batch_norm(x, mean, moved, weight, bias, training, momentum, at.get("epsilon", 1e-5))
    n = x.data.size // x.shape[1]
    biased = (moved - var.numpy()) * ((n - 1) / n) - var.numpy() * (momentum / n)
    return y, Tensor(mean), Tensor(var.numpy() + biased)


def gemm(at: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.transpose(0, 1) if at.get("transA", 0) else a
    alpha, beta = at.get("alpha", 1.0), at.get("beta", 1.0)
    if at.get("transB", 0) and alpha == beta == 1 and (c is None or c.ndim == 1):
        return F.linear(a, b, c)
    y = F.matmul(a, b.transpose(0, 1) if at.get("transB", 0) else b) * alpha
    return y if c is None else y + c * beta


def matmul(at: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """A vector is a matrix of one row (left) or one column (right), taken out again after."""
    rows, columns = a.ndim == 1, b.ndim == 1
    y = F.matmul(a.reshape(1, -1) if rows else a, b.reshape(-1, 1) if columns else b)
    y = y[..., 0, :] if rows else y
    return y[..., 0] if columns else y


def dropout(
    at: Attributes, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> Tensor:
    p = at.get("ratio", 0.5) if ratio is None else ratio.item()
    return F.dropout(x, p, training is not None and bool(training.item()))


# Activations and losses ---------------------------------------------------------------------------


def _along(function: Callable[..., Tensor], at: Attributes, x: Tensor) -> Tensor:
    """softmax or log_softmax; before version 13 over all axes from `axis` on, taken as one."""
    if at["opset"] >= 13:
        return function(x, at.get("axis", -1))
    rows = math.prod(x.shape[: at.get("axis", 1) % x.ndim])
    return function(x.reshape(rows, -1), 1).reshape(x.shape)


def clip(at: Attributes, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = at.get("min", low), at.get("max", high)
    if (low, high) == (0, 6):
        return F.relu6(x)
    x = x if low is None else F.maximum(x, low)
    return x if high is None else F.minimum(x, high)


def softmax_cross_entropy(
    at: Attributes, x: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    reduction, ignore = at.get("reduction", "mean"), at.get("ignore_index", -100)
    return F.cross_entropy(
        x, target, weight, ignore_index=ignore, reduction=reduction
    ), F.log_softmax(x, 1)


def nll(at: Attributes, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    reduction, ignore = at.get("reduction", "mean"), at.get("ignore_index", -100)
    return F.nll_loss(x, target, weight, ignore_index=ignore, reduction=reduction)


# Arithmetic and reductions ------------------------------------------------------------------------


def _all_inputs(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda at, *inputs: functools.reduce(function, inputs)


def power(at: Attributes, x: Tensor, exponent: Tensor) -> Tensor:
    if exponent.data.size != 1:
        raise NotExpressible("an array of exponents")
    return x ** exponent.item()


def _reduction(name: str) -> Callable[..., Tensor]:
    def reduce(at: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        dim = tuple(_ints(at.get("axes", axes)) or ())
        if not dim and at.get("noop_with_empty_axes", 0):
            return x
        return getattr(x, name)(dim or None, keepdim=bool(at.get("keepdims", 1)))

    return reduce


# Shapes -------------------------------------------------------------------------------------------


def constant(at: Attributes) -> Tensor:
    """A tensor, or numbers: int64 and float32 then."""
    if "value" in at:
        return Tensor(numpy_helper.to_array(at["value"]))
    return Tensor(next(at[key] for key in at if key.startswith("value_")))


def flatten(at: Attributes, x: Tensor) -> Tensor:
    """Always two axes: those before `axis` as one, and the others as one."""
    axis = at.get("axis", 1) % x.ndim
    columns = F.flatten(x, axis)
    return F.flatten(columns, 0, axis - 1) if axis else columns.reshape(1, -1)


def reshape(at: Attributes, x: Tensor, shape: Tensor | None = None) -> Tensor:
    sizes = _ints(at.get("shape", shape)) or []
    if not at.get("allowzero", 0):
        sizes = [n or x.shape[i] for i, n in enumerate(sizes)]
    return x.reshape(*sizes)


def squeeze(at: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    gone = _ints(at.get("axes", axes))
    gone = [i for i, n in enumerate(x.shape) if n == 1] if gone is None else gone
    return x.reshape([n for i, n in enumerate(x.shape) if i not in {g % x.ndim for g in gone}])


def unsqueeze(at: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    new = _ints(at.get("axes", axes)) or []
    rank = x.ndim + len(new)
    sizes = iter(x.shape)
    return x.reshape([1 if i in {n % rank for n in new} else next(sizes) for i in range(rank)])


def transpose(at: Attributes, x: Tensor) -> Tensor:
    return x.permute(*at.get("perm", range(x.ndim - 1, -1, -1)))


def pad(at: Attributes, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    if at.get("mode", "constant") != "constant":
        raise NotExpressible("padding with the image's own pixels")
    sizes = _ints(at.get("pads", pads)) or []
    along = [axis % x.ndim for axis in _ints(axes) or range(x.ndim)]
    before = dict(zip(along, sizes[: len(along)], strict=True))
    after = dict(zip(along, sizes[len(along) :], strict=True))
    last_first = reversed(range(x.ndim))
    pairs = [n for axis in last_first for n in (before.get(axis, 0), after.get(axis, 0))]
    return F.pad(x, pairs, value=at.get("value", 0.0) if value is None else value.item())


def slice_(at: Attributes, x: Tensor, *limits: Tensor | None) -> Tensor:
    """Starts, ends, axes and steps; the last two may be missing."""
    starts, ends, axes, steps = (*limits, *[None] * (4 - len(limits)))
    first, last = _ints(at.get("starts", starts)) or [], _ints(at.get("ends", ends)) or []
    along = _ints(at.get("axes", axes)) or range(len(first))
    by = _ints(steps) or [1] * len(first)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, by, strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def split(at: Attributes, x: Tensor, sizes: Any = None) -> tuple[Tensor, ...]:
    axis, count = at.get("axis", 0) % x.ndim, at["outputs"]
    parts = _ints(at.get("split", sizes)) or [math.ceil(x.shape[axis] / count)] * count
    ends = [sum(parts[: i + 1]) for i in range(count)]
    before = (slice(None),) * axis
    return tuple(
        x[(*before, slice(end - part, end))] for part, end in zip(parts, ends, strict=True)
    )


# Optimisers: inputs are the rate, the step's number, then all parameters, all gradients, all states


def _optimizer_step(
    optimizer: optim.Optimizer, step: int, gradients: tuple[Tensor, ...], **states: tuple[Any, ...]
) -> tuple[Tensor, ...]:
    parameters = optimizer.param_groups[0]["params"]
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        parameter.grad = gradient
        arrays = {name: of_all[i].numpy().copy() for name, of_all in states.items()}
        optimizer.state[parameter] = {"step": numpy.array(float(step)), **arrays}
    optimizer.step()
    after = [Tensor(optimizer.state[p][name]) for name in states for p in parameters]
    return (*parameters, *after)


def _copies(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [Tensor(t.numpy().copy(), requires_grad=True) for t in tensors]


def momentum(at: Attributes, rate: Tensor, step: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """ONNX's beta, the weight of a gradient from the second step on, is 1 - dampening."""
    n = len(tensors) // 3
    optimizer = optim.SGD(
        _copies(tensors[:n]), rate.item(), at["alpha"], 1 - at["beta"], at["norm_coefficient"],
        nesterov=at["mode"] == "nesterov",
    )  # fmt: skip
    return _optimizer_step(
        optimizer, step.item(), tensors[n : 2 * n], momentum_buffer=tensors[2 * n :]
    )


LATE = 10**6  # a step so late that Adam's bias correction is exactly 1


def adam(at: Attributes, rate: Tensor, step: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """At step 0 ONNX corrects no bias; tinyconv, as PyTorch, does not either at a late step."""
    if step.item() != 0:
        raise NotExpressible("Adam with an epsilon that the bias correction scales")
    n = len(tensors) // 4
    betas = at.get("alpha", 0.9), at.get("beta", 0.999)
    eps, weight_decay = at.get("epsilon", 1e-6), at.get("norm_coefficient", 0.0)
    optimizer = optim.Adam(_copies(tensors[:n]), rate.item(), betas, eps, weight_decay)
    return _optimizer_step(
        optimizer, LATE, tensors[n : 2 * n],
        exp_avg=tensors[2 * n : 3 * n], exp_avg_sq=tensors[3 * n :],
    )  # fmt: skip


OPS: dict[str, Callable[..., Any]] = {
    "Abs": lambda at, x: x.abs(),
    "Adam": adam,
    "Add": lambda at, a, b: a + b,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Clip": clip,
    "Col2Im": col2im,
    "Concat": lambda at, *inputs: F.cat(inputs, at["axis"]),
    "Constant": constant,
    "Conv": conv,
    "Div": lambda at, a, b: a / b,
    "Dropout": dropout,
    "Exp": lambda at, x: x.exp(),
    "Flatten": flatten,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "Identity": lambda at, x: x,
    "LeakyRelu": lambda at, x: F.leaky_relu(x, at.get("alpha", 0.01)),
    "Log": lambda at, x: x.log(),
    "LogSoftmax": functools.partial(_along, F.log_softmax),
    "MatMul": matmul,
    "Max": _all_inputs(F.maximum),
    "MaxPool": max_pool,
    "Mean": lambda at, *inputs: functools.reduce(Tensor.__add__, inputs) / len(inputs),
    "Min": _all_inputs(F.minimum),
    "Momentum": momentum,
    "Mul": lambda at, a, b: a * b,
    "Neg": lambda at, x: -x,
    "NegativeLogLikelihoodLoss": nll,
    "Pad": pad,
    "Pow": power,
    "Reciprocal": lambda at, x: 1 / x,
    "ReduceMax": _reduction("amax"),
    "ReduceMean": _reduction("mean"),
    "ReduceMin": _reduction("amin"),
    "ReduceSum": _reduction("sum"),
    "Relu": lambda at, x: F.relu(x),
    "Reshape": reshape,
    "Sigmoid": lambda at, x: F.sigmoid(x),
    "Slice": slice_,
    "Softmax": functools.partial(_along, F.softmax),
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
    "Split": split,
    "Sqrt": lambda at, x: x.sqrt(),
    "Squeeze": squeeze,
    "Sub": lambda at, a, b: a - b,
    "Sum": _all_inputs(Tensor.__add__),
    "Tanh": lambda at, x: F.tanh(x),
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
