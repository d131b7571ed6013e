"""VGG16: torchvision's keys and shapes. Its outputs are compared in tests/parity."""

import numpy as np
import pytest

from tinyconv import models, nn
from tinyconv.errors import ShapeError
from tinyconv.io import keras_file

# Torchvision's configuration "D", and the positions at which it puts the convolutions.
CONVOLUTIONS = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256),
    14: (256, 256), 17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512),
    26: (512, 512), 28: (512, 512),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _zeros(monkeypatch):
    """Zeros as first weights, which take no time and no memory until they are changed."""
    for module in ("conv", "linear"):
        monkeypatch.setattr(
            f"tinyconv.nn.{module}.uniform_fan_in",
            lambda shape, fan_in: nn.Parameter(np.zeros(shape, np.float32)),
        )


def test_keys_and_shapes():
    expected = {}
    for position, (O, C) in CONVOLUTIONS.items():
        expected[f"features.{position}.weight"] = (O, C, 3, 3)
        expected[f"features.{position}.bias"] = (O,)
    for position, shape in ((0, (4096, 25088)), (3, (4096, 4096)), (6, (1000, 4096))):
        expected[f"classifier.{position}.weight"] = shape
        expected[f"classifier.{position}.bias"] = shape[:1]
    found = dict(models.create("vgg16").named_parameters())
    assert {key: parameter.shape for key, parameter in found.items()} == expected
    assert list(found) == list(expected)
    assert sum(parameter.data.size for parameter in found.values()) == 138_357_544  # torchvision's


def test_keras_layers_have_these_shapes():
    found = dict(models.vgg16().named_parameters())
    for key, shape in keras_file._LAYERS.values():
        order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
        assert found[f"{key}.weight"].shape == tuple(shape[i] or 1000 for i in order)


@pytest.mark.parametrize("size", [32, 70])
def test_all_but_the_classifier(size):
    model = models.vgg16(num_classes=2, in_channels=1, size=size, hidden=8)
    images = np.zeros((1, 1, size, size), np.float32)
    assert model[:-1](images).shape == (1, 25088)
    assert {key.split(".")[0] for key in model[:-1].state_dict()} == {"features"}
    assert model(images).shape == (1, 2)


def test_too_small():
    with pytest.raises(ShapeError, match=r"size 31 found.*at least 32"):
        models.vgg16(size=31)
