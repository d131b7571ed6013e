"""The gradient of every op against central differences in float64.

`python tests/ops/test_gradients.py` prints the worst relative error of each op.
"""

import importlib
import itertools
import pkgutil

import numpy
import pytest

import tinyconv
import tinyconv.functional as F
import tinyconv.ops
from tinyconv.op import Op
from tinyconv.ops import (
    activation,
    conv,
    dropout,
    elementwise,
    linear,
    loss,
    norm,
    pool,
    reduce,
    shape,
)
from tinyconv.tensor import Tensor
from tinyconv.testing import gradient_error

WORST = 1e-7

_random = numpy.random.default_rng(7)


def normal(*shape):
    return _random.standard_normal(shape)


def positive(*shape):
    return _random.uniform(0.5, 2.0, shape)


def distinct(*shape):
    """No two values closer than 0.05 and none closer than 0.025 to 0: no ties, no kinks."""
    size = int(numpy.prod(shape))
    values = (numpy.arange(size) - size // 2 + 0.5) * 0.05
    return _random.permutation(values).reshape(shape)


def apart(*shape):
    """Two arrays whose values at one place differ by at least 0.25."""
    a = normal(*shape)
    return a, a + _random.choice([-1, 1], shape) * _random.uniform(0.25, 1, shape)


def _conv(*sizes, **settings):
    """F.conv2d with these settings on (N, C, H, W) and (O, C/groups, KH, KW), with a bias."""
    x, w = sizes
    return lambda x, w, b: F.conv2d(x, w, b, **settings), normal(*x), normal(*w), normal(w[0])


def _conv_cases():
    for stride, padding, dilation, groups in itertools.product(
        (1, 2, 3), (0, 1, 2), (1, 2), (1, 2)
    ):
        name = f"stride {stride} padding {padding} dilation {dilation} groups {groups}"
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        yield name, _conv((1, 2, 6, 7), (2, 2 // groups, 3, 2), **settings)
    yield (
        "pairs",
        _conv((2, 4, 7, 9), (6, 2, 2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
    )
    yield "depthwise, two outputs each", _conv((2, 3, 5, 5), (6, 1, 3, 3), groups=3, padding=1)
    yield "rows never reached", _conv((1, 1, 9, 8), (1, 1, 2, 2), stride=4)
    yield "kernel of the image's size", _conv((2, 2, 4, 3), (3, 2, 4, 3))
    yield "1x1, stride 2", _conv((2, 3, 5, 4), (2, 3, 1, 1), stride=2)
    yield "one pixel, one channel", _conv((1, 1, 1, 1), (1, 1, 3, 3), padding=1)
    yield "same, odd and even kernel", _conv((1, 2, 5, 6), (2, 2, 3, 2), padding="same")
    yield "without bias", (lambda x, w: F.conv2d(x, w, padding=1), normal(2, 2, 4, 4),
                           normal(3, 2, 3, 3))  # fmt: skip


def _pool_cases(function, **settings):
    sizes = {
        "2x2": ((2, 2, 4, 6), {"kernel_size": 2}),
        "odd size": ((2, 1, 5, 7), {"kernel_size": 2}),
        "overlapping": ((1, 2, 7, 7), {"kernel_size": 3, "stride": 2}),
        "every pixel a window": ((1, 2, 5, 4), {"kernel_size": 3, "stride": 1, "padding": 1}),
        "rectangular": (
            (1, 2, 6, 7), {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 1)}
        ),
        "stride beyond the window": ((1, 2, 8, 7), {"kernel_size": 2, "stride": 3}),
        "ceil_mode": ((1, 2, 6, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        "ceil_mode, last window dropped": (
            (1, 2, 3, 5), {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}
        ),
        "whole image": ((2, 3, 3, 4), {"kernel_size": (3, 4)}),
    }  # fmt: skip
    for name, (size, own) in sizes.items():
        yield name, (lambda x, own=own: function(x, **own, **settings), distinct(*size))


def _broadcast_cases(function, pair=lambda a, b: (positive(*a), positive(*b))):
    shapes = {
        "same shape": ((3, 4), (3, 4)),
        "a row": ((3, 4), (4,)),
        "a column": ((3, 4), (3, 1)),
        "both stretched": ((2, 1, 3), (4, 1)),
        "a number": ((2, 3), ()),
        "channels": ((2, 3, 2, 2), (1, 3, 1, 1)),
        "first one smaller": ((1,), (2, 3)),
    }
    for name, (a, b) in shapes.items():
        yield name, (function, *pair(a, b))


def _never_equal(a, b):
    both = distinct(int(numpy.prod(a)) + int(numpy.prod(b)))
    return both[: int(numpy.prod(a))].reshape(a), both[int(numpy.prod(a)) :].reshape(b)


def _reduce_cases(method):
    for dim, keepdim in itertools.product((None, 0, -1, (0, 2), (1, -1), (0, 1, 2)), (False, True)):
        function = lambda x, dim=dim, keepdim=keepdim: getattr(x, method)(dim, keepdim)  # noqa: E731
        yield f"dim {dim}, keepdim {keepdim}", (function, distinct(2, 3, 4))


def _along_dims(function, negative=normal):
    for dim in (0, 1, -1):
        yield f"dim {dim}", (lambda x, dim=dim: function(x, dim), negative(3, 4, 2))


def _class_loss_cases(function, make):
    labels = numpy.array([2, 0, 3, 2, 1])
    weight = positive(4)
    maps = _random.integers(0, 3, (2, 2, 3))
    maps[0, 1] = -100
    shares = positive(5, 4)
    shares /= shares.sum(axis=1, keepdims=True)
    for reduction in ("mean", "sum", "none"):
        settings = {
            "plain": {},
            "weight": {"weight": weight},
            "ignore_index": {"ignore_index": 2},
            "weight, ignore_index": {"weight": weight, "ignore_index": 0},
        }
        if function is F.cross_entropy:
            settings |= {
                "label_smoothing": {"label_smoothing": 0.2},
                "everything": {"weight": weight, "ignore_index": 2, "label_smoothing": 0.1},
            }
        for name, own in settings.items():
            yield (
                f"{name}, {reduction}",
                (
                    lambda x, own=own, reduction=reduction: function(
                        x, labels, reduction=reduction, **own
                    ),
                    make(5, 4),
                ),
            )
        yield (
            f"maps, {reduction}",
            (
                lambda x, reduction=reduction: function(x, maps, reduction=reduction),
                make(2, 3, 2, 3),
            ),
        )
        yield (
            f"probabilities, {reduction}",
            (
                lambda x, reduction=reduction: function(x, shares, weight, reduction=reduction),
                make(5, 4),
            ),
        )
    yield "one sample", (lambda x: function(x, 2), make(4))
    yield "logits of +-30", (lambda x: function(x * 30, labels), make(5, 4))


def _binary_cases():
    target = _random.uniform(0, 1, (3, 4))
    pos_weight, weight = positive(4), positive(3, 1)
    for reduction in ("mean", "sum", "none"):
        for name, own in {
            "plain": {},
            "pos_weight": {"pos_weight": pos_weight},
            "weight": {"weight": weight, "pos_weight": pos_weight},
        }.items():
            yield (
                f"{name}, {reduction}",
                (
                    lambda x, own=own, reduction=reduction: F.binary_cross_entropy_with_logits(
                        x, target, reduction=reduction, **own
                    ),
                    normal(3, 4),
                ),
            )


def _batch_norm_cases():
    def function(x, weight=None, bias=None, *, training=True):
        C = x.shape[1]
        mean, var = numpy.linspace(-1, 1, C), numpy.linspace(0.5, 2, C)
        return F.batch_norm(x, mean, var, weight, bias, training)

    for training in (True, False):
        for size in ((3, 2, 4, 3), (6, 3), (2, 3, 5), (1, 2, 3, 3), (4, 1, 2, 1)):
            affine = (positive(size[1]), normal(size[1]))
            run = lambda *inputs, training=training: function(*inputs, training=training)  # noqa: E731
            yield f"{size}, training {training}", (run, normal(*size), *affine)
        yield f"not affine, training {training}", (run, normal(3, 2, 2, 2))
    yield "mean 100, deviation 1", (function, normal(4, 2, 3, 3) + 100, positive(2), normal(2))


def _dropout(x, p):
    tinyconv.manual_seed(3)  # the same mask at each call
    return F.dropout(x, p)


def _slice_cases():
    indices = {
        "an integer": 1, "from the end": -1, "part": slice(1, 3), "steps": slice(None, None, 2),
        "backwards": slice(None, None, -1), "several": (slice(None), 0, slice(1, None)),
        "dots": (..., 1), "new axis": (None, slice(0, 2), None, 1),
    }  # fmt: skip
    for name, index in indices.items():
        yield name, (lambda x, index=index: x[index], normal(4, 2, 3))


# Every op with a gradient: {op: {name: (function, *inputs)}}.
CASES = {
    activation.ReLU: {"": (F.relu, distinct(3, 4))},
    activation.ReLU6: {"": (F.relu6, distinct(12, 30) + 2.95)},
    activation.LeakyReLU: {
        f"slope {slope}": (lambda x, slope=slope: F.leaky_relu(x, slope), distinct(3, 4))
        for slope in (0.01, 0.5, -1.0)
    },
    activation.Tanh: {"": (F.tanh, normal(3, 4))},
    activation.Sigmoid: {
        "": (F.sigmoid, normal(3, 4)), "up to 10": (F.sigmoid, 5 * normal(9))
    },
    activation.Softmax: dict(_along_dims(F.softmax)),
    activation.LogSoftmax: dict(_along_dims(F.log_softmax)),
    conv.Conv2d: dict(_conv_cases()),
    conv.Unfold: {
        "plain": (lambda x: F.unfold(x, 2), normal(2, 2, 4, 3)),
        "all settings": (lambda x: F.unfold(x, (3, 2), (1, 2), (1, 0), (2, 1)), normal(1, 2, 6, 5)),
        "pixels never reached": (lambda x: F.unfold(x, 2, stride=3), normal(1, 1, 6, 7)),
    },
    conv.Fold: {
        "plain": (lambda x: F.fold(x, (4, 3), 2), normal(2, 8, 6)),
        "all settings": (
            lambda x: F.fold(x, (6, 5), (3, 2), (1, 2), (1, 0), (2, 1)), normal(1, 12, 9)
        ),
    },
    dropout.Dropout: {
        f"p {p}": (lambda x, p=p: _dropout(x, p), normal(4, 5)) for p in (0.1, 0.5, 0.9)
    },
    elementwise.Add: dict(_broadcast_cases(lambda a, b: a + b)),
    elementwise.Subtract: dict(_broadcast_cases(lambda a, b: a - b))
    | {"number - x": (lambda x: 2 - x, normal(3))},
    elementwise.Multiply: dict(_broadcast_cases(lambda a, b: a * b))
    | {"used twice": (lambda x: x * x, normal(3))},
    elementwise.Divide: dict(_broadcast_cases(lambda a, b: a / b))
    | {"number / x": (lambda x: 2 / x, positive(3))},
    elementwise.Maximum: dict(_broadcast_cases(F.maximum, _never_equal)),
    elementwise.Minimum: dict(_broadcast_cases(F.minimum, _never_equal)),
    elementwise.Power: {
        f"exponent {e}": (lambda x, e=e: x**e, positive(3, 4)) for e in (0, 1, 2, 3, 0.5, -1, -1.5)
    } | {"negative base": (lambda x: x**3, normal(5))},
    elementwise.Negative: {"": (lambda x: -x, normal(3, 4))},
    elementwise.Cast: {"": (lambda x: x.astype(x.dtype), normal(3, 4))},
    elementwise.Absolute: {"": (lambda x: x.abs(), distinct(3, 4))},
    elementwise.Exp: {"": (lambda x: x.exp(), normal(3, 4))},
    elementwise.Log: {"": (lambda x: x.log(), positive(3, 4))},
    elementwise.Sqrt: {"": (lambda x: x.sqrt(), positive(3, 4))},
    linear.Linear: {
        "": (F.linear, normal(3, 4), normal(5, 4), normal(5)),
        "without bias": (F.linear, normal(3, 4), normal(2, 4)),
        "one sample": (F.linear, normal(4), normal(3, 4), normal(3)),
        "sequences": (F.linear, normal(2, 3, 4), normal(2, 4), normal(2)),
    },
    linear.MatMul: {
        "matrices": (F.matmul, normal(2, 3), normal(3, 4)),
        "batches": (F.matmul, normal(2, 3, 4), normal(2, 4, 2)),
        "broadcast": (F.matmul, normal(2, 1, 2, 3), normal(4, 3, 2)),
        "one matrix for all": (lambda a, b: a @ b, normal(2, 2, 3), normal(3, 2)),
    },
    loss.CrossEntropy: dict(_class_loss_cases(F.cross_entropy, normal)),
    loss.NegativeLogLikelihood: dict(_class_loss_cases(F.nll_loss, lambda *s: -positive(*s))),
    loss.BinaryCrossEntropyWithLogits: dict(_binary_cases()),
    norm.BatchNorm: dict(_batch_norm_cases()),
    pool.MaxPool2d: dict(_pool_cases(F.max_pool2d))
    | {
        "dilation": (
            lambda x: F.max_pool2d(x, (2, 3), 2, 1, (2, 1), ceil_mode=True), distinct(1, 2, 7, 6)
        )
    },
    pool.AvgPool2d: dict(_pool_cases(F.avg_pool2d))
    | {
        f"border not counted, {name}": case
        for name, case in _pool_cases(F.avg_pool2d, count_include_pad=False)
    }
    | {f"divisor 5, {name}": case for name, case in _pool_cases(F.avg_pool2d, divisor_override=5)},
    pool.AdaptiveAvgPool2d: {
        str(size): (lambda x, size=size: F.adaptive_avg_pool2d(x, size), normal(2, 2, 5, 7))
        for size in (1, 3, (2, 3), (5, 7), (7, 4))
    },
    reduce.Sum: dict(_reduce_cases("sum")),
    reduce.Mean: dict(_reduce_cases("mean")),
    reduce.Amax: dict(_reduce_cases("amax")),
    reduce.Amin: dict(_reduce_cases("amin")),
    shape.Reshape: {
        "": (lambda x: x.reshape(4, -1), normal(2, 3, 4)),
        "flatten": (lambda x: F.flatten(x, 1), normal(2, 3, 4)),
    },
    shape.Permute: {
        "": (lambda x: x.permute(2, 0, 1), normal(2, 3, 4)),
        "from the end": (lambda x: x.permute(-1, 0, -2), normal(2, 3, 4)),
        "transpose": (lambda x: x.transpose(0, -1), normal(2, 3, 4)),
    },
    shape.Concatenate: {
        "rows": (lambda a, b: F.cat([a, b]), normal(2, 3), normal(1, 3)),
        "last axis": (
            lambda a, b, c: F.cat([a, b, c], -1), normal(2, 3), normal(2, 1), normal(2, 2)
        ),
        "the same twice": (lambda x: F.cat([x, x], 1), normal(2, 3)),
    },
    shape.Pad: {
        "image": (lambda x: F.pad(x, (1, 2, 0, 3), value=2.5), normal(2, 2, 3, 4)),
        "cut": (lambda x: F.pad(x, (-1, 2, 1, -2)), normal(2, 1, 4, 4)),
        "one axis": (lambda x: F.pad(x, (2, 0)), normal(2, 3)),
    },
    shape.Slice: dict(_slice_cases()),
}  # fmt: skip

EACH_CASE = pytest.mark.parametrize(
    ("op", "case"),
    [
        pytest.param(op, case, id=f"{op.__name__}-{name}")
        for op, cases in CASES.items()
        for name, case in cases.items()
    ],
)


def calls(tensor):
    """The ops that led to a tensor."""
    waiting, found = [tensor.node], []
    while waiting:
        node = waiting.pop()
        found.append(type(node.op))
        waiting += [source for source in node.inputs if not isinstance(source, Tensor | None)]
    return found


def run_case(case, change):
    """Output and gradients of a case, `change` made to its inputs before."""
    function, *inputs = case
    tensors = [Tensor(change(x), requires_grad=True) for x in inputs]
    y = function(*tensors)
    gy = numpy.cos(numpy.arange(y.data.size)).reshape(y.shape).astype(y.dtype)
    y.backward(gy)
    return y, [tensor.grad for tensor in tensors]


@EACH_CASE
def test_gradient(op, case, backend):
    assert gradient_error(*case) <= WORST


@EACH_CASE
def test_case_runs_the_op_it_stands_for(op, case):
    function, *inputs = case
    assert op in calls(function(*(Tensor(x, requires_grad=True) for x in inputs)))


def test_every_op_with_a_gradient_is_in_the_table():
    for module in pkgutil.iter_modules(tinyconv.ops.__path__, "tinyconv.ops."):
        importlib.import_module(module.name)
    waiting, found = [Op], set()
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found |= {op for op in subclasses if op.__module__.startswith("tinyconv.ops")}
    assert {op for op in found if op.backward is not Op.backward} == set(CASES)


@EACH_CASE
def test_dtype_stays(op, case, backend):
    for dtype in (numpy.float32, numpy.float64):
        y, gradients = run_case(case, lambda x, dtype=dtype: x.astype(dtype))
        assert y.dtype == dtype
        assert [g.dtype for g in gradients] == [dtype] * len(gradients)


def _every_other(x):
    wide = numpy.full((*x.shape, 2), numpy.nan)
    wide[..., 0] = x
    return wide[..., 0]


def _backwards(x):
    return numpy.flip(numpy.flip(x).copy())


@EACH_CASE
def test_memory_layout_changes_nothing(op, case):
    y, gradients = run_case(case, numpy.ascontiguousarray)
    for layout in (numpy.asfortranarray, _every_other, _backwards):
        y_other, gradients_other = run_case(case, layout)
        assert numpy.allclose(y.numpy(), y_other.numpy(), rtol=1e-12, atol=1e-12)
        for g, g_other in zip(gradients, gradients_other, strict=True):
            assert numpy.allclose(g.numpy(), g_other.numpy(), rtol=1e-12, atol=1e-12)


def main():
    """Print the worst error of each op over its cases."""
    print("| op | cases | worst relative error |\n|---|---|---|")  # noqa: T201
    for op in sorted(CASES, key=lambda op: op.__name__):
        worst = max(gradient_error(*case) for case in CASES[op].values())
        print(f"| {op.__name__} | {len(CASES[op])} | {worst:.1e} |")  # noqa: T201


if __name__ == "__main__":
    main()
