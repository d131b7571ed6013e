"""Saved models: what comes back is what was saved, or one clear error."""

import dataclasses
import errno
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy

import tinyconv
from tinyconv import models
from tinyconv.errors import DataError
from tinyconv.io import ModelCard, load_model, load_weights, save_model
from tinyconv.io.tensor_file import read_tensors, write_tensors

OPTIONS = {"num_classes": 3, "size": 16, "in_channels": 1}
CARD = ModelCard(
    architecture={"name": "lenet_mnist", **OPTIONS},
    classes=["zero", "one", "more"],
    size=(16, 16),
    channels=1,
    mean=[0.5],
    std=[0.25],
    drawn=True,
)


def network(seed=0, **options):
    tinyconv.manual_seed(seed)
    return models.create("lenet_mnist", **{**OPTIONS, **options})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, network(), CARD)
    return path


def refuse(path, *words, call=load_model):
    with pytest.raises(DataError) as caught:
        call(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def edit(path, **changes):
    """Change the metadata of a saved model, its checksum made right; `...` removes an entry."""
    arrays, metadata = read_tensors(path)
    metadata = {k: v for k, v in {**metadata, **changes}.items() if v is not ...}
    write_tensors(path, arrays, metadata)


def test_round_trip(saved):
    model, card = load_model(saved)
    assert card == CARD
    assert card.version == tinyconv.__version__
    assert model.architecture == CARD.architecture
    assert not model.training
    for name, array in network().state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], array, strict=True)


def test_predictions_are_the_same(saved):
    x = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.float32)
    model, _ = load_model(saved)
    np.testing.assert_array_equal(model(x).numpy(), network().eval()(x).numpy())


def test_a_network_with_nan_is_not_saved(saved):
    model = network()
    next(model.parameters()).data[...] = np.nan
    whole = saved.read_bytes()
    refuse(saved, "not written", "NaN", call=lambda path: save_model(path, model, CARD))
    assert saved.read_bytes() == whole


def test_a_full_disk_keeps_the_saved_model(saved, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refuse(saved, "No space left", call=lambda path: save_model(path, network(1), CARD))
    monkeypatch.undo()
    model, _ = load_model(saved)
    np.testing.assert_array_equal(
        model.state_dict()["0.weight"], network().state_dict()["0.weight"]
    )


def test_weights_of_another_program(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = network(1).state_dict()
    safetensors.numpy.save_file(state, path, metadata={"format": "pt"})
    model = network(2)
    load_weights(model, path)
    for name, array in state.items():
        np.testing.assert_array_equal(model.state_dict()[name], array, strict=True)
    refuse(path, "without a model card")


def test_weights_of_another_network_are_refused_and_change_nothing(saved):
    model = network(num_classes=7)
    before = model.state_dict()
    refuse(
        saved,
        "does not fit the network",
        "11.weight is float32[3, 84], expected float32[7, 84]",
        "11.bias",
        call=lambda path: load_weights(model, path),
    )
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_missing_unexpected_and_converted_weights(saved):
    arrays, metadata = read_tensors(saved)
    arrays["extra"] = arrays.pop("0.bias")
    arrays["3.bias"] = arrays["3.bias"].astype(np.float64)
    write_tensors(saved, arrays, metadata)
    refuse(
        saved,
        "missing: 0.bias float32[6]",
        "unexpected: extra float32[6]",
        "3.bias is float64[16], expected float32[16]",
    )


def test_nan_in_a_saved_model(saved):
    arrays, _ = read_tensors(saved)
    arrays["3.bias"][0] = np.nan
    safetensors.numpy.save_file(arrays, saved)
    refuse(saved, "3.bias holds NaN")
    refuse(saved, "3.bias holds NaN", call=lambda path: load_weights(network(), path))


def test_damaged_and_other_files(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-1])
    refuse(saved, "not a whole safetensors file")
    saved.write_bytes(pickle.dumps(network().state_dict()))
    refuse(saved, "pickle")
    saved.unlink()
    refuse(saved, "no such file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "tinyconv checkpoint"}, "'tinyconv checkpoint', expected 'tinyconv model'"),
        ({"format": ...}, "expected 'tinyconv model'"),
        ({"classes": ..., "std": ...}, "lacks classes, std"),
        ({"architecture": None}, "architecture is None"),
        ({"architecture": {"num_classes": 3}}, "architecture is"),
        ({"architecture": {"name": "resnet9000"}}, "'resnet9000'"),
        ({"architecture": {**CARD.architecture, "depth": 3}}, "can not be built"),
        ({"architecture": {**CARD.architecture, "size": "big"}}, "size is 'big'"),
        (
            {"architecture": {**CARD.architecture, "num_classes": 10**9}},
            "num_classes is 1000000000",
        ),
        ({"architecture": {**CARD.architecture, "in_channels": 3}}, "in_channels is 3"),
        ({"architecture": {"name": "catdog"}}, "does not fit the network"),
        ({"classes": ["only"]}, "two names or more"),
        ({"classes": "abc"}, "two names or more"),
        ({"classes": ["a", "b", 3]}, "two names or more"),
        ({"classes": ["a", "b"]}, "num_classes is 3 in the architecture, 2 in the card"),
        ({"size": 16}, "expected (height, width)"),
        ({"size": [16, 0]}, "expected (height, width)"),
        ({"size": [16, True]}, "expected (height, width)"),
        ({"size": [10**9, 10**9]}, "expected (height, width)"),
        ({"size": [17, 17]}, "size is [16, 16] in the architecture, [17, 17] in the card"),
        ({"channels": 2}, "expected 1 or 3"),
        ({"channels": 1.0}, "expected 1 or 3"),
        ({"mean": [0.5, 0.5]}, "expected 1 numbers"),
        ({"mean": [float("nan")]}, "expected 1 numbers"),
        ({"mean": [1e300]}, "expected 1 numbers"),
        ({"std": [0]}, "expected positive numbers"),
        ({"drawn": "no"}, "drawn"),
        ({"version": None}, "version"),
    ],
)
def test_cards_that_make_no_sense(saved, changes, words):
    edit(saved, **changes)
    refuse(saved, words)


def test_a_card_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match="expected 1 or 3"):
        dataclasses.replace(CARD, channels=4)
