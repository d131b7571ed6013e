"""summary: figures of known networks, shared and frozen weights, timing that changes nothing."""

import importlib
import json

import numpy
import pytest

import tinyconv
from tinyconv import functional as F
from tinyconv import models, nn
from tinyconv.backend import random_state


def by_path(figures):
    return {layer.path: layer for layer in figures.layers}


# Figures by hand ----------------------------------------------------------------------------------


def test_lenet(backend):
    figures = tinyconv.summary(models.create("lenet_mnist"), (1, 28, 28), batch_size=2)
    first, second = 24 * 24 * 6 * 25, 8 * 8 * 16 * 6 * 25
    linear = 256 * 120 + 120 * 84 + 84 * 10
    assert figures.mult_adds == 2 * (first + second + linear)
    assert figures.parameters == 6 * 26 + 16 * 151 + linear + 120 + 84 + 10 == 44_426
    assert (figures.trainable, figures.frozen, figures.unused) == (44_426, 0, 0)
    assert figures.parameter_memory == 4 * 44_426
    assert figures.input_memory == 4 * 2 * 28 * 28
    layer = by_path(figures)["3"]
    assert (layer.kind, layer.depth, layer.reused) == ("Conv2d", 1, False)
    assert layer.output_shapes == [(2, 16, 8, 8)]
    assert (layer.parameters, layer.mult_adds) == (16 * 151, 2 * second)
    assert by_path(figures)["1"].mult_adds == 0  # ReLU
    assert (figures.forward_ms, figures.backward_ms) == (0, 0)


def test_vgg16(monkeypatch):
    """138,357,544 parameters and 15.47 G multiply-adds, as published."""
    for layer in ("conv", "linear"):  # drawing the weights would take longer than all the rest
        module = importlib.import_module(f"tinyconv.nn.{layer}")
        zeros = lambda shape, _: nn.Parameter(numpy.zeros(shape, numpy.float32))  # noqa: E731
        monkeypatch.setattr(module, "uniform_fan_in", zeros)
    figures = tinyconv.summary(models.create("vgg16"), (3, 224, 224))
    assert figures.parameters == 138_357_544
    widths = [(224, 3, 64), (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 128, 256)]
    widths += [(56, 256, 256)] * 2 + [(28, 256, 512)] + [(28, 512, 512)] * 2 + [(14, 512, 512)] * 3
    convolutions = sum(side**2 * inputs * 9 * outputs for side, inputs, outputs in widths)
    linear = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert figures.mult_adds == convolutions + linear == 15_470_264_320


def test_grouped_convolutions_and_products_outside_of_layers():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
            self.scale = nn.Parameter(numpy.ones((12, 12, 1, 1), numpy.float32))

        def forward(self, x):
            y = F.conv2d(self.depthwise(x), self.scale)
            return F.flatten(y, 2) @ numpy.ones((25, 4), numpy.float32)

    figures = tinyconv.summary(Products(), (6, 5, 5))
    outer, inner = figures.layers
    assert inner.mult_adds == 25 * 12 * 9
    assert outer.mult_adds == 25 * 12 * 12 + 12 * 25 * 4
    assert (outer.parameters, inner.parameters) == (144, 12 * 10)
    assert outer.output_shapes == [(1, 12, 4)]


def test_memory_is_that_of_results_and_of_what_backward_needs():
    figures = tinyconv.summary(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), (1, 10, 10))
    _, convolution, flatten = figures.layers
    assert convolution.memory >= 4 * 4 * 64
    assert flatten.memory in (0, 4 * 4 * 64)  # the same memory, where the result allows it
    assert figures.forward_memory == convolution.memory + flatten.memory


# Shared, frozen and unused weights ----------------------------------------------------------------


def test_shared_weights_are_counted_once():
    model = models.create("catdog_wide", size=64)
    figures = tinyconv.summary(model, (3, 64, 64))
    repeated = [layer for layer in figures.layers if layer.path == "8.block.0"]
    assert [layer.parameters for layer in repeated] == [512 * (512 * 9 + 1), 0, 0, 0]
    assert [layer.reused for layer in repeated] == [False, True, True, True]
    assert [layer.output_shapes[0][-1] for layer in repeated] == [16, 8, 4, 2]
    work = [side**2 * 512 * 512 * 9 for side in (16, 8, 4, 2)]
    assert [layer.mult_adds for layer in repeated] == work
    assert figures.parameters == sum(p.data.size for p in model.parameters())
    assert figures.unused == 0
    assert str(figures).count("(reused)") == 3 * 3  # the block, its convolution, its batch norm


def test_a_weight_of_two_layers():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    figures = tinyconv.summary(nn.Sequential(first, second, nn.ReLU()), (4,))
    assert [layer.parameters for layer in figures.layers] == [0, 16, 0, 0]
    assert [layer.reused for layer in figures.layers] == [False, False, True, False]


def test_frozen_and_unused_weights():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2)).freeze("0", "1.bias")
    model[2].extra = nn.Linear(5, 5)
    figures = tinyconv.summary(model, (4,))
    assert (figures.parameters, figures.frozen) == (15 + 8 + 6 + 30, 17)
    assert figures.unused == 30
    text = str(figures)
    assert "15 frozen" in text
    assert "8, 2 frozen" in text
    assert "59: 42 trainable, 17 frozen, 30 in no layer that was called" in text


# The table ----------------------------------------------------------------------------------------


def nested():
    inner = nn.Sequential({"a": nn.Linear(4, 4), "b": nn.ReLU()})
    return nn.Sequential({"first": nn.Sequential({"in": inner, "out": nn.Tanh()}), "last": inner})


TABLE = """\
layer                 output shape   parameters   mult-adds
───────────────────────────────────────────────────────────
Sequential            (1, 4)
├─ first Sequential   (1, 4)
│  ├─ in Sequential   (1, 4)
│  │  ├─ a Linear     (1, 4)                 20          16
│  │  └─ b ReLU       (1, 4)
│  └─ out Tanh        (1, 4)
└─ last Sequential    (1, 4)           (reused)
   ├─ a Linear        (1, 4)           (reused)          16
   └─ b ReLU          (1, 4)

parameters  20: 20 trainable, 0 frozen
mult-adds   32
memory      input 0.00 MB, forward pass 0.00 MB, parameters 0.00 MB"""


def test_table():
    assert str(tinyconv.summary(nested(), (4,))) == TABLE


def test_deeper_layers_are_counted_in_the_one_that_holds_them():
    text = str(tinyconv.summary(nested(), (4,), depth=1)).splitlines()
    assert text[2:5] == [
        "Sequential            (1, 4)",
        "├─ first Sequential   (1, 4)                 20          16",
        "└─ last Sequential    (1, 4)           (reused)          16",
    ]
    (only,) = str(tinyconv.summary(nested(), (4,), depth=0)).splitlines()[2:3]
    assert only.split() == ["Sequential", "(1,", "4)", "20", "32"]


def test_a_functional_model_with_several_inputs_and_outputs():
    x, extra = nn.Input((1, 4, 4)), nn.Input((3,))
    maps = nn.Conv2d(1, 2, 3)(x)
    both = nn.Concatenate()(nn.Flatten()(maps), extra)
    model = nn.Model([x, extra], [both, maps + 1])
    figures = tinyconv.summary(model, [(1, 4, 4), (3,)], batch_size=5, timing=True)
    assert figures.layers[0].output_shapes == [(5, 11), (5, 2, 2, 2)]
    assert [layer.path for layer in figures.layers] == [
        "", "conv2d_1", "flatten_1", "concatenate_1", "add_1",
    ]  # fmt: skip
    assert "(5, 11), (5, 2, 2, 2)" in str(figures)


@pytest.mark.parametrize("timing", [False, True])
def test_layers_that_return_dictionaries_and_nested_tuples(timing):
    class Parts(nn.Module):
        def forward(self, x):
            return {"a": x, "more": (x[:, :1], [x[:, 1:], None])}

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.parts = nn.Linear(4, 3), Parts()

        def forward(self, x):
            return self.parts(self.first(x))

    figures = tinyconv.summary(Whole(), (4,), timing=timing)
    assert by_path(figures)["parts"].output_shapes == [(1, 3), (1, 1), (1, 2)]
    assert figures.layers[0].output_shapes == [(1, 3), (1, 1), (1, 2)]
    assert (figures.backward_ms > 0) == timing


def test_json():
    figures = tinyconv.summary(models.create("lenet_mnist"), (1, 28, 28), timing=True)
    plain = json.loads(json.dumps(figures.to_dict()))
    assert plain["mult_adds"] == figures.mult_adds
    assert plain["layers"][1]["output_shapes"] == [[1, 6, 24, 24]]


# Timing -------------------------------------------------------------------------------------------


def training_network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(144, 2),
    )  # fmt: skip


def test_timing_covers_forward_and_backward():
    figures = tinyconv.summary(training_network(), (1, 8, 8), batch_size=4, timing=True)
    assert all(layer.forward_ms > 0 for layer in figures.layers[1:])
    assert all(layer.backward_ms > 0 for layer in figures.layers[1:])
    total = sum(layer.backward_ms for layer in figures.layers)
    assert figures.backward_ms == pytest.approx(total)
    text = str(figures)
    assert "backward ms" in text
    assert "the operations of an eager pass, median of 3" in text
    frozen = tinyconv.summary(training_network().freeze(), (1, 8, 8), timing=True)
    assert frozen.forward_ms > 0
    assert frozen.backward_ms == 0


def test_without_gradients_there_is_no_backward():
    note = "no backward, as nothing gets a gradient"
    assert note not in str(tinyconv.summary(training_network(), (1, 8, 8), timing=True))
    frozen = training_network().freeze()
    assert note in str(tinyconv.summary(frozen, (1, 8, 8), timing=True))
    with tinyconv.no_grad():
        figures = tinyconv.summary(training_network(), (1, 8, 8), timing=True)
    assert note in str(figures)
    assert "backward 0.00 ms" not in str(figures)


@pytest.mark.parametrize("timing", [False, True])
def test_nothing_of_the_network_changes(timing):
    model = training_network().freeze("1")
    model[3].eval()
    model[0].weight.grad = gradient = tinyconv.Tensor(numpy.ones((4, 1, 3, 3), numpy.float32))
    state, random = model.state_dict(), random_state()
    modes = [module.training for module in model.modules()]
    tinyconv.summary(model, (1, 8, 8), batch_size=2, timing=timing)
    assert all(numpy.array_equal(array, state[key]) for key, array in model.state_dict().items())
    assert random_state() == random
    assert [module.training for module in model.modules()] == modes
    assert model[0].weight.grad is gradient
    assert numpy.array_equal(gradient.numpy(), numpy.ones((4, 1, 3, 3)))
    assert model[5].weight.grad is None
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(tinyconv.ShapeError, match="layer '5' Linear"):
        tinyconv.summary(model, (1, 9, 9), timing=timing)
    assert [module.training for module in model.modules()] == modes
    assert calls == []
    model(numpy.zeros((2, 1, 8, 8), numpy.float32))  # no listener is left behind
    assert calls == [1]
    assert all(len(module._forward_hooks) <= (module is model) for module in model.modules())


def test_arguments():
    model = nn.ReLU()
    with pytest.raises(ValueError, match="batch_size: 0 found, expected 1 or more"):
        tinyconv.summary(model, (1, 8, 8), batch_size=0)
    with pytest.raises(ValueError, match=r"shape \(1, 0\) found"):
        tinyconv.summary(model, (1, 0))
    assert tinyconv.summary(nn.Linear(2, 1).astype("float64"), (2,)).input_memory == 16
