"""The loader: the same batches whatever the workers and the start; errors; threads that end."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyconv.data.dataset import ArrayDataset, Dataset
from tinyconv.data.folder import ImageFolder
from tinyconv.data.loader import Batch, Loader, in_threads
from tinyconv.data.transforms import (
    ColorJitter,
    Compose,
    CutMix,
    Mix,
    MixUp,
    Normalize,
    RandomAffine,
    RandomChoice,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    TrivialAugmentWide,
)
from tinyconv.errors import DataError

AUGMENT = Compose([RandomCrop(6), RandomHorizontalFlip()])
ALL = Compose(
    [
        RandomResizedCrop(8),
        RandomAffine(20, (0.2, 0.2), (0.8, 1.2), 10, "bilinear"),
        ColorJitter(0.5, 0.5, 0.5, 0.2),
        TrivialAugmentWide(),
        RandomErasing(value="random"),
    ]
)
MIX = RandomChoice([MixUp(num_classes=3), CutMix(num_classes=3)])
AUGMENTED = [(None, None), (AUGMENT, None), (ALL, None), (None, MIX), (ALL, MIX)]


def noise(count: int = 23) -> ArrayDataset:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return ArrayDataset(images, np.arange(count) % 3, ["a", "b", "c"])


class Unhurried(Dataset):
    """Images read one by one: not in memory, so that threads are used."""

    def __init__(self, dataset: Dataset, seconds: float = 0) -> None:
        self.dataset, self.seconds = dataset, seconds
        self.classes, self.labels = dataset.classes, dataset.labels

    def image(self, index: int) -> np.ndarray:
        time.sleep(self.seconds)
        return self.dataset.image(index)


def same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tinyconv-data"]


def assert_threads_end() -> None:
    deadline = time.monotonic() + 10
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not loader_threads()


# Content and order


@pytest.mark.parametrize("dataset", [noise(), Unhurried(noise())])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_in_order(dataset: Dataset, drop_last: bool) -> None:
    loader = Loader(dataset, 5, drop_last=drop_last)
    batches = list(loader.epoch(0))
    assert len(loader) == len(batches) == (4 if drop_last else 5)
    assert [len(batch.images) for batch in batches] == [5, 5, 5, 5, 3][: len(loader)]
    indices = np.concatenate([batch.indices for batch in batches])
    assert indices.tolist() == list(range(20 if drop_last else 23))
    for batch in batches:
        assert batch.images.dtype == np.uint8
        assert batch.labels.dtype == batch.indices.dtype == np.int64
        assert batch.labels.tolist() == [n % 3 for n in batch.indices]
        for image, index in zip(batch.images, batch.indices, strict=True):
            np.testing.assert_array_equal(image, dataset.image(index))


def test_shuffle_is_a_new_order_each_epoch_and_the_same_again() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = Loader(noise(200), 7, shuffle=True, seed=seed)
        return np.concatenate([batch.indices for batch in loader.epoch(epoch)]).tolist()

    orders = [order(seed, epoch) for seed in (0, 1, 2**64 - 1) for epoch in (0, 1, 2)]
    assert all(sorted(one) == list(range(200)) for one in orders)
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    assert order(1, 2) == orders[5]


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_order_is_that_of_the_batches(drop_last: bool) -> None:
    loader = Loader(noise(), 4, shuffle=True, seed=2, drop_last=drop_last)
    for epoch in (0, 3):
        indices = np.concatenate([batch.indices for batch in loader.epoch(epoch)])
        np.testing.assert_array_equal(loader.order(epoch), indices)
    with pytest.raises(ValueError, match="epoch -1"):
        loader.order(-1)


def test_every_image_reaches_every_place() -> None:
    """The order is uniform: first places of many epochs, chi-squared, 9 degrees of freedom."""
    loader = Loader(noise(10), 1, shuffle=True)
    first = [int(next(iter(loader.epoch(n))).indices[0]) for n in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # p = 0.001


@pytest.mark.parametrize(("augment", "mix"), AUGMENTED)
def test_workers_change_nothing(augment: Compose | None, mix: Mix | None) -> None:
    expected = list(Loader(noise(), 4, True, augment, workers=0, mix=mix).epoch(3))
    for workers in (1, 2, 5):
        for dataset in (noise(), Unhurried(noise(), 0.001)):
            loader = Loader(dataset, 4, True, augment, workers=workers, mix=mix)
            batches = list(loader.epoch(3))
            assert len(batches) == len(expected)
            assert all(map(same, batches, expected))


@pytest.mark.parametrize(("augment", "mix"), AUGMENTED)
@pytest.mark.parametrize("workers", [0, 2])
def test_start_continues_the_same_epoch(
    augment: Compose | None, mix: Mix | None, workers: int
) -> None:
    loader = Loader(noise(), 4, shuffle=True, augment=augment, workers=workers, mix=mix)
    whole = list(loader.epoch(1))
    for start in range(len(loader) + 1):
        rest = list(loader.epoch(1, start))
        assert len(rest) == len(whole) - start
        assert all(map(same, rest, whole[start:]))


def test_augmentation_depends_on_seed_epoch_and_index_not_on_the_batch() -> None:
    def drawn(seed: int, epoch: int, batch_size: int, shuffle: bool) -> dict[int, float]:
        numbers: dict[int, float] = {}

        def note(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            numbers[int(image[0, 0, 0])] = rng.random()
            return image

        images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
        dataset = ArrayDataset(images, [0] * 40, ["a"])
        for _ in Loader(dataset, batch_size, shuffle, note, seed).epoch(epoch):
            pass
        return numbers

    base = drawn(0, 0, 4, False)
    assert len(set(base.values())) == 40
    assert drawn(0, 0, 7, True) == base
    for other in (drawn(1, 0, 4, False), drawn(0, 1, 4, False)):
        assert not set(other.values()) & set(base.values())


def test_augmented_crops_are_spread_evenly_over_images() -> None:
    """Neighbouring indices get independent streams: corners, chi-squared with 8 degrees."""
    images = np.tile(np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1), (1800, 1, 1, 1))
    dataset = ArrayDataset(images, [0] * 1800, ["a"])
    (batch,) = Loader(dataset, 1800, augment=RandomCrop(1), workers=0).epoch(0)
    counts = np.bincount(batch.images.reshape(-1), minlength=9)
    assert ((counts - 200) ** 2 / 200).sum() < 26.1  # p = 0.001


@pytest.mark.parametrize("dataset", [noise(), Unhurried(noise())])
def test_mix_gets_the_augmented_batch_and_a_stream_of_its_own(dataset: Dataset) -> None:
    def drawn(seed: int, epoch: int, augment: Compose | None) -> list[float]:
        numbers: list[float] = []

        def note(
            images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
        ) -> tuple[np.ndarray, np.ndarray]:
            numbers.append(rng.random())
            assert images.shape[1:] == ((8, 8, 3) if augment is None else (6, 6, 3))
            return 255 - images, np.eye(3, dtype=np.float32)[labels]

        loader = Loader(dataset, 4, True, augment, seed, workers=0, mix=note)
        plain = Loader(dataset, 4, True, augment, seed, workers=0)
        for mixed, batch in zip(loader.epoch(epoch), plain.epoch(epoch), strict=True):
            np.testing.assert_array_equal(mixed.images, 255 - batch.images)
            np.testing.assert_array_equal(mixed.labels.argmax(axis=1), batch.labels)
            np.testing.assert_array_equal(mixed.indices, batch.indices)
        return numbers

    base = drawn(0, 0, None)
    assert len(set(base)) == 6
    assert drawn(0, 0, AUGMENT) == base
    for other in (drawn(1, 0, None), drawn(0, 1, None)):
        assert not set(other) & set(base)


def test_images_augmented_to_something_else_than_bytes() -> None:
    loader = Loader(noise(), 4, augment=Normalize([0.5] * 3, [0.5] * 3))
    with pytest.raises(TypeError, match="augment gave a float32 image; expected uint8"):
        next(iter(loader.epoch(0)))


def test_a_folder_gives_the_same_batches_cached_or_not(tmp_path: Path) -> None:
    for name, colour in (("a", 10), ("b", 200)):
        (tmp_path / name).mkdir()
        for n in range(5):
            Image.new("RGB", (9, 7), (colour, n, 0)).save(tmp_path / name / f"{n}.png")
    cached = list(Loader(ImageFolder(tmp_path, size=8), 3, shuffle=True).epoch(0))
    read = list(Loader(ImageFolder(tmp_path, size=8, cache_bytes=400), 3, shuffle=True).epoch(0))
    assert all(map(same, cached, read))
    for batch in cached:
        np.testing.assert_array_equal(batch.images[:, 0, 0, 1], batch.indices % 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
    ],
)
def test_settings_that_are_none(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loader(noise(), **{"batch_size": 4, **settings})


def test_epoch_and_start_are_checked_at_the_call() -> None:
    loader = Loader(noise(), 4)
    with pytest.raises(ValueError, match="epoch -1"):
        loader.epoch(-1)
    with pytest.raises(ValueError, match="start is 7; expected 0 to 6"):
        loader.epoch(0, 7)


# Errors


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_goes_bad_is_named(tmp_path: Path, workers: int) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    folder = ImageFolder(tmp_path, cache_bytes=0)
    (tmp_path / "a/2.png").write_text("overwritten")
    batches = Loader(folder, 1, workers=workers).epoch(0)
    assert next(batches).indices.tolist() == [0]
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value).startswith(f"{tmp_path / 'a/2.png'}: not a readable image")
    assert_threads_end()


@pytest.mark.parametrize("workers", [0, 2])
def test_any_exception_comes_out_as_itself(workers: int) -> None:
    def broken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise ZeroDivisionError("in the augmentation")

    with pytest.raises(ZeroDivisionError, match="in the augmentation"):
        next(Loader(noise(), 4, augment=broken, workers=workers).epoch(0))
    assert_threads_end()


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_unequal_shape_in_a_batch(tmp_path: Path, workers: int) -> None:
    for name, width in (("a/tall.png", 4), ("a/wide.png", 9), ("b/1.png", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (width, 4)).save(tmp_path / name)
    message = r"wide\.png: 4x9x3, but tall\.png in the same batch is 4x4x3; give `size`"
    for cache_bytes in (0, 2**20):
        folder = ImageFolder(tmp_path, cache_bytes=cache_bytes)
        with pytest.raises(DataError, match=message):
            list(Loader(folder, 3, workers=workers).epoch(0))
        assert len(list(Loader(folder, 1, workers=workers).epoch(0))) == 3


def test_a_crop_that_does_not_fit_names_the_image() -> None:
    with pytest.raises(DataError, match=r"#0: RandomCrop.*larger than the image of 8 x 8"):
        list(Loader(noise(), 4, augment=RandomCrop(9)).epoch(0))


# Threads


def test_threads_end_with_the_epoch_and_with_an_abandoned_iterator() -> None:
    loader = Loader(Unhurried(noise(400), 0.001), 4, workers=3)
    for _ in loader.epoch(0):
        pass
    assert_threads_end()
    batches = loader.epoch(0)
    next(batches)
    assert len(loader_threads()) == 3
    del batches
    assert_threads_end()
    for _ in loader.epoch(0):
        break
    assert_threads_end()


def test_reading_ahead_is_bounded() -> None:
    started: list[int] = []
    results = in_threads(lambda n: started.append(n), range(1000), workers=2)
    for taken in range(10):
        next(results)
        time.sleep(0.01)
        assert len(started) <= taken + 6  # the one taken, two waiting per thread, one in excess
    results.close()
    assert_threads_end()


def test_an_array_needs_no_threads() -> None:
    batches = Loader(noise(), 4, workers=2).epoch(0)
    next(batches)
    assert not loader_threads()


@pytest.mark.parametrize("held", ["loader.epoch(0)", "batches"])
def test_ctrl_c_ends_at_once(held: str) -> None:
    """The queued work would take a minute; the interrupted program must not wait for it."""
    program = f"""
        import time
        import numpy as np
        from tinyconv.data.dataset import Dataset
        from tinyconv.data.loader import Loader

        class Slow(Dataset):
            classes, labels = ["a"], np.zeros(1000, dtype=np.int64)
            def image(self, index):
                time.sleep(0.5 if index > 3 else 0)
                return np.zeros((2, 2, 3), dtype=np.uint8)

        loader = Loader(Slow(), 4, workers=2)
        batches = loader.epoch(0)
        for number, batch in enumerate({held}):
            print(number, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=5)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
