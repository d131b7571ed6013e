"""Pictures of a training as PNG files. They need matplotlib: pip install matplotlib."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyconv import plotting
from tinyconv.data.dataset import Dataset
from tinyconv.data.transforms import Transform
from tinyconv.train.evaluation import Evaluation
from tinyconv.train.history import History

_DRAWN = "built-in drawn images"


def save_pictures(
    folder: str | os.PathLike[str], history: History, evaluation: Evaluation, dataset: Dataset
) -> list[Path]:
    """Write curves.png, confusion.png and predictions.png to `folder`; returns their paths.

    `evaluation` is that of `dataset`. Without matplotlib writes nothing, and one line on stderr
    says what to install.
    """
    if not plotting.available():
        sys.stderr.write("no pictures: matplotlib is missing, pip install matplotlib\n")
        return []
    paths = [Path(folder) / f"{name}.png" for name in ("curves", "confusion", "predictions")]
    plot_curves(history, paths[0], dataset.drawn)
    plot_confusion(evaluation.confusion, dataset.classes, paths[1], dataset.drawn)
    plot_predictions(evaluation.probabilities, dataset, paths[2])
    return paths


def save_augmented(
    folder: str | os.PathLike[str], dataset: Dataset, augment: Transform, seed: int = 0
) -> list[Path]:
    """Write plot_augmented's sheet to `folder` as augmented.png; returns its path.

    Without matplotlib writes nothing; save_pictures says what to install.
    """
    if not plotting.available():
        return []
    path = Path(folder) / "augmented.png"
    plot_augmented(dataset, augment, path, seed)
    return [path]


def plot_curves(history: History, path: str | os.PathLike[str], drawn: bool = False) -> None:
    """Loss and accuracy over the epochs, of the training and, where there was one, validation."""
    figure = plotting.figure(10, 4)
    left, right = figure.subplots(1, 2)
    epochs = history.column("epoch")
    for axes, name in ((left, "loss"), (right, "accuracy")):
        for part, label in (("train", "training"), ("val", "validation")):
            values = history.column(f"{part}_{name}")
            if None not in values:
                axes.plot(epochs, values, marker=".", label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()
    plotting.save(figure, path, "training" + (f" on {_DRAWN}" if drawn else ""))


def plot_confusion(
    confusion: np.ndarray,
    classes: Sequence[str],
    path: str | os.PathLike[str],
    drawn: bool = False,
) -> None:
    """The confusion matrix, int (C, C): rows are the true classes, columns the predicted ones."""
    count = len(classes)
    side = 3 + 0.6 * min(count, 30)
    figure = plotting.figure(side + 1, side)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if count <= 30:  # beyond that the numbers would cover each other
        for row, column in np.ndindex(count, count):
            colour = "white" if share[row, column] > 0.5 else "black"
            number = f"{confusion[row, column]:,}"
            axes.text(column, row, number, ha="center", va="center", color=colour)
    names = [plotting.plain(name) for name in classes]
    axes.set_xticks(range(count), names, rotation=90 if count > 4 else 0)
    axes.set_yticks(range(count), names)
    axes.set(xlabel="predicted", ylabel="true")
    right = np.trace(confusion) / max(confusion.sum(), 1)
    plotting.save(figure, path, f"accuracy {right:.1%}" + (f" on {_DRAWN}" if drawn else ""))


def plot_predictions(
    probabilities: np.ndarray,
    dataset: Dataset,
    path: str | os.PathLike[str],
    count: int = 20,
) -> None:
    """A sheet of images with what the network says of them, evenly picked from the data set.

    probabilities (N, C) in the order of the data set; wrong predictions are titled in red.
    """
    count = min(count, len(dataset))
    columns = min(5, count)
    rows = math.ceil(count / columns)
    figure = plotting.figure(2.4 * columns, 2.7 * rows + 0.4)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    picked = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    for axes, index in zip(all_axes, picked, strict=False):
        image, label = dataset.image(index), int(dataset.labels[index])
        predicted = int(probabilities[index].argmax())
        plotting.show(axes, image)
        text = f"{plotting.plain(dataset.classes[predicted])} {probabilities[index, predicted]:.0%}"
        if predicted != label:
            text += f"\n(is {plotting.plain(dataset.classes[label])})"
        axes.set_title(text, fontsize=9, color="black" if predicted == label else "red")
    plotting.save(figure, path, "predictions" + (f" on {_DRAWN}" if dataset.drawn else ""))


def plot_augmented(
    dataset: Dataset, augment: Transform, path: str | os.PathLike[str], seed: int = 0
) -> None:
    """A sheet of six images, evenly picked, one to a row: as they are, then augmented seven times.

    `augment` is called with an image and a Generator, as by a Loader.
    """
    count = min(6, len(dataset))
    figure = plotting.figure(8 * 1.4, 1.5 * count + 0.6)
    rows = figure.subplots(count, 8, squeeze=False)
    picked = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    for axes, index in zip(rows, picked, strict=True):
        image, rng = dataset.image(index), np.random.default_rng((seed, index))
        versions = [image, *(augment(image, rng) for _ in range(7))]
        for place, version in zip(axes, versions, strict=True):
            place.set_axis_off()
            plotting.show(place, version)
        axes[0].set_title(plotting.plain(dataset.classes[dataset.labels[index]]), fontsize=9)
    plotting.save(figure, path, "augmentation" + (f" of {_DRAWN}" if dataset.drawn else ""))
