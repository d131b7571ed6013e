"""What a training shows while it runs, on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tinyconv.train.history import Epoch

_COLUMNS = ("loss", "accuracy", "val loss", "val acc", "seconds")
_HEADER = "    epoch" + "".join(f"{name:>10}" for name in _COLUMNS)
_REFRESH_SECONDS = 0.1


def say(text: str) -> None:
    """Print lines of the result on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class ProgressReport:
    """A bar for the running epoch (on a terminal only) and one line for each finished epoch."""

    def __init__(self, epochs: int, *, quiet: bool = False) -> None:
        self._epochs = epochs
        self._console = Console(stderr=True, quiet=quiet, markup=False, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._header_due = True

    def __enter__(self) -> ProgressReport:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, soft_wrap=True)

    def start_epoch(self, epoch: int, steps: int, step: int, seen: int) -> None:
        """Show the bar of an epoch of `steps` steps; `step` with `seen` images are done."""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._task = self._bar.add_task(
            f"epoch {epoch}/{self._epochs}", total=steps, completed=step, figures=""
        )
        self._seen_before = seen
        self._began = self._shown = time.monotonic()

    def step(self, step: int, loss: float, accuracy: float, seen: int) -> None:
        """Show the running figures, a few times a second at most."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        speed = (seen - self._seen_before) / (now - self._began)
        figures = f"loss {loss:.4f}  accuracy {accuracy:.1%}  {speed:.0f} images/s"
        self._bar.update(self._task, completed=step, figures=figures)

    def end_epoch(self, row: Epoch) -> None:
        """Print the epoch's row of the table, below its header the first time."""
        if self._header_due:
            self.say(_HEADER)
            self._header_due = False
        count = f"{row.epoch}/{self._epochs}"
        validation = f"{'-':>8}  {'-':>8}"
        if row.val_loss is not None:
            validation = f"{row.val_loss:8.4f}  {row.val_accuracy:8.1%}"
        self.say(
            f"{count:>9}  {row.train_loss:8.4f}  {row.train_accuracy:8.1%}  {validation}"
            f"  {row.seconds:8.1f}"
        )
