"""The examples run from end to end, and learn: a broken gradient would miss these accuracies."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tinyconv.data import Loader

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def run(name, out, *flags):
    return load(name).main([*flags, "--out", str(out), "--workers", "0"])


def test_mnist_learns_drawn_digits(tmp_path, capsys):
    result = run(
        "train_mnist", tmp_path, "--epochs", "4", "--drawn-images", "2000", "--batch-size", "16"
    )
    assert 0.85 <= result["test_accuracy"] <= 1
    assert result["data"]["drawn"] is True
    assert "built-in drawn images, not photos" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    written = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "result.json", "checkpoint.safetensors"} <= written


def test_catdog_learns_drawn_animals(tmp_path):
    """Few images and no augmentation: the network must come to know them by heart."""
    flags = ("--size", "32", "--epochs", "8", "--drawn-images", "220", "--batch-size", "10")
    result = run("train_catdog", tmp_path, *flags, "--lr", "3e-4", "--no-augment")
    assert result["history"][-1]["train_accuracy"] >= 0.95
    assert 0.5 <= result["test_accuracy"] <= 1
    assert [row["epoch"] for row in result["history"]] == list(range(1, 9))
    assert result["settings"]["size"] == 32


def test_resume_equals_one_run(tmp_path):
    flags = ("--drawn-images", "200", "--epochs", "2")
    whole = run("train_mnist", tmp_path / "whole", *flags)
    stopped = load("train_mnist")
    settings = stopped.parse(stopped.MnistSettings, None, [*flags, "--out", str(tmp_path / "cut")])

    class Cut(Exception):
        pass

    def cut_in_second_epoch(batches):
        def counted(self, number, start=0):
            for i, batch in enumerate(batches(self, number, start)):
                if self.shuffle and number == 1 and i == 1:  # only the training set is shuffled
                    raise Cut
                yield batch

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "epoch", cut_in_second_epoch(Loader.epoch))
        with pytest.raises(Cut):
            stopped.train(settings)
    resumed = run("train_mnist", tmp_path / "cut", *flags, "--resume")
    for name in ("test_accuracy", "test_loss", "confusion"):
        assert resumed[name] == whole[name]


@pytest.mark.parametrize("name", ["train_catdog", "train_mnist"])
def test_help_shows_every_flag_and_default(name, capsys):
    with pytest.raises(SystemExit) as end:
        load(name).main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for flag in ("data", "size", "epochs", "batch-size", "lr", "backend", "seed", "out", "resume"):
        assert f"--{flag}" in shown
    assert "default" in shown


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--epochs", "0"], 2, "expected a number >= 1"),
        (["--lr", "nan"], 2, "expected a number >= 0"),
        (["--batch-size", "many"], 2, "invalid whole number"),
        (["--backend", "torch"], 2, "invalid choice"),
        (["--data", "nowhere"], 1, "nowhere: no such folder"),
        (["--size", "8"], 1, "size is 8; expected at least 16 pixels"),
    ],
)
def test_bad_calls_end_in_one_line(flags, code, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run("train_catdog", tmp_path, *flags)
    text = capsys.readouterr().err.splitlines()[-1] if code == 2 else end.value.code
    assert says in text
    assert "\n" not in text
