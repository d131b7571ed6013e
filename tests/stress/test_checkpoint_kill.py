"""A training that saves after every step is killed (SIGKILL) at random moments and resumed.

TINYCONV_STRESS_KILLS sets how often (default 5). Run as a program, this file is the training:
`test_checkpoint_kill.py OUT EPOCHS`.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import tinyconv
from tinyconv import nn, optim
from tinyconv.data.dataset import ArrayDataset
from tinyconv.data.loader import Loader
from tinyconv.data.transforms import RandomHorizontalFlip
from tinyconv.io.tensor_file import read_tensors
from tinyconv.train import Trainer

KILLS = int(os.environ.get("TINYCONV_STRESS_KILLS", "5"))
LONGEST_LIFE = 0.2  # seconds of training before the kill


def train(out, epochs, checkpoint_every):
    tinyconv.manual_seed(3)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 6, 6, 1), dtype=np.uint8)
    rest, validation = ArrayDataset(pixels, np.arange(40) % 2, ["a", "b"]).split(0.3, seed=0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(64, 2),
    )
    optimizer = optim.Adam(model.parameters(), lr=0.001)
    trainer = Trainer(
        model,
        optimizer,
        mean=[0.5],
        std=[0.25],
        scheduler=optim.lr_scheduler.StepLR(optimizer, 5, 0.9),
        out=out,
        checkpoint_every=checkpoint_every,
    )
    loader = Loader(rest, 4, shuffle=True, augment=RandomHorizontalFlip(), seed=1)
    trainer.fit(loader, validation, epochs=epochs, restore_best=True, resume=True)


def start(out, epochs):
    """The training as a process of its own, returned when it is about to begin."""
    command = [sys.executable, __file__, str(out), str(epochs)]
    with open(out / "log.txt", "a") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    assert child.stdout.readline() == b"ready\n", (out / "log.txt").read_text()
    return child


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_at_random_moments_and_resumed(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    checkpoint = killed / "checkpoint.safetensors"
    rng = random.Random(0)
    saved, leftovers = 0, 0
    for _ in range(KILLS):
        with start(killed, epochs=10**6) as child:
            time.sleep(rng.uniform(0, LONGEST_LIFE))
            child.kill()
        assert child.returncode == -9, (killed / "log.txt").read_text()
        leftovers += len(list(killed.glob(".*.tmp")))
        if checkpoint.exists():
            read_tensors(checkpoint)  # raises where it is not whole
            saved += 1
    assert saved > 0
    epochs = read_tensors(checkpoint)[1]["position"]["epoch"] + 1
    train(killed, epochs, checkpoint_every=1)
    assert sorted(os.listdir(killed)) == ["checkpoint.safetensors", "log.txt"]
    train(whole, epochs, checkpoint_every=None)

    arrays, metadata = read_tensors(checkpoint)
    expected, about = read_tensors(whole / "checkpoint.safetensors")
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name, strict=True)
    for row in metadata["history"] + about["history"]:
        row["seconds"] = 0
    assert metadata == about
    sys.stderr.write(
        f"{KILLS} kills, {leftovers} of them while a checkpoint was being written, in "
        f"{epochs} epochs: no unreadable checkpoint, the same weights\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # loads the kernels, which takes a while
        train(Path(folder), 1, checkpoint_every=None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    train(Path(sys.argv[1]), int(sys.argv[2]), checkpoint_every=1)
