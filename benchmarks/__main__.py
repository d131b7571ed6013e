"""Compare tinyconv with PyTorch on this machine: python -m benchmarks, from the repository's root.

Each workload runs in all configurations of both, in processes that are measured in turn. One whose
results differ from the others' is reported as failed instead of being measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import tinyconv
from benchmarks import curve, gpu_roofline, report, roofline, scaling, startup, tiles, training
from benchmarks.driver import compare
from benchmarks.workloads import CORES, WORKLOADS, Workload, gpu_workloads

Kept = Callable[[tuple[str, ...]], tuple[str, ...]]


def main() -> None:
    """Measure what the flags ask for."""
    flags = parse()
    on_gpu = flags.backend == "cupy"
    workloads = gpu_workloads() if on_gpu else WORKLOADS
    names = [n for n in workloads if any(fnmatch(n, pattern) for pattern in flags.only)]
    if not names:
        raise SystemExit(f"no workload is called {' or '.join(flags.only)}; --list shows them")
    if flags.list:
        print("\n".join(names))
        return
    if flags.bounds:
        gpu_roofline.bounds()
        return
    torch = flags.torch and importlib.util.find_spec("torch") is not None
    if flags.torch and not torch:
        print("PyTorch is not installed: measuring tinyconv alone")

    def kept(configurations: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            name
            for name in configurations
            if (torch or not name.startswith("torch"))
            and any(fnmatch(name, pattern) for pattern in flags.configurations)
        )

    try:
        tinyconv.use_backend(flags.backend)
    except tinyconv.BackendError as error:
        raise SystemExit(f"error: {error}") from None
    if flags.startup:
        startup.run(flags.out, flags.rounds, kept(startup.CONFIGURATIONS))
    elif flags.curve:
        curve.run(flags.out)
    elif flags.roofline:
        (gpu_roofline if on_gpu else roofline).run(flags.out)
    elif flags.training:
        training.run(flags.out)
    elif flags.tiles:
        trained = [workloads[name] for name in names if workloads[name].kind == "train"]
        tiles.run(trained, flags.out, flags.time_limit, torch)
    elif flags.scaling:
        scaling.run(flags.out, flags.rounds, flags.seconds, kept(scaling.CONFIGURATIONS))
    else:
        compare_all([workloads[name] for name in names], kept, flags)


def compare_all(workloads: list[Workload], kept: Kept, flags: Any) -> None:
    """Measure each workload in the configurations that are `kept`; print, write, draw."""
    found: dict[str, Any] = {}
    settings = {"rounds": flags.rounds, "seconds": flags.seconds}
    gpu = report.gpu() or {"name": "a GPU"}
    device = gpu["name"] if flags.backend == "cupy" else f"{report.cpu()}, {CORES} cores"
    # This process only draws weights and images; kernels for that would have to be compiled first.
    tinyconv.use_backend("numpy", kernels=False if flags.backend == "cupy" else None)
    began = time.monotonic()
    report.print_header()
    for workload in workloads:
        if time.monotonic() - began > flags.time_limit:
            print(f"{workload.name} and what follows are left out: --time-limit is over")
            break
        configurations = kept(workload.configurations)
        found[workload.name] = compare(workload, configurations, flags.rounds, flags.seconds)
        report.print_entry(workload.name, found[workload.name])
        # Written after each workload, so that a run that is broken off leaves what it has.
        path = flags.out / f"{flags.name}.json"
        report.write_json(path, {"settings": settings, "workloads": found})
        report.draw_ratios(path.with_suffix(".png"), found, device)


def parse() -> Any:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--backend", choices=("numpy", "cupy"), default="numpy", help="CPU, or an NVIDIA GPU")
    add("--only", nargs="+", default=["*"], metavar="NAME", help="workloads, as 'train-*'")
    add("--configurations", nargs="+", default=["*"], metavar="NAME", help="as 'torch-graph*'")
    add("--list", action="store_true", help="print the workloads' names and stop")
    add("--rounds", type=int, default=5, help="measurements of each configuration (5)")
    add("--seconds", type=float, help="length of one measurement (1, on a GPU 0.3)")
    add("--time-limit", type=float, default=math.inf, metavar="SECONDS",
        help="start no other workload (layer, of --tiles) after so many seconds")  # fmt: skip
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder (benchmarks/results)")
    add("--name", help="name of the JSON and PNG files (comparison, on a GPU gpu)")
    add("--no-torch", dest="torch", action="store_false", help="measure tinyconv alone")
    add("--scaling", action="store_true", help="instead: growth with batch, size and channels")
    add("--curve", action="store_true", help="instead: kernels and reference in a training")
    add("--roofline", action="store_true", help="instead: this machine's limits, and how near")
    add("--bounds", action="store_true", help="instead: what an H100 needs at least, by arithmetic")
    add("--training", action="store_true", help="instead: how idle the GPU is in a real training")
    add("--tiles", action="store_true", help="instead: each layer in each tile, on a GPU")
    add("--startup", action="store_true", help="instead: imports and the first training step")
    flags = parser.parse_args()
    on_gpu = flags.backend == "cupy"
    if on_gpu and (flags.scaling or flags.curve or flags.startup):
        parser.error("--scaling, --curve and --startup are of the CPU")
    if (flags.training or flags.tiles) and not on_gpu:
        parser.error("--training and --tiles need --backend cupy")
    flags.seconds = flags.seconds or (0.3 if on_gpu else 1.0)
    flags.name = flags.name or ("gpu" if on_gpu else "comparison")
    return flags


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
