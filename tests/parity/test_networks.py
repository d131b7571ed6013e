"""Whole trainings in float64: tinyconv's networks, and the same written out for PyTorch.

Convolutions before a batch norm go without their bias: its true gradient is zero, and Adam would
make steps of full size out of the rounding errors in it.
"""

import numpy as np
import pytest

import tinyconv.functional as F
from tinyconv import Tensor, models, optim

torch = pytest.importorskip("torch")

nn = torch.nn
RTOL = 1e-10


def catdog(size):
    """5 convolutions and 4 max pools, batch norm after every convolution; tanh between linears."""
    layers, C = [], 3
    for i, O in enumerate((32, 64, 128, 256, 256)):
        layers += [nn.Conv2d(C, O, 3, padding=1, bias=False), nn.BatchNorm2d(O), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i < 4 else []
        C = O
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(256 * (size // 16) ** 2, 256), nn.Tanh(),
        nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 32), nn.Tanh(), nn.Linear(32, 2),
    )  # fmt: skip


def catdog_notebook():
    """6 times convolution, batch norm, ReLU, max pool; no padding, so that 190 pixels end as 1."""
    layers, C = [], 3
    for O in (64, 128, 256, 256, 512, 512):
        layers += [nn.Conv2d(C, O, 3, bias=False), nn.BatchNorm2d(O), nn.ReLU(), nn.MaxPool2d(2)]
        C = O
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(),
        nn.Linear(64, 2),
    )  # fmt: skip


class Repeat(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        for _ in range(4):
            x = self.block(x)
        return x


def catdog_wide(size):
    """ReLU before batch norm; the last block four times with the same weights."""

    def block(C, O):
        return nn.Conv2d(C, O, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(O), nn.MaxPool2d(2)

    return nn.Sequential(
        *block(3, 64), *block(64, 512), Repeat(nn.Sequential(*block(512, 512))),
        nn.Flatten(), nn.Linear(512 * (size // 64) ** 2, 2),
    )  # fmt: skip


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84),
        nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def check_training(parity, ours, theirs, shape, classes, steps=20, method="Adam", **settings):
    """Both networks train on the same batches; then all that they hold is compared."""
    theirs = theirs.double()
    ours = ours.astype("float64")
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    optimizer = getattr(optim, method)(ours.parameters(), lr=1e-3, **settings)
    reference = getattr(torch.optim, method)(theirs.parameters(), lr=1e-3, **settings)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        images, labels = rng.standard_normal(shape), rng.integers(0, classes, shape[0])
        optimizer.zero_grad()
        loss = F.cross_entropy(ours(images), labels)
        loss.backward()
        optimizer.step()
        reference.zero_grad()
        expected = nn.functional.cross_entropy(
            theirs(torch.from_numpy(images)), torch.from_numpy(labels)
        )
        expected.backward()
        reference.step()
        parity.equal(loss, expected, "loss", RTOL)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    for key, found in ours.state_dict().items():
        kind = "running statistics" if "running" in key else "parameters"
        parity.equal(found, state[key], kind, RTOL)
    ours.eval(), theirs.eval()
    images = rng.standard_normal(shape)
    parity.equal(ours(Tensor(images)), theirs(torch.from_numpy(images)), "evaluation", RTOL)


@pytest.fixture(autouse=True)
def _same_weights_in_every_run():
    torch.manual_seed(0)


def test_catdog(parity):
    ours = models.create("catdog", size=32, conv_bias=False)
    check_training(parity, ours, catdog(32), (4, 3, 32, 32), 2)


def test_catdog_notebook(parity):
    """With SGD: where gradients are as small as here, Adam divides rounding errors by them."""
    ours = models.create("catdog_notebook", size=190, conv_bias=False)
    shape = (2, 3, 190, 190)
    check_training(parity, ours, catdog_notebook(), shape, 2, steps=2, method="SGD", momentum=0.9)


def test_catdog_wide(parity):
    """With SGD, as above; 4 images, as batch norm over fewer values amplifies rounding errors."""
    ours = models.create("catdog_wide", size=64)
    shape = (4, 3, 64, 64)
    check_training(parity, ours, catdog_wide(64), shape, 2, steps=2, method="SGD", momentum=0.9)


def test_gradients_of_shared_weights(parity):
    """The gradient of a block used four times is the sum over its uses."""
    theirs = catdog_wide(64).double()
    ours = models.create("catdog_wide", size=64).astype("float64")
    ours.load_state_dict(theirs.state_dict())
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((2, 3, 64, 64)), np.array([0, 1])
    logits, expected = ours(images), theirs(torch.from_numpy(images))
    parity.equal(logits, expected, "logits", RTOL)
    F.cross_entropy(logits, labels).backward()
    nn.functional.cross_entropy(expected, torch.from_numpy(labels)).backward()
    references = dict(theirs.named_parameters())
    assert [name for name, _ in ours.named_parameters()] == list(references)
    for name, parameter in ours.named_parameters():
        parity.equal(parameter.grad, references[name].grad, f"gradient of {name}", RTOL)


def test_lenet(parity):
    check_training(parity, models.create("lenet_mnist"), lenet(), (16, 1, 28, 28), 10)


def test_float32(parity):
    """Evaluation in float32 at another size than in training above."""
    for ours, theirs, shape in (
        (models.create("catdog", size=48, conv_bias=False), catdog(48), (1, 3, 48, 48)),
        (models.create("lenet_mnist"), lenet(), (3, 1, 28, 28)),
    ):
        ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        parity.equal(ours.eval()(x), theirs.eval()(torch.from_numpy(x)), "output")
