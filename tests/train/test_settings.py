"""A settings class as a command line."""

import os
from dataclasses import dataclass

import numpy as np
import pytest

from tinyconv.train import Settings, flag, flag_of, parse
from tinyconv.train.settings import default_workers


@dataclass(frozen=True)
class Own(Settings):
    size: int = flag(0, "pixels (default: 7)")
    depth: float = flag(0.5, "of the network")
    shuffle: bool = flag(True, "the images")


def test_fields_are_flags():
    found = parse(Own, None, ["--size", "9", "--no-shuffle", "--batch-size", "4", "--resume"])
    assert (found.size, found.shuffle, found.batch_size, found.resume) == (9, False, 4, True)
    assert (found.depth, found.lr, found.data) == (0.5, 1e-3, None)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--size", "0"], "0 found, expected a number >= 1"),
        (["--lr", "-1"], "-1 found, expected a number >= 0"),
        (["--lr", "inf"], "inf found"),
        (["--depth", "nan"], "nan found"),
        (["--epochs", "1.5"], "invalid whole number value"),
        (["--wings", "2"], "unrecognized arguments"),
        (["--precision", "half"], "choose from 'float32', 'tf32', 'mixed'"),
    ],
)
def test_bad_values_are_refused(flags, says, capsys):
    with pytest.raises(SystemExit) as end:
        parse(Own, None, flags)
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_precision_and_what_follows_from_it():
    found = parse(Own, None, [])
    assert (found.precision, found.mixed, found.input_dtype) == (None, False, None)
    found = parse(Own, None, ["--precision", "mixed"])
    assert (found.mixed, found.input_dtype) == (True, np.float16)
    assert not parse(Own, None, ["--precision", "float32"]).mixed


def test_a_gpu_gets_more_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12), raising=False)
    assert parse(Own, None, ["--backend", "numpy"]).threads == 2
    assert parse(Own, None, ["--backend", "cupy"]).threads == 12
    assert parse(Own, None, ["--backend", "cupy", "--workers", "0"]).threads == 0
    assert [default_workers(name) for name in ("numpy", "cupy")] == [2, 12]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(200))
    assert default_workers("cupy") == 16


def test_help_shows_defaults_once(capsys):
    with pytest.raises(SystemExit):
        parse(Own, "What it does.", ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "What it does." in shown
    assert "of the network (default: 0.5)" in shown
    assert "pixels (default: 7) " in shown


@dataclass(frozen=True)
class Changed(Settings):
    epochs: int = flag_of(Settings, "epochs", 3)
    schedule: str = flag_of(Settings, "schedule", "constant")


def test_a_flag_with_another_default(capsys):
    assert parse(Changed, None, []).epochs == 3
    with pytest.raises(SystemExit):
        parse(Changed, None, ["--schedule", "linear"])
    assert "choose from 'cosine', 'constant'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(Changed, None, ["--help"])
    assert "passes over the training images (default: 3)" in " ".join(
        capsys.readouterr().out.split()
    )
