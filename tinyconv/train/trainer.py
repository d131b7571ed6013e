"""The training loop."""

from __future__ import annotations

import math
import re
import time
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tinyconv import backend
from tinyconv import functional as F
from tinyconv.backend import Array, asarray, backend_name, to_numpy
from tinyconv.compiler import compile
from tinyconv.data.dataset import Dataset
from tinyconv.data.loader import Loader
from tinyconv.io.files import make_folder, remove_leftovers
from tinyconv.io.tensor_file import Arrays, Metadata, first_non_finite, write_tensors
from tinyconv.nn import Module
from tinyconv.op import run
from tinyconv.ops.loss import Tally
from tinyconv.optim import LossScaler, Optimizer
from tinyconv.optim.lr_scheduler import ReduceLROnPlateau
from tinyconv.tensor import Tensor
from tinyconv.train.checkpoint import Position, TrainingState, pack, restore
from tinyconv.train.device import Work, computing_precision, lacks_memory, out_of_memory
from tinyconv.train.evaluation import Evaluator, Loss, network_input
from tinyconv.train.feed import Feed, kept_bytes
from tinyconv.train.history import Epoch, History, Monitor
from tinyconv.train.interrupts import Interrupts
from tinyconv.train.progress import ProgressReport

# Ctrl-C waits for the end of a step shorter than this; a longer one is broken off, and what is
# saved is a copy taken before it, which costs little beside such a step. A GPU's steps are only
# launched here, which is short, and what is saved waits for those that were: nothing to break off.
_LONG_STEP_SECONDS = 0.25
# A GPU keeps the running figures to itself for so long: to fetch them, it has to come to a rest.
_READ_SECONDS = 0.25


class TrainingDiverged(RuntimeError):
    """The loss or a weight became NaN or infinite."""


class TrainingInterrupted(SystemExit):
    """Ctrl-C or SIGTERM ended a training, and its state is saved.

    Uncaught, it ends the program with the exit code that shells give such a signal: 130 or 143.
    """


class Trainer:
    """Trains a network on images and labels; on a GPU, all steps go to the current stream.

    mean, std         normalisation of each channel, (x / 255 - mean) / std
    loss              called with logits (N, C) and labels int64 (N,)
    scheduler         of tinyconv.optim.lr_scheduler; ReduceLROnPlateau is given the validation
                      loss, or the training loss where there is no validation set
    scheduler_every   move it on after each "epoch" or after each "step"
    out               folder of checkpoint.safetensors, made if missing; without it nothing is saved
    checkpoint_every  steps between checkpoints, beside the one at each epoch's end
    eager             run each step op by op, instead of compiled (tinyconv.compile)
    mixed             mixed precision: images and features in float16, weights in float32, and a
                      scaled loss (optim.LossScaler)
    quiet             print nothing
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        loss: Loss = F.cross_entropy,
        scheduler: Any = None,
        scheduler_every: Literal["epoch", "step"] = "epoch",
        out: str | Path | None = None,
        checkpoint_every: int | None = None,
        eager: bool = False,
        mixed: bool = False,
        quiet: bool = False,
    ) -> None:
        if checkpoint_every is not None and (out is None or checkpoint_every < 1):
            raise ValueError(f"checkpoint_every={checkpoint_every}: expected 1 or more, with out")
        if scheduler_every == "step" and isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError('scheduler_every="step": ReduceLROnPlateau moves on once an epoch')
        self.model = model
        self.optimizer = optimizer
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.loss = loss
        self.scheduler = scheduler
        self.scheduler_every = scheduler_every
        self.checkpoint = Path(out) / "checkpoint.safetensors" if out is not None else None
        self.checkpoint_every = checkpoint_every
        self.eager = eager
        self.quiet = quiet
        self.scaler = LossScaler() if mixed else None
        self._totals = asarray(np.zeros(2))  # of this epoch: loss times images, right predictions
        self._compiled_step = compile(self._tallied_step, strict=False)
        self._settings = self._initial_settings()

    def step(self, images: Array, labels: Array) -> tuple[Tensor, Tensor]:
        """One step on a batch: its loss, and logits (N, C).

        images uint8 (N, H, W, C), or what the network takes in float32; labels int64 (N,), or
        probabilities float32 (N, C) of mixed images.
        """
        self.optimizer.zero_grad()
        logits = self.model(network_input(images, self.mean, self.std, self._input_dtype))
        loss = self.loss(logits, labels)
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss, logits

    @property
    def _input_dtype(self) -> Any:
        return self.model.dtype if self.scaler is None else np.dtype(np.float16)

    def _tallied_step(self, images: Array, labels: Array) -> None:
        """A step whose figures are added to the totals, where the device can keep them."""
        loss, logits = self.step(images, labels)
        run(Tally(), self._totals, loss.data, logits.data, labels)

    def fit(
        self,
        train: Loader,
        validation: Dataset | None = None,
        *,
        epochs: int,
        patience: int | None = None,
        monitor: Monitor = "val_loss",
        restore_best: bool = False,
        resume: bool = False,
    ) -> History:
        """Train until `epochs` epochs are done in all, and return what they reached.

        patience      stop after so many epochs in which `monitor` did not improve
        restore_best  end with the weights of the best epoch by `monitor`, not of the last
        resume        go on from the checkpoint in `out`; where there is none, say so and start anew

        Resuming goes on bit for bit (on the same machine and backend), in the middle of an epoch
        too. All settings must be as before except `epochs`, `patience` and `checkpoint_every`.

        Raises TrainingDiverged when the loss is no longer finite; the last checkpoint stays as it
        is. A GPU's loss is looked at some times a second, and the error says which steps were run
        since the last look. On Ctrl-C or SIGTERM, where `out` is given, saves the state after the
        last whole step and raises TrainingInterrupted. Raises DataError where the checkpoint can
        not be read, used or written, and OutOfDeviceMemoryError where a batch is too large for the
        memory of a GPU; the network is then left after one of the steps before.
        """
        if epochs < 1 or (patience is not None and patience < 1):
            raise ValueError(f"epochs={epochs}, patience={patience}: expected 1 or more")
        if validation is None and (patience is not None or restore_best):
            raise ValueError("patience and restore_best need a validation set")
        if len(train) == 0:
            raise ValueError("fit: the training set gives no batch")
        if resume and self.checkpoint is None:
            raise ValueError("resume=True needs out, the folder of the checkpoint")
        try:
            return self._fit(train, validation, epochs, patience, monitor, restore_best, resume)
        except MemoryError as error:
            if not lacks_memory(error):
                raise
        # Out of the `except`: here nothing holds the arrays of the failed step any more.
        raise self._out_of_memory(train, validation)

    def _fit(
        self,
        train: Loader,
        validation: Dataset | None,
        epochs: int,
        patience: int | None,
        monitor: Monitor,
        restore_best: bool,
        resume: bool,
    ) -> History:
        with (
            ProgressReport(epochs, quiet=self.quiet) as report,
            Interrupts(enabled=self.checkpoint is not None) as interrupts,
            np.errstate(over="ignore", invalid="ignore"),  # reported as TrainingDiverged
        ):
            run = _Run(self, train, validation, monitor, restore_best, report, interrupts)
            run.start(resume)
            try:
                while run.state.position.epoch <= epochs and not run.is_over(patience):
                    run.train_epoch()
                    run.end_epoch()
            except KeyboardInterrupt:
                if self.checkpoint is None:
                    raise
                interrupts.ignore()
                run.save_interrupted(self.checkpoint)
                raise TrainingInterrupted(128 + interrupts.signal) from None
        if run.state.best is not None:
            self.model.load_state_dict(run.state.best)
        return run.state.history

    def _evaluator(self, validation: Dataset, train: Loader) -> Evaluator:
        """What validates after each epoch of `train`."""
        return Evaluator(
            self.model,
            validation,
            self.mean,
            self.std,
            train.batch_size,
            self.loss,
            train.workers,
            self.eager,
            self._input_dtype,
        )

    def _out_of_memory(self, train: Loader, validation: Dataset | None) -> MemoryError:
        """The error for batches that are too large, after some small steps that change nothing."""
        self._compiled_step = compile(self._tallied_step, strict=False)
        self.optimizer.zero_grad()
        weights, moments = self.model.state_dict(), self.optimizer.state_dict()
        random = backend.random_state()
        scale = self.scaler.state_dict() if self.scaler is not None else {}

        def attempt(size: int) -> Any:
            first = Loader(train.dataset, size, augment=train.augment, mix=train.mix, workers=0)
            batch = next(first.epoch(0))
            step = self._tallied_step if self.eager else compile(self._tallied_step, strict=False)
            step(asarray(batch.images), asarray(batch.labels))
            return step

        def undo() -> None:
            self.optimizer.zero_grad()
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(moments)
            backend.set_random_state(random)
            if self.scaler is not None:
                self.scaler.load_state_dict(scale)

        works = [Work(attempt, 0 if train.drop_last else len(train.dataset), undo)]
        kept = kept_bytes(train)
        if validation is not None:
            evaluator = self._evaluator(validation, train)
            works.append(evaluator.work())
            kept += kept_bytes(evaluator.feed.loader)
        size = min(train.batch_size, len(train.dataset))
        return out_of_memory(size, works, kept, compiled=not self.eager)

    def _initial_settings(self) -> dict[str, Any]:
        """What a checkpoint must agree on, from before the first step moved any of it."""
        settings: dict[str, Any] = {
            "architecture": getattr(self.model, "architecture", None),
            "mean": self.mean,
            "std": self.std,
            "optimizer": type(self.optimizer).__name__,
            "scheduler": type(self.scheduler).__name__ if self.scheduler else None,
            "scheduler_every": self.scheduler_every if self.scheduler else None,
            "precision": computing_precision(self.scaler is not None),
        }
        for number, group in enumerate(self.optimizer.state_dict()["param_groups"]):
            params = self.optimizer.param_groups[number]["params"]
            settings[f"weights in parameter group {number}"] = len(params)
            for name, value in group.items():
                if name != "params":
                    settings[f"{name} of parameter group {number}"] = value
        if self.scheduler:
            for name, value in vars(self.scheduler).items():
                if isinstance(value, int | float | str | list | tuple):
                    settings[f"{name} of the scheduler"] = value
        return settings


@dataclass
class _Run:
    """One call of `fit`: the loop's parts, and the state that they move on."""

    trainer: Trainer
    train: Loader
    validation: Dataset | None
    monitor: Monitor
    restore_best: bool
    report: ProgressReport
    interrupts: Interrupts
    state: TrainingState = field(default_factory=TrainingState)
    undo: tuple[Arrays, Metadata] | None = None  # the checkpoint from before a long step
    unread: int = 0  # steps whose figures the device still keeps to itself
    read_at: float = 0.0
    told_refusal: bool = False
    saved: bool = False  # whether the checkpoint file holds a state of this training

    def __post_init__(self) -> None:
        self.feed = Feed(self.train)
        self.evaluator = None
        if self.validation is not None:
            self.evaluator = self.trainer._evaluator(self.validation, self.train)
        self.settings = self.trainer._settings | {
            "classes": self.train.dataset.classes,
            "training images": len(self.train.dataset),
            "checksum of the training images' names and labels": _fingerprint(self.train.dataset),
            "validation images": len(self.validation) if self.validation is not None else None,
            "batch_size": self.train.batch_size,
            "shuffle": self.train.shuffle,
            "drop_last": self.train.drop_last,
            "seed": self.train.seed,
            "augment": re.sub(" at 0x[0-9a-f]+", "", repr(self.train.augment)),
            "mix": re.sub(" at 0x[0-9a-f]+", "", repr(self.train.mix)),
            "monitor": self.monitor,
            "restore_best": self.restore_best,
        }

    def start(self, resume: bool) -> None:
        """Make the folder and, where wanted, go back to the checkpoint's state."""
        trainer, checkpoint = self.trainer, self.trainer.checkpoint
        if checkpoint is None:
            return
        make_folder(checkpoint.parent)
        remove_leftovers(checkpoint)
        if not resume:
            return
        if not checkpoint.exists():
            self.report.say(f"{checkpoint}: no checkpoint yet, starting with epoch 1")
            return
        self.state = restore(
            checkpoint,
            trainer.model,
            trainer.optimizer,
            trainer.scheduler,
            trainer.scaler,
            self.settings,
            steps=len(self.train),
        )
        self.saved = True
        at = self.state.position
        self.report.say(f"{checkpoint}: going on in epoch {at.epoch} after step {at.step}")

    def is_over(self, patience: int | None) -> bool:
        """Whether the last `patience` epochs brought nothing better."""
        history = self.state.history
        if patience is None or len(history) == 0:
            return False
        return len(history) - history.best(self.monitor).epoch >= patience

    def train_epoch(self) -> None:
        """Do the steps of the epoch that are still to be done."""
        trainer, at = self.trainer, self.state.position
        self.report.start_epoch(at.epoch, len(self.train), at.step, at.seen)
        began = time.perf_counter() - at.seconds
        step_seconds = math.inf  # not known yet: the first step may have much to prepare
        trainer.model.train()
        trainer._totals[...] = asarray(np.array([at.loss_sum, at.correct]))
        step = trainer._tallied_step if trainer.eager else trainer._compiled_step
        on_cpu = backend_name() == "numpy"
        self.read_at = time.perf_counter()
        for batch in self.feed.epoch(at.epoch - 1, start=at.step):
            step_began = time.perf_counter()
            # Here, with the next batch at hand, a GPU rests for the shortest time.
            if self.unread and step_began - self.read_at > _READ_SECONDS:
                self.read()
            long = on_cpu and trainer.checkpoint is not None and step_seconds > _LONG_STEP_SECONDS
            self.undo = self.pack() if long else None
            with nullcontext() if long else self.interrupts.held():
                step(batch.images, batch.labels)
                at.step += 1
                self.unread += 1
                at.seen += len(batch.labels)
                if on_cpu:
                    self.read()
                if trainer.scheduler and trainer.scheduler_every == "step":
                    trainer.scheduler.step()
                at.seconds = time.perf_counter() - began
            self.undo = None
            if not (trainer.eager or self.told_refusal):
                self.tell_refusal()
            step_seconds = time.perf_counter() - step_began
            if trainer.checkpoint_every and at.step % trainer.checkpoint_every == 0:
                self.save()
        if self.unread:
            self.read()
            at.seconds = time.perf_counter() - began

    def read(self) -> None:
        """Fetch the epoch's figures up to now from the device, and show them."""
        at = self.state.position
        loss_sum, correct = to_numpy(self.trainer._totals).tolist()
        if not math.isfinite(loss_sum):
            raise self.diverged(f"the loss is {loss_sum}", steps=self.unread)
        at.loss_sum, at.correct = loss_sum, int(correct)
        self.unread, self.read_at = 0, time.perf_counter()
        self.report.step(at.step, at.loss_sum / at.seen, at.correct / at.seen, at.seen)

    def tell_refusal(self) -> None:
        """Say once where a step cannot be compiled, and why."""
        if refusal := self.trainer._compiled_step.refusal:
            self.report.say(f"steps run op by op, not compiled: {refusal}")
            self.told_refusal = True

    def end_epoch(self) -> None:
        """Validate, add a row to the history, move the schedule on, and save."""
        trainer, state, at = self.trainer, self.state, self.state.position
        began = time.perf_counter()
        val_loss = val_accuracy = None
        if self.evaluator is not None:
            result = self.evaluator.run()
            val_loss, val_accuracy = result.loss, result.accuracy
            if not math.isfinite(val_loss):
                raise self.diverged(f"the validation loss is {val_loss}")
        row = Epoch(
            epoch=at.epoch,
            train_loss=at.loss_sum / at.seen,
            train_accuracy=at.correct / at.seen,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=trainer.optimizer.param_groups[0]["lr"],
            seconds=at.seconds + time.perf_counter() - began,
        )
        with self.interrupts.held():
            state.history.epochs.append(row)
            state.position = Position(epoch=at.epoch + 1)
            if self.restore_best and state.history.best(self.monitor) is row:
                state.best = trainer.model.state_dict()
            if isinstance(trainer.scheduler, ReduceLROnPlateau):
                trainer.scheduler.step(row.train_loss if val_loss is None else val_loss)
            elif trainer.scheduler and trainer.scheduler_every == "epoch":
                trainer.scheduler.step()
        self.report.end_epoch(row)
        self.save()

    def pack(self) -> tuple[Arrays, Metadata]:
        if self.unread:
            self.read()
        trainer = self.trainer
        return pack(
            trainer.model,
            trainer.optimizer,
            trainer.scheduler,
            trainer.scaler,
            self.state,
            self.settings,
        )

    def save(self) -> None:
        """Write the checkpoint, unless a weight is no longer finite."""
        if self.trainer.checkpoint is None:
            return
        arrays, metadata = self.pack()
        if (name := first_non_finite(arrays)) is not None:
            raise self.diverged(f"{name} holds NaN or infinity")
        write_tensors(self.trainer.checkpoint, arrays, metadata)
        self.saved = True

    def save_interrupted(self, checkpoint: Path) -> None:
        """Write the state after the last whole step, and say how to go on from it."""
        arrays, metadata = self.undo or self.pack()
        write_tensors(checkpoint, arrays, metadata)
        at = metadata["position"]
        self.report.say(
            f"interrupted in epoch {at['epoch']} after step {at['step']}; saved {checkpoint}: "
            "go on with --resume (resume=True)"
        )

    def diverged(self, what: str, steps: int = 1) -> TrainingDiverged:
        """The error for what was found after a step, or after so many."""
        at, checkpoint = self.state.position, self.trainer.checkpoint
        lr = self.trainer.optimizer.param_groups[0]["lr"]
        where = f"step {at.step}" if steps <= 1 else f"steps {at.step - steps + 1} to {at.step}"
        return TrainingDiverged(
            f"epoch {at.epoch}, {where}: {what} (learning rate {lr:g})"
            + (f"; {checkpoint} keeps the last good state" if self.saved else "")
        )


def _fingerprint(dataset: Dataset) -> int:
    """A number that tells a data set from another one of the same size."""
    names = "\n".join(dataset.name(index) for index in range(len(dataset)))
    return zlib.crc32(names.encode(errors="surrogateescape"), zlib.crc32(dataset.labels.tobytes()))
