"""What was measured, as lines on the terminal, a JSON file and a picture."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.device import describe
from benchmarks.workloads import CORES

PACKAGES = (
    "tinyconv", "numpy", "numba", "pillow", "torch", "triton", "cupy-cuda12x", "cupy-cuda13x",
    "nvidia-cuda-runtime", "nvidia-cuda-nvrtc", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip


def progress(text: str) -> None:
    """Say on stderr what is being done: on a terminal one line, always the latest."""
    sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()


def machine() -> dict[str, Any]:
    """The computer, its GPU, the versions and the date, for the JSON files."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "cpu": cpu(), "cores": CORES, "gpu": gpu(), "system": platform.platform(),
        "versions": versions, "date": date,
    }  # fmt: skip


@cache
def gpu() -> dict[str, str] | None:
    """The GPU (see device.describe), asked for once."""
    return describe()


def cpu() -> str:
    """The processor as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` and the machine to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    unfinished.replace(path)


def duration(seconds: float) -> str:
    """Three digits and a unit: "1.44 ms"."""
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * factor:#.3g}".removesuffix(".") + f" {unit}"


def print_line(*cells: str) -> None:
    """One line of a table: two names to the left, figures to the right."""
    progress("")
    left = "".join(f"{cell:<31}" for cell in cells[:2])
    print(left + "".join(f"{cell:>19}" for cell in cells[2:]), flush=True)


def print_header() -> None:
    """The table's columns and what the ratio means."""
    print("ratio: of tinyconv, the fastest PyTorch / tinyconv; what is not compiled beside PyTorch")
    print("       not compiled; of PyTorch, this one / tinyconv compiled")
    print("peak memory: of the process; on a GPU that of the device, without CUDA's own")
    print_line("workload", "configuration", "median", "quartiles", "peak memory", "ratio")


def print_entry(name: str, entry: dict[str, Any]) -> None:
    """A line for each configuration of a workload."""
    compiled = entry["configurations"].get("tinyconv-compiled", {}).get("median")
    if entry["status"] != "ok":
        print_line(name, f"{entry['status'].upper()}: {_first_line(entry['reason'])}")
    for configuration, row in entry["configurations"].items():
        if "reason" in row:
            print_line(name, f"{configuration} {row['status']}: {_first_line(row['reason'])}")
        elif "median" in row:
            ratio = entry["ratios"].get(configuration, {}).get("ratio")
            if configuration.startswith("torch") and compiled:
                ratio = row["median"] / compiled
            peak = row["peak_device_mib"] or row["peak_rss_mib"]
            rate = entry["unit"] == "photo"
            median = row["median"]
            print_line(
                name,
                configuration,
                f"{1 / median:,.0f} photos/s" if rate else f"{duration(median)}/{entry['unit']}",
                " - ".join(map(duration, row["quartiles"])),
                f"{peak:,.0f} MiB" if peak else "",
                f"{ratio:.2f}" if ratio else "",
            )


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def draw_ratios(path: Path, workloads: dict[str, dict[str, Any]], device: str) -> None:
    """Bars of the ratios, beyond 1 where tinyconv is faster; no picture where there is no ratio."""
    kinds = sorted({kind for entry in workloads.values() for kind in entry["ratios"]})
    if not kinds:
        return
    figure = Figure(figsize=(9, 1.8 + 0.32 * len(workloads)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(kinds)
    for k, kind in enumerate(kinds):
        ratios = [e["ratios"].get(kind, {}).get("ratio", np.nan) for e in workloads.values()]
        places = [n + (k + 0.5) * height - 0.4 for n in range(len(ratios))]
        bars = axes.barh(places, [r - 1 for r in ratios], height, left=1, label=kind)
        axes.bar_label(bars, [f"{r:.2f}" for r in ratios], padding=2, fontsize="x-small")
    names = [n if e["status"] == "ok" else f"{n}: {e['status']}" for n, e in workloads.items()]
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize="x-small")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("time of the fastest PyTorch / time of tinyconv; above 1 tinyconv is faster")
    axes.legend(fontsize="small")
    axes.set_title(f"tinyconv beside PyTorch on {device}")
    figure.savefig(path, dpi=120)
