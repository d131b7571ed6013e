"""Who takes a record of what the engine runs: the compiler does, while it looks at a step."""

from __future__ import annotations

import threading
from typing import Any, Protocol


class Recorder(Protocol):
    """Takes over everything that one thread runs, to repeat it later (see compiler/record.py)."""

    def run(self, op: Any, inputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """In the place of op.run."""

    def run_backward(
        self, op: Any, gy: Any, saved: tuple[Any, ...], needs: tuple[bool, ...]
    ) -> tuple[Any, ...]:
        """In the place of op.run_backward."""

    def uses(self, thing: Any) -> None:
        """A tensor, module or optimiser takes part, whose state the record will depend on."""

    def value_read(self, what: str) -> None:
        """The program looks at a value, which a record cannot repeat."""


class _Recording(threading.local):
    recorder: Recorder | None = None


_recording = _Recording()


def recorder() -> Recorder | None:
    """Who records this thread at the moment."""
    return _recording.recorder


def set_recorder(recorder: Recorder | None) -> None:
    """Have `recorder` take over all that this thread runs from now on (None: nobody)."""
    _recording.recorder = recorder
