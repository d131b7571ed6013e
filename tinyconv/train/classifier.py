"""From a network and two data sets to a trained, tested and saved classifier."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv
from tinyconv import functional as F
from tinyconv.backend import backend_name
from tinyconv.data import Dataset, Loader
from tinyconv.errors import BackendError
from tinyconv.io import ModelCard, atomic_write, save_model
from tinyconv.nn import Module
from tinyconv.optim import Optimizer
from tinyconv.train.evaluation import Evaluation, Loss, evaluate
from tinyconv.train.history import History
from tinyconv.train.metrics import per_class
from tinyconv.train.plots import save_pictures
from tinyconv.train.settings import Settings
from tinyconv.train.trainer import Trainer, TrainingDiverged

VALIDATION_FRACTION = 0.1


def train_classifier(
    settings: Settings,
    *,
    model: Module,
    optimizer: Optimizer,
    train: Dataset,
    test: Dataset,
    mean: Sequence[float],
    std: Sequence[float],
    scheduler: Any = None,
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    loss: Loss = F.cross_entropy,
) -> dict[str, Any]:
    """Train `model` as the settings say, then test, save and show it; returns what result.json has.

    A tenth of `train` is held out as the validation set, by which early stopping goes; `test` is
    looked at once, at the end. `mean` and `std` normalise each channel, (x / 255 - mean) / std.
    The folder settings.out gets model.safetensors, result.json, checkpoint.safetensors and, where
    matplotlib is installed, curves.png, confusion.png and predictions.png.
    """
    began = time.perf_counter()
    out = Path(settings.out)
    rest, validation = train.split(VALIDATION_FRACTION, settings.seed)
    _say(
        f"{_kind(train)}: {len(rest):,} for training, {len(validation):,} for validation, "
        f"{len(test):,} for the test; {_parameters(model):,} parameters; backend {backend_name()}"
    )
    trainer = Trainer(
        model,
        optimizer,
        mean=mean,
        std=std,
        loss=loss,
        scheduler=scheduler,
        out=out,
        checkpoint_every=settings.checkpoint_every,
    )
    loader = Loader(
        rest,
        settings.batch_size,
        shuffle=True,
        augment=augment,
        seed=settings.seed,
        workers=settings.workers,
    )
    history = trainer.fit(
        loader,
        validation,
        epochs=settings.epochs,
        patience=settings.patience,
        restore_best=settings.patience is not None,
        resume=settings.resume,
    )
    tested = evaluate(model, test, mean, std, settings.batch_size, loss)
    height, width, channels = test.image(0).shape
    card = ModelCard(
        architecture=model.architecture,
        classes=list(train.classes),
        size=(height, width),
        channels=channels,
        mean=list(mean),
        std=list(std),
        drawn=train.drawn,
    )
    save_model(out / "model.safetensors", model, card)
    result = _result(settings, model, history, tested, test, time.perf_counter() - began)
    atomic_write(out / "result.json", json.dumps(result, indent=2).encode())
    pictures = save_pictures(out, history, tested, test)
    _say_result(result, tested, test, out, pictures)
    return result


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """End the program with one line and exit code 1 for errors that the user can put right."""
    try:
        yield
    except (ValueError, BackendError, TrainingDiverged) as error:
        sys.exit(f"error: {error}")


def _result(
    settings: Settings,
    model: Module,
    history: History,
    tested: Evaluation,
    test: Dataset,
    seconds: float,
) -> dict[str, Any]:
    return {
        "settings": asdict(settings),
        "architecture": model.architecture,
        "parameters": _parameters(model),
        "data": {"drawn": test.drawn, "classes": list(test.classes), "test_images": len(test)},
        "history": history.to_json(),
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "confusion": tested.confusion.tolist(),
        "training_seconds": sum(epoch.seconds for epoch in history.epochs),
        "seconds": seconds,
        "backend": backend_name(),
        "versions": {
            "tinyconv": tinyconv.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _say_result(
    result: dict[str, Any], tested: Evaluation, test: Dataset, out: Path, pictures: list[Path]
) -> None:
    recall = per_class(tested.confusion).recall
    lines = [
        "",
        f"Result on {len(test):,} test images ({_kind(test)})",
        f"  accuracy  {tested.accuracy:.2%}   loss {tested.loss:.4f}",
        *(f"  {name:<9} {share:.1%} of its images" for name, share in zip(test.classes, recall,
                                                                          strict=True)),
        f"  time      {_minutes(result['training_seconds'])} of training, "
        f"{len(result['history'])} epochs",
        f"  files     {out}: model.safetensors, result.json"
        + "".join(f", {path.name}" for path in pictures),
        "",
        f"Try it: python -m tinyconv predict {out / 'model.safetensors'} PHOTO...",
    ]  # fmt: skip
    _say("\n".join(lines))


def _kind(dataset: Dataset) -> str:
    return "built-in drawn images, not photos" if dataset.drawn else "images from files"


def _parameters(model: Module) -> int:
    return sum(p.data.size for p in model.parameters())


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
