"""Batches of a data set, in an order and with augmentations that depend on the seed alone."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

import numpy as np

from tinyconv.data.dataset import Dataset, stack
from tinyconv.data.transforms import Mix, Transform
from tinyconv.errors import DataError, ShapeError

T = TypeVar("T")
R = TypeVar("R")


class Batch(NamedTuple):
    """images uint8 (N, H, W, C), labels int64 (N,), and the images' indices in the data set (N,)

    Of a loader with `mix` the labels are probabilities, float32 (N, num_classes).
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


class Loader:
    """Cuts a data set into batches, epoch after epoch.

    `shuffle` draws a new order for every epoch; `augment(image, rng)` changes each image, and then
    `mix(images, labels, rng)`, such as MixUp or CutMix, the batch; `drop_last` leaves out a last
    batch that is smaller than `batch_size`. Images are read, augmented and mixed in `workers`
    threads (Pillow and NumPy release the interpreter lock), or in the calling thread with 0.

    The loader keeps no state: the order depends on (seed, epoch), the augmentation of an image on
    (seed, epoch, its index) and the mix on (seed, epoch, the batch's number), so neither the number
    of workers nor the batch an epoch is started at changes anything.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = False,
        augment: Transform | None = None,
        seed: int = 0,
        workers: int = 2,
        drop_last: bool = False,
        mix: Mix | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
        if workers < 0:
            raise ValueError(f"workers is {workers}; expected 0 or more")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}; expected 0 to 2**64 - 1")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.seed = seed
        self.workers = workers
        self.drop_last = drop_last
        self.mix = mix

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, left = divmod(len(self.dataset), self.batch_size)
        return whole + (left > 0 and not self.drop_last)

    def order(self, number: int) -> np.ndarray:
        """The indices of epoch `number` (from 0), one batch after the other."""
        if number < 0:
            raise ValueError(f"epoch {number}; expected 0 or more")
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = self._generator(number, 1, 0).permutation(order)
        return order[: len(self) * self.batch_size]

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` (from 0), beginning with batch `start`.

        The iterator raises DataError for an image that cannot be read, does not fit the
        augmentation or has another shape than its batch.
        """
        order, size = self.order(number), self.batch_size
        if not 0 <= start <= len(self):
            raise ValueError(f"start is {start}; expected 0 to {len(self)}, the number of batches")
        batches = ((n, order[n * size : (n + 1) * size]) for n in range(start, len(self)))
        only_copies = self.augment is None and self.mix is None and self.dataset.in_memory
        workers = 0 if only_copies else self.workers
        return in_threads(lambda batch: self._load(number, *batch), batches, workers)

    def _load(self, epoch: int, number: int, indices: np.ndarray) -> Batch:
        labels = self.dataset.labels[indices]
        if self.augment is None:
            images = self.dataset.gather(indices)
        else:
            augmented = (self._augmented(self.augment, epoch, int(i)) for i in indices)
            images = stack(self.dataset, indices, augmented)
        if self.mix is not None:
            images, labels = self.mix(images, labels, self._generator(epoch, 2, number))
        return Batch(images, labels, indices)

    def _augmented(self, augment: Transform, epoch: int, index: int) -> np.ndarray:
        try:
            image = augment(self.dataset.image(index), self._generator(epoch, 0, index))
        except ShapeError as error:
            raise DataError(f"{self.dataset.name(index)}: {error}") from error
        if image.dtype != np.uint8:  # cut down to bytes, normalised images would be all but black
            raise TypeError(f"augment gave a {image.dtype} image; expected uint8, not normalised")
        return image

    def _generator(self, epoch: int, purpose: int, index: int) -> np.random.Generator:
        """A stream of its own for each use: (seed, epoch) is the key of a Philox generator and
        (purpose, index) the upper half of its counter, which no stream is long enough to reach."""
        bits = np.random.Philox(
            key=int(self.seed) + (int(epoch) << 64), counter=(purpose << 128) + (index << 192)
        )
        return np.random.Generator(bits)


def in_threads(
    function: Callable[[T], R], items: Iterable[T], workers: int
) -> Generator[R, None, None]:
    """function(item) for every item, in order, worked out by `workers` threads a little ahead.

    At most two results per thread wait. An exception comes out where its result would have; closing
    the iterator, or an exception, ends the threads after what each is doing. With no workers all
    is done in the calling thread.
    """
    if workers == 0:
        yield from map(function, items)
        return
    # Daemon threads of our own rather than a ThreadPoolExecutor: at exit Python waits for the
    # executor's queued work, which after Ctrl-C would be seconds of decoding.
    tasks: queue.SimpleQueue[tuple[Future[R], T] | None] = queue.SimpleQueue()
    waiting: deque[Future[R]] = deque()
    for _ in range(workers):
        threading.Thread(
            target=_work, args=(function, tasks), name="tinyconv-data", daemon=True
        ).start()
    try:
        for item in items:
            waiting.append(Future())
            tasks.put((waiting[-1], item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(workers):
            tasks.put(None)


def _work(function: Callable[[T], R], tasks: queue.SimpleQueue[tuple[Future[R], T] | None]) -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(item))
        except BaseException as error:
            future.set_exception(error)
        del task, future, item  # an idle thread holds no batch
