"""The command line: python -m tinyconv COMMAND ..., one module for each command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tinyconv as tc
from tinyconv.cli import data, evaluate, inspect, predict, summary
from tinyconv.train import clear_errors, use_device

COMMANDS = (predict, evaluate, inspect, summary, data)  # in the order of --help


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit code 1 for input that cannot be used, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    with clear_errors():
        if hasattr(options, "backend"):
            use_device(options.backend, options.precision)
        sys.exit(options.command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinyconv",
        description="Use and look into networks; find and download data sets.",
    )
    parser.add_argument("--version", action="version", version=f"tinyconv {tc.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
