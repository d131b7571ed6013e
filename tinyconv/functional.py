"""The ops as functions of tensors, with PyTorch's names and argument orders.

Every function takes tensors or plain arrays and returns a Tensor; where shapes do not fit, a
ShapeError names both. N images, C channels, H x W pixels; sizes are one number or (rows, columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy

from tinyconv.backend import Array, array_module, dropout_stream, to_module, to_numpy
from tinyconv.errors import BackendError, ShapeError
from tinyconv.ops import activation, conv, image, loss, norm, pool, shape
from tinyconv.ops import dropout as dropout_ops
from tinyconv.ops import linear as linear_ops
from tinyconv.ops.window import Window, conv_output_size
from tinyconv.recorder import recorder
from tinyconv.tensor import Tensor, apply

__all__ = [
    "adaptive_avg_pool2d", "avg_pool2d", "batch_norm", "binary_cross_entropy_with_logits", "cat",
    "conv2d", "conv_output_size", "cross_entropy", "dropout", "flatten", "fold", "leaky_relu",
    "linear", "log_softmax", "matmul", "max_pool2d", "maximum", "minimum", "nll_loss",
    "normalize_image", "pad", "relu", "relu6", "sigmoid", "softmax", "tanh", "unfold",
]  # fmt: skip

Size = int | tuple[int, int]
Reduction = Literal["none", "mean", "sum"]


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _beside(x: Tensor, value: Any, dtype: Any = None) -> Any:
    """A second argument (target, weight) on x's device; tensors and None pass through.

    A list takes x's dtype, unless another one is given.
    """
    if value is None or isinstance(value, Tensor):
        return value
    if dtype is None and not hasattr(value, "dtype"):
        dtype = x.dtype
    return to_module(array_module(x.data), value, dtype)


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """A size given as one number or a pair, checked: whole numbers, at least `least`."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int | numpy.integer) and v >= least for v in pair):
        raise ValueError(f"{name}: {value!r} found, expected a whole number >= {least} or two")
    return int(pair[0]), int(pair[1])


def _one_dtype(what: str, x: Tensor, **others: Any) -> None:
    """Mixed dtypes would silently be computed in the wider one: TypeError, as in PyTorch.

    Mixed precision is the exception: float16 images beside float32 weights (see ops/conv.py).
    """
    wanted = (x.dtype, numpy.float32) if x.dtype == numpy.float16 else (x.dtype,)
    here = array_module(x.data)
    for name, other in others.items():
        there = here if other is None else array_module(_tensor(other).data)
        if there is not here:
            raise BackendError(
                f"{what}: input is on {here.__name__}, {name} on {there.__name__}; "
                "make the network after use_backend()"
            )
        if other is not None and other.dtype not in wanted:
            raise TypeError(f"{what}: input is {x.dtype}, {name} is {other.dtype}; convert one")


def _bias(what: str, x: Tensor, bias: Any, O: int) -> Any:
    """One number for each of O outputs, or None, on x's device."""
    bias = _beside(x, bias)
    if bias is not None and bias.shape != (O,):
        raise ShapeError(f"{what}: bias has shape {bias.shape}, expected ({O},)")
    return bias


def _images(x: Tensor, what: str) -> None:
    if x.ndim != 4:
        raise ShapeError(f"{what}: input has shape {x.shape}, expected (N, C, H, W)")


# Convolution --------------------------------------------------------------------------------------


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size | Literal["valid", "same"] = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """2-D convolution: y[n,o,i,j] = b[o] + sum_cuv w[o,c,u,v] x[n,c, i*s + u*d - p, ...].

    x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) -> (N, O, OH, OW), sizes by
    conv_output_size. padding "same" keeps H and W (stride 1 only); an odd pixel goes after.
    Raises ShapeError where channels, groups or sizes do not fit.
    """
    x, weight = _tensor(x), _tensor(weight)
    _images(x, "conv2d")
    if weight.ndim != 4:
        raise ShapeError(f"conv2d: weight has shape {weight.shape}, expected (O, C/groups, KH, KW)")
    C, (O, C_group, KH, KW) = x.shape[1], weight.shape
    if groups < 1 or O % groups:
        raise ValueError(f"groups: {groups} found, expected a divisor of {O} output channels")
    if C_group * groups != C:
        raise ShapeError(
            f"conv2d: input has shape {x.shape}, that is {C} channels; "
            f"weight {weight.shape} with groups={groups} expects {C_group * groups}"
        )
    bias = _bias("conv2d", x, bias, O)
    _one_dtype("conv2d", x, weight=weight, bias=bias)
    stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f"padding: 'same' needs stride 1, found stride {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, (KH, KW), strict=True)]
        if any(n % 2 for n in total):
            x = pad(x, (0, total[1] % 2, 0, total[0] % 2))
        padding = (total[0] // 2, total[1] // 2)
    elif padding == "valid":
        padding = 0
    op = conv.Conv2d(stride, _pair("padding", padding, 0), dilation, groups)
    return apply(op, x, weight, bias)


def unfold(
    x: Any, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Every window as a column: (N, C, H, W) -> (N, C*KH*KW, OH*OW), im2col's matrix."""
    x = _tensor(x)
    _images(x, "unfold")
    return apply(conv.Unfold(_window(kernel_size, stride, padding, dilation)), x)


def fold(
    x: Any,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Tensor:
    """Columns back to an image, overlaps added: (N, C*KH*KW, OH*OW) -> (N, C, *output_size)."""
    x = _tensor(x)
    window = _window(kernel_size, stride, padding, dilation)
    size = _pair("output_size", output_size, 1)
    KH, KW = window.kernel
    OH, OW = window.output_size(*size)
    if x.ndim != 3 or x.shape[1] % (KH * KW) or x.shape[2] != OH * OW:
        raise ShapeError(
            f"fold: input has shape {x.shape}, expected (N, a multiple of {KH * KW}, {OH * OW})"
        )
    return apply(conv.Fold(size, window), x)


def _window(
    kernel_size: Size, stride: Size | None, padding: Size, dilation: Size = 1, ceil: bool = False
) -> Window:
    kernel = _pair("kernel_size", kernel_size, 1)
    return Window(
        kernel,
        kernel if stride is None else _pair("stride", stride, 1),
        _pair("padding", padding, 0),
        _pair("dilation", dilation, 1),
        ceil,
    )


# Pooling ------------------------------------------------------------------------------------------


def max_pool2d(
    x: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The maximum of each window; stride is kernel_size where it is not given.

    (N, C, H, W) -> (N, C, OH, OW). Raises ValueError for a padding of more than half kernel_size.
    """
    x = _tensor(x)
    _images(x, "max_pool2d")
    return apply(pool.MaxPool2d(_pool(kernel_size, stride, padding, dilation, ceil_mode)), x)


def avg_pool2d(
    x: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window; stride is kernel_size where it is not given.

    (N, C, H, W) -> (N, C, OH, OW). Raises ValueError for a padding of more than half kernel_size.
    """
    x = _tensor(x)
    _images(x, "avg_pool2d")
    if divisor_override == 0:
        raise ValueError("divisor_override: found 0, expected another number or None")
    window = _pool(kernel_size, stride, padding, 1, ceil_mode)
    return apply(pool.AvgPool2d(window, count_include_pad, divisor_override), x)


def _pool(
    kernel_size: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool
) -> Window:
    window = _window(kernel_size, stride, padding, dilation, ceil_mode)
    for k, p in zip(window.kernel, window.padding, strict=True):
        if 2 * p > k:
            raise ValueError(f"padding: {p} is more than half of kernel_size {k}")
    return window


def adaptive_avg_pool2d(x: Any, output_size: Size) -> Tensor:
    """Means over a grid of output_size regions: (N, C, H, W) -> (N, C, OH, OW)."""
    x = _tensor(x)
    _images(x, "adaptive_avg_pool2d")
    return apply(pool.AdaptiveAvgPool2d(_pair("output_size", output_size, 1)), x)


# Normalisation, linear layer, dropout -------------------------------------------------------------


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias for each channel, x (N, C) or (N, C, H, W).

    training: statistics of the batch, and running_mean, running_var (C,) are moved in place;
    else the running ones. Raises ShapeError for vectors that are not (C,) and for one value per
    channel in training.
    """
    x = _tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: input has shape {x.shape}, expected (N, C, ...)")
    weight, bias = _beside(x, weight), _beside(x, bias)
    vectors = {
        "weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var
    }  # fmt: skip
    for name, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (x.shape[1],):
            raise ShapeError(
                f"batch_norm: input has shape {x.shape}, that is {x.shape[1]} channels; "
                f"{name} has shape {tuple(vector.shape)}, expected ({x.shape[1]},)"
            )
    values = x.data.size // max(x.shape[1], 1)
    if training and values == 1:
        raise ShapeError(
            f"batch_norm: input of shape {x.shape} has one value per channel; training needs more: "
            "a larger batch or image"
        )
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: one of running_mean and running_var is None, the other not")
    if not training and running_mean is None:
        raise ValueError("batch_norm: without training, running_mean and running_var are needed")
    if training and values == 0:  # an empty batch has no statistics and leaves these alone
        training, running_mean, running_var = False, numpy.zeros(x.shape[1]), numpy.ones(x.shape[1])
    given = [r.data if isinstance(r, Tensor) else r for r in (running_mean, running_var)]
    here = [_beside(x, r) for r in given]
    _one_dtype("batch_norm", x, weight=weight, bias=bias)
    y = apply(norm.BatchNorm(training, float(momentum), float(eps)), x, weight, bias, *here)
    for theirs, ours in zip(given, here, strict=True):
        if training and theirs is not ours:
            theirs[...] = to_numpy(ours)  # statistics kept in NumPy beside a batch on a GPU
    return y


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """x w^T + b: x (..., I), weight (O, I), bias (O,) -> (..., O). Raises ShapeError."""
    x, weight = _tensor(x), _tensor(weight)
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input has shape {x.shape}, weight {weight.shape} expects "
            f"(..., {weight.shape[-1]})"
        )
    bias = _bias("linear", x, bias, len(weight))
    _one_dtype("linear", x, weight=weight, bias=bias)
    return apply(linear_ops.Linear(), x, weight, bias)


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product over the last two axes: (..., I, K) and (..., K, J) -> (..., I, J)."""
    return _tensor(a) @ b


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Each value is 0 with probability p, else divided by 1 - p; x itself when not training."""
    if not 0 <= p <= 1:
        raise ValueError(f"p: {p} found, expected a probability from 0 to 1")
    x = _tensor(x)
    return apply(dropout_ops.Dropout(float(p)), x, dropout_stream()) if training and p else x


# Activations --------------------------------------------------------------------------------------


def relu(x: Any) -> Tensor:
    """max(x, 0)"""
    return apply(activation.ReLU(), _tensor(x))


def relu6(x: Any) -> Tensor:
    """min(max(x, 0), 6)"""
    return apply(activation.ReLU6(), _tensor(x))


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else negative_slope * x"""
    return apply(activation.LeakyReLU(float(negative_slope)), _tensor(x))


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return apply(activation.Tanh(), _tensor(x))


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e^-x)"""
    return apply(activation.Sigmoid(), _tensor(x))


def softmax(x: Any, dim: int) -> Tensor:
    """e^x / sum e^x along dim."""
    return apply(activation.Softmax(dim), _tensor(x))


def log_softmax(x: Any, dim: int) -> Tensor:
    """log(softmax(x)) along dim, without overflow."""
    return apply(activation.LogSoftmax(dim), _tensor(x))


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of two values, element by element."""
    return _tensor(a).maximum(b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of two values, element by element."""
    return _tensor(a).minimum(b)


# Shapes -------------------------------------------------------------------------------------------


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from start_dim to end_dim as one."""
    return _tensor(x).flatten(start_dim, end_dim)


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors one after another along dim. Raises ShapeError where other axes differ."""
    inputs = [_tensor(x) for x in tensors]
    if not inputs:
        raise ValueError("cat: no tensors were given")
    kept = [x.shape[: dim % x.ndim] + x.shape[dim % x.ndim + 1 :] for x in inputs]
    if any(rest != kept[0] for rest in kept):
        shapes = ", ".join(str(x.shape) for x in inputs)
        raise ShapeError(f"cat: shapes {shapes} differ outside of dim {dim}")
    return apply(shape.Concatenate(dim), *inputs)


def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Entries of `value` around x; pad is (before, after) of the last axis, then of the one before.

    Negative numbers cut off. Raises ValueError for another mode than "constant" or a bad list.
    """
    x = _tensor(x)
    if mode != "constant":
        raise ValueError(f"mode: {mode!r} found, expected 'constant'")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: {tuple(pad)} found, expected pairs for at most {x.ndim} axes")
    untouched = [0] * (x.ndim - len(pad) // 2)
    before, after = (tuple(untouched + list(reversed(pad[i::2]))) for i in (0, 1))
    if any(min(b, 0) + n + min(a, 0) < 0 for b, n, a in zip(before, x.shape, after, strict=True)):
        raise ShapeError(f"pad: {tuple(pad)} cuts more off than shape {x.shape} has")
    return apply(shape.Pad(before, after, value), x)


# Losses -------------------------------------------------------------------------------------------


def cross_entropy(
    x: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(x)[target], the loss of a classifier; see ops/loss.py for every setting.

    x (N, C, ...) or (C,); target class numbers (N, ...) or probabilities shaped as x; weight (C,).
    Raises ShapeError for shapes that do not fit, IndexError for a class number out of range.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: {label_smoothing} found, expected 0 to 1")
    op = loss.CrossEntropy(_reduction(reduction), ignore_index, label_smoothing)
    return _class_loss(op, x, target, weight)


def nll_loss(
    x: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """-x[target] for log-probabilities x, as cross_entropy without its softmax."""
    op = loss.NegativeLogLikelihood(_reduction(reduction), ignore_index)
    return _class_loss(op, x, target, weight)


def _wide(x: Any) -> Tensor:
    """Logits as a loss takes them: float16 has too few digits for its sums."""
    x = _tensor(x)
    return x.astype(numpy.float32) if x.dtype == numpy.float16 else x


def _class_loss(op: loss.NegativeLogLikelihood, x: Any, target: Any, weight: Any) -> Tensor:
    x = _wide(x)
    if x.ndim == 0:
        raise ShapeError("input: a single number found, expected (C,) or (N, C, ...)")
    target = target if hasattr(target, "dtype") else numpy.asarray(target)
    one = x.ndim == 1
    if one:
        x, target = x.reshape(1, -1), target[None]
    _check_target(x, target, op.ignore_index)
    weight = _beside(x, weight)
    if weight is not None and tuple(weight.shape) != (x.shape[1],):
        raise ShapeError(f"weight: shape {tuple(weight.shape)} found, expected ({x.shape[1]},)")
    y = apply(op, x, _beside(x, target), weight)
    return y.reshape(()) if one and op.reduction == "none" else y


def _check_target(x: Tensor, target: Tensor | Array, ignore_index: int) -> None:
    target = target.data if isinstance(target, Tensor) else target
    N, C, *rest = x.shape
    probabilities = target.dtype.kind == "f"
    expected = x.shape if probabilities else (N, *rest)
    if tuple(target.shape) != expected:
        raise ShapeError(
            f"target: shape {tuple(target.shape)} found, expected {expected} "
            f"for an input of shape {x.shape}"
        )
    # Looking at values on a GPU would make it wait: labels are checked where they come from. A
    # step that is being recorded has no values; when it runs, a wrong class makes the loss NaN.
    if not probabilities and array_module(target) is numpy and not recorder():
        wrong = target[((target < 0) | (target >= C)) & (target != ignore_index)]
        if wrong.size:
            raise IndexError(f"target: class {wrong[0]} found, expected 0 to {C - 1}")


def binary_cross_entropy_with_logits(
    x: Any,
    target: Any,
    weight: Any = None,
    *,
    reduction: Reduction = "mean",
    pos_weight: Any = None,
) -> Tensor:
    """-(t log s + (1 - t) log(1 - s)) with s = sigmoid(x), safe for large |x|.

    x and target have one shape; weight and pos_weight broadcast against it. Raises ShapeError.
    """
    _reduction(reduction)
    x = _wide(x)
    target, weight, pos_weight = (_beside(x, a, x.dtype) for a in (target, weight, pos_weight))
    if tuple(target.shape) != x.shape:
        raise ShapeError(f"target: shape {tuple(target.shape)} found, expected {x.shape}")
    y = apply(loss.BinaryCrossEntropyWithLogits(), x, target, pos_weight)
    y = y if weight is None else y * weight
    if reduction == "none":
        return y
    return y.mean() if reduction == "mean" else y.sum()


def _reduction(reduction: Reduction) -> Reduction:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: {reduction!r} found, expected 'none', 'mean' or 'sum'")
    return reduction


# Images -------------------------------------------------------------------------------------------


def normalize_image(
    x: Any, mean: Sequence[float], std: Sequence[float], dtype: Any = numpy.float32
) -> Tensor:
    """(x / 255 - mean) / std for each channel: uint8 (N, H, W, C) -> floats (N, C, H, W).

    Raises ShapeError for another number of channels, TypeError for another dtype.
    """
    x = _tensor(x)
    if x.ndim != 4 or not x.shape[3] == len(mean) == len(std):
        raise ShapeError(
            f"normalize_image: input has shape {x.shape}, mean {len(mean)} and std {len(std)} "
            "values, expected (N, H, W, C) with C of each"
        )
    if x.dtype != numpy.uint8:
        raise TypeError(f"normalize_image: input is {x.dtype}, expected uint8")
    return apply(image.NormalizeImage(tuple(mean), tuple(std), numpy.dtype(dtype)), x)
