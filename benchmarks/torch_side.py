"""The workloads in PyTorch, each in the form that serves it best."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks import torch_models
from benchmarks.workloads import (
    CORES,
    LR,
    MNIST_STEPS,
    PHOTO_BATCH,
    PHOTO_SIZE,
    Case,
    Workload,
    losses,
)

torch.set_num_threads(CORES)


def build(workload: Workload, configuration: str, folder: Path) -> Case:
    """The workload with the weights and inputs that the driver wrote to `folder`."""
    if workload.kind == "photos":
        return _photos(folder)
    if configuration.endswith("-1-thread"):
        torch.set_num_threads(1)
        configuration = configuration.removesuffix("-1-thread")
    model = torch_models.create(workload.network, workload.options)
    model.load_state_dict(_tensors(folder / "weights.npz"))
    inputs = _tensors(folder / "inputs.npz")
    # Inductor lays out convolutions with the channels last by itself; given them so, it need not.
    if configuration in ("torch-channels-last", "torch-compile"):
        model = model.to(memory_format=torch.channels_last)
        for name, x in inputs.items():
            if x.ndim == 4:
                inputs[name] = x.contiguous(memory_format=torch.channels_last)
    make = {"train": _train, "infer": _infer, "conv": _conv, "mnist": _mnist}[workload.kind]
    return make(workload, configuration, model, inputs)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(path).items()}


def _maybe_compiled(configuration: str, function: Any) -> Any:
    return torch.compile(function) if configuration == "torch-compile" else function


def _step(
    configuration: str, model: torch.nn.Module, prepare: Callable = lambda images: images
) -> Callable:
    """The training step of (images, labels), which returns the loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(prepare(images)), labels)

    loss_of = _maybe_compiled(configuration, loss_of)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _train(workload: Workload, configuration: str, model: torch.nn.Module, inputs: dict) -> Case:
    for module in model.modules():  # the random numbers would be others in each framework
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images, labels = inputs["images"], inputs["labels"]
    step = _step(configuration, model)
    return Case(lambda: step(images, labels), lambda: losses(step, images, labels))


def _infer(workload: Workload, configuration: str, model: torch.nn.Module, inputs: dict) -> Case:
    # Inductor then folds batch norms into the weights and lays these out anew.
    os.environ["TORCHINDUCTOR_FREEZING"] = "1"
    forward = _maybe_compiled(configuration, model.eval())

    @torch.inference_mode()
    def call() -> torch.Tensor:
        return forward(inputs["images"])

    return Case(call, lambda: {"logits": call().numpy()})


def _conv(workload: Workload, configuration: str, model: torch.nn.Module, inputs: dict) -> Case:
    x, leaves = inputs["images"], dict(model.named_parameters())
    if workload.input_gradient:
        leaves["input"] = x.requires_grad_()

    def call() -> tuple[torch.Tensor, ...]:
        y = model(x)
        return y, *torch.autograd.grad(y, list(leaves.values()), inputs["gradient"])

    def check() -> dict[str, np.ndarray]:
        found = zip(("output", *leaves), call(), strict=True)
        return {name: tensor.detach().numpy() for name, tensor in found}

    return Case(call, check)


def _mnist(workload: Workload, configuration: str, model: torch.nn.Module, inputs: dict) -> Case:
    digits, labels, N = inputs["digits"].unsqueeze(1), inputs["labels"], workload.shape[0]
    step = _step(configuration, model, lambda x: x * (2 / 255) - 1)  # mean and std 0.5, in short
    loader = DataLoader(TensorDataset(digits, labels), N, shuffle=True)

    def epoch() -> Iterator[Any]:
        if configuration == "torch-dataloader":
            return iter(loader)
        return ((digits[chosen], labels[chosen]) for chosen in torch.randperm(len(digits)).split(N))

    batches = chain.from_iterable(epoch() for _ in repeat(None))
    return Case(
        lambda: sum(step(*batch).item() for batch in islice(batches, MNIST_STEPS)),
        lambda: losses(step, digits[:N], labels[:N]),
    )


class Photos(Dataset):
    """Photos as tinyconv's loader gives them: uint8 (H, W, C), flipped and shifted at random."""

    def __init__(self, root: Path) -> None:
        self.paths = sorted(root.glob("*/*.jpg"), key=str)
        classes = sorted({path.parent.name for path in self.paths})
        self.labels = [classes.index(path.parent.name) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """Photo `index` as it is."""
        with Image.open(self.paths[index]) as image:
            image.draft("RGB", (2 * PHOTO_SIZE, 2 * PHOTO_SIZE))
            photo = image.convert("RGB")
        return np.array(photo.resize((PHOTO_SIZE, PHOTO_SIZE), Image.Resampling.BILINEAR))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        photo, border = self.read(index), PHOTO_SIZE // 16
        if torch.rand(()) < 0.5:
            photo = photo[:, ::-1]
        photo = np.pad(photo, ((border,) * 2, (border,) * 2, (0, 0)))
        top, left = torch.randint(2 * border + 1, (2,)).tolist()
        photo = photo[top : top + PHOTO_SIZE, left : left + PHOTO_SIZE]
        return torch.from_numpy(photo), self.labels[index]


def _photos(folder: Path) -> Case:
    dataset = Photos(folder / "photos")
    loader = DataLoader(dataset, PHOTO_BATCH, True, num_workers=2, persistent_workers=True)

    def check() -> dict[str, np.ndarray]:
        photos = np.stack([dataset.read(i) for i in range(PHOTO_BATCH)])
        return {"photos": photos.astype(np.float32)}

    return Case(lambda: sum(len(labels) for _, labels in loader), check)
