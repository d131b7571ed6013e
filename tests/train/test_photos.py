"""What the examples on photos share: sets, sizes, augmentations, and who is on an image."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tinyconv.data import ArrayDataset
from tinyconv.errors import DataError
from tinyconv.train import PhotoSettings, augmentation, hold_out, individuals, photo_sets
from tinyconv.train.photos import AUGMENTATIONS

SETTINGS = PhotoSettings(size=32, workers=0)


@pytest.fixture
def folder(tmp_path):
    """Six training and two test photos of each of two classes, of 40 x 50 pixels."""
    for part, count in (("training_set", 6), ("test_set", 2)):
        for kind in ("cats", "dogs"):
            for number in range(count):
                path = tmp_path / "photos" / part / kind / f"{kind[:-1]}.{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (50, 40), (number * 20, 0, 200)).save(path)
    return str(tmp_path / "photos")


def test_photos_of_a_folder(folder):
    train, test = photo_sets(replace(SETTINGS, data=folder))
    assert (len(train), len(test)) == (12, 4)
    assert train.classes == test.classes == ["cat", "dog"]
    assert train.image(0).shape == test.image(0).shape == (32, 32, 3)


def test_photos_to_be_cropped_are_kept_larger(folder):
    settings = replace(SETTINGS, data=folder, augment="crop")
    train, test = photo_sets(settings)
    assert train.image(0).shape == (42, 42, 3)
    assert test.image(0).shape == (32, 32, 3)
    rest, validation = hold_out(train, test, settings)
    assert rest.image(0).shape == (42, 42, 3)
    assert validation.image(0).shape == (32, 32, 3)


def test_some_of_the_images(folder):
    train, test = photo_sets(replace(SETTINGS, data=folder, images=4))
    assert np.bincount(train.labels).tolist() == [2, 2]
    assert len(test) == 4


def test_without_a_test_folder_a_fifth_is_held_out(folder, capsys):
    train, test = photo_sets(replace(SETTINGS, data=f"{folder}/training_set", augment="crop"))
    assert (len(train), len(test)) == (10, 2)
    assert test.image(0).shape == (32, 32, 3)
    assert "a fifth of its photos is held out" in capsys.readouterr().out


def test_without_data_they_are_drawn():
    train, test = photo_sets(replace(SETTINGS, drawn_images=6))
    assert train.drawn
    assert test.drawn
    assert len(train) == 6


def test_cats_and_dogs_of_cifar10(tmp_path):
    records = np.zeros((10, 3073), np.uint8)
    records[:, 0] = np.arange(10)
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        (tmp_path / name).write_bytes(np.repeat(records, 1000, axis=0).tobytes())
    train, test = photo_sets(replace(SETTINGS, data=str(tmp_path), size=40))
    assert train.classes == ["cat", "dog"]
    assert np.bincount(train.labels).tolist() == [5000, 5000]
    assert len(test) == 2000
    assert test.image(0).shape == (40, 40, 3)


def test_an_unknown_name():
    with pytest.raises(DataError, match="nowhere: no such file or folder, nor a data set"):
        photo_sets(replace(SETTINGS, data="nowhere"))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_give_the_size_of_the_network(name, folder):
    settings = replace(SETTINGS, data=folder, augment=name)
    image = photo_sets(settings)[0].image(0)
    change = augmentation(settings)
    assert (change is None) == (name == "none")
    if change is not None:
        for seed in range(5):
            assert change(image, np.random.default_rng(seed)).shape == (32, 32, 3)


class Named(ArrayDataset):
    def __init__(self, names):
        images = np.zeros((len(names), 8, 8, 3), np.uint8)
        super().__init__(
            images, [int(name.startswith("human")) for name in names], ["horse", "human"]
        )
        self.names = names

    def name(self, index):
        return self.names[index]


def test_individuals_stay_on_one_side():
    names = [f"{kind}{who:02}-{n}.jpg" for kind in ("horse", "human") for who in range(10)
             for n in range(5)]  # fmt: skip
    dataset = Named(names)
    groups = individuals(dataset)
    assert len(set(groups)) == 20
    rest, validation = dataset.split(0.2, 0, groups)
    assert len(validation) == 2 * 2 * 5
    sides = [{part.name(i).split("-")[0] for i in range(len(part))} for part in (rest, validation)]
    assert not sides[0] & sides[1]


def test_other_names_stand_for_themselves():
    assert len(set(individuals(Named(["a-1.jpg", "a-2.jpg", "cat.1.jpg", "cat.1.jpg"])))) == 4
