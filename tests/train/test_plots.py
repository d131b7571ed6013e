"""The pictures are PNG files, made without touching the user's matplotlib."""

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from tinyconv.data.dataset import ArrayDataset
from tinyconv.train import Evaluation, History, save_pictures
from tinyconv.train.history import Epoch


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


def test_without_matplotlib_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert save_pictures(tmp_path, History(), *result(2, 2)) == []
    assert capsys.readouterr().err == (
        "no pictures: matplotlib is missing, pip install matplotlib\n"
    )
    assert list(tmp_path.iterdir()) == []
