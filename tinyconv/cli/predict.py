"""python -m tinyconv predict MODEL PATH...: what is on photos."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv import functional as F
from tinyconv.cli.flags import add_backend, add_batch_size
from tinyconv.data import list_images, read_image
from tinyconv.errors import DataError
from tinyconv.io import ModelCard, load_model
from tinyconv.nn import Module
from tinyconv.tensor import no_grad


def add(commands: Any) -> None:
    """Add the command to the parser."""
    predict = commands.add_parser("predict", help="say what is on photos")
    predict.add_argument("model", metavar="MODEL", help="model.safetensors of a training")
    predict.add_argument("paths", metavar="PATH", nargs="+", help="images, or folders of them")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="a table with a column for each class")
    form.add_argument("--json", action="store_true", help="a list of objects")
    add_batch_size(predict)
    add_backend(predict)
    predict.set_defaults(command=_predict)


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
            probabilities = class_probabilities(model, card, np.stack(images))
            rows += [
                {"path": str(path), "class": card.classes[int(p.argmax())],
                 "probabilities": dict(zip(card.classes, p.tolist(), strict=True))}
                for path, p in zip(readable, probabilities, strict=True)
            ]  # fmt: skip
        if not (options.csv or options.json):
            print_rows(rows)
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


def class_probabilities(model: Module, card: ModelCard, images: np.ndarray) -> np.ndarray:
    """float32 (N, classes) for images uint8 (N, H, W, C)."""
    with no_grad():
        return F.softmax(model(F.normalize_image(images, card.mean, card.std)), 1).numpy()


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a line for each image: its name, and up to five classes with their probabilities."""
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
