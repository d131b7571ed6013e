"""What is measured: networks, shapes, and the configurations that compute each of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# So small that the first losses stay comparable: the bias of a convolution before a batch norm has
# no gradient but rounding errors, which Adam turns into steps of full size, different ones in each
# framework.
LR = 1e-5
# Of the loss in mixed precision: no step overflows and is left out, on either side.
INITIAL_SCALE = 1024.0
MNIST_STEPS = 1500  # of the 15,000 that an epoch has at batch 4
PHOTOS, PHOTO_SIZE, PHOTO_BATCH = 2000, 128, 32

_OURS = ("tinyconv-eager", "tinyconv-compiled")
_ALL = (*_OURS, "torch-eager", "torch-channels-last", "torch-compile")
# By kind of workload. A single convolution has nothing to fuse, so nothing there is compiled.
CONFIGURATIONS = {
    "train": _ALL,
    "infer": _ALL,
    "conv": ("tinyconv-eager", "torch-eager", "torch-channels-last"),
    "mnist": (*_OURS, "torch-eager", "torch-compile", "torch-dataloader"),
    "photos": ("tinyconv-loader", "torch-dataloader"),
}
# On a GPU, whatever an expert would try: both layouts, the whole call captured as a CUDA graph, and
# the compiler, which captures graphs by itself in the last two modes.
GPU_CONFIGURATIONS = (
    "tinyconv-compiled",
    "torch-eager",
    "torch-channels-last",
    "torch-graph",
    "torch-graph-channels-last",
    "torch-compile",
    "torch-compile-reduce-overhead",
    "torch-compile-max-autotune",
)


@dataclass(frozen=True)
class Workload:
    """One line of the table.

    network and options say what `create` of either side builds; images are float32 `shape`
    (N, C, H, W). A call does `units` units of work; what is reported is seconds per unit.
    backend "cupy" sets the GPU beside PyTorch on CUDA, both in `precision`: float32, tf32, or mixed
    (activations in float16).
    """

    name: str
    kind: str  # a key of CONFIGURATIONS
    network: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    unit: str = "step"
    units: float = 1.0
    data: str | None = None  # the folder in TINYCONV_DATA that it needs
    backend: str = "numpy"
    precision: str = "float32"

    @property
    def configurations(self) -> tuple[str, ...]:
        """What to compare; small networks may well run faster in PyTorch on one thread."""
        if self.backend == "cupy":
            return GPU_CONFIGURATIONS
        alone = ("torch-eager-1-thread", "torch-compile-1-thread")
        small = self.network == "lenet_mnist"
        return CONFIGURATIONS[self.kind] + (alone if small else ())

    @property
    def input_gradient(self) -> bool:
        """Whether a single convolution's input needs a gradient; photos and digits do not."""
        return self.shape[1] > 3


class Case(NamedTuple):
    """A workload made ready in a worker: what is timed, and results to compare beforehand.

    On a GPU, `wait` returns when all calls are done, `device_mib` tells how much memory they had,
    and `rest` gives back what is not needed until the next one.
    """

    call: Callable[[], Any]
    check: Callable[[], dict[str, Any]]
    wait: Callable[[], Any] = lambda: None
    device_mib: Callable[[], float | None] = lambda: None
    rest: Callable[[], Any] = lambda: None


def losses(step: Callable, images: Any, labels: Any) -> dict[str, Any]:
    """The losses of three steps on one batch, and their fall, in which wrong gradients show."""
    found = np.array([step(images, labels).item() for _ in range(3)])
    return {"losses": found, "fall": found[:1] - found[2:]}


class Skipped(Exception):
    """Something cannot run here; the text says why."""


def data_folder(name: str) -> Path:
    """The folder of a data set; Skipped where it is not there."""
    root = os.environ.get("TINYCONV_DATA")
    if not root or not (Path(root) / name).is_dir():
        raise Skipped(f"TINYCONV_DATA names no folder that holds {name}/")
    return (Path(root) / name).resolve()


_INPUTS = {  # channels and size
    "catdog_notebook": (3, 256),
    "catdog": (3, 256),
    "catdog_wide": (3, 224),
    "lenet_mnist": (1, 28),
    "efficientnet_lite0": (3, 224),
}
# C, O, size, batch, kernel_size, padding: those of catdog_notebook, catdog_wide and lenet_mnist.
_CONVOLUTIONS = """
    3 64 256 20 3 0     64 128 127 20 3 0   128 256 62 20 3 0   256 256 30 20 3 0
    256 512 14 20 3 0   512 512 6 20 3 0
    64 512 112 8 3 1    512 512 56 8 3 1    512 512 28 8 3 1    512 512 14 8 3 1
    512 512 7 8 3 1
    1 6 28 64 5 0       6 16 12 64 5 0
"""


def _all() -> Iterator[Workload]:
    def on(network: str, batch: int) -> tuple[Any, ...]:
        C, size = _INPUTS[network]
        return network, {"size": size}, (batch, C, size, size)

    for network, batch in (("catdog_notebook", 20), ("catdog", 20), ("catdog_wide", 8)):
        yield Workload(f"train-{network}", "train", *on(network, batch))
    for batch in (4, 64, 256):
        yield Workload(f"train-lenet-{batch}", "train", *on("lenet_mnist", batch))
    yield Workload("train-efficientnet_lite0-16", "train", *on("efficientnet_lite0", 16))
    for network in _INPUTS:
        for batch in (32, 1):
            yield Workload(f"infer-{network}-{batch}", "infer", *on(network, batch), "batch")
    numbers = map(int, _CONVOLUTIONS.split())
    for C, O, size, N, K, P in zip(*[numbers] * 6, strict=True):
        options = {"in_channels": C, "out_channels": O, "kernel_size": K, "padding": P}
        shape = (N, C, size, size)
        yield Workload(f"conv-{C}-{O}-{size}-b{N}", "conv", "conv", options, shape, "call")
    # A tenth of an epoch is measured and told as a whole one.
    tenth = MNIST_STEPS / 15_000
    yield Workload("mnist-epoch", "mnist", *on("lenet_mnist", 4), "epoch", tenth, "mnist")
    yield Workload("loader", "photos", unit="photo", units=PHOTOS, data="cats_vs_dogs")


WORKLOADS = {workload.name: workload for workload in _all()}


def gpu_workloads() -> dict[str, Workload]:
    """The workloads on a GPU, those first that matter most: a run may end before the last."""
    found = {}
    training = [("lenet_mnist", 4), ("lenet_mnist", 256)]
    training += [("catdog_notebook", 20), ("catdog_notebook", 128), ("catdog_wide", 32)]
    training += [("catdog", 20), ("catdog", 128)]
    networks = ("catdog_notebook", "catdog", "catdog_wide", "lenet_mnist")
    inference = [(network, batch) for network in networks for batch in (32, 1)]
    for kind, cases, unit in (("train", training, "step"), ("infer", inference, "batch")):
        for precision in ("tf32", "mixed", "float32"):
            for network, batch in cases:
                C, size = _INPUTS[network]
                name = f"{kind}-{network}-{batch}-{precision}"
                found[name] = Workload(
                    name, kind, network, {"size": size}, (batch, C, size, size), unit,
                    backend="cupy", precision=precision,
                )  # fmt: skip
    return found


def blocks(batch: int = 8, size: int = 64, channels: int = 32) -> Workload:
    """A training step of a small network, two times convolution + batch norm + ReLU + pool."""
    options = {"size": size, "channels": channels}
    name = f"blocks-b{batch}-s{size}-c{channels}"
    return Workload(name, "train", "blocks", options, (batch, 3, size, size))
