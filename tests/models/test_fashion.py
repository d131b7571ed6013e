"""The functional network for Fashion-MNIST: its branch, size and work, and its file."""

import numpy
import pytest

import tinyconv
from tinyconv import functional as F
from tinyconv import models, nn
from tinyconv.io import ModelCard, load_model, save_model


def images(count, size=28):
    return numpy.random.default_rng(0).random((count, 1, size, size), numpy.float32)


def norm(channels):
    return 2 * channels


def test_size_and_work():
    model = models.create("fashion")
    weights = 9 * (16 + 16 * 32 + 32 * 64 + 64 * 64 + 64 * 64)
    norms = norm(16) + norm(32) + 3 * norm(64)
    figures = tinyconv.summary(model, (1, 28, 28))
    assert figures.parameters == weights + norms + 64 * 49 * 10 + 10
    work = 28**2 * 9 * (16 + 16 * 32) + 14**2 * 9 * 32 * 64 + 7**2 * 9 * 2 * 64 * 64
    assert figures.mult_adds == work + 64 * 49 * 10 < 12e6


def test_the_branch_is_added():
    model = models.create("fashion").eval()
    x = images(2)
    named = model._modules
    y = F.relu(named["batchnorm2d_1"](named["conv2d_1"](x)))
    y = F.relu(named["batchnorm2d_2"](named["conv2d_2"](y)))
    y = F.max_pool2d(y, 2)
    y = F.relu(named["batchnorm2d_3"](named["conv2d_3"](y)))
    y = F.max_pool2d(y, 2)
    branch = F.relu(named["batchnorm2d_4"](named["conv2d_4"](y)))
    branch = named["batchnorm2d_5"](named["conv2d_5"](branch))
    y = named["linear_1"](F.flatten(F.relu(y + branch), 1))
    numpy.testing.assert_array_equal(model(x).numpy(), y.numpy())


def test_saved_and_loaded(tmp_path):
    model = models.create("fashion", num_classes=3, size=8).eval()
    card = ModelCard(model.architecture, ["bag", "boot", "coat"], (8, 8), 1, [0.5], [0.5])
    save_model(tmp_path / "model.safetensors", model, card)
    tinyconv.manual_seed(9)
    again, found = load_model(tmp_path / "model.safetensors")
    assert isinstance(again, nn.Model)
    assert found == card
    assert numpy.array_equal(again(images(4, 8)).numpy(), model(images(4, 8)).numpy())


@pytest.mark.parametrize("wrap", [lambda step: step, tinyconv.compile], ids=["eager", "compiled"])
def test_learns(wrap):
    """Stripes from dots, in a few steps."""
    model = models.create("fashion", num_classes=2, size=8)
    optimizer = tinyconv.optim.Adam(model.parameters(), lr=3e-3)
    x = images(32, 8) / 4
    labels = numpy.arange(32) % 2
    x[labels == 0, :, ::2] += 1
    x[labels == 1, :, ::2, ::2] += 1

    @wrap
    def step(x, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x, labels).item() for _ in range(12)]
    assert losses[-1] < 0.1 < losses[0]


def test_errors():
    with pytest.raises(tinyconv.ShapeError, match="size 3 found, its two poolings need at least 4"):
        models.create("fashion", size=3)
