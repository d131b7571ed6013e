"""python -m tinyconv inspect."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

import tinyconv as tc
from tinyconv.cli import inspect, main
from tinyconv.io import ModelCard, save_model

pytest.importorskip("matplotlib")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "my.cat.jpg"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


@pytest.fixture
def model_file(tmp_path):
    """lenet_mnist, whose answer is known: 75 % a."""
    return save(tmp_path / "run" / "model.safetensors", "lenet_mnist", channels=1, size=28)


def save(path, name, channels, size):
    model = tc.models.create(name, num_classes=2, in_channels=channels, size=size)
    last = list(model.children())[-1]
    last.weight.data[...] = 0
    last.bias.data[...] = [np.log(3.0), 0.0]
    half = [0.5] * channels
    path.parent.mkdir(exist_ok=True)
    save_model(path, model, ModelCard(model.architecture, ["a", "b"], (size, size), channels, half,
                                      half, drawn=True))  # fmt: skip
    return path


def run(*arguments):
    """The exit code of a command, or the message that it ends with."""
    with pytest.raises(SystemExit) as end:
        main(["inspect", *map(str, arguments)])
    return end.value.code


def pictures(folder):
    """The names of what is in `folder`, all of it readable images."""
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            picture.load()
    return sorted(path.name for path in folder.iterdir())


def test_all_convolutions(model_file, photo, capsys):
    assert run(model_file, photo) == 0
    folder = model_file.parent / "inspect" / "my.cat"
    assert pictures(folder) == [
        "features-00-conv2d.png", "features-03-conv2d.png", "filters.png", "gradcam.png",
        "saliency.png",
    ]  # fmt: skip
    out, err = capsys.readouterr()
    assert (
        out
        == f"""my.cat.jpg  a 75.0 %  b 25.0 %

{folder}:
  filters.png  features-00-conv2d.png  features-03-conv2d.png  saliency.png  gradcam.png

layers for --layer:
  Conv2d             0  3
  ReLU               1  4
  MaxPool2d          2  5
"""
    )
    assert err.endswith("note: this network was trained on drawn images, not on photos\n")


def test_of_many_convolutions_a_few_from_first_to_last(tmp_path, photo, capsys, monkeypatch):
    monkeypatch.setattr(inspect, "_MOST", 3)
    path = save(tmp_path / "model.safetensors", "catdog", channels=3, size=32)
    assert run(path, photo, "--out", tmp_path / "few") == 0
    features = [name for name in pictures(tmp_path / "few") if name.startswith("features")]
    assert features == [f"features-{n}-conv2d.png" for n in ("00", "08", "16")]
    assert "\n3 of 5 convolutions; --layer '*' draws all layers\n" in capsys.readouterr().out
    assert run(path, photo, "--out", tmp_path / "all", "--layer", "*") == 0
    every = {name for name in pictures(tmp_path / "all") if "conv2d" in name}
    assert len(every) == 5
    assert "convolutions;" not in capsys.readouterr().out


def test_named_layers_of_a_colour_network(tmp_path, photo, capsys):
    path = save(tmp_path / "model.safetensors", "catdog", channels=3, size=32)
    out = tmp_path / "new" / "folder"
    assert run(path, photo, "--layer", "2", "*5", "--out", out) == 0
    assert pictures(out) == [
        "features-02-relu.png", "features-05-batchnorm2d.png", "features-15-maxpool2d.png",
        "filters.png", "gradcam.png", "saliency.png",
    ]  # fmt: skip
    assert "layers for" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("3", "03"),
        ("12", "12"),
        ("8.block.0#2", "08.block.00-02"),
        ("conv2d_1", "conv2d_01"),
        ("conv1", "conv1"),
    ],
)
def test_file_names_sort_as_layers_do(call, name):
    assert inspect._file_name(call) == name


def test_bad_layers_end_in_one_line(model_file, photo):
    message = run(model_file, photo, "--layer", "0", "conv9")
    assert message.startswith("error: layers: 'conv9' found, expected some of 0, 1, 2, 3")
    assert run(model_file, photo, "--layer", "6", "7") == (
        "error: --layer: 6, 7 found, expected layers that give maps of several pixels"
    )
    assert not (model_file.parent / "inspect").exists()


def test_maps_of_one_pixel_are_left_out(tmp_path, photo, capsys):
    path = save(tmp_path / "model.safetensors", "lenet5", channels=1, size=32)
    assert run(path, photo, "--out", tmp_path / "new") == 0
    assert "features-03-conv2d.png" in pictures(tmp_path / "new")
    assert "features-06-conv2d.png" not in pictures(tmp_path / "new")
    assert "Conv2d             0  3\n" in capsys.readouterr().out


def test_bad_files_end_in_one_line(model_file, photo, tmp_path):
    assert run(tmp_path / "none", photo) == f"error: {tmp_path / 'none'}: no such file"
    assert run(model_file, tmp_path / "none") == f"error: {tmp_path / 'none'}: no such file"
    assert f"{photo}: could not be made" in run(model_file, photo, "--out", photo)


def test_without_matplotlib_one_line_says_what_to_install(model_file, photo, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(model_file, photo) == (
        "error: inspect draws with matplotlib, which is missing: pip install matplotlib"
    )
