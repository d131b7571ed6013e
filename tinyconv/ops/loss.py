"""Losses of a classifier."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tinyconv.op import Op
from tinyconv.ops.activation import log_softmax


@dataclass(frozen=True)
class NegativeLogLikelihood(Op):
    """loss_n = -sum_c q[n,c] logp[n,c], q being the target distribution times the class weights.

    logp (N, C, ...); target either class numbers (N, ...), for which q is one-hot, or probabilities
    (N, C, ...); weight (C,) or None. Entries whose class number is ignore_index count nothing.
    label_smoothing e replaces the target t by (1 - e) t + e / C. reduction "mean" divides the sum
    by the targets' total weight (class numbers) or by their number (probabilities).
    Source: PyTorch, torch.nn.CrossEntropyLoss.
    """

    reduction: Literal["none", "mean", "sum"] = "mean"
    ignore_index: int = -100
    label_smoothing: float = 0.0

    def forward(self, xp, logp, target, weight):
        q, divisor = self._target_distribution(xp, logp, target, weight)
        wanted = xp.where(q == 0, 0, logp)  # a class that no target names may have probability 0
        return self._reduce(-(q * wanted).sum(axis=1), divisor), (q, divisor)

    def backward(self, xp, gy, saved, needs):
        q, divisor = saved
        return -q * self._gradient_of_each(xp, gy, divisor), None, None

    def _target_distribution(self, xp, logp, target, weight):
        """q (N, C, ...) and what "mean" divides by."""
        C = logp.shape[1]
        classes = xp.arange(C).reshape(1, C, *(1,) * (logp.ndim - 2))
        by_class = 1 if weight is None else weight.reshape(classes.shape)
        e = self.label_smoothing
        if target.ndim == logp.ndim:
            q = (target * (1 - e) + e / C) * by_class
            return q.astype(logp.dtype), xp.asarray(logp[:, 0].size, logp.dtype)
        target = xp.expand_dims(target, 1)
        counted = (target != self.ignore_index).astype(logp.dtype)
        one_hot = (target == classes) * counted * by_class
        q = one_hot * (1 - e) + counted * by_class * (e / C)
        return q.astype(logp.dtype), one_hot.sum(dtype=logp.dtype)

    def _reduce(self, losses, divisor):
        if self.reduction == "none":
            return losses
        total = losses.sum()
        return total / divisor if self.reduction == "mean" else total

    def _gradient_of_each(self, xp, gy, divisor):
        """The gradient of each target's own loss, with an axis for the classes."""
        if self.reduction == "none":
            return gy[:, None]
        # All ignored: the divisor is 0 and the loss nan, but the gradient 0, as in PyTorch.
        return gy / xp.where(divisor == 0, 1, divisor) if self.reduction == "mean" else gy


@dataclass(frozen=True)
class CrossEntropy(NegativeLogLikelihood):
    """loss_n = -sum_c q[n,c] log softmax(x)[n,c];  gx = softmax(x) * sum_c q - q, for each target.

    The same as NegativeLogLikelihood of log_softmax(x), in one step: no digits are lost for large
    x, and the gradient is short. x (N, C, ...), target, weight and settings as there.
    """

    def forward(self, xp, x, target, weight):
        logp = log_softmax(xp, x, axis=1)
        loss, (q, divisor) = super().forward(xp, logp, target, weight)
        return loss, (logp, q, divisor)

    def backward(self, xp, gy, saved, needs):
        logp, q, divisor = saved
        gx = xp.exp(logp) * q.sum(axis=1, keepdims=True) - q
        return gx * self._gradient_of_each(xp, gy, divisor), None, None


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogits(Op):
    """loss = -(pos_weight t log s(x) + (1 - t) log(1 - s(x))), s the sigmoid, element by element.

    x, target t of one shape, pos_weight broadcast against them or None. Written with
    softplus(-x) = log(1 + e^-x), so that no logarithm meets a 0.
    """

    def forward(self, xp, x, target, pos_weight):
        positive = target if pos_weight is None else target * pos_weight
        softplus = xp.maximum(-x, 0) + xp.log1p(xp.exp(-xp.abs(x)))
        total = positive + (1 - target)
        return (1 - target) * x + total * softplus, (x, target, total, softplus)

    def backward(self, xp, gy, saved, needs):
        x, target, total, softplus = saved
        # d softplus(-x) / dx = -s(-x) = s(x) - 1 = -e^-x s(x) = -exp(-x - softplus(-x))
        gx = gy * ((1 - target) - total * xp.exp(-x - softplus)) if needs[0] else None
        return gx, None, None


@dataclass(frozen=True)
class Tally(Op):
    """totals += [N * loss, number of images whose largest logit is the target's]

    totals float64 (2,), moved in place; loss shape (); logits (N, C); target class numbers (N,), or
    probabilities (N, C), whose largest counts. It stays on the device: reading it is for later.
    """

    mutates: ClassVar[tuple[int, ...]] = (0,)

    def forward(self, xp, totals, loss, logits, target):
        labels = target if target.ndim == 1 else target.argmax(axis=1)
        totals[0] += loss * len(logits)
        totals[1] += (logits.argmax(axis=1) == labels).sum()
        return None, ()
