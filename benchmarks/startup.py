"""What a user waits for before the first training step is done."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.driver import Worker, WorkerEnded, write_inputs
from benchmarks.report import duration, print_line, progress, write_json
from benchmarks.workloads import WORKLOADS

CONFIGURATIONS = ("tinyconv-eager", "tinyconv-compiled", "torch-eager", "torch-compile")
NETWORKS = ("train-lenet-4", "train-catdog_notebook")


def run(out: Path, rounds: int, configurations: tuple[str, ...]) -> None:
    """Measure imports and first steps; writes startup.json to `out`.

    A first step is measured from the start of the process, with empty caches of compiled kernels
    and again with what those then hold. As a step of a large network takes seconds by itself, the
    overhead is what the first step takes longer than a later one.
    """
    imports = import_seconds(sorted({name.split("-")[0] for name in configurations}), rounds)
    for library, seconds in imports.items():
        print_line(f"import {library}", "", duration(seconds))
    steps = []
    print_line("network", "configuration", "caches", "first step done", "later step", "overhead")
    for network in NETWORKS:
        for name in configurations:
            for row in first_steps(network, name):
                steps.append(row)
                times = [duration(row[k]) for k in ("first", "later", "overhead") if k in row]
                print_line(network, name, row.get("reason", row["caches"]), *times)
                write_json(out / "startup.json", {"import_seconds": imports, "first_steps": steps})


def import_seconds(libraries: list[str], rounds: int) -> dict[str, float]:
    """Median seconds of `import library` in a new process, less those of a bare Python."""
    programs = ["pass", *(f"import {library}" for library in libraries)]
    found: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(rounds + 1):
        for program in programs:
            progress(f"python -c '{program}'")
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            found[program].append(time.perf_counter() - began)
    # The first round read the files from the disk.
    bare, *others = (statistics.median(seconds[1:]) for seconds in found.values())
    return {library: seconds - bare for library, seconds in zip(libraries, others, strict=True)}


def first_steps(network: str, configuration: str) -> list[dict[str, Any]]:
    """One row with empty caches and one with warm ones; a single one where it cannot run."""
    rows: list[dict[str, Any]] = []
    temporary = tempfile.TemporaryDirectory
    with temporary(prefix="benchmark-") as folder, temporary(prefix="benchmark-cache-") as caches:
        write_inputs(WORKLOADS[network], Path(folder))
        environment = {"NUMBA_CACHE_DIR": caches, "TORCHINDUCTOR_CACHE_DIR": caches}
        for state in ("empty", "warm"):
            progress(f"{network}: first step of {configuration}, {state} caches")
            row = {"network": network, "configuration": configuration, "caches": state}
            began = time.perf_counter()
            worker = Worker(WORKLOADS[network], configuration, folder, **environment)
            try:
                worker.receive()
                worker.ask("measure", 1)
                first = time.perf_counter() - began
                later = min(worker.ask("measure", 1) for _ in range(3))
            except WorkerEnded as end:
                return [{**row, "reason": f"{end.status}: {end.reason}"}]
            finally:
                worker.close()
            rows.append({**row, "first": first, "later": later, "overhead": first - later})
    return rows
