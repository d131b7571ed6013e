"""python -m tinyconv summary MODEL: the layers of a network, their sizes, work and time."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tinyconv import models
from tinyconv.cli.flags import add_backend
from tinyconv.errors import DataError
from tinyconv.io import load_model
from tinyconv.model_summary import summary
from tinyconv.nn import Module
from tinyconv.train.settings import number


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "summary",
        help="print the layers of a network",
        description="Print a network's layers: output shapes, weights, multiply-adds, memory.",
    )
    command.add_argument(
        "model",
        metavar="MODEL",
        help=f"model.safetensors of a training, or one of {', '.join(models.names())}",
    )
    whole = number(int, 1)
    command.add_argument(
        "--size", type=whole, metavar="N", help="of the images, in pixels (default: the network's)"
    )
    command.add_argument(
        "--classes", type=whole, metavar="N", help="of a network by name (default: its own)"
    )
    command.add_argument(
        "--batch-size", type=whole, default=1, metavar="N", help="images at once (default: 1)"
    )
    command.add_argument(
        "--depth", type=number(int, 0), default=3, metavar="N", help="of the table (default: 3)"
    )
    command.add_argument(
        "--timing", action="store_true", help="time and memory of each layer, measured eagerly"
    )
    command.add_argument("--json", action="store_true", help="an object instead of a table")
    add_backend(command)
    command.set_defaults(command=_summary)


def _summary(options: argparse.Namespace) -> int:
    """Print the table, or all figures as JSON."""
    model, input_size = _network(options)
    figures = summary(model, input_size, options.batch_size, options.depth, options.timing)
    print(json.dumps(figures.to_dict()) if options.json else figures)
    return 0


def _network(options: argparse.Namespace) -> tuple[Module, tuple[int, ...]]:
    """The network of a name or a file, in the mode of a training, and the shape of its images."""
    if options.model in models.names():
        channels, size = models.inputs(options.model)[:2]
        size = options.size or size
        settings = {} if options.classes is None else {"num_classes": options.classes}
        return models.create(options.model, size=size, **settings), (channels, size, size)
    if not Path(options.model).exists():
        names = ", ".join(models.names())
        raise DataError(f"{options.model}: no such file, and no network's name; those are {names}")
    if options.classes is not None:
        raise DataError(f"{options.model}: --classes is for networks by name; this one is trained")
    model, card = load_model(options.model)
    height, width = [options.size] * 2 if options.size else card.size
    return model.train(), (card.channels, height, width)
