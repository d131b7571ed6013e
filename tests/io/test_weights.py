"""Weights into a network: formats told by content, and one report of what does not fit."""

import shutil

import numpy as np
import pytest
import safetensors.numpy

from tinyconv import models, nn
from tinyconv.errors import DataError
from tinyconv.io import load_model, load_weights, read_keras, read_tensors, save_weights
from tinyconv.io.weights import IncompatibleKeys


def network(outputs=3):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, outputs))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights"


def same(model, state):
    found = model.state_dict()
    assert list(found) == list(state)
    for key, array in state.items():
        np.testing.assert_array_equal(found[key], array, key, strict=True)


def refuse(model, path, *words, strict=True):
    before = model.state_dict()
    with pytest.raises(DataError) as caught:
        load_weights(model, path, strict)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    same(model, before)


def test_round_trip(path):
    model, other = network(), network()
    save_weights(path, model)
    assert load_weights(other, path) == IncompatibleKeys([], [])
    same(other, model.state_dict())


def test_the_library_alone_reads_it(path):
    model = network()
    save_weights(path, model)
    found = safetensors.numpy.load_file(path)
    assert found.keys() == model.state_dict().keys()
    np.testing.assert_array_equal(found["0.weight"], model.state_dict()["0.weight"], strict=True)


def test_it_is_no_saved_model(path):
    save_weights(path, network())
    with pytest.raises(DataError, match="this is a 'weights', expected 'tinyconv model'"):
        load_model(path)


@pytest.mark.parametrize("new", [True, False])
def test_pytorchs_files_whatever_they_are_called(tmp_path, new):
    torch = pytest.importorskip("torch")
    model, other = network(), network()
    state = {key: torch.from_numpy(array) for key, array in model.state_dict().items()}
    path = tmp_path / "weights.safetensors"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=new)
    load_weights(other, path)
    same(other, model.state_dict())


def test_keras_files_whatever_they_are_called(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    kernel, bias = np.ones((3, 3, 3, 64), np.float32), np.arange(64, dtype=np.float32)
    path = tmp_path / "weights.pth"
    with h5py.File(path, "w") as file:
        file["block1_conv1/kernel:0"], file["block1_conv1/bias:0"] = kernel, bias
    model = nn.Sequential({"features": nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 1, 1))})
    found = load_weights(model, path, strict=False)
    assert found == IncompatibleKeys(["features.1.weight", "features.1.bias"], [])
    np.testing.assert_array_equal(
        model.state_dict()["features.0.bias"], read_keras(path)["features.0.bias"]
    )


def test_a_safetensors_file_that_begins_like_a_pickle(path):
    """Its header's length, the first eight bytes, may be any number: here 128, the byte 0x80."""
    state = {"a": np.ones(1, np.float32)}
    for pad in range(200):
        safetensors.numpy.save_file(state, path, metadata={"pad": " " * pad})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    model = nn.Module()
    model.a = nn.Parameter(np.zeros(1, np.float32))
    load_weights(model, path)
    assert model.a.data.tolist() == [1]


@pytest.mark.parametrize(("saved", "wanted"), [("float64", "float32"), ("float32", "float64")])
def test_floats_take_the_networks_dtype(path, saved, wanted):
    model, other = network().astype(saved), network().astype(wanted)
    save_weights(path, model)
    load_weights(other, path)
    expected = model.state_dict()
    same(other, {k: v.astype(wanted) if v.dtype == saved else v for k, v in expected.items()})


def test_other_dtypes_stay_strict(path):
    state = network().state_dict()
    count = "1.num_batches_tracked"
    safetensors.numpy.save_file(state | {count: state[count].astype(np.int32)}, path)
    refuse(network(), path, f"{count} is int32[], expected int64[]")
    safetensors.numpy.save_file(state | {"0.bias": np.ones(2, np.int64)}, path)
    refuse(network(), path, "0.bias is int64[2], expected float32[2]")


def test_numbers_too_large_for_the_network(path):
    model = network().astype("float64")
    model[0].bias.data[0] = 1e300
    save_weights(path, model)
    refuse(network(), path, "0.bias has numbers too large for float32")


def test_the_prefix_of_data_parallel(path):
    model, other = network(), network()
    save_weights(path, nn.Sequential({"module": model}))
    assert load_weights(other, path) == IncompatibleKeys([], [])
    same(other, model.state_dict())
    inside = nn.Sequential({"module": network()})  # whose own name it is
    load_weights(inside, path)
    same(inside.module, model.state_dict())
    save_weights(path, nn.Sequential({"module": model, "other": nn.Linear(2, 2)}))
    refuse(network(), path, "of its 9 entries 0 fit, 9 are missing")


def test_missing_unexpected_and_misshapen(path):
    save_weights(path, network(outputs=5))
    refuse(
        network(), path, "of its 9 entries 7 fit, 0 are missing and 2 differ; 0 in the file",
        "3.weight is float32[5, 8], expected float32[3, 8]",
    )  # fmt: skip
    model = nn.Sequential({"0": nn.Conv2d(1, 2, 3), "3": nn.Linear(8, 3), "new": nn.Linear(3, 3)})
    refuse(
        model, path, "of its 6 entries 2 fit, 2 are missing and 2 differ; 5 in the file are unexp",
        "missing: new.weight float32[3, 3]", "unexpected: 1.bias float32[2]",
    )  # fmt: skip


def test_not_strict(path):
    saved = network()
    save_weights(path, saved)
    model = nn.Sequential({"0": nn.Conv2d(1, 2, 3), "new": nn.Linear(8, 3)})
    before = model.state_dict()
    found = load_weights(model, path, strict=False)
    assert found.missing_keys == ["new.weight", "new.bias"]
    assert set(found.unexpected_keys) == saved.state_dict().keys() - {"0.weight", "0.bias"}
    same(model, {**before, **{k: saved.state_dict()[k] for k in ("0.weight", "0.bias")}})


def test_not_strict_still_refuses_other_shapes(path):
    save_weights(path, network(outputs=5))
    refuse(network(), path, "3.weight is float32[5, 8]", strict=False)


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_another_network(path, strict):
    save_weights(path, models.create("efficientnet_lite0"))
    words = "of its 10 entries 0 fit, 10 are missing and 0 differ; 296 in the file are unexpected"
    refuse(models.create("lenet_mnist"), path, words, strict=strict)


def test_not_strict_says_where_nothing_fits(path):
    save_weights(path, nn.Sequential({"other": nn.Linear(2, 2)}))
    words = "2 in the file are unexpected; no names are the same"
    refuse(network(), path, words, strict=False)


def test_files_that_can_not_be_read(path):
    refuse(network(), path, "no such file")
    path.mkdir()
    refuse(network(), path, "not a file")
    shutil.rmtree(path)
    path.write_bytes(b"")
    refuse(network(), path, "the file is empty")
    path.write_bytes(b"PK\x03")
    refuse(network(), path, "3 bytes, too short for any known format")
    path.write_bytes(b"PK\x03\x04 and no more of it")
    refuse(network(), path, "damaged zip archive")
    path.write_bytes(b"\x80 and no more of it")
    refuse(network(), path, "damaged pickle")
    path.write_bytes(b"\x93NUMPY")
    refuse(network(), path, "NumPy")


def test_nan_is_not_written(path):
    model = network()
    save_weights(path, model)
    model[0].bias.data[0] = np.nan
    with pytest.raises(DataError, match=r"0\.bias holds NaN"):
        save_weights(path, model)
    arrays, _ = read_tensors(path)
    assert np.isfinite(arrays["0.bias"]).all()
