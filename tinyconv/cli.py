"""The command line: python -m tinyconv predict MODEL PATH..., evaluate MODEL FOLDER."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

import tinyconv as tc
from tinyconv import functional as F
from tinyconv.data import Dataset, ImageFolder, list_images, mnist, read_image
from tinyconv.errors import DataError
from tinyconv.io import ModelCard, load_model
from tinyconv.nn import Module
from tinyconv.tensor import no_grad
from tinyconv.train import clear_errors, evaluate, per_class
from tinyconv.train.settings import number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit code 1 for input that cannot be used, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    with clear_errors():
        tc.use_backend(options.backend)
        sys.exit(options.command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinyconv", description="Use a network that tinyconv has trained."
    )
    parser.add_argument("--version", action="version", version=f"tinyconv {tc.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="say what is on photos")
    predict.add_argument("model", metavar="MODEL", help="model.safetensors of a training")
    predict.add_argument("paths", metavar="PATH", nargs="+", help="images, or folders of them")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="a table with a column for each class")
    form.add_argument("--json", action="store_true", help="a list of objects")
    predict.set_defaults(command=_predict)

    evaluation = commands.add_parser("evaluate", help="accuracy on a folder of labelled images")
    evaluation.add_argument("model", metavar="MODEL", help="model.safetensors of a training")
    evaluation.add_argument(
        "folder", metavar="FOLDER", help="one folder per class, or MNIST's idx files"
    )
    evaluation.add_argument("--json", action="store_true", help="an object instead of a table")
    evaluation.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do with images that cannot be read (default: stop)",
    )
    evaluation.set_defaults(command=_evaluate)

    for command in (predict, evaluation):
        command.add_argument(
            "--batch-size", type=number(int, 1), default=32, metavar="N", help="(default: 32)"
        )
        command.add_argument(
            "--backend",
            choices=("numpy", "cupy"),
            default=os.environ.get("TINYCONV_BACKEND") or "numpy",
            help="where to compute (default: TINYCONV_BACKEND or numpy)",
        )
    return parser


def _predict(options: argparse.Namespace) -> int:
    """Print the classes of every image; those that cannot be read are named on stderr (exit 1)."""
    model, card = load_model(options.model)
    rows: list[dict[str, Any]] = []
    unreadable = 0
    paths = _images(options.paths)
    for start in range(0, len(paths), options.batch_size):
        images, readable = [], []
        for path in paths[start : start + options.batch_size]:
            try:
                images.append(read_image(path, card.size, card.channels))
                readable.append(path)
            except DataError as error:
                unreadable += 1
                sys.stderr.write(f"error: {error}\n")
        if images:
            probabilities = _probabilities(model, card, np.stack(images))
            rows += [
                {"path": str(path), "class": card.classes[int(p.argmax())],
                 "probabilities": dict(zip(card.classes, p.tolist(), strict=True))}
                for path, p in zip(readable, probabilities, strict=True)
            ]  # fmt: skip
        if not (options.csv or options.json):
            _print_rows(rows)
            rows.clear()
    if options.json:
        print(json.dumps(rows, indent=2))
    elif options.csv:
        print(_csv(rows, card.classes), end="")
    if card.drawn and not (options.csv or options.json):
        sys.stderr.write("note: this network was trained on drawn images, not on photos\n")
    return 1 if unreadable else 0


def _images(given: Sequence[str]) -> list[Path]:
    """The images that were named, and those in the folders that were."""
    paths: list[Path] = []
    for path in map(Path, given):
        inside = list_images(path) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path}: no images in this folder")
        paths += inside
    return paths


def _probabilities(model: Module, card: ModelCard, images: np.ndarray) -> np.ndarray:
    with no_grad():
        return F.softmax(model(F.normalize_image(images, card.mean, card.std)), 1).numpy()


def _print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        ranked = sorted(row["probabilities"].items(), key=lambda item: -item[1])
        figures = "  ".join(f"{name} {100 * p:.1f} %" for name, p in ranked[:5])
        print(f"{Path(row['path']).name}  {figures}")


def _csv(rows: list[dict[str, Any]], classes: list[str]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "class", *classes])
    for row in rows:
        figures = [f"{p:.6f}" for p in row["probabilities"].values()]
        writer.writerow([row["path"], row["class"], *figures])
    return table.getvalue()


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
    """The labelled images of `folder`, their class numbers being those of the model."""
    if any(Path(folder).glob("*ubyte*")) or any(Path(folder).glob("MNIST/raw/*ubyte*")):
        digits = mnist(folder, train=False, classes=card.classes)
        if digits.image(0).shape != (*card.size, card.channels):
            found, expected = digits.image(0).shape, (*card.size, card.channels)
            raise DataError(f"{folder}: images of shape {found}; the network takes {expected}")
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
