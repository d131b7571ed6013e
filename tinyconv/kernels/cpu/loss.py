"""Cross-entropy of class numbers in one pass over the scores, each way one launch.

The reference makes a dozen arrays on its way, each with a call of its own; for a small network that
takes longer than its matrix products.
"""

from __future__ import annotations

import math

import numpy as np

from tinyconv.kernels.cpu.jit import F32, I64, INT, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import contiguous
from tinyconv.kernels.cpu.when import float32
from tinyconv.op import register
from tinyconv.ops.loss import CrossEntropy

_NANOSECONDS = 6.0  # for each score: mostly its exponential


def _of_class_numbers(op, xp, x, target, weight):
    return (
        float32(xp, x)
        and x.ndim == 2
        and weight is None
        and target.dtype == np.int64
        and target.shape == x.shape[:1]
    )


def _backward(op, xp, gy, saved, needs):
    logp, q, divisor = saved
    return float32(xp, gy, logp, q, divisor) and logp.ndim == 2


@register(CrossEntropy, "forward", _of_class_numbers)
def cross_entropy_in_one_pass(op, xp, x, target, weight):
    """The loss and what backward needs, row by row."""
    N, C = x.shape
    e = op.label_smoothing
    other = np.float32(e / C)
    shares = np.array([np.float32(1 - e) + other, other], np.float32)
    logp, q, losses, counted = empty((N, C)), empty((N, C)), empty((N,)), empty((N,))
    parts = parts_for(N, _NANOSECONDS * x.size)
    loss = losses if op.reduction == "none" else empty(())
    divisor = empty(())
    total = loss, divisor, losses, counted, N, _REDUCTIONS.index(op.reduction)
    launch(
        _cross_entropy, contiguous(x), contiguous(target), shares, logp, q, C, op.ignore_index,
        *total, parts, items=N, parts=parts,
    )  # fmt: skip
    if parts > 1:
        launch(_total, *total)
    return loss, (logp, q, divisor)


@register(CrossEntropy, "backward", _backward)
def cross_entropy_backward_in_one_pass(op, xp, gy, saved, needs):
    """gx = softmax(x) * sum q - q, times the gradient of each row, row by row."""
    logp, q, divisor = saved
    if not needs[0]:
        return None, None, None
    N, C = logp.shape
    gx = empty((N, C))
    launch(
        _cross_entropy_backward, gx, contiguous(np.asarray(gy)), contiguous(logp), contiguous(q),
        np.asarray(divisor), C, _REDUCTIONS.index(op.reduction),
        items=N, parts=parts_for(N, _NANOSECONDS * gx.size),
    )  # fmt: skip
    return gx, None, None


_REDUCTIONS = ("none", "mean", "sum")
_MEAN = 1


@kernel
def _cross_entropy(
    x: F32, target: I64, shares: F32, logp: F32, q: F32, C: INT, ignored: INT,
    loss: F32, divisor: F32, losses: F32, counted: F32, N: INT, reduction: INT, parts: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """Rows of logp and q, their losses, and whether they count; items are rows."""
    for n in range(begin, end):
        row = n * C
        largest = x[row]
        for c in range(1, C):
            if x[row + c] > largest:
                largest = x[row + c]
        total = np.float32(0)
        for c in range(C):
            logp[row + c] = x[row + c] - largest
            total += math.exp(logp[row + c])
        log_total = math.log(total)
        for c in range(C):
            logp[row + c] -= log_total
        label = target[n]
        counted[n] = 0 if label == ignored else 1
        share = shares[1] * counted[n]
        if label != ignored and not 0 <= label < C:
            share = np.float32(math.nan)  # nobody may miss it
        for c in range(C):
            q[row + c] = share
        if label != ignored and 0 <= label < C:
            q[row + label] = shares[0]
        own = np.float32(0)
        for c in range(C):
            if q[row + c] != 0:  # a class that no target names may have probability 0
                own -= q[row + c] * logp[row + c]
        losses[n] = own
    if parts == 1:
        _add_up(loss, divisor, losses, counted, N, reduction)


@kernel
def _total(
    loss: F32, divisor: F32, losses: F32, counted: F32, N: INT, reduction: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    _add_up(loss, divisor, losses, counted, N, reduction)


@jit
def _add_up(loss, divisor, losses, counted, N, reduction):
    total, count = np.float32(0), np.float32(0)
    for n in range(N):
        total += losses[n]
        count += counted[n]
    divisor[0] = count
    if reduction != 0:
        loss[0] = total / count if reduction == _MEAN else total


@kernel
def _cross_entropy_backward(
    gx: F32, gy: F32, logp: F32, q: F32, divisor: F32, C: INT, reduction: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gx = (e^logp * sum of q - q) * the gradient of each row's loss; items are rows."""
    for n in range(begin, end):
        row = n * C
        g = gy[n] if reduction == 0 else gy[0]
        if reduction == _MEAN and divisor[0] != 0:
            g /= divisor[0]
        total = np.float32(0)
        for c in range(C):
            total += q[row + c]
        for c in range(C):
            gx[row + c] = (math.exp(logp[row + c]) * total - q[row + c]) * g
