"""Flags that several commands share."""

from __future__ import annotations

import argparse
import os

from tinyconv.train.settings import number


def add_backend(command: argparse.ArgumentParser) -> None:
    """--backend, where to compute."""
    command.add_argument(
        "--backend",
        choices=("numpy", "cupy"),
        default=os.environ.get("TINYCONV_BACKEND") or "numpy",
        help="where to compute (default: TINYCONV_BACKEND or numpy)",
    )


def add_batch_size(command: argparse.ArgumentParser) -> None:
    """--batch-size, how many images to compute at once."""
    command.add_argument(
        "--batch-size", type=number(int, 1), default=32, metavar="N", help="(default: 32)"
    )
