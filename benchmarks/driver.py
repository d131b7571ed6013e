"""Runs a workload in all its configurations side by side: checks that they agree, measures in turn.

Each configuration lives in a process of its own. All of them are alive together, and one at a time
is measured, round after round, so that whatever else the machine does falls on all alike. On a GPU
a few of PyTorch's are alive at a time, beside tinyconv's, so that its memory holds them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
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
# Seconds before a measurement on the CPU: idle OpenMP threads go on spinning for a while and would
# disturb the next.
SETTLE = 0.3
# Largest difference of a result, as a share of its largest value, and of the fall of the losses,
# itself a small difference of numbers that are rounded as the precision says.
TOLERANCES = {"float32": (1e-3, 2e-2), "tf32": (1e-2, 0.1), "mixed": (5e-2, 0.3)}
# On a GPU: PyTorch's configurations that are alive at a time, and how many seconds one has for an
# answer, compilation included.
TOGETHER, LIMIT = 4, 120.0

Rows = dict[str, dict[str, Any]]


class WorkerEnded(Exception):
    """A worker gave up: `status` ("skipped" or "failed") and `reason`."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Worker:
    """A process that computes one configuration of a workload.

    On a GPU it must answer within LIMIT seconds.
    """

    def __init__(
        self, workload: Workload, configuration: str, folder: str, **environment: str
    ) -> None:
        self.limit = LIMIT if workload.backend == "cupy" else None
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
            if self.limit is None or self.pipe.poll(self.limit):
                status, answer = self.pipe.recv()
            else:
                self.process.kill()
                status, answer = "failed", f"no answer within {self.limit:.0f} s"
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

    Each of `rounds` measurements of a configuration takes about `seconds`. One that does not
    compute the same as PyTorch's eager one (else the first that runs) is failed, and not measured.
    """
    rows: Rows = {name: {} for name in configurations}
    entry = {"status": "ok", "unit": workload.unit, "configurations": rows, "ratios": {}}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        try:
            write_inputs(workload, Path(folder))
            for names in groups(workload, configurations):
                _fill_caches(workload, names, folder)
                with ExitStack() as stack:
                    workers = _prepare(workload, names, rows, results, folder, stack)
                    _measure(workload, workers, rows, rounds, seconds)
            for row in rows.values():
                if row.get("status") == "ok":
                    low, median, high = np.percentile(row["seconds"], [25, 50, 75]).tolist()
                    row.update(median=median, quartiles=[low, high])
            entry["ratios"] = ratios(rows)
        except Skipped as reason:
            entry.update(status="skipped", reason=str(reason))
        except WorkerEnded as end:
            entry.update(status=end.status, reason=end.reason)
    return entry


def groups(workload: Workload, configurations: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Which configurations are alive at a time: all, on a GPU tinyconv's and TOGETHER others."""
    if workload.backend == "numpy":
        return [configurations]
    ours = tuple(name for name in configurations if name.startswith("tinyconv"))
    others = [name for name in configurations if name not in ours]
    return [(*ours, *others[i : i + TOGETHER]) for i in range(0, len(others), TOGETHER)] or [ours]


def _fill_caches(workload: Workload, names: tuple[str, ...], folder: str) -> None:
    """On a GPU, let PyTorch compile for all modes at once, in processes that end again.

    Those that are measured find the results in its caches, and choose cuDNN's algorithms, which is
    done by timing them, while nothing else runs.
    """
    if workload.backend == "numpy":
        return

    def compile(name: str) -> None:
        progress(f"{workload.name}: compiling {name}")
        worker = Worker(workload, name, folder)
        with closing(worker), suppress(WorkerEnded):  # the one that is measured will tell
            worker.receive()
            worker.ask("check")

    compiled = [name for name in names if "compile" in name and name.startswith("torch")]
    if compiled:
        with ThreadPoolExecutor(len(compiled)) as pool:
            list(pool.map(compile, compiled))


def _prepare(
    workload: Workload,
    names: tuple[str, ...],
    rows: Rows,
    results: dict[str, Any],
    folder: str,
    stack: ExitStack,
) -> dict[str, Worker]:
    """The workers that can run, ready and known to compute the same; closed with `stack`.

    `results` holds what those of earlier groups found. On a GPU they start all at once, and compute
    one after the other.
    """
    workers: dict[str, Worker] = {}

    def start(name: str) -> None:
        progress(f"{workload.name}: preparing {name}")
        worker = Worker(workload, name, folder)
        stack.callback(worker.close)
        try:
            worker.receive()
            workers[name] = worker
        except WorkerEnded as end:
            rows[name].update(status=end.status, reason=end.reason)

    with ThreadPoolExecutor(1 if workload.backend == "numpy" else len(names)) as pool:
        list(pool.map(start, names))
    for name in [name for name in names if name in workers]:
        progress(f"{workload.name}: checking {name}")
        began = time.perf_counter()
        try:
            results[name] = workers[name].ask("check")
        except WorkerEnded as end:
            rows[name].update(status=end.status, reason=end.reason)
            del workers[name]
        else:
            rows[name].update(status="ok", check_seconds=time.perf_counter() - began)
    if not workers:
        raise WorkerEnded("failed", "no configuration can run")
    reference = "torch-eager" if "torch-eager" in results else next(iter(results))
    tolerance, tolerance_of_fall = TOLERANCES[workload.precision]
    for name in [name for name in names if name in workers]:
        found = rows[name]["differences"] = differences(results[name], results[reference])
        for key, share in found.items():
            if not share <= (tolerance_of_fall if key == "fall" else tolerance):  # nor NaN
                reason = f"{key} of {name} and of {reference} differ by {share:.1e}"
                rows[name].update(status="failed", reason=reason)
                workers.pop(name, None)
    return {name: workers[name] for name in names if name in workers}


def _measure(
    workload: Workload, workers: dict[str, Worker], rows: Rows, rounds: int, seconds: float
) -> None:
    """Add the seconds per unit of each worker's rounds, and its memory, to its row."""
    settle = SETTLE if workload.backend == "numpy" else 0.0
    for number in range(-1, rounds):
        for name in list(workers)[:: -1 if number % 2 else 1]:
            row, worker = rows[name], workers[name]
            what = f"round {number + 1} of {rounds}" if number >= 0 else "warming up"
            progress(f"{workload.name}: {what}, {name}")
            time.sleep(settle)
            try:
                if number < 0:
                    row["calls"] = worker.ask("calls", seconds)
                    continue
                elapsed = worker.ask("measure", row["calls"])
            except WorkerEnded as end:
                row.update(status=end.status, reason=end.reason)
                del workers[name]
            else:
                row.setdefault("seconds", []).append(elapsed / row["calls"] / workload.units)
    for name, worker in workers.items():
        rows[name].update(worker.ask("memory"))


def ratios(rows: Rows) -> dict[str, dict[str, Any]]:
    """For each configuration of tinyconv: how many times as long the fastest PyTorch takes.

    What is not compiled is set beside PyTorch that is neither compiled nor captured as a graph.
    """
    medians = {name: row["median"] for name, row in rows.items() if "median" in row}
    found = {}
    for name, seconds in medians.items():
        out = () if name == "tinyconv-compiled" else ("torch-compile", "torch-graph")
        rivals = [r for r in medians if r.startswith("torch") and not r.startswith(out)]
        if name.startswith("tinyconv") and rivals:
            fastest = min(rivals, key=medians.__getitem__)
            found[name] = {"ratio": medians[fastest] / seconds, "beside": fastest}
    return found
