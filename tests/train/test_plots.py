"""The pictures are PNG files, made without touching the user's matplotlib."""

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from tinyconv import plotting
from tinyconv.data import Compose, RandomErasing, RandomResizedCrop
from tinyconv.data.dataset import ArrayDataset
from tinyconv.train import Evaluation, History, save_pictures
from tinyconv.train.history import Epoch
from tinyconv.train.plots import plot_augmented, plot_curves, save_augmented


def result(count, classes, channels=3, drawn=False):
    rng = np.random.default_rng(0)
    names = ["$cat$", "dog_1", *(f"class {n}" for n in range(2, classes))][:classes]
    pixels = rng.integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)
    dataset = ArrayDataset(pixels, rng.integers(0, classes, count), names, drawn)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    confusion = rng.integers(0, 9, (classes, classes))
    return Evaluation(0.5, 0.5, confusion, probabilities), dataset


@pytest.mark.parametrize(
    ("count", "classes", "channels", "validated"),
    [(1, 2, 3, True), (3, 10, 1, False), (40, 40, 3, True)],
)
def test_pictures(tmp_path, count, classes, channels, validated):
    pytest.importorskip("matplotlib")
    history = History([Epoch(n, 1 / n, 0.5, 2 / n, 0.4, 0.1, 1.0) for n in (1, 2)])
    if not validated:
        history = History([Epoch(1, 1.0, 0.5, None, None, 0.1, 1.0)])
    paths = save_pictures(tmp_path, history, *result(count, classes, channels, drawn=True))
    assert [path.name for path in paths] == ["curves.png", "confusion.png", "predictions.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            picture.load()
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("epochs", [[1], [4], [1, 2], [1, 2, 3]])
def test_the_epochs_of_the_curves_are_whole_numbers(tmp_path, monkeypatch, epochs):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(plotting, "save", lambda figure, *_: drawn.append(figure))
    history = History([Epoch(n, 1 / n, 0.5, 2 / n, 0.4, 0.1, 1.0) for n in epochs])
    plot_curves(history, tmp_path / "curves.png")
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == epochs


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (20, 3)])
def test_the_sheet_of_augmented_images_shows_what_was_made(tmp_path, monkeypatch, count, channels):
    pytest.importorskip("matplotlib")
    shown, images = [], result(count, 2, channels)[1]
    monkeypatch.setattr(plotting, "show", lambda axes, image: shown.append(image))
    augment = Compose([RandomResizedCrop(6), RandomErasing(1, (0.2, 0.3), value="random")])
    assert save_augmented(tmp_path, images, augment, seed=1) == [tmp_path / "augmented.png"]
    with Image.open(tmp_path / "augmented.png") as picture:
        assert picture.format == "PNG"
    rows = [shown[n : n + 8] for n in range(0, len(shown), 8)]
    assert len(rows) == min(count, 6)
    for row, index in zip(rows, np.linspace(0, count - 1, len(rows)).astype(int), strict=True):
        np.testing.assert_array_equal(row[0], images.image(int(index)))
        assert {version.shape for version in row[1:]} == {(6, 6, channels)}
        assert len({version.tobytes() for version in row[1:]}) == 7
    again, shown[:] = list(shown), []
    plot_augmented(images, augment, tmp_path / "augmented.png", seed=1)
    assert all(map(np.array_equal, shown, again))


def test_without_matplotlib_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert save_augmented(tmp_path, result(2, 2)[1], RandomResizedCrop(6)) == []
    assert save_pictures(tmp_path, History(), *result(2, 2)) == []
    assert capsys.readouterr().err == (
        "no pictures: matplotlib is missing, pip install matplotlib\n"
    )
    assert list(tmp_path.iterdir()) == []
