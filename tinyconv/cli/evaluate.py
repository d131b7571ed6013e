"""python -m tinyconv evaluate MODEL FOLDER: accuracy on labelled images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tinyconv.cli.flags import add_backend, add_batch_size
from tinyconv.data import (
    Dataset,
    ImageFolder,
    Resize,
    Transformed,
    catalogue,
    cifar10,
    find_splits,
    mnist,
)
from tinyconv.errors import DataError
from tinyconv.io import ModelCard, load_model
from tinyconv.train import evaluate, per_class


def add(commands: Any) -> None:
    """Add the command to the parser."""
    evaluation = commands.add_parser("evaluate", help="accuracy on a folder of labelled images")
    evaluation.add_argument("model", metavar="MODEL", help="model.safetensors of a training")
    evaluation.add_argument(
        "folder",
        metavar="FOLDER",
        help="one folder per class, MNIST's idx files, or a data set's name",
    )
    evaluation.add_argument("--json", action="store_true", help="an object instead of a table")
    evaluation.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do with images that cannot be read (default: stop)",
    )
    add_batch_size(evaluation)
    add_backend(evaluation)
    evaluation.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    """Print accuracy and confusion matrix of a network on labelled images."""
    model, card = load_model(options.model)
    dataset = _labelled(options.folder, card, options.on_error)
    result = evaluate(model, dataset, card.mean, card.std, options.batch_size)
    if options.json:
        figures = {
            "accuracy": result.accuracy,
            "loss": result.loss,
            "images": len(dataset),
            "skipped": len(getattr(dataset, "skipped", ())),
            "classes": card.classes,
            "confusion": result.confusion.tolist(),
            "drawn": card.drawn,
        }
        print(json.dumps(figures))
        return 0
    print(f"accuracy {result.accuracy:.2%} of {len(dataset):,} images, loss {result.loss:.4f}")
    print("\nconfusion matrix (rows: what they are, columns: what the network says)")
    width = max(map(len, [*card.classes, f"{len(dataset):,}"])) + 2
    print(" " * width + "".join(f"{name:>{width}}" for name in card.classes) + "    recall")
    recall = per_class(result.confusion).recall
    for name, counts, share in zip(card.classes, result.confusion, recall, strict=True):
        cells = "".join(f"{n:>{width},}" for n in counts)
        print(f"{name:>{width}}{cells}{f'{share:.1%}' if counts.any() else '-':>10}")
    if card.drawn:
        sys.stderr.write("note: this network was trained on drawn images, not on photos\n")
    return 0


def _labelled(folder: str, card: ModelCard, on_error: Literal["stop", "skip"]) -> Dataset:
    """The labelled images of `folder`, their class numbers being those of the model.

    Of a data set with a test part that part is taken; the message on stderr names it.
    """
    root = catalogue.resolve(folder)
    if catalogue.holds("cifar10", root):
        return Transformed(cifar10(root, train=False, classes=card.classes), Resize(card.size))
    test = find_splits(root)[1] if root.is_dir() else None
    if test is not None:
        sys.stderr.write(f"the test part of {root}: {test}\n")
    folder = str(test or root)
    if any(Path(folder).glob("*ubyte*")) or any(Path(folder).glob("MNIST/raw/*ubyte*")):
        digits = mnist(folder, train=False, classes=card.classes)
        if digits.image(0).shape != (*card.size, card.channels):
            found, expected = digits.image(0).shape, (*card.size, card.channels)
            raise DataError(f"{folder}: images of shape {found}; the network takes {expected}")
        named = ", ".join(f"{n} is {name!r}" for n, name in enumerate(card.classes[:3]))
        sys.stderr.write(f"note: idx files hold numbers for classes; taken as: {named}, ...\n")
        return digits
    dataset = ImageFolder(folder, card.size, on_error, channels=card.channels)
    if dataset.skipped:
        sys.stderr.write(f"{dataset.report()}\n")
    dataset.labels = _class_numbers(folder, dataset.classes, card.classes)[dataset.labels]
    dataset.classes = list(card.classes)
    return dataset


def _class_numbers(folder: str, found: list[str], known: list[str]) -> np.ndarray:
    """For each class of the folder its number in the network; "Cats" is the network's "cat"."""
    names, outputs = found, known
    if not set(found) <= set(known):
        names, outputs = list(map(_singular, found)), list(map(_singular, known))
    ambiguous = len(set(names)) < len(names) or len(set(outputs)) < len(outputs)
    if ambiguous or not set(names) <= set(outputs):
        raise DataError(
            f"{folder}: has the classes {', '.join(found)}; the network knows {', '.join(known)}"
        )
    return np.array([outputs.index(name) for name in names])


def _singular(name: str) -> str:
    """A class name as it is compared: a folder "Cats" is the class "cat"."""
    return name.lower().removesuffix("s")
