"""What a training reached, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Monitor = Literal["val_loss", "val_accuracy"]


@dataclass(frozen=True)
class Epoch:
    """One row of the history.

    The training figures are the running ones over the epoch's own batches, while the weights still
    move; those of the validation images are taken after it (None where there are none). `lr` is the
    learning rate of the epoch's last step; `seconds` counts training and validation.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float


@dataclass
class History:
    """The epochs of a training, oldest first; epochs count from 1."""

    epochs: list[Epoch] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, index: int) -> Epoch:
        return self.epochs[index]

    def column(self, name: str) -> list[Any]:
        """One figure over all epochs, by the name of its field in Epoch."""
        return [getattr(epoch, name) for epoch in self.epochs]

    def best(self, monitor: Monitor) -> Epoch:
        """The epoch of the least "val_loss", or of the greatest "val_accuracy".

        Of equal accuracies the least loss counts, of equal losses the first epoch.
        """

        def rank(epoch: Epoch) -> tuple[float, float]:
            if epoch.val_loss is None or epoch.val_accuracy is None:
                raise ValueError(f"epoch {epoch.epoch} was not validated: it cannot be ranked")
            if monitor == "val_accuracy":
                return -epoch.val_accuracy, epoch.val_loss
            return epoch.val_loss, 0.0

        return min(self.epochs, key=rank)

    def to_json(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries."""
        return [asdict(epoch) for epoch in self.epochs]

    @classmethod
    def from_json(cls, rows: Any) -> History:
        """The history that `to_json` gave. Raises ValueError where the rows are not of its kind."""
        if not isinstance(rows, list):
            raise ValueError(f"history is {type(rows).__name__}, expected a list")
        names = [field.name for field in fields(Epoch)]
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict) or sorted(row) != sorted(names):
                raise ValueError(f"row {number} of the history, expected {', '.join(names)}")
            for name, value in row.items():
                if value is None and name.startswith("val_"):
                    continue
                if not isinstance(value, int | float) or not math.isfinite(value):
                    raise ValueError(f"history, epoch {number}: {name} is {value!r}")
            if row["epoch"] != number:
                raise ValueError(f"row {number} of the history is of epoch {row['epoch']}")
        history = cls([Epoch(**row) for row in rows])
        validated = history.column("val_loss") + history.column("val_accuracy")
        if None in validated and any(value is not None for value in validated):
            raise ValueError("history: only a part of the validation figures is there")
        return history
