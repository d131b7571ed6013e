"""How good a network is on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyconv import functional as F
from tinyconv.backend import Array, to_numpy
from tinyconv.compiler import compile
from tinyconv.data.dataset import Dataset
from tinyconv.data.loader import Loader
from tinyconv.nn import Module
from tinyconv.tensor import Tensor, no_grad
from tinyconv.train.metrics import accuracy, confusion_matrix

Loss = Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Figures over a data set of N images and C classes, and the predictions behind them.

    loss            mean over the images
    accuracy        share of right predictions, 0 to 1
    confusion       int64 (C, C): images of class row taken for class column
    probabilities   float32 (N, C), in the order of the data set
    """

    loss: float
    accuracy: float
    confusion: np.ndarray
    probabilities: np.ndarray


def network_input(images: Array, mean: Sequence[float], std: Sequence[float], dtype: Any) -> Tensor:
    """What a network takes: images uint8 (N, H, W, C) normalised to (N, C, H, W); float arrays,
    such as features of frozen layers, as they are."""
    if images.dtype.kind == "f":
        return Tensor(images)
    return F.normalize_image(images, mean, std, dtype)


def evaluate(
    model: Module,
    dataset: Dataset,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 64,
    loss: Loss = F.cross_entropy,
    workers: int = 2,
    eager: bool = False,
) -> Evaluation:
    """Run the network in eval mode, without gradients, on every image of `dataset`.

    Compiled (tinyconv.compile), unless `eager`. `mean` and `std` are the normalisation it was
    trained with. Raises ValueError for an empty set.
    """
    if len(dataset) == 0:
        raise ValueError("evaluate: the data set is empty")
    was_training = model.training
    model.eval()
    loss_sum, probabilities = 0.0, []

    def forward(images: Array, labels: Array) -> tuple[Tensor, Tensor]:
        logits = model(network_input(images, mean, std, model.dtype))
        return loss(logits, labels), F.softmax(logits, 1)

    step = forward if eager else compile(forward, strict=False)
    try:
        with no_grad():
            for batch in Loader(dataset, batch_size, workers=workers).epoch(0):
                batch_loss, batch_probabilities = step(batch.images, batch.labels)
                loss_sum += batch_loss.item() * len(batch.labels)
                probabilities.append(to_numpy(batch_probabilities))
    finally:
        model.train(was_training)
    joined = np.concatenate(probabilities)
    predictions = joined.argmax(axis=1)
    return Evaluation(
        loss=loss_sum / len(dataset),
        accuracy=accuracy(predictions, dataset.labels),
        confusion=confusion_matrix(predictions, dataset.labels, joined.shape[1]),
        probabilities=joined,
    )
