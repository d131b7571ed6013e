"""The whole state of a training in one file, from which it goes on as if never stopped.

One safetensors file: arrays `model.*`, `optimizer.<parameter>.*` and `best.*`, and everything else
(position, running sums, history, schedule, loss scale, random numbers, settings) as JSON metadata.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv import backend
from tinyconv.errors import DataError
from tinyconv.io.tensor_file import Arrays, Metadata, first_differences, read_tensors
from tinyconv.nn import Module
from tinyconv.optim import LossScaler, Optimizer
from tinyconv.train.history import History

FORMAT = "tinyconv checkpoint"


@dataclass
class Position:
    """How far a training has come: `step` steps of epoch `epoch` (from 1) are done.

    The sums run over the images of this epoch: loss, right predictions, images, seconds.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0


@dataclass
class TrainingState:
    """What the loop itself remembers, beside the network, the optimiser and the schedule.

    `best` holds the weights of the best epoch so far, where they are to be restored.
    """

    position: Position = field(default_factory=Position)
    history: History = field(default_factory=History)
    best: Arrays | None = None


def pack(
    model: Module,
    optimizer: Optimizer,
    scheduler: Any,
    scaler: LossScaler | None,
    state: TrainingState,
    settings: dict[str, Any],
) -> tuple[Arrays, Metadata]:
    """The arrays and the metadata of a checkpoint, as copies that do not move with the training."""
    moments = optimizer.state_dict()
    arrays = {f"model.{name}": array for name, array in model.state_dict().items()}
    for number, values in moments["state"].items():
        arrays |= {f"optimizer.{number}.{name}": array for name, array in values.items()}
    arrays |= {f"best.{name}": array for name, array in (state.best or {}).items()}
    metadata = {
        "format": FORMAT,
        "settings": settings,
        "position": asdict(state.position),
        "history": state.history.to_json(),
        # The other settings of a group never move, and are compared as settings.
        "learning_rates": [group["lr"] for group in moments["param_groups"]],
        "scheduler": scheduler.state_dict() if scheduler else None,
        "scaler": scaler.state_dict() if scaler else None,
        "random": backend.random_state(),
    }
    return arrays, metadata


def restore(
    path: Path,
    model: Module,
    optimizer: Optimizer,
    scheduler: Any,
    scaler: LossScaler | None,
    settings: dict[str, Any],
    steps: int,
) -> TrainingState:
    """Put the network, the optimiser, the schedule, the loss scale and the random numbers back.

    `steps` is the number of steps in an epoch. Raises DataError where the file is damaged or no
    checkpoint, was made with other settings, or does not hold this network; the network is then
    unchanged.
    """
    arrays, metadata = read_tensors(path)
    if metadata is None or metadata.get("format") != FORMAT:
        kind = "a file of weights" if metadata is None else repr(metadata.get("format"))
        raise DataError(f"{path}: this is {kind}, expected {FORMAT!r}")
    _compare_settings(path, metadata.get("settings"), settings)
    network = model.state_dict()
    weights, best = _part(arrays, "model."), _part(arrays, "best.")
    for found in filter(None, (weights, best)):
        if differences := first_differences(found, network):
            raise DataError(f"{path}: does not fit the network: {differences}")
    try:
        position = _position(metadata["position"], steps)
        history = History.from_json(metadata["history"])
        if len(history) != position.epoch - 1:
            raise ValueError(f"{len(history)} epochs in the history, in epoch {position.epoch}")
        moments = _optimizer_state(arrays, metadata["learning_rates"], optimizer)
        optimizer.load_state_dict(moments)
        if scheduler:
            scheduler.load_state_dict(metadata["scheduler"])
        if scaler:
            scaler.load_state_dict(metadata["scaler"])
        backend.set_random_state(metadata["random"])
    except KeyError as error:
        raise DataError(f"{path}: the checkpoint lacks {error}") from error
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: damaged checkpoint: {error}") from error
    model.load_state_dict(weights)
    return TrainingState(position, history, best or None)


def _compare_settings(path: Path, saved: Any, now: dict[str, Any]) -> None:
    if not isinstance(saved, dict):
        raise DataError(f"{path}: the checkpoint lacks 'settings'")
    now = json.loads(json.dumps(now))  # tuples as lists, as they come back from a file
    changed = [
        f"{name} was {saved.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted(saved.keys() | now.keys(), key=lambda name: (" of " in name, name))
        if saved.get(name) != now.get(name)
    ]
    if changed:
        if saved.get("architecture") != now["architecture"]:  # the rest follows from it
            changed = [line for line in changed if line.startswith("architecture ")]
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise DataError(f"{path}: made with other settings: {'; '.join(changed[:3])}{more}")


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _position(values: Any, steps: int) -> Position:
    position = Position(**values)
    for name, value in asdict(position).items():
        kind = float if name in ("loss_sum", "seconds") else int
        if type(value) is not kind or not math.isfinite(value):
            raise ValueError(f"position: {name} is {value!r}")
    if position.epoch < 1 or not 0 <= position.step <= steps:
        raise ValueError(f"epoch {position.epoch}, step {position.step} of {steps}")
    if not 0 <= position.correct <= position.seen:
        raise ValueError(f"{position.correct} of {position.seen} right")
    return position


def _optimizer_state(arrays: Arrays, rates: Any, optimizer: Optimizer) -> dict[str, Any]:
    """The argument of optimizer.load_state_dict: each parameter has all of its arrays or none."""
    found = _part(arrays, "optimizer.")
    expected: Arrays = {}
    parameters = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    for number, (group, parameter) in enumerate(parameters):
        if f"{number}.step" in found:
            expected[f"{number}.step"] = np.zeros(())
            for slot in optimizer.used_slots(group):
                expected[f"{number}.{slot}"] = parameter.numpy()
    if differences := first_differences(found, expected):
        raise ValueError(f"optimizer: {differences}")
    groups = optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, rates, strict=True):
        if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
            raise ValueError(f"the learning rate is {rate!r}")
        group["lr"] = rate
    state: dict[int, Arrays] = {}
    for key, array in found.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = array
    return {"state": state, "param_groups": groups}


def unfinished(checkpoint: Path) -> DataError:
    """The error that keeps a checkpoint whose training was interrupted from being overwritten."""
    return DataError(
        f"{checkpoint.parent}: holds an unfinished training: go on with it by --resume, "
        f"or give another --out, or remove {checkpoint}"
    )
