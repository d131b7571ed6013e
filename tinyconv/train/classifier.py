"""From a network and two data sets to a trained, tested and saved classifier."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL

import tinyconv
from tinyconv import functional as F
from tinyconv import models
from tinyconv.backend import backend_name, manual_seed
from tinyconv.data import Dataset, Loader
from tinyconv.data.transforms import Mix, Transform
from tinyconv.errors import BackendError, DataError, OutOfDeviceMemoryError, ShapeError
from tinyconv.io import ModelCard, atomic_write, save_model
from tinyconv.io.files import make_folder
from tinyconv.io.tensor_file import read_tensors
from tinyconv.nn import Module
from tinyconv.optim import Optimizer
from tinyconv.optim.lr_scheduler import CosineAnnealingLR
from tinyconv.train.checkpoint import unfinished
from tinyconv.train.device import computing_precision, device_name, use_device
from tinyconv.train.evaluation import Evaluation, Loss, evaluate
from tinyconv.train.history import History
from tinyconv.train.metrics import per_class
from tinyconv.train.photos import at_size
from tinyconv.train.plots import save_augmented, save_pictures
from tinyconv.train.progress import say
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
    augment: Transform | None = None,
    mix: Mix | None = None,
    groups: Sequence[str] | None = None,
    loss: Loss = F.cross_entropy,
    epochs: int | None = None,
    before: History | None = None,
) -> dict[str, Any]:
    """Train `model` as the settings say, then test, save and show it; returns what result.json has.

    A tenth of `train` (of its `groups`, where those are given, see Dataset.split) is held out as
    the validation set, by which the best epoch is chosen and early stopping goes; its images are
    brought to the size of the test images. `test` is looked at once, at the end, with the best
    epoch's weights. `mean` and `std` normalise each channel, (x / 255 - mean) / std; `augment` and
    `mix` change the training images (see Loader). Without a `scheduler`, settings.schedule makes
    it. The folder settings.out gets model.safetensors, result.json, checkpoint.safetensors and,
    where matplotlib is installed, curves.png, confusion.png, predictions.png and, with `augment`,
    augmented.png. `epochs` stands in for settings.epochs. `before` tells how the network came to
    what it is: where no epoch validates better than its best one, the network stays so.

    Raises DataError where the two sets differ in their classes, or the folder holds an unfinished
    training that is not to be resumed.
    """
    began = time.perf_counter()
    epochs = epochs or settings.epochs
    out = Path(settings.out)
    if not settings.resume:
        _refuse_unfinished(out)
    rest, validation = hold_out(train, test, settings, groups)
    say(
        f"{_kind(train)}: {len(rest):,} for training, {len(validation):,} for validation, "
        f"{len(test):,} for the test; {_parameters(model):,} parameters; {_computing(settings)}"
    )
    if scheduler is None and settings.schedule == "cosine":
        scheduler = CosineAnnealingLR(optimizer, epochs)
    trainer = Trainer(
        model,
        optimizer,
        mean=mean,
        std=std,
        loss=loss,
        scheduler=scheduler,
        out=out,
        checkpoint_every=settings.checkpoint_every,
        eager=settings.eager,
        mixed=settings.mixed,
    )
    loader = Loader(
        rest,
        settings.batch_size,
        shuffle=True,
        augment=augment,
        mix=mix,
        seed=settings.seed,
        workers=settings.threads,
        drop_last=len(rest) % settings.batch_size == 1,  # batch norm needs more than one value
    )
    start = model.state_dict() if before else {}
    history = trainer.fit(
        loader,
        validation,
        epochs=epochs,
        patience=settings.patience,
        monitor="val_accuracy",
        restore_best=True,
        resume=settings.resume,
    )
    best = history.best("val_accuracy")
    stopped_early = len(history) < epochs
    early = f"stopped early, after epoch {len(history)}; " * stopped_early
    best_epoch = best.epoch
    if before and History([before.best("val_accuracy"), best]).best("val_accuracy") is not best:
        model.load_state_dict(start)
        best_epoch = 0
        say(f"{early}keeping the weights from before, better on the validation images")
    elif best_epoch < len(history) or stopped_early:
        say(f"{early}keeping the weights of epoch {best_epoch}, the best on the validation images")
    pictures = save_augmented(out, rest, augment) if augment else []
    more: dict[str, Any] = {"best_epoch": best_epoch, "stopped_early": stopped_early}
    if before:
        more["head_history"] = before.to_json()
        more["training_seconds"] = sum(e.seconds for e in before.epochs + history.epochs)
    return finish(settings, model, history, test, mean, std, began, pictures, more)


def hold_out(
    train: Dataset, test: Dataset, settings: Settings, groups: Sequence[str] | None = None
) -> tuple[Dataset, Dataset]:
    """(rest, validation): a tenth of `train`, or of its `groups`, at the size of the test images.

    Raises DataError where the classes of `train` and `test` differ.
    """
    if list(test.classes) != list(train.classes):
        raise DataError(
            f"test set: its classes are {', '.join(test.classes)}; "
            f"those of the training set are {', '.join(train.classes)}"
        )
    rest, validation = train.split(VALIDATION_FRACTION, settings.seed, groups)
    return rest, at_size_of(test, validation)


def at_size_of(test: Dataset, images: Dataset) -> Dataset:
    """`images` at the size of those of `test`, which a random crop gives to training images."""
    height, width, _ = test.image(0).shape
    return at_size(images, (height, width))


def finish(
    settings: Settings,
    model: Module,
    history: History,
    test: Dataset,
    mean: Sequence[float],
    std: Sequence[float],
    began: float,
    pictures: Sequence[Path] = (),
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Test a trained network, then save and show it as `train_classifier` tells.

    `began` is the time.perf_counter() of the start, `pictures` what lies in the folder already,
    `more` what result.json is to hold besides, or instead.
    """
    out = Path(settings.out)
    make_folder(out)
    tested = evaluate(
        model,
        test,
        mean,
        std,
        settings.batch_size,
        workers=settings.threads,
        eager=settings.eager,
        dtype=settings.input_dtype,
    )
    height, width, channels = test.image(0).shape
    card = ModelCard(
        architecture=model.architecture,
        classes=list(test.classes),
        size=(height, width),
        channels=channels,
        mean=list(mean),
        std=list(std),
        drawn=test.drawn,
    )
    save_model(out / "model.safetensors", model, card)
    result = _result(settings, model, history, tested, test, time.perf_counter() - began)
    result |= more or {}
    atomic_write(out / "result.json", json.dumps(result, indent=2).encode())
    _say_result(result, tested, test, out, [*save_pictures(out, history, tested, test), *pictures])
    return result


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """End the program with one line and exit code 1 for errors that the user can put right.

    A ValueError that tinyconv itself did not raise is a mistake of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a file name must not end a program
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except OutOfDeviceMemoryError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # as of `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # what shells give a program that SIGPIPE ended
    except (ValueError, BackendError, TrainingDiverged) as error:
        if isinstance(error, ValueError) and not _is_ours(error):
            raise
        sys.exit(f"error: {error}")
    except MemoryError:
        sys.exit("error: not enough memory: try a smaller --batch-size or --size")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _is_ours(error: ValueError) -> bool:
    """Whether a `raise` of tinyconv made the error, with a message for people."""
    if isinstance(error, DataError | ShapeError):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    inside = Path(last.filename).is_relative_to(Path(tinyconv.__file__).parent)
    return inside and (last.line or "").startswith("raise ")


def begin(settings: Settings, network: str | None = None) -> None:
    """Set backend, precision and seed of a training, before its images are read.

    Raises errors already here that would come after that: BackendError for a precision that the
    backend has not, ShapeError where `network` cannot take settings.size, DataError where
    settings.out holds an unfinished training that is not to be resumed.
    """
    use_device(settings.backend, settings.precision)
    if network is not None:
        models.create(network, size=settings.size)
    manual_seed(settings.seed)
    if not settings.resume:
        _refuse_unfinished(Path(settings.out))


def _refuse_unfinished(out: Path) -> None:
    """Keep a checkpoint that result.json does not tell the end of: its training was interrupted."""
    checkpoint, result = out / "checkpoint.safetensors", out / "result.json"
    if not checkpoint.exists():
        return
    try:
        _, metadata = read_tensors(checkpoint)
        finished = json.loads(result.read_text())["history"] == (metadata or {})["history"]
    except (OSError, ValueError, KeyError, TypeError):
        finished = False
    if not finished:
        raise unfinished(checkpoint)


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
        "best_epoch": history.best("val_accuracy").epoch,
        "stopped_early": len(history) < settings.epochs,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "confusion": tested.confusion.tolist(),
        "training_seconds": sum(epoch.seconds for epoch in history.epochs),
        "seconds": seconds,
        "backend": backend_name(),
        "device": device_name(),
        "precision": computing_precision(settings.mixed),
        "versions": {
            "tinyconv": tinyconv.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
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
        f"{len(result.get('head_history', ())) + len(result['history'])} epochs",
        f"  files     {out}: model.safetensors, result.json"
        + "".join(f", {path.name}" for path in pictures),
        "",
        f"Try it: python -m tinyconv predict {out / 'model.safetensors'} PHOTO...",
    ]  # fmt: skip
    say("\n".join(lines))


def _computing(settings: Settings) -> str:
    """What a training computes with, in words."""
    if backend_name() == "numpy":
        return "backend numpy"
    return f"backend cupy on {device_name()}, precision {computing_precision(settings.mixed)}"


def _kind(dataset: Dataset) -> str:
    return "built-in drawn images, not photos" if dataset.drawn else "images from files"


def _parameters(model: Module) -> int:
    return sum(p.data.size for p in model.parameters())


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
