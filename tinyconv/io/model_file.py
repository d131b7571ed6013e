"""A trained network in one file: its weights and all that is needed to use them on a photo."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import tinyconv
from tinyconv import models
from tinyconv.errors import DataError
from tinyconv.io.tensor_file import (
    Arrays,
    Metadata,
    first_differences,
    read_tensors,
    write_tensors,
)
from tinyconv.nn import Module

FORMAT = "tinyconv model"


@dataclass(frozen=True)
class ModelCard:
    """What a saved network says of itself.

    architecture    the arguments of `models.create`, {"name": ..., ...}
    classes         the name of each output, in order
    size            height and width of the images, in pixels
    channels        3 (RGB) or 1 (grey)
    mean, std       the normalisation (x / 255 - mean) / std, one value for each channel
    drawn           trained on the built-in drawn images, not on photos
    version         of tinyconv, when it was saved
    """

    architecture: dict[str, Any]
    classes: list[str]
    size: tuple[int, int]
    channels: int
    mean: list[float]
    std: list[float]
    drawn: bool = False
    version: str = field(default_factory=lambda: tinyconv.__version__)

    def __post_init__(self) -> None:
        """Check every field: a card comes from a file that anyone may have written."""
        if not (isinstance(self.architecture, dict) and _is_text(self.architecture.get("name"))):
            raise ValueError(
                f'architecture is {self.architecture!r}, expected {{"name": ..., ...}}'
            )
        if not (_is_list(self.classes, 2) and all(map(_is_text, self.classes))):
            raise ValueError(f"classes are {self.classes!r}, expected two names or more")
        if not (_is_count(self.channels) and self.channels in (1, 3)):
            raise ValueError(f"channels is {self.channels!r}, expected 1 or 3")
        if not (_is_list(self.size, 2, 2) and all(_is_count(n) for n in self.size)):
            raise ValueError(f"size is {self.size!r}, expected (height, width)")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (_is_list(values, self.channels, self.channels) and all(map(_is_real, values))):
                raise ValueError(f"{name} is {values!r}, expected {self.channels} numbers")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std!r}, expected positive numbers")
        if not (isinstance(self.drawn, bool) and _is_text(self.version)):
            raise ValueError(f"drawn is {self.drawn!r}, version {self.version!r}")
        self._compare_with_architecture()
        object.__setattr__(self, "size", tuple(self.size))

    def _compare_with_architecture(self) -> None:
        same = {
            "num_classes": len(self.classes),
            "in_channels": self.channels,
            "size": list(self.size),
        }
        for name, value in same.items():
            built = self.architecture.get(name, value)
            built = [built, built] if name == "size" and isinstance(built, int) else built
            built = list(built) if isinstance(built, tuple) else built
            if built != value:
                raise ValueError(f"{name} is {built!r} in the architecture, {value!r} in the card")


def save_model(path: str | os.PathLike[str], model: Module, card: ModelCard) -> None:
    """Write the network's weights and its card to one safetensors file, atomically.

    Raises DataError where a weight is NaN or infinite, or the file can not be written.
    """
    write_tensors(path, model.state_dict(), {"format": FORMAT, **asdict(card)})


def load_model(path: str | os.PathLike[str]) -> tuple[Module, ModelCard]:
    """The network of a file written by `save_model`, ready for prediction, and its card.

    Raises DataError where the file is damaged, of another kind, or does not hold that network.
    """
    state, metadata = read_tensors(path)
    card = _card(path, metadata)
    try:
        model = models.create(**card.architecture)
    except (TypeError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: its network can not be built: {error}") from error
    _load_state(path, model, state)
    model.eval()
    return model, card


def _load_state(path: str | os.PathLike[str], model: Module, state: Arrays) -> None:
    if differences := first_differences(state, model.state_dict()):
        raise DataError(f"{path}: does not fit the network: {differences}")
    model.load_state_dict(state)


def _card(path: str | os.PathLike[str], metadata: Metadata | None) -> ModelCard:
    if metadata is None:
        raise DataError(f"{path}: holds weights without a model card; expected a saved model")
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: this is a {metadata.get('format')!r}, expected {FORMAT!r}")
    names = {field.name for field in fields(ModelCard)}
    if missing := sorted(names - metadata.keys()):
        raise DataError(f"{path}: the model card lacks {', '.join(missing)}")
    try:
        return ModelCard(**{name: metadata[name] for name in names})
    except ValueError as error:
        raise DataError(f"{path}: model card: {error}") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65536


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _is_list(value: Any, least: int, most: int | None = None) -> bool:
    return isinstance(value, list | tuple) and least <= len(value) <= (most or len(value))
