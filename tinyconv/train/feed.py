"""How batches reach the device, so that it does not wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np

from tinyconv.backend import Array, asarray, backend_name, synchronize, xp
from tinyconv.data.loader import Batch, Loader
from tinyconv.op import run
from tinyconv.ops.image import Gather
from tinyconv.train.device import free_bytes

# Images that stay on the device take at most this part of its free memory: the steps need the rest.
_KEPT = 0.4
# So many bytes of images are gathered there at once, that of small ones many batches come from one
# launch.
_TOGETHER = 64 * 2**20
# The host is at most so many steps ahead. That hides its work; and at an interrupt, or where the
# loss is looked at, no more has to be waited for.
_AHEAD = 8


class Feed:
    """The batches of `loader`, epoch after epoch, as arrays of the backend in use.

    On numpy they are the loader's own. On cupy they hold the same in the same order, on the device:

    - Where nothing changes the images (no augment, no mix) and they take a small enough part of
      its memory, they are uploaded once, and batches are gathered there. `keep=False` turns that
      off: it does not pay for a single epoch.
    - Otherwise batches go through two pinned buffers, by a stream of their own, each while the
      step before it is computed.

    A batch is to be used, on the current stream, before the next one is asked for: then its memory
    may be written again.
    """

    def __init__(self, loader: Loader, keep: bool = True) -> None:
        self.loader = loader
        self.keep = keep
        self.images: Array | None = None  # all of them, on the device
        self._slots: list[_Slot] = []

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` (from 0), beginning with batch `start`."""
        if backend_name() == "numpy":
            return self.loader.epoch(number, start)
        if self.keep and self.images is None:
            self.images = _uploaded(self.loader)
            self.keep = self.images is not None
        if self.images is not None:
            return _paced(self._gathered(self.images, number, start))
        return self._copied(self.loader.epoch(number, start))

    def _gathered(self, images: Array, number: int, start: int) -> Iterator[Batch]:
        """Batches of images that are on the device: only their order travels, once an epoch."""
        size = self.loader.batch_size
        order = self.loader.order(number)[start * size :]
        indices, labels = asarray(order), asarray(self.loader.dataset.labels[order])
        together = max(1, _TOGETHER // (size * images[0].nbytes)) * size
        for first in range(0, len(order), together):
            part, _ = run(Gather(), images, indices[first : first + together])
            for begin in range(first, first + len(part), size):
                end = min(begin + size, len(order))
                batch = part[begin - first : end - first]
                yield Batch(batch, labels[begin:end], order[begin:end])

    def _copied(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches that travel: one is on its way while the one before is in use."""
        if not self._slots:
            stream = xp().cuda.Stream(non_blocking=True)
            self._slots = [_Slot(stream), _Slot(stream)]
        on_its_way: _Slot | None = None
        try:
            for slot, batch in zip(cycle(self._slots), batches, strict=False):
                slot.send(batch)
                if on_its_way is not None:
                    yield from on_its_way.receive()
                on_its_way = slot
            if on_its_way is not None:
                yield from on_its_way.receive()
        finally:  # pinned memory that nobody holds is written again at once
            synchronize()
            for slot in self._slots:
                slot.stream.synchronize()


class _Slot:
    """Room for one batch: a pinned buffer, and one on the device, for its images and its labels."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream  # the copies'
        self._copied = xp().cuda.Event(block=True, disable_timing=True)
        self._used = xp().cuda.Event(disable_timing=True)
        self._buffers: dict[str, tuple[np.ndarray, Array]] = {}
        self._batch: Batch | None = None

    def send(self, batch: Batch) -> None:
        """Begin to copy a batch to the device; the host waits for the copy before at most."""
        self._copied.synchronize()
        arrays = {"images": batch.images, "labels": batch.labels}
        pairs = {name: self._room(name, array) for name, array in arrays.items()}
        self.stream.wait_event(self._used)
        for name, (pinned, device) in pairs.items():
            np.copyto(pinned, arrays[name])
            device.set(pinned, stream=self.stream)
        self._copied.record(self.stream)
        self._batch = Batch(pairs["images"][1], pairs["labels"][1], batch.indices)

    def receive(self) -> Iterator[Batch]:
        """The batch, once; afterwards what was given to the current stream has used it."""
        assert self._batch is not None
        stream = xp().cuda.get_current_stream()
        stream.wait_event(self._copied)
        yield self._batch
        self._used.record(stream)

    def _room(self, name: str, array: np.ndarray) -> tuple[np.ndarray, Array]:
        """The parts of both buffers that `array` fits in; new ones where it does not."""
        room = self._buffers.get(name)
        if room is None or not _fits(array, room[0]):
            room = self._buffers[name] = (_pinned(array), xp().empty(array.shape, array.dtype))
            # What the current stream was given before may still use that memory.
            self._used.record()
        pinned, device = room
        return pinned[: len(array)], device[: len(array)]


def _fits(array: np.ndarray, room: np.ndarray) -> bool:
    """Whether `room` has place for `array`, a batch of the same size or a smaller one."""
    same = (array.shape[1:], array.dtype) == (room.shape[1:], room.dtype)
    return same and len(array) <= len(room)


def _pinned(array: np.ndarray) -> np.ndarray:
    """Memory of the host for what `array` holds, which the device copies from by itself."""
    return np.ndarray(array.shape, array.dtype, xp().cuda.alloc_pinned_memory(array.nbytes))


def kept_bytes(loader: Loader) -> int:
    """The memory that a Feed keeps the images of `loader` in, 0 where they change or are many."""
    dataset = loader.dataset
    if loader.augment is not None or loader.mix is not None:
        return 0
    size = len(dataset) * dataset.image(0).nbytes
    return size if size <= _KEPT * free_bytes() else 0


def _uploaded(loader: Loader) -> Array | None:
    """All images of `loader` on the device, None where they are not to be kept or differ in shape.

    Those that are not in memory are read once more, in order.
    """
    if not kept_bytes(loader):
        return None
    dataset = loader.dataset
    first = dataset.image(0)
    images = xp().empty((len(dataset), *first.shape), first.dtype)
    plain = Loader(dataset, loader.batch_size, workers=loader.workers)
    for batch in Feed(plain, keep=False).epoch(0):
        if batch.images.shape[1:] != first.shape:
            return None
        images[batch.indices[0] : batch.indices[-1] + 1] = batch.images
    return images


def _paced(batches: Iterator[Batch]) -> Iterator[Batch]:
    """`batches`, while the device is not too far behind."""
    done = [xp().cuda.Event(block=True, disable_timing=True) for _ in range(_AHEAD)]
    for event, batch in zip(cycle(done), batches, strict=False):
        event.synchronize()  # of the step _AHEAD before
        yield batch
        event.record()
