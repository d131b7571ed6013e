"""How far from this machine's limits compiled steps are: python -m benchmarks --roofline.

For each op of a step, two times that nothing can go below: its multiplications at the machine's
peak, and the bytes of its inputs and results at the memory's rate, each array once. The larger one
is the op's floor. Convolutions count the multiplications of the algorithm that computes them
(Winograd's are a quarter, plus what hangs over the edge of a map); the column "direct" has those of
the definition, which is what a library without Winograd has to do.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv
from benchmarks.tinyconv_side import create, training_step
from benchmarks.workloads import CORES, WORKLOADS, Workload
from tinyconv.compiler.record import values
from tinyconv.compiler.table import flops, traffic

NETWORKS = ("train-catdog_notebook", "train-catdog_wide", "train-lenet-256")


def run(out: Path) -> None:
    """Measure the machine and the training steps, print a table and write roofline.json."""
    peak, bandwidth = product_rate(), memory_rate()
    print(f"matrix product {peak / 1e9:.0f} GFLOP/s, memory {bandwidth / 1e9:.1f} GB/s\n")
    found: dict[str, Any] = {"flops_per_second": peak, "bytes_per_second": bandwidth, "steps": {}}
    print(f"{'step':24}{'part':14}{'direct':>9}{'products':>10}{'memory':>9}{'floor':>9}{'ms':>9}")
    for name in NETWORKS:
        parts = _parts(WORKLOADS[name], peak, bandwidth)
        found["steps"][name] = parts
        for part, row in parts.items():
            print(f"{name:24}{part:14}" + "".join(f"{v:9.2f}" for v in row.values()))
    out.mkdir(parents=True, exist_ok=True)
    (out / "roofline.json").write_text(json.dumps(found, indent=2))


def product_rate() -> float:
    """Additions and multiplications in a second, of NumPy's matrix product on all cores."""
    a = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    return 2 * 2048**3 / _best(lambda: a @ a)


def memory_rate() -> float:
    """Bytes in a second, read and written, of a copy by all cores."""
    size = 2**26
    arrays = [(np.ones(size, np.float32), np.ones(size, np.float32)) for _ in range(CORES)]

    def copy() -> None:
        threads = [threading.Thread(target=np.copyto, args=pair) for pair in arrays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return 2 * 4 * size * CORES / _best(copy)


def _best(function: Callable[[], Any]) -> float:
    """Seconds of the fastest of several calls: a machine's limit, not its usual day."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def _parts(workload: Workload, peak: float, bandwidth: float) -> dict[str, dict[str, float]]:
    """Milliseconds of a step by kind of op: floors and what was measured."""
    step = training_step(create(workload.network, workload.options), tinyconv.compile)
    N, C, H, W = workload.shape
    images = np.random.default_rng(0).standard_normal((N, H, W, C), np.float32)
    labels = np.arange(N) % 2
    for _ in range(max(8, min(300, int(2e9 / images.size / 100)))):
        step(images.transpose(0, 3, 1, 2), labels)
    plan = step.plan
    rows: dict[str, dict[str, float]] = defaultdict(
        lambda: {"direct": 0.0, "products": 0.0, "memory": 0.0, "floor": 0.0, "measured": 0.0}
    )
    for call, kernel, measured in zip(plan.calls, plan.kernels, plan.milliseconds(), strict=True):
        direct = 1e3 * flops(call) / peak
        products = direct * _winograd_share(call) if kernel.startswith("winograd") else direct
        memory = 1e3 * traffic(call) / bandwidth
        for part in (_kind(type(call.op).__name__), "all"):
            row = rows[part]
            row["direct"] += direct
            row["products"] += products
            row["memory"] += memory
            row["floor"] += max(products, memory)
            row["measured"] += measured
    return dict(sorted(rows.items(), key=lambda item: item[0] == "all"))


def _winograd_share(call: Any) -> float:
    """Multiplications of F(4x4, 3x3) as a share of the definition's, whole tiles counted."""
    y = values(call.inputs)[0] if call.direction == "backward" else values(call.outputs)[0]
    OH, OW = y.shape[2:]
    return 36 * math.ceil(OH / 4) * math.ceil(OW / 4) / (9 * OH * OW)


def _kind(name: str) -> str:
    if name == "Conv2d":
        return "convolution"
    if "Norm" in name or "Pool" in name or "ReLU" in name:
        return "norm and pool"
    return "rest"
