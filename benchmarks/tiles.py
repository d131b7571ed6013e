"""How well matrix products are cut into tiles: python -m benchmarks --backend cupy --tiles.

Each convolution and linear layer of the training workloads that --only names, in each direction (y;
gx; gw and gb), is computed with each tile of kernels/cuda/gemm.py and several numbers of parts. A
line sets the cut that the model in gemm.py chose beside the fastest one and PyTorch, channels last;
times are medians of captured graphs, by the device's clock. The share is that of the floor (see
gpu_roofline) in the time. The JSON file has the times of all cuts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv
from benchmarks.gpu_roofline import Limits, images_dtype, memory_rate, product_rates
from benchmarks.report import duration, progress, write_json
from benchmarks.tinyconv_side import channels_last, create, training_step
from benchmarks.workloads import Workload
from tinyconv import op
from tinyconv.compiler.graph import GraphPlan
from tinyconv.compiler.record import Call, StepRecorder, Value, values
from tinyconv.compiler.table import flops, traffic
from tinyconv.kernels.cuda import gemm
from tinyconv.ops.conv import Conv2d

Row = dict[str, Any]
THREADS = 8  # that compile at a time


def run(
    workloads: list[Workload], out: Path, time_limit: float, torch: bool, tiles: Any = gemm.TILES
) -> None:
    """Measure the workloads' products, none begun after `time_limit` seconds; with PyTorch's times
    if wanted. Prints a table, writes gpu_tiles.json to `out`."""
    began, found = time.monotonic(), dict[str, Row]()
    card: Row = {"bytes_per_second": memory_rate(), "flops_per_second": product_rates()}
    for workload in workloads:
        calls, precision = products(workload), workload.precision
        tinyconv.use_backend("cupy", precision="float32" if precision == "float32" else "tf32")
        limits = Limits(max(card["flops_per_second"][precision].values()), card["bytes_per_second"])
        for name in [name for name in calls if name not in found]:
            if time.monotonic() - began > time_limit:
                print(f"{name} and what follows are left out: --time-limit is over")
                return
            progress(f"{workload.name}: {name}")
            found[name] = measured(*on_device(calls[name], precision), limits, tiles)
            if torch:
                from benchmarks import torch_side

                found[name]["torch"] = torch_side.seconds_of(calls[name], precision)
            show(name, found[name])
            write_json(out / "gpu_tiles.json", {**card, "products": found})


def products(workload: Workload) -> dict[str, Call]:
    """Those of a training step, the largest first; it is recorded on the CPU, computing nothing."""
    tinyconv.use_backend("numpy")
    images, labels = np.zeros(workload.shape, np.float32), np.zeros(workload.shape[0], np.int64)
    step = training_step(create(workload.network, workload.options), lambda function: function)
    with StepRecorder([images, labels]) as recording:
        calls = [call for call in recording.finish(step(images, labels)).calls if flops(call)]
    found = {}
    for call in sorted(calls, key=flops, reverse=True):
        x, w = values((*call.saved, *call.inputs))[:2]
        name = f"{'x'.join(map(str, x.shape))} * {'x'.join(map(str, w.shape))} {workload.precision}"
        if call.direction == "forward":
            found[f"{name} y"] = call
            continue
        (gx, gw, gb), needs = call.outputs, call.needs
        if needs[0]:
            alone = replace(call, needs=(True, False, False), outputs=(gx, None, None))
            found[f"{name} gx"] = alone
        found[f"{name} gw"] = replace(call, needs=(False, *needs[1:]), outputs=(None, gw, gb))
    return found


def on_device(call: Call, precision: str) -> tuple[Call, Callable[[], Any]]:
    """The call on arrays of noise of its own, and what computes it once."""
    million, own = np.random.default_rng(0).standard_normal(2**20, np.float32), {}
    half = np.dtype(images_dtype(precision))  # of what is not a weight
    for v in call.reads():
        numbers = np.resize(million.astype(half if v.given is None else np.float32), v.shape)
        lying = channels_last if numbers.ndim == 4 and v.given is None else tinyconv.backend.asarray
        array = lying(numbers)
        own[v] = Value(v.shape, array.dtype, given=array)
    inputs, saved = (tuple(own.get(v, v) for v in vs) for vs in (call.inputs, call.saved))
    arrays, kept = (tuple(v and v.given for v in vs) for vs in (inputs, saved))
    compute: Any = partial(op.run, call.op, *arrays)
    if call.direction == "backward":
        compute = partial(op.run_backward, call.op, *arrays, kept, call.needs)
    first, *others = call.outputs  # y or gx; gw and gb
    outputs = (first and Value(first.shape, half), *others)
    return replace(call, inputs=inputs, saved=saved, outputs=outputs), compute


def measured(
    call: Call, compute: Callable[[], Any], limits: Limits, tiles: tuple[gemm.Tile, ...]
) -> Row:
    """A product's floor, and the seconds of all ways to cut it; None for what cannot run."""
    cuts = ways(call, compute, tiles)

    def compile(cut: gemm.Plan) -> None:
        with planned_by(lambda *_: cut), suppress(Exception):  # measuring it will tell
            compute()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(compile, cuts))
    timed: list[Row] = [
        cut._asdict() | {"tile": cut.tile._asdict(), "seconds": seconds(call, cut)} for cut in cuts
    ]
    # Both were saved, but the gradient of one of x and w is made without it.
    unread = [v for v, need in zip(call.saved, call.needs, strict=False) if need]
    moved = traffic(call) - sum(v.given.nbytes for v in unread)
    return {
        "flops": flops(call), "floor": limits.floor(flops(call), moved), "chosen": timed[0],
        "fastest": min(timed, key=lambda cut: cut["seconds"] or math.inf), "cuts": timed,
    }  # fmt: skip


def ways(call: Call, compute: Callable, tiles: tuple[gemm.Tile, ...]) -> list[gemm.Plan]:
    """How to cut a product: first as the engine does, then what else is worth a try."""
    asked: list[Any] = []

    def watch(*sizes: Any) -> gemm.Plan:
        asked.append(sizes)
        return gemm.fastest(*sizes)

    with planned_by(watch), suppress(Exception):
        compute()
    M, N, steps, _, fewest, may_split = sizes = asked[0]
    found = [gemm.fastest(*sizes)]
    if isinstance(call.op, Conv2d) and call.needs[:2] != (False, True):
        tiles = (*tiles, *(tile._replace(cached=not tile.cached) for tile in tiles))
    for tile in tiles:
        likely = gemm.fastest(*sizes, (tile,)).splits
        most = max(steps, fewest) if may_split else 1
        parts = [n for n in (likely, 1, likely // 2, 2 * likely) if max(1, fewest) <= n <= most]
        found += [gemm.Plan.of(tile, n, M, N, steps) for n in parts]
    return list(dict.fromkeys(found))


@contextmanager
def planned_by(planner: Callable[..., gemm.Plan]) -> Iterator[None]:
    """Cut products as `planner` says, in this thread."""
    token = gemm.planner.set(planner)
    try:
        yield
    finally:
        gemm.planner.reset(token)


def seconds(call: Call, cut: gemm.Plan) -> float | None:
    """How long a call takes with a cut; None, and a line that says why, where it cannot run."""
    try:
        with planned_by(lambda *_: cut):
            graph = GraphPlan([call], [], [])
            graph.run()
            return graph.milliseconds()[0] / 1e3
    except Exception as error:
        progress(f"{cut}: {error}")
        return None


def show(name: str, row: Row) -> None:
    """Print a line: what was chosen, the fastest, PyTorch."""
    progress("")
    line = f"{name:50}"
    for what in ("chosen", "fastest"):
        (tile, taken), splits = (row[what][key] for key in ("tile", "seconds")), row[what]["splits"]
        cut = f"{tile['m']}x{tile['n']}{' cached' * tile['cached']} in {splits}"
        line += f"  {what} {cut:21}"
        if not taken:
            line += "cannot run"
            continue
        rate, share = row["flops"] / taken / 1e12, row["floor"] / taken
        line += f"{duration(taken):>8}{rate:6.1f} TFLOP/s{share:5.0%}"
    print(line + (f"  PyTorch {duration(row['torch'])}" if row.get("torch") else ""), flush=True)
