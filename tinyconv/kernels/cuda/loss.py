"""Losses of a classifier, forward and backward one launch each, and what is counted of them."""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cuda.elementwise import elementwise, fits
from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import contiguous, empty
from tinyconv.kernels.cuda.when import float32, floats, on_gpu
from tinyconv.op import register
from tinyconv.ops.loss import (
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    NegativeLogLikelihood,
    Tally,
)

_THREADS = 256
_FEW = 1024  # rows times threads on a row that are left to one block
_BLOCKS = 256  # at most: the last one adds up their sums

_LABELS = {np.dtype(np.int64): "long", np.dtype(np.int32): "int", np.dtype(np.float32): "float"}
_REDUCTIONS = ("none", "mean", "sum")


def _group(C):
    """How many threads work on a row of C numbers: two numbers each where there are few."""
    return min(32, 1 << (max(C // 2, 1) - 1).bit_length())


def _has_target(x, target):
    """Whether targets are class numbers or probabilities for the rows of x (N, C)."""
    shape = x.shape if target.dtype == np.float32 else x.shape[:1]
    return x.ndim == 2 and x.size < 2**31 and target.dtype in _LABELS and target.shape == shape


def _rows(op, xp, x, target, weight):
    known = float32(xp, x, weight) and on_gpu(xp, target) and _has_target(x, target)
    return known and -(2**31) <= op.ignore_index < 2**31


def _rows_backward(op, xp, gy, saved, needs):
    *_, q, _ = saved
    return float32(xp, gy, *saved) and q.ndim == 2 and q.size < 2**31


def _forward(op, x, target, weight, softmax):
    N, C = x.shape
    group = _group(C)
    blocks = 1 if N * group <= _FEW else min(ceil_div(N * group, _THREADS), _BLOCKS)
    loss = empty((N,) if op.reduction == "none" else ())
    divisor, q = empty(()), empty((N, C))
    logp = empty((N, C)) if softmax else None
    e = op.label_smoothing
    launch(
        "loss.cu", "forward", blocks, _THREADS,
        loss, divisor, logp, q, empty((2, blocks)), contiguous(x), contiguous(target),
        None if weight is None else contiguous(weight), N, C, op.ignore_index, 1.0 - e, e / C,
        _REDUCTIONS.index(op.reduction),
        LABEL=_LABELS[target.dtype], PROBABILITIES=target.ndim == 2, GROUP=group,
        SOFTMAX=softmax,
    )  # fmt: skip
    return loss, (logp, q, divisor)


def _backward(op, gy, logp, q, divisor, needs):
    if not needs[0]:
        return None, None, None
    N, C = q.shape
    gx, group = empty((N, C)), _group(C)
    launch(
        "loss.cu", "backward", ceil_div(N * group, _THREADS), _THREADS,
        gx, contiguous(gy), None if logp is None else contiguous(logp), contiguous(q), divisor,
        N, C, _REDUCTIONS.index(op.reduction),
        LABEL="int", PROBABILITIES=False, GROUP=group, SOFTMAX=logp is not None,
    )  # fmt: skip
    return gx, None, None


@register(CrossEntropy, "forward", _rows)
def cross_entropy_in_one_launch(op, xp, x, target, weight):
    """The loss, and what backward needs of it"""
    return _forward(op, x, target, weight, True)


@register(CrossEntropy, "backward", _rows_backward)
def cross_entropy_backward_in_one_launch(op, xp, gy, saved, needs):
    """gx = softmax(x) * sum q - q, times the gradient of each row"""
    logp, q, divisor = saved
    return _backward(op, gy, logp, q, divisor, needs)


@register(NegativeLogLikelihood, "forward", _rows)
def likelihood_in_one_launch(op, xp, logp, target, weight):
    """The loss, and what backward needs of it"""
    loss, (_, q, divisor) = _forward(op, logp, target, weight, False)
    return loss, (q, divisor)


@register(NegativeLogLikelihood, "backward", _rows_backward)
def likelihood_backward_in_one_launch(op, xp, gy, saved, needs):
    """gx = -q, times the gradient of each row"""
    q, divisor = saved
    return _backward(op, gy, None, q, divisor, needs)


def _of_floats(op, xp, x, target, pos_weight):
    return fits(xp, x, target) and (pos_weight is None or fits(xp, pos_weight))


def _of_floats_backward(op, xp, gy, saved, needs):
    return fits(xp, gy, *saved)


@register(BinaryCrossEntropyWithLogits, "forward", _of_floats)
def binary_cross_entropy(op, xp, x, target, pos_weight):
    """(1 - t) x + total * softplus(-x), in four passes"""
    if pos_weight is None:
        total = elementwise("TotalOfOne", target)
    else:
        total = elementwise("TotalWeight", target, pos_weight)
    softplus = elementwise("Softplus", x)
    loss = elementwise("BinaryLoss", x, target, elementwise("Multiply", total, softplus))
    return loss, (x, target, total, softplus)


@register(BinaryCrossEntropyWithLogits, "backward", _of_floats_backward)
def binary_cross_entropy_backward(op, xp, gy, saved, needs):
    """gy ((1 - t) - total e^(-x - softplus)), in two passes"""
    if not needs[0]:
        return None, None, None
    x, target, total, softplus = saved
    slope = elementwise("MinusExp", x, softplus, total)
    return elementwise("BinaryLossBackward", gy, target, slope), None, None


def _tally(op, xp, totals, loss, logits, target):
    known = on_gpu(xp, totals, target) and floats(xp, logits) and float32(xp, loss)
    sizes = totals.dtype == np.float64 and totals.shape == (2,) and totals.flags.c_contiguous
    return known and sizes and loss.shape == () and _has_target(logits, target)


@register(Tally, "forward", _tally)
def tally_in_one_launch(op, xp, totals, loss, logits, target):
    """Loss and hits added to totals by one block"""
    N, C = logits.shape
    launch(
        "tally.cu", "tally", 1, 1024, totals, loss, contiguous(logits), contiguous(target), N, C,
        TX=type_name(logits), LABEL=_LABELS[target.dtype], PROBABILITIES=target.ndim == 2,
        GROUP=_group(C),
    )  # fmt: skip
    return None, ()
