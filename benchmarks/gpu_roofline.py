"""How far from the GPU's limits compiled steps are: python -m benchmarks --backend cupy --roofline.

Nothing can take less time than its multiplications at the card's peak, nor than the bytes of its
inputs and results, each read or written once, at the memory's rate. The larger of the two is an
op's floor. Both rates are measured: a copy within the device, and a product of two large matrices
by our kernel and by cuBLAS, of which the faster one counts. --bounds prints the floors without a
device, at what an H100 is known to reach.
Source: Williams, Waterman and Patterson, Roofline, 2009.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import tinyconv
from benchmarks.report import gpu, progress, write_json
from benchmarks.tinyconv_side import channels_last, create, training_step
from benchmarks.workloads import Workload, gpu_workloads
from tinyconv.compiler import table
from tinyconv.compiler.record import Call
from tinyconv.op import run as run_op
from tinyconv.ops.linear import Linear, MatMul

STEPS = tuple(
    f"train-{network}-{precision}"
    for precision in ("tf32", "mixed")
    for network in ("catdog_notebook-20", "catdog-20", "catdog_wide-32", "lenet_mnist-256")
)
PRODUCT, COPY = 8192, 2**28  # rows and columns of a matrix; numbers in a copy, 1 GiB

Row = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """A card's rates: floating-point operations, and bytes, in a second."""

    flops: float
    bytes: float

    def floor(self, operations: float, moved: float) -> float:
        """Seconds that so many operations and bytes take at least."""
        return max(operations / self.flops, moved / self.bytes)

    @property
    def ridge(self) -> float:
        """Operations per byte from which on the operations are the limit."""
        return self.flops / self.bytes


H100 = Limits(flops=400e12, bytes=3.0e12)  # in practice: TF32 products, a copy within the device


def bounds(network: str = "catdog", size: int = 256, batch: int = 20) -> list[Row]:
    """Print what each op of a training step in TF32 takes at least on an H100, by arithmetic.

    The step runs once on the CPU, to be recorded.
    """
    tinyconv.use_backend("numpy")
    step = training_step(create(network, {"size": size}), tinyconv.compile)
    step(channels_last(np.zeros((batch, 3, size, size), np.float32)), np.zeros(batch, np.int64))
    rows = [_row(call, H100) for call in step.plan.calls]
    print(f"{network}, {size}x{size}, batch {batch}: TF32 {H100.flops / 1e12:.0f} TFLOP/s, "
          f"{H100.bytes / 1e12:.1f} TB/s, ridge at {H100.ridge:.0f} FLOP/byte")  # fmt: skip
    print(f"{'op':24}{'shape':18}{'GFLOP':>9}{'MB':>9}{'FLOP/byte':>11}{'µs':>9}  limit")
    for row in rows:
        print(f"{row['op']:24}{row['shape']:18}{row['flops'] / 1e9:9.2f}{row['bytes'] / 1e6:9.2f}"
              f"{row['flops'] / max(row['bytes'], 1):11.1f}{1e6 * row['floor']:9.1f}"
              f"  {row['limit']}")  # fmt: skip
    print(f"{'all':71}{1e6 * sum(row['floor'] for row in rows):9.1f}")
    return rows


def run(out: Path) -> None:
    """Measure the card and the steps; prints tables, writes gpu_roofline.json and .png to `out`."""
    tinyconv.use_backend("cupy")
    bandwidth, rates = memory_rate(), product_rates()
    print(f"copy within the device: {bandwidth / 1e12:.2f} TB/s", flush=True)
    for precision, found in rates.items():
        shown = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in found.items())
        print(f"product of {PRODUCT}x{PRODUCT} in {precision}, TFLOP/s: {shown}", flush=True)
    limits = {p: Limits(max(found.values()), bandwidth) for p, found in rates.items()}
    steps: dict[str, list[Row]] = {}
    for name in STEPS:
        progress(f"{name}: recording")
        workload = gpu_workloads()[name]
        steps[name] = measured(workload, limits[workload.precision])
        show(name, steps[name])
        write_json(
            out / "gpu_roofline.json",
            {"bytes_per_second": bandwidth, "flops_per_second": rates, "steps": steps},
        )
        draw(out / "gpu_roofline.png", steps, limits)


def memory_rate() -> float:
    """Bytes in a second, read and written, of a copy within the device."""
    xp: Any = tinyconv.backend.xp()
    source, target = xp.ones(COPY, xp.float32), xp.empty(COPY, xp.float32)
    return 2 * source.nbytes / seconds_of(lambda: xp.copyto(target, source))


def product_rates() -> dict[str, dict[str, float]]:
    """Operations in a second of a large matrix product in each precision: by our kernel, and by
    cuBLAS, through PyTorch where that finds the device."""
    xp: Any = tinyconv.backend.xp()
    rng = np.random.default_rng(0)  # not zeros, on which a GPU is faster
    x, w = rng.standard_normal((2, PRODUCT, PRODUCT), np.float32)
    found: dict[str, dict[str, float]] = {}
    for precision in ("tf32", "mixed", "float32"):
        progress(f"products in {precision}")
        tinyconv.use_backend("cupy", precision="float32" if precision == "float32" else "tf32")
        ours = [xp.asarray(a.astype(images_dtype(precision))) for a in (x, w)]
        # Linear takes float32 weights, which it would have to lay out as float16 each time.
        call = (MatMul(), *ours) if precision == "mixed" else (Linear(), *ours, None)
        rates = {"tinyconv": _product_rate(lambda call=call: run_op(*call))}
        if importlib.util.find_spec("torch"):
            from benchmarks import torch_side

            if product := torch_side.product(x, w, precision):
                rates["cuBLAS"] = _product_rate(product)
        found[precision] = rates
    tinyconv.use_backend("cupy", precision="tf32")
    return found


def _product_rate(function: Callable[[], Any]) -> float:
    return 2 * PRODUCT**3 / seconds_of(function)


def seconds_of(function: Callable[[], Any], calls: int = 10) -> float:
    """Seconds of one call: a limit, so that the best of five rounds counts."""
    times = []
    for _ in range(6):
        _wait()
        began = time.perf_counter()
        for _ in range(calls):
            function()
        _wait()
        times.append((time.perf_counter() - began) / calls)
    return min(times[1:])


def _wait() -> None:
    """Until the device has done what any library gave it."""
    xp: Any = tinyconv.backend.xp()
    xp.cuda.runtime.deviceSynchronize()


def images_dtype(precision: str) -> Any:
    """The dtype of a network's images and activations in `precision`."""
    return np.float16 if precision == "mixed" else np.float32


def measured(workload: Workload, limits: Limits) -> list[Row]:
    """What each op of a training step does and takes, in the order of the step."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal(workload.shape, np.float32)
    images = channels_last(images.astype(images_dtype(workload.precision)))
    labels = tinyconv.backend.asarray(np.arange(workload.shape[0]) % 2)
    model = create(workload.network, workload.options)
    step = training_step(model, tinyconv.compile, precision=workload.precision)
    step(images, labels)
    plan = step.plan
    rows = [_row(call, limits) for call in plan.calls]
    for row, kernel, milliseconds in zip(rows, plan.kernels, plan.milliseconds(), strict=True):
        row |= {"kernel": kernel, "seconds": milliseconds / 1e3}
    return rows


def _row(call: Call, limits: Limits) -> Row:
    """What an op does, and how many seconds it takes at least."""
    operations, moved = table.flops(call), table.traffic(call)
    return {
        "op": table.name(call),
        "shape": table.shape(call),
        "flops": operations,
        "bytes": moved,
        "floor": limits.floor(operations, moved),
        "limit": "products" if operations > moved * limits.ridge else "memory",
    }


def show(name: str, rows: list[Row]) -> None:
    """Print a step's ops: what limits each, its floor, its time, and the floor's share of that."""
    progress("")
    print(f"\n{name:24}{'shape':18}{'kernel':36}{'limit':10}{'floor µs':>9}{'µs':>9}{'share':>7}")
    total = {key: sum(row[key] for row in rows) for key in ("floor", "seconds")}
    for row in [*rows, {"op": "all", "shape": "", "kernel": "", "limit": "", **total}]:
        share = row["floor"] / row["seconds"] if row["seconds"] else 0.0
        print(f"{row['op']:24}{row['shape']:18}{row['kernel']:36}{row['limit']:10}"
              f"{1e6 * row['floor']:9.1f}{1e6 * row['seconds']:9.1f}{share:7.0%}")  # fmt: skip


def draw(path: Path, steps: dict[str, list[Row]], limits: dict[str, Limits]) -> None:
    """The rooflines with the products of all steps, and where each step's time goes."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    roof, bars = figure.subplots(1, 2)
    intensities = np.geomspace(1, 10_000, 100)
    for colour, precision in enumerate(("tf32", "mixed")):
        limit = limits[precision]
        peak = np.minimum(limit.flops, limit.bytes * intensities)
        roof.plot(intensities, peak / 1e12, f"C{colour}", label=f"limits in {precision}")
    for name, rows in steps.items():
        colour = "C1" if name.endswith("mixed") else "C0"
        products = [row for row in rows if row["flops"] and row["seconds"]]
        roof.scatter(
            [row["flops"] / row["bytes"] for row in products],
            [row["flops"] / row["seconds"] / 1e12 for row in products],
            s=12, color=colour, alpha=0.7,
        )  # fmt: skip
    roof.set(xscale="log", yscale="log", xlabel="FLOP / byte", ylabel="TFLOP/s",
             title="Convolutions and linear layers, forward and backward")  # fmt: skip
    roof.legend()
    for place, rows in enumerate(steps.values()):
        left = 0.0
        for colour, limit in enumerate(("products", "memory")):
            own = [row for row in rows if row["limit"] == limit]
            for key, shade in (("floor", 1.0), ("rest", 0.4)):
                rest = sum(max(0.0, row["seconds"] - row["floor"]) for row in own)
                width = 1e3 * (rest if key == "rest" else sum(row["floor"] for row in own))
                label = f"{limit}: {'its floor' if key == 'floor' else 'above it'}"
                bars.barh(place, width, left=left, color=f"C{colour + 2}", alpha=shade,
                          label=None if place else label)  # fmt: skip
                left += width
    bars.set_yticks(range(len(steps)), list(steps))
    bars.invert_yaxis()
    bars.set(xlabel="milliseconds of a step", title="By what limits each op")
    bars.legend()
    card = gpu()
    figure.suptitle(card["name"] if card else "GPU")
    figure.savefig(path, dpi=120)
