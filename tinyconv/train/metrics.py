"""Figures that say how good predictions are. Classes are numbered from 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The share of right predictions, 0 to 1; both are class numbers, (N,), N > 0."""
    return float(np.mean(predictions == labels))


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How often an image of class r (row) was taken for class c (column): int64 (C, C)."""
    pairs = labels * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class PerClass:
    """Figures of each class, float64 (C,); nan where nothing was there to count."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def per_class(confusion: np.ndarray) -> PerClass:
    """Precision, recall and F1 = 2 precision recall / (precision + recall) of each class."""
    right = np.diag(confusion).astype(np.float64)
    predicted, there = confusion.sum(axis=0), confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan
        return PerClass(right / predicted, right / there, 2 * right / (predicted + there))
