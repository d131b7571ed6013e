"""A progress bar around a loop that may take long."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def with_progress(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """`items`, of which there are `total`, with a progress bar on stderr where it is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), transient=True)
