"""Batches on the device: the loader's own, however they come there, and none overwritten."""

from types import SimpleNamespace

import numpy as np
import pytest

from tinyconv.backend import to_numpy, xp
from tinyconv.data import ArrayDataset, Loader, MixUp, RandomHorizontalFlip, Resize, Transformed
from tinyconv.errors import DataError
from tinyconv.train import Features
from tinyconv.train import feed as feeding
from tinyconv.train.device import free_bytes
from tinyconv.train.feed import Feed, kept_bytes


def assert_same_batches(feed, loader, epoch=0, start=0):
    """The feed's batches are the loader's, as arrays of the device."""
    expected = list(loader.epoch(epoch, start))
    found = 0
    for batch, ours in zip(feed.epoch(epoch, start), expected, strict=True):
        assert isinstance(batch.images, xp().ndarray)
        for name, array in ours._asdict().items():
            given = to_numpy(getattr(batch, name))
            np.testing.assert_array_equal(given, array, err_msg=name, strict=True)
        found += 1
    assert found == len(loader) - start


LOADERS = {
    "plain": {},
    "shuffled": {"shuffle": True, "seed": 3},
    "whole batches only": {"shuffle": True, "drop_last": True},
    "one batch": {"batch_size": 26},
    "single images": {"batch_size": 1},
    "augmented": {"shuffle": True, "augment": RandomHorizontalFlip(), "workers": 2},
    "mixed": {"mix": MixUp(num_classes=3)},
}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS)
def test_batches_are_the_loader_s(gpu, training_set, options, keep):
    loader = Loader(training_set, **{"batch_size": 4, "workers": 0, **options})
    feed = Feed(loader, keep)
    for epoch in (0, 1):
        assert_same_batches(feed, loader, epoch)
    assert_same_batches(feed, loader, epoch=2, start=len(loader) // 2)
    may_stay = keep and loader.augment is None and loader.mix is None
    assert (feed.images is not None) == may_stay


def test_on_the_cpu_they_are_the_loader_s_own(training_set):
    loader = Loader(training_set, 4)
    feed = Feed(loader)
    assert isinstance(next(feed.epoch(0)).images, np.ndarray)
    assert feed.images is None


def test_many_batches_are_gathered_at_once(gpu, training_set, monkeypatch):
    gathered = []
    run = feeding.run
    monkeypatch.setattr(feeding, "run", lambda op, *x: gathered.append(len(x[1])) or run(op, *x))
    monkeypatch.setattr(feeding, "_TOGETHER", 2 * 4 * 6 * 6 * 3 + 100)  # two batches and a bit
    loader = Loader(training_set, 4, shuffle=True)
    feed = Feed(loader)
    assert_same_batches(feed, loader)
    assert gathered == [8, 8, 8, 2]
    assert_same_batches(feed, loader, start=5)
    assert gathered[4:] == [6]


def test_features_are_kept_too(gpu, training_set):
    values = np.random.default_rng(0).standard_normal((26, 5)).astype(np.float32)
    loader = Loader(Features(values, training_set), 4, shuffle=True)
    assert_same_batches(Feed(loader), loader)


def test_images_that_are_made_at_each_use_are_made_once(gpu, training_set):
    made = []

    def transform(image, rng):
        made.append(1)
        return Resize(4)(image, rng)

    dataset = Transformed(training_set, transform)
    feed = Feed(Loader(dataset, 4, workers=0))
    for epoch in range(3):
        list(feed.epoch(epoch))
    assert feed.images.shape == (26, 4, 4, 3)
    assert len(made) == 26 + 2  # and two looks at the first one's size


def test_only_what_leaves_room_is_kept(gpu, training_set):
    loader = Loader(training_set, 4)
    size = 26 * 6 * 6 * 3
    pool = gpu.get_default_memory_pool()
    pool.free_all_blocks()
    try:
        pool.set_limit(size=pool.used_bytes() + 2 * size)
        assert free_bytes() == 2 * size
        assert kept_bytes(loader) == 0
        pool.set_limit(size=pool.used_bytes() + 3 * size)
        assert kept_bytes(loader) == size
    finally:
        pool.set_limit(size=0)


class TwoSizes(ArrayDataset):
    """Its last image is smaller."""

    def image(self, index):
        return self.images[index, : 2 if index == len(self) - 1 else None]

    gather = ArrayDataset.__mro__[1].gather


def test_images_of_several_sizes_travel(gpu, training_set):
    dataset = TwoSizes(training_set.images, training_set.labels, training_set.classes)
    loader = Loader(dataset, 1, shuffle=True)
    feed = Feed(loader)
    assert_same_batches(feed, loader)
    assert feed.images is None
    with pytest.raises(DataError, match="in the same batch"):
        list(Feed(Loader(dataset, 4)).epoch(0))


def test_a_batch_stays_until_the_work_on_it_is_done(gpu, training_set):
    """Work that the device gets to late, as copies on a stream, still finds its batch."""
    loader = Loader(training_set, 4, shuffle=True)
    feed = Feed(loader, keep=False)
    stream = gpu.cuda.Stream(non_blocking=True)
    seen = []
    with stream:
        for batch in feed.epoch(0):
            out = feeding._pinned(np.empty(batch.images.shape, np.uint8))
            batch.images.get(out=out, blocking=False)
            seen.append(out)
    stream.synchronize()
    for out, batch in zip(seen, loader.epoch(0), strict=True):
        np.testing.assert_array_equal(out, batch.images)


def test_the_host_stays_close_to_the_device(gpu, training_set, monkeypatch):
    """Before batch n it waits for what was done with batch n - 8."""
    waited = []
    event = gpu.cuda.Event
    monkeypatch.setattr(
        event, "synchronize", lambda self, wait=event.synchronize: waited.append(self) or wait(self)
    )
    list(Feed(Loader(training_set, 1)).epoch(0))
    paced = waited[-26:]
    assert len(set(map(id, paced))) == feeding._AHEAD
    assert all(a is b for a, b in zip(paced, paced[feeding._AHEAD :], strict=False))


def test_a_loader_s_error_comes_out(gpu, training_set):
    class Broken(ArrayDataset):
        in_memory = False

        def gather(self, indices):
            if 9 in indices:
                raise DataError("photo 9: broken")
            return super().gather(indices)

    dataset = Broken(training_set.images, training_set.labels, training_set.classes)
    for keep in (True, False):
        with pytest.raises(DataError, match="photo 9"):
            list(Feed(Loader(dataset, 4, workers=2), keep).epoch(0))


def test_a_pinned_buffer_is_written_when_its_copy_is_done(gpu, training_set, monkeypatch):
    first, second, *_ = Loader(training_set, 4).epoch(0)
    stream = gpu.cuda.Stream(non_blocking=True)
    slot = feeding._Slot(stream)
    slot.send(first)
    assert stream.done or not slot._copied.done  # a device may have been quick
    done = []

    def copyto(pinned, array):
        done.append(slot._copied.done)
        np.copyto(pinned, array)

    monkeypatch.setattr(feeding, "np", SimpleNamespace(copyto=copyto, ndarray=np.ndarray))
    slot.send(second)
    assert done == [True, True]
    (batch,) = slot.receive()
    np.testing.assert_array_equal(to_numpy(batch.images), second.images)
