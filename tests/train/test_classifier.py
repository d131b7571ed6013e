"""The frame of the examples: what it refuses, which weights it keeps, and how errors end."""

import json

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import DataError, models, nn
from tinyconv.data.dataset import ArrayDataset
from tinyconv.data.loader import Loader
from tinyconv.io import load_model
from tinyconv.train import (
    Settings,
    Trainer,
    begin,
    clear_errors,
    evaluate,
    train_classifier,
)
from tinyconv.train.device import device_name

MEAN, STD = (0.5,), (0.5,)


def images(count, seed, classes=("dark", "bright")):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(classes)
    pixels = rng.integers(0, 100, (count, 16, 16, 1)) + 150 * labels[:, None, None, None]
    return ArrayDataset(pixels.astype(np.uint8), labels, list(classes))


@pytest.fixture
def train(tmp_path):
    def run(training, test, **settings):
        tc.manual_seed(0)
        model = models.create("lenet_mnist", num_classes=len(training.classes), size=16)
        optimizer = tc.optim.SGD(model.parameters(), lr=settings.pop("lr", 0.05))
        chosen = Settings(out=str(tmp_path / "out"), workers=0, **{"epochs": 3, **settings})
        return train_classifier(
            chosen, model=model, optimizer=optimizer, train=training, test=test, mean=MEAN, std=STD
        )

    return run


def test_classes_of_the_test_set_must_be_those_of_the_training(train, tmp_path):
    with pytest.raises(DataError, match=r"its classes are bright, dark; .* are dark, bright"):
        train(images(40, 0), images(10, 1, ("bright", "dark")))
    with pytest.raises(DataError, match="its classes are dark, bright, grey"):
        train(images(40, 0), images(10, 1, ("dark", "bright", "grey")))
    assert not (tmp_path / "out").exists()


def test_the_saved_network_is_that_of_the_best_epoch(train, tmp_path, capsys):
    result = train(images(80, 0), images(20, 1), epochs=4, lr=1.0)
    best = min(result["history"], key=lambda row: (-row["val_accuracy"], row["val_loss"]))
    assert result["best_epoch"] == best["epoch"]
    model, card = load_model(tmp_path / "out" / "model.safetensors")
    validation = images(80, 0).split(0.1, 0)[1]
    again = evaluate(model, validation, card.mean, card.std).loss
    assert again == pytest.approx(best["val_loss"], rel=1e-5)
    assert (result["best_epoch"] == 4) != ("keeping the weights" in capsys.readouterr().out)


@pytest.mark.parametrize(
    ("precision", "told"), [(None, "tf32"), ("float32", "float32"), ("mixed", "mixed")]
)
def test_the_result_tells_what_computed_it(backend, train, tmp_path, capsys, precision, told):
    if backend == "numpy":
        precision, told = None, "float32"
    settings = {"epochs": 1, "backend": backend, "precision": precision}
    begin(Settings(out=str(tmp_path / "out"), **settings))
    result = train(images(40, 0), images(10, 1), **settings)
    assert (result["backend"], result["precision"]) == (backend, told)
    assert result["device"] == device_name()
    assert result["settings"]["precision"] == precision
    said = {
        "numpy": "parameters; backend numpy\n",
        "cupy": f"parameters; backend cupy on {device_name()}, precision {told}\n",
    }
    assert said[backend] in capsys.readouterr().out


def test_a_precision_that_the_cpu_has_not(tmp_path):
    for precision in ("tf32", "mixed"):
        with pytest.raises(SystemExit) as end, clear_errors():
            begin(Settings(out=str(tmp_path), precision=precision))
        assert end.value.code == (
            f"error: --precision {precision}: the CPU computes in float32; "
            "this is for --backend cupy"
        )


def test_early_stopping_is_told(train, capsys):
    result = train(images(40, 0), images(10, 1), epochs=50, patience=1, lr=0.0)
    assert result["stopped_early"] is True
    assert len(result["history"]) == 2
    assert "stopped early, after epoch 2; keeping the weights of epoch 1" in capsys.readouterr().out


def test_an_unfinished_training_is_not_overwritten(train, tmp_path):
    train(images(40, 0), images(10, 1))
    out = tmp_path / "out"
    train(images(40, 0), images(10, 1))  # a finished one is
    before = (out / "checkpoint.safetensors").read_bytes()
    told = json.loads((out / "result.json").read_text())
    told["history"].pop()  # as if the checkpoint had got further than the result
    (out / "result.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=f"{out}: holds an unfinished training"):
        train(images(40, 0), images(10, 1))
    assert (out / "checkpoint.safetensors").read_bytes() == before
    (out / "result.json").unlink()
    with pytest.raises(DataError, match="unfinished"):
        train(images(40, 0), images(10, 1))
    train(images(40, 0), images(10, 1), resume=True)
    assert json.loads((out / "result.json").read_text())["test_accuracy"] <= 1


def test_other_images_are_not_resumed(train):
    train(images(40, 0), images(10, 1))
    swapped = images(40, 0, ("dark", "bright"))
    swapped.labels = 1 - swapped.labels
    with pytest.raises(DataError, match="checksum of the training images"):
        train(swapped, images(10, 1), resume=True)


def test_a_last_batch_of_one_image_is_left_out(train):
    result = train(images(57, 0), images(10, 1), batch_size=17, epochs=1)  # 52 = 3 * 17 + 1
    assert len(result["history"]) == 1


def test_errors_of_ours_end_in_one_line_and_others_keep_their_traceback():
    with pytest.raises(SystemExit) as end, clear_errors():
        models.create("nothing")
    assert str(end.value.code).startswith("error: model: 'nothing' found")
    with pytest.raises(ValueError, match="mismatch"), clear_errors():
        np.zeros(2) @ np.zeros(3)
    with pytest.raises(SystemExit) as end, clear_errors():
        raise MemoryError
    assert "--batch-size" in str(end.value.code)
    with pytest.raises(SystemExit) as end, clear_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130


def test_float64_networks_are_trained_and_evaluated():
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2)).astype(np.float64)
    optimizer = tc.optim.SGD(model.parameters(), lr=0.05)
    trainer = Trainer(model, optimizer, mean=MEAN, std=STD, quiet=True)
    history = trainer.fit(Loader(images(40, 0), 5), images(10, 1), epochs=2)
    assert history[1].train_loss < history[0].train_loss
    assert model[1].weight.dtype == np.float64
