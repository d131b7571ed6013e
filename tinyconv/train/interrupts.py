"""Ctrl-C and SIGTERM, held off while something must happen whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt; inside `held()`, at its end.

    `signal` is the number of the last one received. Python lets only the main thread handle
    signals: entered in another, or not `enabled`, this changes nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.signal: int = signal.SIGINT
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._holds = 0
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if self._enabled:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if self._holds:
            self._waiting = True
        else:
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """Take no more interrupts: the last things before the end are being done."""
        self._holds += 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold interrupts off until the block's end."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._waiting and not self._holds:
            self._waiting = False
            raise KeyboardInterrupt
