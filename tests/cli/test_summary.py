"""python -m tinyconv summary."""

import json

import pytest

from tinyconv import cli, models
from tinyconv.cli import summary
from tinyconv.io import ModelCard, save_model


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command: its exit code or message, and what it printed."""
    monkeypatch.setattr(cli, "COMMANDS", (summary,))

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main(["summary", *map(str, arguments)])
        return end.value.code, capsys.readouterr().out

    return run


@pytest.fixture
def model_file(tmp_path):
    model = models.create("lenet_mnist", num_classes=3, size=20)
    card = ModelCard(model.architecture, ["a", "b", "c"], (20, 20), 1, [0.5], [0.5])
    save_model(tmp_path / "model.safetensors", model, card)
    return tmp_path / "model.safetensors"


def test_a_network_by_name(run):
    code, text = run("lenet_mnist")
    assert code == 0
    assert "├─ 3 Conv2d      (1, 16, 8, 8)         2,416     153,600" in text
    assert "parameters  44,426: 44,426 trainable, 0 frozen" in text
    assert "mult-adds   281,640" in text


def test_settings(run):
    flags = ("--size", 64, "--classes", 7, "--batch-size", 2, "--depth", 0, "--json")
    code, text = run("catdog_wide", *flags)
    assert code == 0
    figures = json.loads(text)
    assert figures["depth"] == 0
    assert figures["layers"][0]["output_shapes"] == [[2, 7]]
    assert figures["layers"][1]["output_shapes"] == [[2, 64, 64, 64]]


def test_a_saved_network_with_times(run, model_file):
    code, text = run(model_file, "--timing")
    assert code == 0
    assert "(1, 6, 16, 16)" in text
    assert "11 Linear" in text
    assert "backward ms" in text


def test_bad_input_ends_in_one_line(run, model_file, tmp_path):
    code, _ = run("resnet")
    assert "resnet: no such file, and no network's name; those are catdog, " in code
    code, _ = run(model_file, "--classes", 2)
    assert f"{model_file}: --classes is for networks by name" in code
    code, _ = run(model_file, "--size", 28)
    assert "layer '7' Linear(64, 120)" in code
    code, _ = run("catdog", "--size", 4)
    assert "size 4 found" in code
    (tmp_path / "other").write_bytes(b"\x80\x04pickle")
    code, _ = run(tmp_path / "other")
    assert "other" in code
    assert "\n" not in code
    assert run("catdog", "--depth", "-1")[0] == 2
