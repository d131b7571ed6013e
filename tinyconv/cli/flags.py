"""Flags that several commands share."""

from __future__ import annotations

import argparse
import os

from tinyconv.train.settings import number


def add_backend(command: argparse.ArgumentParser) -> None:
    """--backend, where to compute, and --precision."""
    command.add_argument(
        "--backend",
        choices=("numpy", "cupy"),
        default=os.environ.get("TINYCONV_BACKEND") or "numpy",
        help="where to compute (default: TINYCONV_BACKEND or numpy)",
    )
    command.add_argument(
        "--precision",
        choices=("float32", "tf32"),
        help="how a GPU computes (default: tf32; the CPU: float32, nothing else); weights are "
        "float32 after training in mixed precision too, and run in either",
    )


def add_batch_size(command: argparse.ArgumentParser) -> None:
    """--batch-size, how many images to compute at once."""
    command.add_argument(
        "--batch-size", type=number(int, 1), default=32, metavar="N", help="(default: 32)"
    )
