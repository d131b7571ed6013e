"""The networks by name: shapes, numbers of parameters by hand, and errors."""

import itertools
import json

import numpy
import pytest

import tinyconv
from tinyconv import models, nn


def count(model):
    return sum(p.data.size for p in model.parameters())


def conv(inputs, outputs, kernel_size, bias=True):
    return inputs * outputs * kernel_size**2 + bias * outputs


def linear(inputs, outputs):
    return inputs * outputs + outputs


@pytest.mark.parametrize(("size", "left"), [(16, 1), (33, 2), (64, 4), (250, 15)])
def test_catdog(size, left):
    model = models.create("catdog", size=size)
    expected = (
        conv(3, 32, 3) + conv(32, 64, 3) + conv(64, 128, 3) + conv(128, 256, 3) + conv(256, 256, 3)
        + 2 * (32 + 64 + 128 + 256 + 256)  # batch norms
        + linear(256 * left * left, 256) + linear(256, 128) + linear(128, 32) + linear(32, 2)
    )  # fmt: skip
    assert count(model) == expected
    if size <= 64:
        assert model(numpy.zeros((2, 3, size, size), numpy.float32)).shape == (2, 2)


def test_catdog_at_256():
    assert count(models.create("catdog", conv_bias=False)) == 17_794_530 - 736
    kinds = [type(m).__name__ for m in models.create("catdog", size=16)]
    assert kinds.count("Conv2d") == 5
    assert kinds.count("BatchNorm2d") == 5
    assert kinds.count("MaxPool2d") == 4
    assert kinds.count("Linear") == 4
    assert kinds.count("Tanh") == 3


def test_catdog_notebook():
    model = models.create("catdog_notebook", size=190)
    expected = (
        conv(3, 64, 3) + conv(64, 128, 3) + conv(128, 256, 3) + conv(256, 256, 3)
        + conv(256, 512, 3) + conv(512, 512, 3) + 2 * (64 + 128 + 256 + 256 + 512 + 512)
        + linear(512, 512) + linear(512, 64) + linear(64, 2)
    )  # fmt: skip
    assert count(model) == expected
    # Six times (n - 2) // 2: 190 leaves one pixel, 256 two by two, and with that 2048 features.
    original = models.create("catdog_notebook")
    assert next(m for m in original if isinstance(m, nn.Linear)).in_features == 2048
    assert model.eval()(numpy.zeros((1, 3, 190, 190), numpy.float32)).shape == (1, 2)


@pytest.mark.parametrize(("size", "left"), [(64, 1), (127, 1), (128, 2), (224, 3)])
def test_catdog_wide(size, left):
    model = models.create("catdog_wide", size=size)
    expected = (
        conv(3, 64, 3) + conv(64, 512, 3) + conv(512, 512, 3)  # the last one used four times
        + 2 * (64 + 512 + 512)  # batch norms
        + linear(512 * left * left, 2)
    )  # fmt: skip
    assert count(model) == expected
    if size == 64:
        assert model(numpy.zeros((2, 3, size, size), numpy.float32)).shape == (2, 2)


def test_the_repeated_block_of_catdog_wide_is_one():
    model = models.create("catdog_wide", size=64)
    state = model.state_dict()
    assert [key for key in state if key.endswith("weight") and state[key].ndim == 4] == [
        "0.weight", "4.weight", "8.block.0.weight",
    ]  # fmt: skip
    model(numpy.zeros((1, 3, 64, 64), numpy.float32))
    counted = {key: int(n) for key, n in model.state_dict().items() if key.endswith("tracked")}
    assert [counted[f"{norm}.num_batches_tracked"] for norm in ("2", "6", "8.block.2")] == [1, 1, 4]


@pytest.mark.parametrize(("size", "left"), [(28, 4), (16, 1), (33, 5)])
def test_lenet(size, left):
    model = models.create("lenet_mnist", size=size)
    expected = (
        conv(1, 6, 5) + conv(6, 16, 5)
        + linear(16 * left * left, 120) + linear(120, 84) + linear(84, 10)
    )  # fmt: skip
    assert count(model) == expected
    assert model(numpy.zeros((2, 1, size, size), numpy.float32)).shape == (2, 10)


@pytest.mark.parametrize(("size", "left"), [(32, 1), (48, 5)])
def test_lenet5(size, left):
    model = models.create("lenet5", size=size, in_channels=3)
    expected = (
        conv(3, 6, 5) + conv(6, 16, 5) + conv(16, 120, 5) + 2 * (6 + 16)  # two subsamplings
        + linear(120 * left * left, 84) + linear(84, 10)
    )  # fmt: skip
    assert count(model) == expected
    assert model(numpy.zeros((2, 3, size, size), numpy.float32)).shape == (2, 10)


def test_the_subsampling_of_lenet5():
    """Each map has its own coefficient and bias: w mean + b."""
    layer = models.create("lenet5")[1]
    layer.weight.data[...] = numpy.arange(6).reshape(6, 1, 1)
    layer.bias.data[...] = 0.5
    x = numpy.arange(4, dtype=numpy.float32).reshape(1, 1, 2, 2) * numpy.ones((1, 6, 1, 1), "f4")
    assert layer(x).numpy().ravel().tolist() == [1.5 * w + 0.5 for w in range(6)]


def test_the_tanh_of_lenet5_keeps_one():
    y = models.create("lenet5")[2](tinyconv.Tensor([-1.0, 0.0, 1.0, 100.0])).numpy()
    numpy.testing.assert_allclose(y, [-1, 0, 1, 1.7159], atol=1e-4)


@pytest.mark.parametrize("size", [32, 96])
def test_horses(size):
    model = models.create("horses", size=size)
    widths = (3, 16, 32, 64, 64, 64)
    expected = sum(conv(a, b, 3) + 2 * b for a, b in itertools.pairwise(widths))
    expected += linear(64 * (size // 32) ** 2, 128) + linear(128, 2)
    assert count(model) == expected
    assert model(numpy.zeros((2, 3, size, size), numpy.float32)).shape == (2, 2)


@pytest.mark.parametrize("name", models.names())
def test_classes_channels_and_architecture(name):
    size = {"catdog_notebook": 190, "catdog_wide": 64}.get(name, 32)
    options = {"num_classes": 7, "size": size, "in_channels": 2}
    options |= {"hidden": 8} if name == "vgg16" else {}
    model = models.create(name, **options)
    layers = list(model.modules())
    assert next(m for m in layers if isinstance(m, nn.Conv2d)).in_channels == 2
    assert [m for m in layers if isinstance(m, nn.Linear)][-1].out_features == 7
    architecture = json.loads(json.dumps(model.architecture))
    assert architecture.items() >= {"name": name, **options}.items()
    again = models.create(**architecture)
    again.load_state_dict(model.state_dict())
    assert repr(again) == repr(model)


@pytest.mark.parametrize("name", sorted(set(models.names()) - {"vgg16"}))  # 550 MB of weights
def test_inputs_fit_the_network(name):
    inputs = models.inputs(name)
    first = next(m for m in models.create(name).modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == inputs.channels == len(inputs.mean) == len(inputs.std)
    assert models.create(name, size=inputs.size).architecture["size"] == inputs.size


def test_without_the_biases_before_batch_norm():
    model = models.create("catdog", size=16, conv_bias=False)
    assert "0.bias" not in model.state_dict()
    assert count(models.create("catdog", size=16)) - count(model) == 32 + 64 + 128 + 256 + 256


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("option", ["num_classes", "in_channels", "size"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, (32, 32)])
def test_numbers_that_are_none(name, option, value):
    with pytest.raises(ValueError, match="expected a whole number") as caught:
        models.create(name, **{option: value})
    assert str(caught.value) == f"{option} is {value!r}; expected a whole number of 1 or more"


def test_errors():
    with pytest.raises(ValueError, match="model: 'resnet' found, expected one of catdog, "):
        models.create("resnet")
    with pytest.raises(TypeError, match="width"):
        models.create("catdog", width=2)
    with pytest.raises(tinyconv.ShapeError, match=r"size 15 found.*at least 16"):
        models.create("catdog", size=15)
    with pytest.raises(tinyconv.ShapeError, match=r"size 189 found.*at least 190"):
        models.create("catdog_notebook", size=189)
    with pytest.raises(tinyconv.ShapeError, match=r"size 63 found.*at least 64"):
        models.create("catdog_wide", size=63)
    with pytest.raises(tinyconv.ShapeError, match=r"size 31 found.*at least 32"):
        models.create("lenet5", size=31)
    with pytest.raises(tinyconv.ShapeError, match=r"size 31 found.*at least 32"):
        models.create("horses", size=31)
    with pytest.raises(ValueError, match="model: 'resnet' found, expected one of catdog, "):
        models.inputs("resnet")
    with pytest.raises(tinyconv.ShapeError, match="does not fit"):
        models.create("lenet_mnist", size=15)
    with pytest.raises(tinyconv.ShapeError, match=r"layer '20' Linear.*\(1, 1024\).*\(256, 256\)"):
        models.create("catdog", size=16)(numpy.zeros((1, 3, 32, 32), numpy.float32))
