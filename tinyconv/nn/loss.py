"""Losses as modules."""

from __future__ import annotations

from typing import Any

import tinyconv.functional as F
from tinyconv.nn.module import Module
from tinyconv.tensor import Tensor


class CrossEntropyLoss(Module):
    """Softmax cross-entropy of logits (N, C) and class numbers (N,); see F.cross_entropy."""

    def __init__(
        self,
        weight: Any = None,
        *,
        ignore_index: int = -100,
        reduction: F.Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction = ignore_index, reduction
        self.label_smoothing = label_smoothing

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.cross_entropy(
            x,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(Module):
    """Negative log-likelihood of log-probabilities (N, C) and class numbers; see F.nll_loss."""

    def __init__(
        self, weight: Any = None, *, ignore_index: int = -100, reduction: F.Reduction = "mean"
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.nll_loss(
            x, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class BCEWithLogitsLoss(Module):
    """Binary cross-entropy of logits; see F.binary_cross_entropy_with_logits."""

    def __init__(
        self, weight: Any = None, *, reduction: F.Reduction = "mean", pos_weight: Any = None
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            x, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
