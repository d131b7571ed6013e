"""VGG16 from Keras' files, in every layout that Keras has written, against sums by hand."""

import builtins

import numpy as np
import pytest

import tinyconv
import tinyconv.functional as F
from tinyconv import models
from tinyconv.errors import DataError
from tinyconv.io import keras_file, read_keras

h5py = pytest.importorskip("h5py")

LAYOUTS = {
    "public": "{layer}/{layer}_{old}_1:0",
    "Keras 2": "{layer}/{layer}/{new}:0",
    "Keras 2, whole model": "model_weights/{layer}/{layer}/{new}:0",
    "Keras 2, in a larger model": "model_weights/vgg16/{layer}/{new}:0",
    "Keras 3": "{layer}/{layer}/{new}",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vgg16.h5"


def draw(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def write(path, layout="public", /, **layers):
    """A file with (kernel, bias) of each layer."""
    with h5py.File(path, "w") as file:
        for layer, (kernel, bias) in layers.items():
            for array, old, new in ((kernel, "W", "kernel"), (bias, "b", "bias")):
                file[LAYOUTS[layout].format(layer=layer, old=old, new=new)] = array


def refuse(path, *words):
    with pytest.raises(DataError) as caught:
        read_keras(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(path, layout):
    kernel, bias = draw(3, 3, 64, 128), draw(128)
    write(path, layout, block2_conv1=(kernel, bias))
    arrays = read_keras(path)
    assert sorted(arrays) == ["features.5.bias", "features.5.weight"]
    np.testing.assert_array_equal(arrays["features.5.bias"], bias, strict=True)
    weight = arrays["features.5.weight"]
    assert (weight.shape, weight.dtype, weight.flags.c_contiguous) == ((128, 64, 3, 3), "f4", True)
    for o, c, kh, kw in ((0, 0, 0, 0), (127, 63, 2, 1), (5, 40, 0, 2)):
        assert weight[o, c, kh, kw] == kernel[kh, kw, c, o]


def test_every_layer_has_torchvisions_key():
    """Convolutions by their place between ReLUs and poolings, as torchvision counts them."""
    places, place = {}, 0
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, count + 1):
            places[f"block{block}_conv{i}"] = f"features.{place}"
            place += 2
        place += 1
    places |= {"fc1": "classifier.0", "fc2": "classifier.3", "predictions": "classifier.6"}
    assert {layer: key for layer, (key, _) in keras_file._LAYERS.items()} == places


def test_rgb_photos_give_what_keras_computes_from_bgr(path):
    """Keras: reverse the channels, subtract the means, convolve with zeros around."""
    kernel, bias = draw(3, 3, 3, 64), draw(64)
    write(path, block1_conv1=(kernel, bias))
    arrays = read_keras(path)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3), dtype=np.uint8)
    bgr = pixels[0, :, :, ::-1].astype(np.float64) - [103.939, 116.779, 123.68]
    padded = np.pad(bgr, ((1, 1), (1, 1), (0, 0)))
    expected = np.empty((64, 5, 6))
    for y in range(5):
        for x in range(6):
            window = padded[y : y + 3, x : x + 3]
            expected[:, y, x] = (window[..., None] * kernel).sum((0, 1, 2)) + bias
    _, _, mean, std = models.inputs("vgg16")
    x = F.normalize_image(pixels, mean=mean, std=std)
    y = F.conv2d(x, arrays["features.0.weight"], arrays["features.0.bias"], padding=1)
    found = tinyconv.to_numpy(y)[0]
    inside = np.s_[:, 1:-1, 1:-1]
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-4, atol=2e-3)
    # At the border at most 5 pixels of 9 are padding, half a grey level off in two channels.
    assert np.abs(found - expected).max() < 5 * np.abs(kernel).max()


def test_the_first_layer_needs_both_parts(path):
    with h5py.File(path, "w") as file:
        file["block1_conv1/kernel:0"] = draw(3, 3, 3, 64)
    refuse(path, "block1_conv1 has no bias")


def test_flattened_maps(path, monkeypatch):
    """Keras flattens (H, W, C), torchvision (C, H, W). With 4 units instead of 4096."""
    monkeypatch.setitem(keras_file._LAYERS, "fc1", ("classifier.0", (25088, 4)))
    kernel, bias, maps = draw(25088, 4), draw(4), draw(7, 7, 512).astype(np.float64)
    write(path, fc1=(kernel, bias))
    arrays = read_keras(path)
    found = maps.transpose(2, 0, 1).reshape(-1) @ arrays["classifier.0.weight"].T
    np.testing.assert_allclose(found, maps.reshape(-1) @ kernel, rtol=1e-9, atol=1e-9)


def test_any_number_of_classes(path):
    kernel, bias = draw(4096, 3), draw(3)
    write(path, predictions=(kernel, bias))
    arrays = read_keras(path)
    np.testing.assert_array_equal(arrays["classifier.6.weight"], kernel.T, strict=True)
    np.testing.assert_array_equal(arrays["classifier.6.bias"], bias, strict=True)


def test_files_of_another_kind(path):
    refuse(path, "No such file")
    path.write_bytes(b"no HDF5")
    refuse(path, "signature not found")
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = draw(3, 3, 3, 64)
    refuse(path, "holds no layers of VGG16 (block1_conv1, ...) but 'layers")
    with h5py.File(path, "w"):
        pass
    refuse(path, "holds no layers of VGG16")
    write(path, block1_conv1=(draw(3, 3, 3, 64), draw(64)))
    path.write_bytes(path.read_bytes()[:-100])
    refuse(path)


@pytest.mark.parametrize(
    ("kernel", "bias", "words"),
    [
        ((64, 3, 3, 3), (64,), "float32 (64, 3, 3, 3), expected float (3, 3, 3, 64)"),
        ((3, 3, 3, 64), (63,), "float32 (63,), expected float (64)"),
        ((3, 3, 3), (64,), "float32 (3, 3, 3), expected float (3, 3, 3, 64)"),
    ],
)
def test_other_shapes(path, kernel, bias, words):
    write(path, block1_conv1=(draw(*kernel), draw(*bias)))
    refuse(path, "block1_conv1", words)


def test_other_dtypes(path):
    write(path, predictions=(np.zeros((4096, 2), np.int64), draw(2)))
    refuse(path, "int64 (4096, 2), expected float (4096, any)")


def test_nan(path):
    write(path, predictions=(np.full((4096, 2), np.nan, np.float32), draw(2)))
    refuse(path, "classifier.6.weight holds NaN or infinity")


def test_one_layer_twice(path):
    write(path, predictions=(draw(4096, 2), draw(2)))
    with h5py.File(path, "a") as file:
        file["again/predictions/kernel:0"] = draw(4096, 2)
    refuse(path, "/predictions/predictions_W_1:0", "/again/predictions/kernel:0")


def test_nothing_outside_of_the_file_is_read(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4096 * 2 * 4))
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "predictions/predictions_W_1:0", (4096, 2), "f4", external=[(str(secret), 0, 32768)]
        )
    refuse(path, "not stored as plain numbers")
    other = tmp_path / "other.h5"
    write(other, predictions=(draw(4096, 2), draw(2)))
    with h5py.File(path, "w") as file:
        file["predictions"] = h5py.ExternalLink(str(other), "predictions")
    refuse(path, "holds no layers of VGG16")
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4096, 2), "f4")
        layout[:] = h5py.VirtualSource(str(other), "predictions/predictions_W_1:0", (4096, 2))
        file.create_virtual_dataset("predictions/predictions_W_1:0", layout)
    refuse(path, "not stored as plain numbers")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_small_files_can_not_claim_much_memory(path, compression):
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "predictions/kernel:0", (4096, 2**31), "f4", chunks=(1, 64), compression=compression
        )
    refuse(path, "not stored as plain numbers")


def test_without_h5py(path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    refuse(path, "pip install h5py")
