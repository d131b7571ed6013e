"""How good a network is on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyconv import functional as F
from tinyconv.backend import Array, asarray, backend_name, to_numpy, xp
from tinyconv.compiler import compile
from tinyconv.data.dataset import Dataset
from tinyconv.data.loader import Loader
from tinyconv.nn import Module
from tinyconv.op import run
from tinyconv.ops.loss import Tally
from tinyconv.tensor import Tensor, no_grad
from tinyconv.train.device import Work, lacks_memory, out_of_memory
from tinyconv.train.feed import Feed
from tinyconv.train.metrics import accuracy, confusion_matrix
from tinyconv.train.settings import default_workers

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


class Evaluator:
    """A network and the images that it is to be evaluated on, several times; see `evaluate`.

    keep   hold the images on a GPU from one time to the next, where they fit (see Feed)
    """

    def __init__(
        self,
        model: Module,
        dataset: Dataset,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int = 64,
        loss: Loss = F.cross_entropy,
        workers: int | None = None,
        eager: bool = False,
        dtype: Any = None,
        keep: bool = True,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("evaluate: the data set is empty")
        self.model = model
        self.dataset = dataset
        self.mean, self.std = mean, std
        self.loss = loss
        self.dtype = dtype
        self.eager = eager
        workers = default_workers(backend_name()) if workers is None else workers
        self.feed = Feed(Loader(dataset, batch_size, workers=workers), keep)
        self._totals = asarray(np.zeros(2))
        self._step = self.step if eager else compile(self.step, strict=False)

    def step(self, images: Array, labels: Array) -> Tensor:
        """The probabilities (N, C) of a batch, whose loss is added to the sum."""
        dtype = self.dtype or self.model.dtype
        logits = self.model(network_input(images, self.mean, self.std, dtype))
        run(Tally(), self._totals, self.loss(logits, labels).data, logits.data, labels)
        wide = logits.astype(np.float32) if logits.dtype == np.float16 else logits
        return F.softmax(wide, 1)

    def run(self) -> Evaluation:
        """Run the network in eval mode, without gradients, on every image."""
        was_training = self.model.training
        self.model.eval()
        self._totals[...] = 0
        probabilities = []
        try:
            with no_grad():
                for batch in self.feed.epoch(0):
                    probabilities.append(self._step(batch.images, batch.labels).data)
            joined = to_numpy(xp().concatenate(probabilities))
        finally:
            self.model.train(was_training)
        dataset = self.dataset
        predictions = joined.argmax(axis=1)
        return Evaluation(
            loss=to_numpy(self._totals).tolist()[0] / len(dataset),
            accuracy=accuracy(predictions, dataset.labels),
            confusion=confusion_matrix(predictions, dataset.labels, joined.shape[1]),
            probabilities=joined,
        )

    def work(self) -> Work:
        """What is done with batches, to see how much memory that takes."""

        def attempt(size: int) -> Any:
            batch = next(Loader(self.dataset, size, workers=0).epoch(0))
            step = self.step if self.eager else compile(self.step, strict=False)
            was_training = self.model.training
            self.model.eval()
            try:
                with no_grad():
                    step(asarray(batch.images), asarray(batch.labels))
            finally:
                self.model.train(was_training)
            return step

        return Work(attempt, len(self.dataset))


def evaluate(
    model: Module,
    dataset: Dataset,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 64,
    loss: Loss = F.cross_entropy,
    workers: int | None = None,
    eager: bool = False,
    dtype: Any = None,
) -> Evaluation:
    """Run the network in eval mode, without gradients, on every image of `dataset`.

    Compiled (tinyconv.compile), unless `eager`. `mean` and `std` are the normalisation it was
    trained with; `dtype` that of its input, float16 for mixed precision, where it is not that of
    the weights. Raises ValueError for an empty set, OutOfDeviceMemoryError where the memory of a
    GPU is too small for a batch.
    """
    settings = (mean, std, batch_size, loss, workers, eager, dtype)
    try:
        return Evaluator(model, dataset, *settings, keep=False).run()
    except MemoryError as error:
        if not lacks_memory(error):
            raise
    # Out of the `except`: here nothing holds the arrays of the failed step any more.
    work = Evaluator(model, dataset, *settings).work()
    raise out_of_memory(min(batch_size, len(dataset)), [work], compiled=not eager)
