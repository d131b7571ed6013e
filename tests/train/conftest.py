"""A task small enough to be trained in milliseconds, with all that makes resuming hard:
batch norm, dropout, shuffling, augmentation, moments and a schedule."""

import numpy as np
import pytest

import tinyconv
from tinyconv import nn, optim
from tinyconv.data.dataset import ArrayDataset
from tinyconv.data.loader import Loader
from tinyconv.data.transforms import RandomHorizontalFlip
from tinyconv.train import Trainer
from tinyconv.train.device import device_name

MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.3, 0.3)


def images(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    pixels = rng.integers(0, 200, (count, 6, 6, 3))
    pixels[np.arange(count), :, :, labels] += 55
    return ArrayDataset(pixels.astype(np.uint8), labels, ["red", "green", "blue"])


@pytest.fixture
def gpu(cuda):
    """CuPy; an emulated one without kernels, which are slow there: the loop is what is tested."""
    tinyconv.use_backend("cupy", kernels=not device_name().startswith("an emulator"))
    return cuda


@pytest.fixture
def backend(backend, request):
    """Each array library, CuPy as in `gpu`."""
    if backend == "cupy":
        request.getfixturevalue("gpu")
    return backend


@pytest.fixture
def training_set():
    return images(26, seed=1)


@pytest.fixture
def validation_set():
    return images(15, seed=2)


@pytest.fixture
def new_loader(training_set):
    """new_loader(**options): shuffled, augmented batches of 4, 7 in an epoch."""

    def new(**options):
        defaults = {"shuffle": True, "augment": RandomHorizontalFlip(), "seed": 5, "workers": 0}
        return Loader(training_set, **{"batch_size": 4, **defaults, **options})

    return new


@pytest.fixture
def new_trainer(tmp_path):
    """new_trainer(seed, **options): a network fresh from `seed`, writing to tmp_path / "out"."""

    def new(seed=0, optimizer=None, scheduler=None, width=4, **options):
        tinyconv.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, width, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(16 * width, 3),
        )
        make = optimizer or (lambda parameters: optim.Adam(parameters, lr=0.01))
        chosen = make(model.parameters())
        options.setdefault("scheduler", scheduler(chosen) if scheduler else None)
        options.setdefault("out", tmp_path / "out")
        options.setdefault("eager", True)  # the loss is called at every step, and may misbehave
        return Trainer(model, chosen, mean=MEAN, std=STD, **options)

    return new
