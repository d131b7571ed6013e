"""What goes on inside a network for given images, as NumPy arrays.

All of it runs the network in evaluation mode and leaves it as it was: modes, hooks, gradients of
the weights. `images` are what the network takes, normalised, (N, C, H, W).
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from tinyconv.errors import ShapeError
from tinyconv.nn import Conv2d, Module
from tinyconv.tensor import Tensor, no_grad


def feature_maps(
    model: Module, images: Any, layers: str | Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """The outputs of layers under the layers' names, in the order in which they are computed.

    `layers` are names of `model.named_modules()`, in which `*` and `?` stand for any characters;
    None means all convolutions, whose maps are (N, channels, h, w). A layer that is applied several
    times (shared weights) has an entry for each: "name", "name#2", ... Raises ValueError for a name
    that no layer has, and for layers that the network does not use.
    """
    with _undisturbed(model), no_grad():
        _, calls = _run(model, _images(images), layers)
    return {call.name: call.output.numpy() for call in calls}


def input_gradient(model: Module, images: Any, target: int | None = None) -> np.ndarray:
    """The gradient of a class's logit with respect to the images, (N, C, H, W).

    `target` is the number of the class; None takes for each image the one that the network
    predicts. The maximum over the channels of its absolute value is the saliency map of Simonyan et
    al., 2013. Raises ValueError for a class that the network does not have.
    """
    with _undisturbed(model):
        pixels = _images(images, requires_grad=True)
        return _gradient(model(pixels), target, pixels)


def grad_cam(
    model: Module, images: Any, target: int | None = None, layer: str | None = None
) -> np.ndarray:
    """Where in the images a layer's maps speak for a class: Grad-CAM, (N, h, w), from 0 upwards.

    relu(sum_k a_k A_k), where A_k are the layer's maps and a_k is the mean over the pixels of the
    gradient of the class's logit with respect to A_k (Selvaraju et al., 2017). `layer` is by
    default the last convolution whose maps are larger than a pixel, together with the batch norm
    and activation that follow it; of a layer that is applied several times, the last application.
    `target` as in input_gradient. Raises ValueError for a class or layer that the network does not
    have, ShapeError for a layer that gives no maps.
    """
    with _undisturbed(model):
        pixels = _images(images, requires_grad=True)
        logits, calls = _run(model, pixels, layer or "*")
        name, _, maps = calls[-1] if layer else _last_convolution(calls)
        if maps.ndim != 4:
            raise ShapeError(f"grad_cam: layer {name!r} gives {maps.shape}, expected (N, C, H, W)")
        weights = _gradient(logits, target, maps).mean(axis=(2, 3), keepdims=True)
    return np.maximum((weights * maps.numpy()).sum(axis=1), 0)


@contextlib.contextmanager
def _undisturbed(model: Module) -> Iterator[None]:
    """Evaluation mode and no gradients of weights; afterwards both are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad) for weight in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, requires_grad in weights:
            weight.requires_grad = requires_grad


def _images(images: Any, requires_grad: bool = False) -> Tensor:
    return Tensor(images.data if isinstance(images, Tensor) else images, requires_grad)


class _Call(NamedTuple):
    """One application of a layer, with its name, numbered from the second one on."""

    name: str
    layer: Module
    output: Tensor


def _run(
    model: Module, images: Tensor, names: str | Sequence[str] | None
) -> tuple[Tensor, list[_Call]]:
    """The network's output, and the calls of the named layers in the order of their ends."""
    calls: list[_Call] = []
    times: Counter[str] = Counter()

    def watch(name: str) -> Callable[[Module, Any, Any], None]:
        def note(layer: Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):  # a module may also return several
                times[name] += 1
                number = f"#{times[name]}" if times[name] > 1 else ""
                calls.append(_Call(name + number, layer, output))

        return note

    layers = _named(model, names)
    with contextlib.ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(watch(name)).remove)
        output = model(images)
    if layers and not calls:
        raise ValueError(f"layers: the network has {', '.join(layers)}, and does not use it")
    return output, calls


def _named(model: Module, names: str | Sequence[str] | None) -> dict[str, Module]:
    """The layers with these names; None: the convolutions."""
    every = {name: layer for name, layer in model.named_modules() if name}
    if names is None:
        return {name: layer for name, layer in every.items() if isinstance(layer, Conv2d)}
    found: dict[str, Module] = {}
    for pattern in [names] if isinstance(names, str) else names:
        matching = {name: every[name] for name in every if fnmatchcase(name, pattern)}
        if not matching:
            more = f" and {len(every) - 40} more" if len(every) > 40 else ""
            known = ", ".join(list(every)[:40]) + more
            raise ValueError(f"layers: {pattern!r} found, expected some of {known}")
        found |= matching
    return found


def _last_convolution(calls: list[_Call]) -> _Call:
    """The last one that still tells places apart, or what follows it as long as the shape stays."""
    places = [
        place
        for place, (_, layer, output) in enumerate(calls)
        if isinstance(layer, Conv2d) and output.shape[2:] != (1, 1)
    ]
    if not places:
        raise ValueError("grad_cam: no convolution gives maps of more than a pixel; name a layer")
    following = calls[places[-1] :]
    shape = following[0].output.shape
    return list(itertools.takewhile(lambda call: call.output.shape == shape, following))[-1]


def _gradient(logits: Any, target: int | None, x: Tensor) -> np.ndarray:
    """Of one class's logit of each image, `target` or the largest one, with respect to x."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = getattr(logits, "shape", type(logits).__name__)
        raise ShapeError(f"the network gives {found}, expected one tensor (N, classes)")
    classes = logits.shape[1]
    if target is not None and not 0 <= target < classes:
        raise ValueError(f"target: {target} found, expected a class from 0 to {classes - 1}")
    chosen = logits.numpy().argmax(axis=1) if target is None else target
    one_hot = np.zeros(logits.shape, logits.dtype)
    one_hot[np.arange(len(one_hot)), chosen] = 1
    x.retain_grad()
    logits.backward(one_hot)
    return np.zeros(x.shape, x.dtype) if x.grad is None else x.grad.numpy()
