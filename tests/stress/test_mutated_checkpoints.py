"""Damaged model files and checkpoints: a DataError or a valid, finite network, and nothing else.

TINYCONV_STRESS_CASES sets the number of mutated files of each kind (default 200).
"""

import contextlib
import json
import os
import random
import re
import resource
import zipfile
from io import BytesIO

import numpy as np
import pytest

import tinyconv
from tinyconv import models, nn, optim
from tinyconv.data.dataset import ArrayDataset
from tinyconv.data.loader import Loader
from tinyconv.errors import DataError
from tinyconv.io import ModelCard, load_model, load_weights, save_model
from tinyconv.io.tensor_file import read_tensors, write_tensors
from tinyconv.train import Trainer, TrainingDiverged

CASES = int(os.environ.get("TINYCONV_STRESS_CASES", "200"))
MEMORY_MIB = 256  # how much one whole test may add to the process at most


def flip(data, rng):
    """Some bytes changed."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 10, 100))):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def cut(data, rng):
    """The end, or a part from the middle, missing."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] if rng.random() < 0.5 else data[:start] + data[end:]


def insert(data, rng):
    """Bytes put in or doubled."""
    place, length = rng.randrange(len(data) + 1), rng.choice((1, 8, 1000))
    added = rng.randbytes(length) if rng.random() < 0.5 else data[place : place + length]
    return data[:place] + added + data[place:]


def edit_number(text, rng):
    """One number of a JSON text replaced by another."""
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", text))
    chosen = rng.choice(numbers)
    value = rng.choice(
        (b"0", b"-1", b"1e400", b"NaN", b"7", b"4294967296", b"9" * 19, b"null", b"[]")
    )
    return text[: chosen.start()] + value + text[chosen.end() :]


def header(data, rng):
    """The header's length, or a number, name or letter in it, changed."""
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length]
    kind = rng.randrange(3)
    if kind == 0:
        length = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**63, rng.randrange(2**64)))
        return length.to_bytes(8, "little") + data[8:]
    changed = edit_number(text, rng) if kind == 1 else flip(text, rng)
    return len(changed).to_bytes(8, "little") + changed + data[8 + length :]


def metadata(data, rng, path):
    """Something in the JSON metadata changed, and the checksum made right again."""
    path.write_bytes(data)
    arrays, about = read_tensors(path)
    text = json.dumps(about).encode()
    for _ in range(100):
        try:
            changed = json.loads(edit_number(text, rng) if rng.random() < 0.5 else flip(text, rng))
        except ValueError:
            continue
        break
    write_tensors(path, arrays, changed if isinstance(changed, dict) else {})
    return path.read_bytes()


def mutations(data, path, seed):
    """CASES damaged forms of a file's content, each with the random seed that gives it."""
    for case in range(CASES):
        rng = random.Random(f"{seed} {case}")
        mutate = rng.choice((flip, cut, insert, header, metadata))
        yield mutate(data, rng, path) if mutate is metadata else mutate(data, rng)


@pytest.fixture
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEMORY_MIB * 1024


def is_refused(path, read):
    """Whether read() raises a DataError that names the file; any other error ends the test."""
    message = None
    try:
        read()
    except DataError as error:
        message = str(error)
    assert message is None or message.startswith(f"{path}: ")
    return message is not None


def assert_finite(model):
    assert all(np.isfinite(array).all() for array in model.state_dict().values())


@pytest.mark.usefixtures("bounded_memory")
def test_mutated_models(tmp_path):
    path = tmp_path / "model.safetensors"
    model = models.create("lenet_mnist", num_classes=2, size=16, in_channels=1)
    card = ModelCard(model.architecture, ["cat", "dog"], (16, 16), 1, [0.5], [0.25])
    save_model(path, model, card)
    refused = 0
    for content in mutations(path.read_bytes(), path, "model"):
        path.write_bytes(content)
        refused += is_refused(path, lambda: assert_finite(load_model(path)[0]))
        is_refused(path, lambda: load_weights(model, path))
        assert_finite(model)
    assert refused > CASES / 2


@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize("kind", ["zip", "pickle in a whole zip", "older format"])
def test_mutated_pytorch_files(tmp_path, kind):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    model = models.create("lenet_mnist", num_classes=2, size=16, in_channels=1)
    state = {key: torch.from_numpy(array) for key, array in model.state_dict().items()}
    torch.save(state, path, _use_new_zipfile_serialization=kind != "older format")
    whole, refused = path.read_bytes(), 0
    for case in range(CASES):
        rng = random.Random(f"{kind} {case}")
        mutate = rng.choice((flip, cut, insert))
        if kind == "pickle in a whole zip":
            with zipfile.ZipFile(BytesIO(whole)) as old, zipfile.ZipFile(path, "w") as new:
                for name in old.namelist():
                    content = old.read(name)
                    changes = name.endswith("data.pkl")
                    new.writestr(name, mutate(content, rng) if changes else content)
        else:
            path.write_bytes(mutate(whole, rng))
        refused += is_refused(path, lambda: load_weights(model, path, strict=False))
        assert_finite(model)
    assert refused > CASES / 4


@pytest.mark.usefixtures("bounded_memory")
def test_mutated_checkpoints(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
    loader = Loader(ArrayDataset(pixels, np.arange(12) % 2, ["a", "b"]), 4, shuffle=True, workers=0)

    def train(epochs, resume):
        tinyconv.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.1), nn.Linear(16, 2))
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        options = {"scheduler": scheduler, "out": tmp_path, "quiet": True}
        ours = Trainer(model, optimizer, mean=[0.5], std=[0.25], **options)
        # A number changed under a right checksum may well be one that makes the training diverge.
        with contextlib.suppress(TrainingDiverged):
            ours.fit(loader, loader.dataset, epochs=epochs, restore_best=True, resume=resume)
            assert_finite(model)

    train(epochs=2, resume=False)
    whole = path.read_bytes()
    refused = 0
    for content in mutations(whole, path, "checkpoint"):
        path.write_bytes(content)
        refused += is_refused(path, lambda: train(epochs=3, resume=True))
    assert refused > CASES / 2
