"""python -m tinyconv predict and evaluate."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tinyconv as tc
from tinyconv import nn
from tinyconv.cli import main
from tinyconv.io import ModelCard, save_model

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


@pytest.fixture
def model_file(tmp_path):
    """A catdog network whose answer is known: more red than blue is a cat."""
    model = tc.models.create("catdog", num_classes=2, size=16)
    last = model[-1]
    last.weight.data[...] = 0
    last.bias.data[...] = [np.log(3.0), 0.0]  # 75 % cat, whatever the photo
    path = tmp_path / "model.safetensors"
    card = ModelCard(model.architecture, ["cat", "dog"], (16, 16), 3, MEAN, STD)
    save_model(path, model, card)
    return path


@pytest.fixture
def photos(tmp_path):
    for name in ("cats/cat.1.png", "cats/cat.2.png", "cats/cat.10.png", "dogs/dog.1.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), "red").save(path)
    return tmp_path / "photos"


def run(*arguments):
    """The exit code of a command, or the message that it ends with."""
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code


def test_predict_prints_a_line_for_each_photo(model_file, photos, capsys):
    assert run("predict", model_file, photos / "cats", photos / "dogs" / "dog.1.png") == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["cat.1.png", "cat.2.png", "cat.10.png", "dog.1.png"]
    assert lines == [f"{name}  cat 75.0 %  dog 25.0 %" for name in names]


def test_predict_as_json_and_csv(model_file, photos, capsys):
    assert run("predict", model_file, photos / "cats" / "cat.1.png", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["class"] == "cat"
    assert row["path"].endswith("cat.1.png")
    assert row["probabilities"] == pytest.approx({"cat": 0.75, "dog": 0.25}, abs=1e-6)
    assert run("predict", model_file, photos, "--csv") == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(table) == 4
    assert table[0]["class"] == "cat"
    assert float(table[0]["cat"]) == pytest.approx(0.75)


def test_predict_names_unreadable_files_and_goes_on(model_file, photos, capsys):
    bad = photos / "cats" / "cat.3.jpg"
    bad.write_text("not a photo")
    assert run("predict", model_file, photos / "cats") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.startswith(f"error: {bad}: not a readable image")


def test_precision(model_file, photos):
    assert run("evaluate", model_file, photos, "--json", "--precision", "float32") == 0
    says = run("evaluate", model_file, photos, "--backend", "numpy", "--precision", "tf32")
    assert says.startswith("error: --precision tf32: the CPU computes in float32")


def test_evaluate(model_file, photos, capsys):
    assert run("evaluate", model_file, photos, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["accuracy"] == 0.75
    assert figures["confusion"] == [[3, 0], [1, 0]]
    assert figures["classes"] == ["cat", "dog"]
    assert run("evaluate", model_file, photos) == 0
    assert "accuracy 75.00% of 4 images" in capsys.readouterr().out


def test_evaluate_needs_the_models_classes(model_file, photos):
    (photos / "dogs").rename(photos / "wolves")
    message = run("evaluate", model_file, photos)
    assert "has the classes cats, wolves; the network knows cat, dog" in message
    (photos / "wolves").rename(photos / "cat")
    assert "has the classes cat, cats; the network knows" in run("evaluate", model_file, photos)


def test_evaluate_can_leave_bad_photos_out(model_file, photos, capsys):
    (photos / "dogs" / "dog.2.jpg").write_bytes(b"")
    assert "dog.2.jpg: the file is empty" in run("evaluate", model_file, photos)
    assert run("evaluate", model_file, photos, "--on-error", "skip", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["images"], figures["skipped"]) == (4, 1)


def test_a_closed_pipe_ends_quietly(model_file, photos):
    command = f"{sys.executable} -m tinyconv predict {model_file} {photos} --json | true"
    end = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert end.stderr == ""


def test_the_environment_names_the_backend(model_file, photos, monkeypatch):
    monkeypatch.setenv("TINYCONV_BACKEND", "banana")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(model_file), str(photos)])
    assert "banana" in str(end.value.code)


@pytest.mark.parametrize("size", ["0", "-3", "many"])
def test_batch_size_is_checked(size, model_file, photos, capsys):
    assert run("predict", model_file, photos, "--batch-size", size) == 2
    assert "--batch-size" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_bad_input_ends_in_one_line(command, model_file, photos, tmp_path):
    assert "no such file" in run(command, tmp_path / "none.safetensors", photos)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"\x80\x04pickle")
    message = run(command, other, photos)
    assert message.startswith(f"error: {other}: ")


def test_missing_photos_are_named(model_file, tmp_path, capsys):
    assert run("predict", model_file, tmp_path / "nowhere") == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'nowhere'}: no such file\n"
    assert "no such file or folder" in run("evaluate", model_file, tmp_path / "nowhere")


def test_grey_networks_take_colour_photos(tmp_path, photos, capsys):
    model = tc.models.create("lenet_mnist", num_classes=2)
    assert isinstance(model, nn.Module)
    path = tmp_path / "grey.safetensors"
    save_model(path, model, ModelCard(model.architecture, ["a", "b"], (28, 28), 1, [0.5], [0.5]))
    assert run("predict", path, photos / "cats") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_evaluate_takes_the_test_part_of_a_data_set(model_file, photos, tmp_path, capsys):
    root = tmp_path / "set"
    for part, count in (("train", 3), ("test", 2)):
        for kind in ("cats", "dogs"):
            for number in range(count):
                path = root / part / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (20, 30), "red").save(path)
    assert run("evaluate", model_file, root, "--json") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["images"] == 4
    assert str(root / "test") in out.err


def test_evaluate_takes_cats_and_dogs_of_cifar10(model_file, tmp_path, capsys):
    records = np.zeros((10, 3073), np.uint8)
    records[:, 0] = np.arange(10)
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        (tmp_path / name).write_bytes(np.repeat(records, 1000, axis=0).tobytes())
    assert run("evaluate", model_file, tmp_path, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["images"], figures["accuracy"]) == (2000, 0.5)
