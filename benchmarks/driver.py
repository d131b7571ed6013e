"""Runs a workload in all its configurations side by side: checks that they agree, measures in turn.

Each configuration lives in a process of its own. All of them are alive together, and one at a time
is measured, round after round, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv
from benchmarks.report import progress
from benchmarks.tinyconv_side import create
from benchmarks.workloads import PHOTOS, Skipped, Workload, data_folder
from tinyconv import nn

ROOT = Path(__file__).parents[1]
SETTLE = 0.3  # seconds: idle OpenMP threads go on spinning for a while and would disturb the next
# Largest difference of a result, as a share of its largest value. The fall of the losses is itself
# a small difference of float32 numbers.
TOLERANCE, TOLERANCE_OF_FALL = 1e-3, 2e-2

Rows = dict[str, dict[str, Any]]


class WorkerEnded(Exception):
    """A worker gave up: `status` ("skipped" or "failed") and `reason`."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Worker:
    """A process that computes one configuration of a workload."""

    def __init__(
        self, workload: Workload, configuration: str, folder: str, **environment: str
    ) -> None:
        self.pipe, theirs = Pipe()
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=os.environ | environment | {"PYTHONPATH": path},
        )
        theirs.close()
        self.pipe.send((workload, configuration, folder))

    def receive(self) -> Any:
        """What the worker sends, None once it is ready; raises WorkerEnded where it gave up."""
        try:
            status, answer = self.pipe.recv()
        except (EOFError, OSError):
            status, answer = "failed", f"died with exit code {self.process.wait()}"
        if status != "ok":
            raise WorkerEnded(status, answer)
        return answer

    def ask(self, *command: Any) -> Any:
        """What the worker answers to a command."""
        self.pipe.send(command)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def write_inputs(workload: Workload, folder: Path) -> None:
    """Put initial weights and inputs into `folder`, the same for all workers.

    Raises Skipped where the data set is not there.
    """
    data = data_folder(workload.data) if workload.data else None
    if workload.kind == "photos":
        photos = tinyconv.data.list_images(data / "training_set")
        for photo in photos[:: len(photos) // PHOTOS][:PHOTOS]:
            link = folder / "photos" / photo.parent.name / photo.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(photo)
        return
    tinyconv.manual_seed(0)
    rng = np.random.default_rng(0)
    model = create(workload.network, workload.options)
    inputs = {"images": rng.standard_normal(workload.shape, np.float32)}
    N = workload.shape[0]
    if workload.kind == "train":
        inputs["labels"] = rng.integers(0, list(model.children())[-1].out_features, N)
    elif workload.kind == "infer":
        _take_statistics(model, inputs["images"][:4])
    elif workload.kind == "conv":
        with tinyconv.no_grad():
            shape = model(inputs["images"][:1]).shape
        inputs["gradient"] = rng.standard_normal((N, *shape[1:]), np.float32)
    elif workload.kind == "mnist":
        digits = tinyconv.data.mnist(data)
        inputs = {"digits": digits.images[..., 0], "labels": digits.labels}
    np.savez(folder / "weights.npz", **model.state_dict())
    np.savez(folder / "inputs.npz", **inputs)


def _take_statistics(model: nn.Module, images: np.ndarray) -> None:
    """Give batch norms the statistics of real activations, as training would.

    With those of a new network the activations would die away from layer to layer, and the logits,
    almost the biases alone, would hide a wrong convolution.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with tinyconv.no_grad():
        model(images)


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference within each result, as a share of its largest value."""
    return {
        key: float(abs(found[key] - x).max() / (abs(x).max() or 1)) for key, x in expected.items()
    }


def compare(
    workload: Workload, configurations: tuple[str, ...], rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure a workload in all `configurations`: its entry in the JSON file.

    Each of `rounds` measurements of a configuration takes about `seconds`. Where two configurations
    do not compute the same, the status is "failed" and nothing is measured.
    """
    rows: Rows = {name: {} for name in configurations}
    entry = {"status": "ok", "unit": workload.unit, "configurations": rows, "ratios": {}}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        try:
            write_inputs(workload, Path(folder))
            workers = _prepare(workload, rows, folder, stack)
            _measure(workload, workers, rows, rounds, seconds)
            entry["ratios"] = ratios(rows)
        except Skipped as reason:
            entry.update(status="skipped", reason=str(reason))
        except WorkerEnded as end:
            entry.update(status=end.status, reason=end.reason)
    return entry


def _prepare(workload: Workload, rows: Rows, folder: str, stack: ExitStack) -> dict[str, Worker]:
    """The workers that can run, ready and known to compute the same; closed with `stack`."""
    workers, results = {}, {}
    for name, row in rows.items():
        progress(f"{workload.name}: preparing {name}")
        began = time.perf_counter()
        worker = Worker(workload, name, folder)
        stack.callback(worker.close)
        try:
            worker.receive()
            results[name] = worker.ask("check")
        except WorkerEnded as end:
            row.update(status=end.status, reason=end.reason)
        else:
            row.update(status="ok", ready_seconds=time.perf_counter() - began)
            workers[name] = worker
    if not workers:
        raise WorkerEnded("failed", "no configuration can run")
    reference = "torch-eager" if "torch-eager" in results else next(iter(results))
    for name, result in results.items():
        found = rows[name]["differences"] = differences(result, results[reference])
        for key, share in found.items():
            if not share <= (TOLERANCE_OF_FALL if key == "fall" else TOLERANCE):  # nor NaN
                reason = f"{key} of {name} and of {reference} differ by {share:.1e}"
                raise WorkerEnded("failed", reason)
    return workers


def _measure(
    workload: Workload, workers: dict[str, Worker], rows: Rows, rounds: int, seconds: float
) -> None:
    """Add the seconds per unit of each worker's rounds, and its memory, to its row."""
    for name, worker in workers.items():
        progress(f"{workload.name}: warming up {name}")
        time.sleep(SETTLE)
        rows[name].update(calls=worker.ask("calls", seconds), seconds=[])
    for number in range(rounds):
        for name in list(workers)[:: -1 if number % 2 else 1]:
            progress(f"{workload.name}: round {number + 1} of {rounds}, {name}")
            time.sleep(SETTLE)
            calls = rows[name]["calls"]
            elapsed = workers[name].ask("measure", calls)
            rows[name]["seconds"].append(elapsed / calls / workload.units)
    for name, worker in workers.items():
        low, median, high = np.percentile(rows[name]["seconds"], [25, 50, 75]).tolist()
        rows[name].update(median=median, quartiles=[low, high], **worker.ask("memory"))


def ratios(rows: Rows) -> dict[str, dict[str, Any]]:
    """For each configuration of tinyconv: how many times as long the fastest PyTorch takes.

    What is not compiled is set beside PyTorch that is not compiled either.
    """
    medians = {name: row["median"] for name, row in rows.items() if "median" in row}
    found = {}
    for name, seconds in medians.items():
        out = () if name == "tinyconv-compiled" else ("torch-compile", "torch-compile-1-thread")
        rivals = [rival for rival in medians if rival.startswith("torch") and rival not in out]
        if name.startswith("tinyconv") and rivals:
            fastest = min(rivals, key=medians.__getitem__)
            found[name] = {"ratio": medians[fastest] / seconds, "beside": fastest}
    return found
