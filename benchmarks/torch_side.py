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
    INITIAL_SCALE,
    LR,
    MNIST_STEPS,
    PHOTO_BATCH,
    PHOTO_SIZE,
    Case,
    Workload,
    losses,
)
from tinyconv.compiler.record import Call
from tinyconv.ops.conv import Conv2d

torch.set_num_threads(CORES)


# torch.compile's modes. The last also tries more kernels for each product and convolution.
MODES = {
    "torch-compile": "default",
    "torch-compile-reduce-overhead": "reduce-overhead",
    "torch-compile-max-autotune": "max-autotune",
}


def build(workload: Workload, configuration: str, folder: Path, device: str | None = None) -> Case:
    """The workload with the weights and inputs that the driver wrote to `folder`."""
    if workload.kind == "photos":
        return _photos(folder)
    if configuration.endswith("-1-thread"):
        torch.set_num_threads(1)
        configuration = configuration.removesuffix("-1-thread")
    device = device or ("cuda" if workload.backend == "cupy" else "cpu")
    if workload.backend == "cupy":
        # Tries cuDNN's algorithms on the first call of each shape and keeps the fastest.
        torch.backends.cudnn.benchmark = True
        use_precision(workload.precision)
    model = torch_models.create(workload.network, workload.options)
    model.load_state_dict(_tensors(folder / "weights.npz"))
    model = model.to(device)
    inputs = {name: x.to(device) for name, x in _tensors(folder / "inputs.npz").items()}
    if workload.precision == "mixed":
        inputs["images"] = inputs["images"].half()
    # Inductor lays out convolutions with the channels last by itself; given them so, it need not.
    if configuration.endswith("-channels-last") or configuration in MODES:
        model = model.to(memory_format=torch.channels_last)
        for name, x in inputs.items():
            if x.ndim == 4:
                inputs[name] = x.contiguous(memory_format=torch.channels_last)
    make = {"train": _train, "infer": _infer, "conv": _conv, "mnist": _mnist}[workload.kind]
    case = make(workload, configuration, model, inputs)
    if device == "cuda":
        cuda = torch.cuda
        return case._replace(wait=cuda.synchronize, device_mib=_device_mib, rest=cuda.empty_cache)
    return case


def use_precision(precision: str) -> None:
    """Multiply float32 numbers in TF32, unless `precision` is float32.

    By the older of two sets of names: PyTorch 2.9 to 2.11 read those when they compile, and refuse
    to where the newer ones were used; later versions may lack them.
    """
    tf32 = precision != "float32"
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "allow_tf32") and hasattr(cudnn, "allow_tf32"):
        matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    else:
        matmul.fp32_precision = cudnn.conv.fp32_precision = "tf32" if tf32 else "ieee"


def product(x: np.ndarray, w: np.ndarray, precision: str) -> Callable[[], Any] | None:
    """What multiplies x and w^T by cuBLAS in `precision`; None where PyTorch finds no GPU."""
    if not torch.cuda.is_available():
        return None
    use_precision(precision)
    dtype = torch.float16 if precision == "mixed" else torch.float32
    ours, theirs = (torch.from_numpy(a).to("cuda", dtype) for a in (x, w))
    return lambda: ours @ theirs.T


def seconds_of(call: Call, precision: str) -> float | None:
    """How long a convolution or linear layer takes, captured; None where PyTorch finds no GPU."""
    if not torch.cuda.is_available():
        return None
    torch.backends.cudnn.benchmark = True
    use_precision(precision)
    captured, times = _Captured(layer(call, precision, "cuda")), []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        captured()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    del captured
    torch.cuda.empty_cache()
    return float(np.median(times[1:]))


def layer(call: Call, precision: str, device: str) -> Callable[[], Any]:
    """What computes a convolution's or linear layer's y, or those gradients that a call needs.

    On normally distributed numbers, channels last, in mixed precision all of float16.
    """
    dtype = torch.float16 if precision == "mixed" else torch.float32

    def noise(value: Any) -> Any:
        if value is None:
            return None
        x = torch.randn(value.shape, dtype=dtype, device=device)
        return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x

    op = call.op
    if call.direction == "forward":
        x, w, b = map(noise, call.inputs)
        if isinstance(op, Conv2d):
            return lambda: F.conv2d(x, w, b, op.stride, op.padding, op.dilation, op.groups)
        return lambda: F.linear(x, w, b)
    (gy,), (x, w), needs = map(noise, call.inputs), map(noise, call.saved), call.needs
    if isinstance(op, Conv2d):
        window = (op.stride, op.padding, op.dilation, False, (0, 0), op.groups)
        backward = torch.ops.aten.convolution_backward
        return lambda: backward(gy, x, w, w.shape[:1], *window, needs)
    return lambda: (
        gy @ w if needs[0] else None,
        gy.T @ x if needs[1] else None,
        gy.sum(0) if needs[2] else None,
    )


def _device_mib() -> float:
    return torch.cuda.max_memory_reserved() / 2**20


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(path).items()}


def _maybe_compiled(configuration: str, function: Any) -> Any:
    if configuration in MODES:
        return torch.compile(function, mode=MODES[configuration])
    return function


class _Captured:
    """A function as a CUDA graph, captured by the first call; it gives the same tensor each time.

    Before the capture it is called on another stream, as PyTorch asks for: that chooses algorithms
    and makes the optimiser's state. `rewind` undoes what these calls did.
    """

    def __init__(self, function: Callable, rewind: Callable[[], None] = lambda: None) -> None:
        self.function, self.rewind = function, rewind
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: Any = None

    def __call__(self) -> torch.Tensor:
        if self.graph is None:
            self._capture()
        self.graph.replay()
        return self.result

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.function()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = self.function()
        self.rewind()


def _step(
    configuration: str,
    model: torch.nn.Module,
    prepare: Callable = lambda images: images,
    precision: str = "float32",
) -> tuple[Callable, torch.optim.Optimizer]:
    """The training step of (images, labels), which returns the loss; and its optimiser."""
    optimizer = torch.optim.Adam(
        model.parameters(), lr=LR, fused=True, capturable=configuration.startswith("torch-graph")
    )
    device = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(device, init_scale=INITIAL_SCALE)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(prepare(images)), labels)

    def loss_in_half(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.float16):
            return F.cross_entropy(model(prepare(images)), labels)

    loss_of = _maybe_compiled(configuration, loss_in_half if precision == "mixed" else loss_of)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, labels)
        if precision == "mixed":
            scaler.scale(loss).backward()
            scaler.step(optimizer)  # the fused Adam divides by the scale: nothing waits for the GPU
            scaler.update()
        else:
            loss.backward()
            optimizer.step()
        return loss.detach()

    return step, optimizer


def _train(workload: Workload, configuration: str, model: torch.nn.Module, inputs: dict) -> Case:
    for module in model.modules():  # the random numbers would be others in each framework
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images, labels = inputs["images"], inputs["labels"]
    step, optimizer = _step(configuration, model, precision=workload.precision)
    call = lambda: step(images, labels)  # noqa: E731
    if configuration.startswith("torch-graph"):
        initial = [tensor.clone() for tensor in model.state_dict().values()]
        call = _Captured(call, lambda: _rewind(model, initial, optimizer))
    return Case(call, lambda: losses(lambda *_: call(), images, labels))


@torch.no_grad()
def _rewind(
    model: torch.nn.Module, initial: list[torch.Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Undo all steps, in the memory that a captured graph goes on working on."""
    for tensor, before in zip(model.state_dict().values(), initial, strict=True):
        tensor.copy_(before)
    for state in optimizer.state.values():
        for tensor in state.values():
            tensor.zero_()


def _infer(workload: Workload, configuration: str, model: torch.nn.Module, inputs: dict) -> Case:
    # Inductor then folds batch norms into the weights and lays these out anew.
    os.environ["TORCHINDUCTOR_FREEZING"] = "1"
    if workload.precision == "mixed":  # weights too: autocast would convert them in every call
        model = model.half()
    forward = _maybe_compiled(configuration, model.eval())

    @torch.inference_mode()
    def call() -> torch.Tensor:
        return forward(inputs["images"])

    if configuration.startswith("torch-graph"):
        call = _Captured(call)
    return Case(call, lambda: {"logits": call().float().cpu().numpy()})


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
    step, _ = _step(configuration, model, lambda x: x * (2 / 255) - 1)  # mean and std 0.5, in short
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
