"""The flags that every example takes, as one dataclass, and the parser made from it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import numpy as np


def flag(default: Any, help: str, kind: type | None = None, **options: Any) -> Any:
    """A field of a settings class: its default, its line of --help, and options of argparse.

    `kind` is the type of the value, where the default (None) does not tell.
    """
    return field(default=default, metadata={"help": help, "kind": kind or type(default), **options})


def flag_of(kind: type[Settings], name: str, default: Any) -> Any:
    """The field `name` of the settings class `kind` with another default."""
    return field(default=default, metadata=kind.__dataclass_fields__[name].metadata)


@dataclass(frozen=True)
class Settings:
    """What can be chosen on the command line of every example."""

    data: str | None = flag(
        None,
        "folder of the data set, or its name in `python -m tinyconv data list` "
        "(default: built-in drawn images)",
        str,
    )
    size: int = flag(64, "height and width of the images, in pixels")
    epochs: int = flag(10, "passes over the training images")
    batch_size: int = flag(32, "images in a step")
    lr: float = flag(1e-3, "learning rate at the start")
    schedule: Literal["cosine", "constant"] = flag(
        "cosine",
        "the learning rate falls to 0 along half a cosine, or stays",
        choices=("cosine", "constant"),
    )
    backend: str = flag(
        os.environ.get("TINYCONV_BACKEND") or "numpy",
        "numpy computes on the CPU, cupy on an NVIDIA GPU",
        choices=("numpy", "cupy"),
    )
    precision: str | None = flag(
        None,
        "how a GPU computes: in float32, in tf32 (what it multiplies is rounded to 10 bits), or "
        "mixed, with float16 images and features (default: tf32; the CPU: float32, nothing else)",
        str,
        choices=("float32", "tf32", "mixed"),
    )
    drawn_images: int = flag(2400, "training images to draw where there is no --data")
    eager: bool = flag(False, "run each step op by op instead of compiled; slower, to debug")
    seed: int = flag(0, "of weights, order and augmentation")
    patience: int | None = flag(
        None, "stop after this many epochs without a better validation accuracy", int
    )
    workers: int | None = flag(
        None,
        "threads that read and augment images (default: 2; for a GPU one for each core, up to 16)",
        int,
    )
    out: str = flag("runs/example", "folder of the model, result.json and the pictures")
    resume: bool = flag(False, "go on from the checkpoint in --out, with the same flags")
    checkpoint_every: int | None = flag(
        None, "steps between checkpoints (default: one after each epoch)", int
    )

    @property
    def mixed(self) -> bool:
        """Whether images and features are float16 and the loss is scaled (see Trainer)."""
        return self.precision == "mixed"

    @property
    def input_dtype(self) -> Any:
        """The dtype of a network's input, None for that of its weights."""
        return np.float16 if self.mixed else None

    @property
    def threads(self) -> int:
        """How many workers there are to be, also where `workers` leaves that open."""
        return default_workers(self.backend) if self.workers is None else self.workers


def default_workers(backend: str) -> int:
    """Threads that read and augment images: the CPU computes besides, a GPU waits for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 2 if backend == "numpy" else max(2, min(cores or 2, 16))


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], description: str | None, arguments: Sequence[str] | None = None) -> S:
    """The settings of class `kind` from the command line (or from `arguments`).

    Every field is a flag: batch_size is --batch-size. Ends the program with a message and exit
    code 2 for flags or values that are not known.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for f in fields(kind):
        options = dict(f.metadata)
        value_type, text = options.pop("kind"), options.pop("help")
        name = "--" + f.name.replace("_", "-")
        if value_type is bool:
            action = argparse.BooleanOptionalAction if f.default else "store_true"
            parser.add_argument(name, default=f.default, action=action, help=text)
            continue
        if f.default is not None and "default" not in text:
            text += f" (default: {f.default})"
        if value_type in (int, float):
            least = 0 if f.name in ("seed", "workers", "lr") or value_type is float else 1
            options["type"] = number(value_type, least)
        if "choices" not in options:
            options.setdefault("metavar", {int: "N", float: "X"}.get(value_type, "PATH"))
        parser.add_argument(name, default=f.default, help=text, **options)
    return kind(**vars(parser.parse_args(arguments)))


def number(kind: type, least: int) -> Any:
    """A converter for argparse: a number of type `kind`, at least `least` and finite."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not value >= least or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text} found, expected a number >= {least}")
        return value

    convert.__name__ = {int: "whole number", float: "number"}[kind]
    return convert
