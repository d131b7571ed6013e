"""EfficientNet-Lite0: keys, shapes, padding. Its outputs are compared in tests/parity."""

import numpy as np
import pytest

import tinyconv
from tinyconv import models
from tinyconv.models.efficientnet_lite0 import SameConv2d
from tinyconv.ops import shape

# Channels into each block, expanded, out of it, and the kernel's size: the shapes in the public
# weights.
BLOCKS = (
    (32, 32, 16, 3), (16, 96, 24, 3), (24, 144, 24, 3), (24, 144, 40, 5), (40, 240, 40, 5),
    (40, 240, 80, 3), (80, 480, 80, 3), (80, 480, 80, 3), (80, 480, 112, 5), (112, 672, 112, 5),
    (112, 672, 112, 5), (112, 672, 192, 5), (192, 1152, 192, 5), (192, 1152, 192, 5),
    (192, 1152, 192, 5), (192, 1152, 320, 3),
)  # fmt: skip
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def batch_norm(name, channels):
    return {f"{name}.{key}": (channels,) if "num" not in key else () for key in BATCH_NORM}


def test_keys_and_shapes():
    expected = {"_conv_stem.weight": (32, 3, 3, 3), **batch_norm("_bn0", 32)}
    for i, (C, wide, O, k) in enumerate(BLOCKS):
        block = f"_blocks.{i}"
        if i:
            expected[f"{block}._expand_conv.weight"] = (wide, C, 1, 1)
            expected |= batch_norm(f"{block}._bn0", wide)
        expected[f"{block}._depthwise_conv.weight"] = (wide, 1, k, k)
        expected |= batch_norm(f"{block}._bn1", wide)
        expected[f"{block}._project_conv.weight"] = (O, wide, 1, 1)
        expected |= batch_norm(f"{block}._bn2", O)
    expected |= {"_conv_head.weight": (1280, 320, 1, 1), **batch_norm("_bn1", 1280)}
    expected |= {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    model = models.create("efficientnet_lite0")
    state = model.state_dict()
    assert {key: array.shape for key, array in state.items()} == expected
    assert list(state) == list(expected)
    assert sum(parameter.data.size for parameter in model.parameters()) == 4_652_008


@pytest.mark.parametrize("size", [1, 32, 45, 64])
def test_any_size(size):
    model = models.efficientnet_lite0(num_classes=3, in_channels=1).eval()
    images = np.zeros((2, 1, size, size + 2), np.float32)
    with tinyconv.no_grad():
        assert model(images).shape == (2, 3)


def test_all_but_the_last_layer():
    model = models.efficientnet_lite0(num_classes=3).eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    with tinyconv.no_grad():
        features = model[:-1](images)
        assert features.shape == (2, 1280)
        np.testing.assert_array_equal(model[-1](features).data, model(images).data)
    left = model.state_dict().keys() - model[:-1].state_dict().keys()
    assert left == {"_fc.weight", "_fc.bias"}


def test_settings_of_the_original():
    norms = [m for m in models.efficientnet_lite0().modules() if hasattr(m, "running_var")]
    assert len(norms) == 49
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}
    assert models.efficientnet_lite0()._dropout.p == 0.2


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 6), (7, 7), (5, 8), (1, 2)])
def test_padding_as_tensorflows_same(kernel_size, stride, size):
    """The window of output i starts at i * stride - before; before is half of what is added."""
    layer = SameConv2d(1, 1, kernel_size, stride)
    x = np.random.default_rng(0).standard_normal((1, 1, *size)).astype(np.float32)
    weight = layer.weight.data[0, 0]
    rows = []
    outputs = [-(-n // stride) for n in size]
    total = [max(0, (o - 1) * stride + kernel_size - n) for o, n in zip(outputs, size, strict=True)]
    around = [(t // 2, t - t // 2 + stride) for t in total]  # what is too much is never reached
    padded = np.pad(x[0, 0], around)
    for i in range(outputs[0]):
        windows = (
            padded[i * stride :, j * stride :][:kernel_size, :kernel_size]
            for j in range(outputs[1])
        )
        rows.append([float((window * weight).sum()) for window in windows])
    np.testing.assert_allclose(layer(x).data[0, 0], rows, rtol=1e-5, atol=1e-6)


def test_a_map_is_copied_only_where_one_side_gets_more(monkeypatch):
    copied = []
    forward = shape.Pad.forward
    monkeypatch.setattr(
        shape.Pad, "forward", lambda op, xp, x: copied.append(op.after) or forward(op, xp, x)
    )
    for stride, size in ((1, 8), (2, 9), (2, 8)):
        SameConv2d(1, 1, 3, stride)(np.zeros((1, 1, size, size), np.float32))
    assert copied == [(0, 0, 1, 1)]
