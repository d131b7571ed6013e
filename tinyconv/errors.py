"""The errors that tinyconv raises for what a user can put right."""

from typing import Any


class DataError(ValueError):
    """A file or data set that cannot be used; the message starts with its path."""


class BackendError(RuntimeError):
    """An array library or device that was asked for and is not there."""


class OutOfDeviceMemoryError(MemoryError):
    """A batch that the memory of a GPU is too small for; the message names a size that fits."""


class ShapeError(ValueError):
    """Arrays whose shapes do not fit an operation; inside a network the message names the layer."""

    module: Any = None  # the layer that it was raised in, filled in by nn.Module
    layer: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return f"{self.layer}: {message}" if self.layer else message
