"""What every data set offers: checks, subsets and stratified splits."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconv.data.dataset import ArrayDataset, Dataset
from tinyconv.errors import DataError


def numbered(labels: list[int], classes: int = 3) -> ArrayDataset:
    """Images of 2 x 2 pixels, each filled with its own number."""
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(2, 1).repeat(2, 2)
    return ArrayDataset(images, labels, [f"class {n}" for n in range(classes)])


def numbers(dataset: Dataset) -> list[int]:
    return [int(dataset.image(n)[0, 0, 0]) for n in range(len(dataset))]


def test_array_dataset() -> None:
    dataset = numbered([0, 2, 1, 1])
    assert len(dataset) == 4
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [0, 2, 1, 1]
    assert dataset.name(3) == "#3"
    assert not dataset.drawn
    assert numbers(dataset) == [0, 1, 2, 3]
    assert dataset.gather(np.array([3, 0]))[:, 0, 0, 0].tolist() == [3, 0]


def test_images_cannot_be_written_through_the_data_set() -> None:
    images = np.zeros((2, 2, 2, 1), dtype=np.uint8)
    dataset = ArrayDataset(images, [0, 0], ["a"])
    with pytest.raises(ValueError, match="read-only"):
        dataset.image(0)[:] = 1
    images[:] = 1  # the caller's own array stays writeable


GOOD = np.zeros((2, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GOOD.astype(np.float32), [0, 1], r"images: float32 array"),
        (GOOD[..., 0], [0, 1], r"shape \(2, 4, 4\)"),
        (GOOD[..., :2], [0, 1], r"C = 1 or 3"),
        (GOOD[:0], [], r"holds no image"),
        (GOOD[:, :0], [0, 1], r"holds no image"),
        (GOOD, [0], r"labels: 1 labels for 2 images"),
        (GOOD, [0.0, 1.0], r"labels: float64 array"),
        (GOOD, [[0], [1]], r"labels: int64 array of shape \(2, 1\)"),
        (GOOD, [0, 2], r"label 2 of image 1 is out of range; expected 0 to 1 for 2 classes"),
        (GOOD, [-1, 0], r"label -1 of image 0"),
    ],
)
def test_array_dataset_refuses(images: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArrayDataset(images, labels, ["a", "b"])


def test_subset_and_subset_of_a_subset() -> None:
    dataset = numbered([0, 1, 2, 0, 1, 2])
    part = dataset.subset([5, 1, 3])
    assert numbers(part) == [5, 1, 3]
    assert part.labels.tolist() == [2, 1, 0]
    assert part.classes == dataset.classes
    assert part.name(0) == "#5"
    inner = part.subset(np.array([2, 0]))
    assert numbers(inner) == [3, 5]
    assert inner.gather(np.array([1, 0]))[:, 0, 0, 0].tolist() == [5, 3]
    assert len(dataset.subset([])) == 0


def test_subset_carries_drawn() -> None:
    images = np.zeros((2, 2, 2, 1), dtype=np.uint8)
    assert ArrayDataset(images, [0, 0], ["a"], drawn=True).subset([0]).drawn


def test_subset_refuses() -> None:
    dataset = numbered([0, 1, 2])
    with pytest.raises(IndexError, match="index 3 in a data set of 3 images"):
        dataset.subset([0, 3])
    with pytest.raises(IndexError, match="index -1"):
        dataset.subset([-1])
    with pytest.raises(TypeError, match="whole numbers"):
        dataset.subset([0.5])  # type: ignore[list-item]


def test_split_is_stratified_complete_and_deterministic() -> None:
    labels = [0] * 100 + [1] * 50 + [2] * 10
    dataset = numbered(labels)
    rest, part = dataset.split(0.2, seed=1)
    assert np.bincount(part.labels).tolist() == [20, 10, 2]
    assert sorted(numbers(rest) + numbers(part)) == list(range(160))
    assert numbers(part) == sorted(numbers(part))
    again = dataset.split(0.2, seed=1)
    assert (numbers(again[0]), numbers(again[1])) == (numbers(rest), numbers(part))
    assert numbers(dataset.split(0.2, seed=2)[1]) != numbers(part)


def test_split_leaves_every_class_on_both_sides() -> None:
    rest, part = numbered([0, 0, 1, 1, 1, 2]).split(0.01, seed=0)
    assert set(part.labels) == {0, 1}
    assert set(rest.labels) == {0, 1, 2}
    rest, part = numbered([0, 0, 1, 1, 1, 2]).split(0.99, seed=0)
    assert np.bincount(rest.labels).tolist() == [1, 1, 1]


def test_split_refuses() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1\.0"):
        numbered([0, 0]).split(1.0, seed=0)
    with pytest.raises(DataError, match="two images"):
        numbered([0, 1, 2]).split(0.5, seed=0)
