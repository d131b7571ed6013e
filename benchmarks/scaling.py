"""How a training step grows with the batch, the image size and the channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import report, workloads
from benchmarks.driver import compare

CONFIGURATIONS = ("tinyconv-compiled", "torch-channels-last")
# What varies; the other two are at the defaults of workloads.blocks.
AXES = {
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "size": (16, 32, 64, 96, 128, 192, 256),
    "channels": (8, 16, 32, 64, 128, 256),
}


def run(out: Path, rounds: int, seconds: float, configurations: tuple[str, ...]) -> None:
    """Measure all points; writes scaling.json and scaling.png to `out`."""
    found: dict[str, dict[int, Any]] = {axis: {} for axis in AXES}
    report.print_header()
    for axis, values in AXES.items():
        for value in values:
            workload = workloads.blocks(**{axis: value})
            entry = compare(workload, configurations, rounds, seconds)
            # A ratio would set compiled steps beside eager ones; the growth is what counts here.
            found[axis][value] = {**entry, "ratios": {}}
            report.print_entry(workload.name, found[axis][value])
            report.write_json(out / "scaling.json", {"scaling": found})
    _draw(out / "scaling.png", found, configurations)


def _draw(path: Path, found: dict[str, dict[int, Any]], configurations: tuple[str, ...]) -> None:
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (axis, entries) in zip(figure.subplots(1, 3), found.items(), strict=True):
        for name in configurations:
            rows = {value: entry["configurations"][name] for value, entry in entries.items()}
            points = [(value, 1e3 * r["median"]) for value, r in rows.items() if "median" in r]
            if points:
                axes.loglog(*zip(*points, strict=True), marker="o", label=name)
                axes.legend()
        axes.set_xticks(list(entries), map(str, entries))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set(xlabel=axis, ylabel="milliseconds per step")
        axes.grid(alpha=0.3)
    figure.suptitle(
        "Training step of 2 x (convolution, batch norm, ReLU, pool) and a linear layer; 8 images "
        f"of 64x64, 32 channels but for what varies\n{report.cpu()}, {workloads.CORES} cores"
    )
    figure.savefig(path, dpi=120)
