"""The workloads in tinyconv."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv
from benchmarks import device
from benchmarks.workloads import (
    INITIAL_SCALE,
    LR,
    MNIST_STEPS,
    PHOTO_BATCH,
    PHOTO_SIZE,
    Case,
    Workload,
    data_folder,
    losses,
)
from tinyconv import functional as F
from tinyconv import nn

Wrap = Callable[[Callable], Callable]


def create(name: str, options: dict[str, Any]) -> nn.Module:
    """The network that `name` and `options` mean in a workload."""
    special = {"conv": nn.Conv2d, "blocks": blocks}
    return special[name](**options) if name in special else tinyconv.models.create(name, **options)


def blocks(size: int, channels: int) -> nn.Module:
    """Two times convolution, batch norm, ReLU and pool; then 2 classes."""
    layers: list[nn.Module] = []
    for C in (3, channels):
        layers += [nn.Conv2d(C, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (size // 4) ** 2, 2))


def build(workload: Workload, configuration: str, folder: Path) -> Case:
    """The workload with the weights and inputs that the driver wrote to `folder`."""
    if workload.kind == "photos":
        return _photos(folder)
    on_gpu = workload.backend == "cupy"
    if on_gpu:
        tf32 = workload.precision != "float32"
        tinyconv.use_backend("cupy", precision="tf32" if tf32 else "float32")
    wrap: Wrap = lambda function: function  # noqa: E731
    if configuration == "tinyconv-compiled":
        wrap = tinyconv.compile
    model = create(workload.network, workload.options)
    model.load_state_dict(dict(np.load(folder / "weights.npz")))
    inputs = dict(np.load(folder / "inputs.npz"))
    if workload.precision == "mixed":
        inputs["images"] = inputs["images"].astype(np.float16)
    inputs = {
        name: channels_last(x) if x.ndim == 4 else tinyconv.backend.asarray(x)
        for name, x in inputs.items()
    }
    make = {"train": _train, "infer": _infer, "conv": _conv, "mnist": _mnist}[workload.kind]
    case = make(workload, model, inputs, wrap)
    if on_gpu:
        return case._replace(wait=tinyconv.backend.synchronize, device_mib=device.memory_mib)
    return case


def channels_last(x: np.ndarray) -> tinyconv.backend.Array:
    """The same (N, C, H, W), channels next to each other in memory, on the backend in use."""
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return tinyconv.backend.asarray(x).transpose(0, 3, 1, 2)


def training_step(
    model: nn.Module,
    wrap: Wrap,
    prepare: Callable = lambda images: images,
    precision: str = "float32",
) -> Callable:
    """The training step of (images, labels), which returns the loss; mixed takes float16 images."""
    optimizer = tinyconv.optim.Adam(model.parameters(), lr=LR)
    scaler = tinyconv.optim.LossScaler(INITIAL_SCALE) if precision == "mixed" else None

    def step(images: Any, labels: Any) -> tinyconv.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(prepare(images)), labels)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss

    return wrap(step)


def _train(workload: Workload, model: nn.Module, inputs: dict, wrap: Wrap) -> Case:
    for module in model.modules():  # the random numbers would be others in each framework
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, labels = inputs["images"], inputs["labels"]
    step = training_step(model, wrap, precision=workload.precision)
    return Case(lambda: step(images, labels), lambda: losses(step, images, labels))


def _infer(workload: Workload, model: nn.Module, inputs: dict, wrap: Wrap) -> Case:
    model.eval()
    forward = wrap(lambda images: model(images))

    @tinyconv.no_grad()
    def call() -> tinyconv.Tensor:
        return forward(inputs["images"])

    return Case(call, lambda: {"logits": call().numpy().copy()})


def _conv(workload: Workload, model: nn.Module, inputs: dict, wrap: Wrap) -> Case:
    x = tinyconv.Tensor(inputs["images"], workload.input_gradient)

    def call() -> tinyconv.Tensor:
        model.zero_grad()
        x.grad = None
        y = model(x)
        y.backward(inputs["gradient"])
        return y

    def check() -> dict[str, np.ndarray]:
        found = {"output": call(), "weight": model.weight.grad, "bias": model.bias.grad}
        if workload.input_gradient:
            found["input"] = x.grad
        return {name: tensor.numpy() for name, tensor in found.items()}

    return Case(call, check)


def _mnist(workload: Workload, model: nn.Module, inputs: dict, wrap: Wrap) -> Case:
    dataset, N = tinyconv.data.mnist(data_folder("mnist")), workload.shape[0]
    step = training_step(model, wrap, lambda images: F.normalize_image(images, (0.5,), (0.5,)))
    loader = tinyconv.data.Loader(dataset, N, shuffle=True)
    batches = chain.from_iterable(map(loader.epoch, count()))
    # The loss is read after each step, as by any loop that shows it.
    return Case(
        lambda: sum(step(b.images, b.labels).item() for b in islice(batches, MNIST_STEPS)),
        lambda: losses(step, dataset.images[:N], dataset.labels[:N]),
    )


def _photos(folder: Path) -> Case:
    data = tinyconv.data
    # cache_bytes=0: reading and decoding is what is measured.
    dataset = data.ImageFolder(folder / "photos", PHOTO_SIZE, cache_bytes=0)
    augment = data.Compose(
        [data.RandomHorizontalFlip(), data.RandomCrop(PHOTO_SIZE, padding=PHOTO_SIZE // 16)]
    )
    loader = data.Loader(dataset, PHOTO_BATCH, shuffle=True, augment=augment, workers=2)
    epochs = map(loader.epoch, count())

    def check() -> dict[str, np.ndarray]:
        first = np.argsort([str(path) for path in dataset.paths])[:PHOTO_BATCH]
        return {"photos": dataset.gather(first).astype(np.float32)}

    return Case(lambda: sum(len(batch.labels) for batch in next(epochs)), check)
