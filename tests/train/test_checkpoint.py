"""Resuming: bit for bit the same as never having stopped, or refused with a reason."""

import pickle

import numpy as np
import pytest
import safetensors.numpy

import tinyconv
from tinyconv import functional as F
from tinyconv import optim
from tinyconv.data import Loader
from tinyconv.data.transforms import RandomCrop
from tinyconv.errors import DataError
from tinyconv.io.tensor_file import read_tensors, write_tensors
from tinyconv.optim import lr_scheduler
from tinyconv.train import use_device

EPOCHS = 3


class Killed(Exception):
    """Stands for the end of the process."""


def dying_loss(call):
    """Cross-entropy that raises Killed in its n-th call,."""
    calls = 0

    def loss(logits, labels):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return F.cross_entropy(logits, labels)

    return loss


class DyingLoader(Loader):
    """Raises Killed in the place of its n-th batch."""

    batches_left = None

    def epoch(self, number, start=0):
        for batch in super().epoch(number, start):
            if self.batches_left == 0:
                raise Killed
            self.batches_left -= 1
            yield batch


def dying_loader(loader, batches):
    loader.__class__ = DyingLoader
    loader.batches_left = batches
    return loader


def figures(history):
    """The history without the clock."""
    return [{**row, "seconds": None} for row in history.to_json()]


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name, strict=True)


SETUPS = {
    "adam": {},
    "sgd, cosine": {
        "optimizer": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        "scheduler": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    },
    "rmsprop, by steps": {
        "optimizer": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
        "scheduler": lambda o: lr_scheduler.StepLR(o, 4, 0.7),
        "scheduler_every": "step",
    },
    "adamw, plateau": {
        "optimizer": lambda p: optim.AdamW(p, lr=0.5, amsgrad=True),
        "scheduler": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    },
}


# With 7 steps and 4 batches of validation an epoch has 11 calls of the loss.
@pytest.mark.parametrize("call", [2, 5, 8, 10, 12, 16, 22, 29, 33])
@pytest.mark.parametrize("setup", SETUPS)
def test_resume_is_bit_identical(new_trainer, new_loader, validation_set, setup, call):
    options = {**SETUPS[setup], "checkpoint_every": 1}
    fit = {"epochs": EPOCHS, "restore_best": True}
    whole = new_trainer(**SETUPS[setup], out=None)
    expected = whole.fit(new_loader(), validation_set, **fit)

    with pytest.raises(Killed):
        new_trainer(**options, loss=dying_loss(call)).fit(new_loader(), validation_set, **fit)
    resumed = new_trainer(seed=123, **options)  # other weights and random numbers to begin with
    history = resumed.fit(new_loader(workers=2), validation_set, **fit, resume=True)

    assert figures(history) == figures(expected)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    ours, theirs = resumed.optimizer.state_dict(), whole.optimizer.state_dict()
    for number, arrays in theirs["state"].items():
        assert_same(ours["state"][number], arrays)
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("batches", [2, 3, 7, 9, 20])
@pytest.mark.parametrize("mixed", [False, True])
def test_resume_of_a_compiled_training_is_bit_identical(
    backend, new_trainer, new_loader, validation_set, batches, mixed
):
    options = {"eager": False, "mixed": mixed}
    whole = new_trainer(out=None, **options)
    expected = whole.fit(new_loader(), validation_set, epochs=EPOCHS)
    with pytest.raises(Killed):
        new_trainer(checkpoint_every=1, **options).fit(
            dying_loader(new_loader(), batches), validation_set, epochs=EPOCHS
        )
    resumed = new_trainer(seed=123, **options)
    history = resumed.fit(new_loader(), validation_set, epochs=EPOCHS, resume=True)
    assert resumed._compiled_step.refusal is None
    assert figures(history) == figures(expected)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("setup", SETUPS)
def test_resume_of_images_kept_on_a_gpu_is_bit_identical(
    gpu, new_trainer, new_loader, validation_set, setup
):
    options = SETUPS[setup]
    fit = {"epochs": EPOCHS, "restore_best": True}
    whole = new_trainer(**options, out=None)
    expected = whole.fit(new_loader(augment=None), validation_set, **fit)
    with pytest.raises(Killed):
        new_trainer(**options, checkpoint_every=1, loss=dying_loss(16)).fit(
            new_loader(augment=None), validation_set, **fit
        )
    resumed = new_trainer(seed=123, **options)
    history = resumed.fit(new_loader(augment=None), validation_set, **fit, resume=True)
    assert figures(history) == figures(expected)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


def test_the_scale_of_the_loss_is_resumed(new_trainer, new_loader, tmp_path):
    ours = new_trainer(mixed=True)
    ours.scaler.load_state_dict({"scale": 1024.0, "growth_tracker": 1999})
    ours.fit(new_loader(), epochs=1)
    assert ours.scaler.state_dict() == {"scale": 2048.0, "growth_tracker": 6}
    resumed = new_trainer(mixed=True)
    resumed.fit(new_loader(), epochs=1, resume=True)
    assert resumed.scaler.state_dict() == ours.scaler.state_dict()
    with pytest.raises(DataError, match="precision was 'mixed' and is now 'float32'"):
        new_trainer().fit(new_loader(), epochs=1, resume=True)
    path = tmp_path / "out" / "checkpoint.safetensors"
    arrays, metadata = read_tensors(path)
    for scale in (0.0, "a", None):
        metadata["scaler"]["scale"] = scale
        write_tensors(path, arrays, metadata)
        with pytest.raises(DataError, match="damaged checkpoint"):
            new_trainer(mixed=True).fit(new_loader(), epochs=1, resume=True)


def test_another_precision_is_refused(gpu, new_trainer, new_loader):
    new_trainer().fit(new_loader(), epochs=1)
    use_device("cupy", "float32")
    with pytest.raises(DataError, match="precision was 'tf32' and is now 'float32'"):
        new_trainer().fit(new_loader(), epochs=2, resume=True)


def test_stopping_many_times(new_trainer, new_loader, validation_set):
    whole = new_trainer(out=None)
    expected = whole.fit(new_loader(), validation_set, epochs=EPOCHS)
    for _ in range(100):
        ours = new_trainer(checkpoint_every=1, loss=dying_loss(6))
        try:
            history = ours.fit(new_loader(), validation_set, epochs=EPOCHS, resume=True)
        except Killed:
            continue
        break
    assert figures(history) == figures(expected)
    assert_same(ours.model.state_dict(), whole.model.state_dict())


def test_more_epochs_later_are_as_if_asked_for_at_once(new_trainer, new_loader):
    whole = new_trainer(out=None)
    expected = whole.fit(new_loader(), epochs=EPOCHS)
    new_trainer().fit(new_loader(), epochs=1)
    ours = new_trainer(seed=4)
    history = ours.fit(new_loader(), epochs=EPOCHS, resume=True)
    assert figures(history) == figures(expected)
    assert_same(ours.model.state_dict(), whole.model.state_dict())
    again = ours.fit(new_loader(), epochs=EPOCHS, resume=True)  # nothing is left to do
    assert figures(again) == figures(history)


def test_resume_where_there_is_no_checkpoint(new_trainer, new_loader, capsys, tmp_path):
    history = new_trainer().fit(new_loader(), epochs=1, resume=True)
    assert len(history) == 1
    note = capsys.readouterr().err.splitlines()[0]
    path = tmp_path / "out" / "checkpoint.safetensors"
    assert note == f"{path}: no checkpoint yet, starting with epoch 1"
    with pytest.raises(ValueError, match="needs out"):
        new_trainer(out=None).fit(new_loader(), epochs=1, resume=True)


def test_leftovers_of_a_killed_run_are_removed(new_trainer, new_loader, tmp_path):
    leftover = tmp_path / "out" / ".checkpoint.safetensors.00c0ffee.tmp"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    new_trainer().fit(new_loader(), epochs=1)
    assert not leftover.exists()


# Refusals -----------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(new_trainer, new_loader, tmp_path):
    """A checkpoint from the middle of epoch 2."""
    with pytest.raises(Killed):
        new_trainer(checkpoint_every=1, loss=dying_loss(10)).fit(new_loader(), epochs=EPOCHS)
    return tmp_path / "out" / "checkpoint.safetensors"


@pytest.fixture
def refused(new_trainer, new_loader, checkpoint):
    """refused(trainer=None, loader=None, **fit): the message with which resuming is refused."""

    def attempt(trainer=None, loader=None, validation=None, **fit):
        trainer = trainer or new_trainer(seed=7)
        before, content = trainer.model.state_dict(), checkpoint.read_bytes()
        with pytest.raises(DataError) as caught:
            trainer.fit(
                loader or new_loader(), validation, **{"epochs": EPOCHS, "resume": True, **fit}
            )
        assert checkpoint.read_bytes() == content
        assert_same(trainer.model.state_dict(), before)
        message = str(caught.value)
        assert message.startswith(f"{checkpoint}: ")
        assert "\n" not in message
        return message

    return attempt


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        ({"batch_size": 5}, "batch_size was 4 and is now 5"),
        ({"seed": 6}, "seed was 5 and is now 6"),
        ({"shuffle": False}, "shuffle was True and is now False"),
        ({"drop_last": True}, "drop_last was False and is now True"),
        ({"augment": None}, "augment was 'RandomHorizontalFlip(p=0.5)' and is now 'None'"),
        ({"augment": RandomCrop(6, padding=1)}, "and is now 'RandomCrop(size=(6, 6), padding=1)'"),
    ],
)
def test_another_loader_is_refused(refused, new_loader, loader, words):
    assert words in refused(loader=new_loader(**loader))


def test_other_settings_are_refused(refused, new_trainer, new_loader, training_set, validation_set):
    other = new_trainer(optimizer=lambda p: optim.Adam(p, lr=0.02))
    assert "lr of parameter group 0 was 0.01 and is now 0.02" in refused(other)
    other = new_trainer(optimizer=lambda p: optim.SGD(p, lr=0.01))
    assert "optimizer was 'Adam' and is now 'SGD'" in refused(other)
    other = new_trainer(scheduler=lambda o: lr_scheduler.StepLR(o, 2))
    assert "scheduler was None and is now 'StepLR'" in refused(other)
    assert "validation images was None and is now 15" in refused(validation=validation_set)
    loader = new_loader()
    loader.dataset = training_set.subset(range(20))
    assert "training images was 26 and is now 20" in refused(loader=loader)


def test_a_change_of_the_schedule_is_refused(new_trainer, new_loader):
    def cosine(epochs):
        return new_trainer(scheduler=lambda o: lr_scheduler.CosineAnnealingLR(o, epochs))

    cosine(2).fit(new_loader(), epochs=2)
    with pytest.raises(DataError, match="T_max of the scheduler was 2 and is now 4"):
        cosine(4).fit(new_loader(), epochs=4, resume=True)


def test_another_network_is_refused(refused, new_trainer):
    message = refused(new_trainer(width=5))
    assert "does not fit the network" in message
    assert "0.weight is float32[4, 3, 3, 3], expected float32[5, 3, 3, 3]" in message
    assert "more" in message


def test_another_architecture_is_refused(refused, new_trainer):
    other = new_trainer()
    other.model.architecture = {"name": "catdog", "size": 64}
    other = type(other)(
        other.model, other.optimizer, mean=other.mean, std=other.std, out=other.checkpoint.parent
    )
    assert "architecture was None and is now {'name': 'catdog', 'size': 64}" in refused(other)


def test_damaged_files_are_refused(refused, checkpoint):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    assert "not a whole safetensors file" in refused()
    checkpoint.write_bytes(b"")
    assert "empty" in refused()
    checkpoint.write_bytes(pickle.dumps({"model": [1.0]}))
    assert "pickle" in refused()
    checkpoint.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "checksum" in refused()


def edit(path, change):
    """Change a checkpoint's content and write it as tinyconv would: its checksum is right."""
    arrays, metadata = read_tensors(path)
    change(arrays, metadata)
    write_tensors(path, arrays, metadata)


def put(*keys, to):
    def change(arrays, metadata):
        place = metadata
        for key in keys[:-1]:
            place = place[key]
        if to is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = to

    return change


def rename(old, new):
    def change(arrays, metadata):
        arrays[new] = arrays.pop(old)

    return change


def replace(name, array):
    def change(arrays, metadata):
        arrays[name] = array

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("format", to="tinyconv model"), "'tinyconv model', expected 'tinyconv checkpoint'"),
        (put("settings", to=...), "lacks 'settings'"),
        (put("settings", to=[]), "lacks 'settings'"),
        (put("position", to=...), "lacks 'position'"),
        (put("position", to=3), "damaged"),
        (put("position", "step", to=-1), "step -1 of 7"),
        (put("position", "correct", to=500), "500 of 8 right"),
        (put("position", "step", to=99), "step 99 of 7"),
        (put("position", "step", to=1.5), "step is 1.5"),
        (put("position", "epoch", to=0), "epoch 0"),
        (put("position", "epoch", to=3), "1 epochs in the history"),
        (put("position", "loss_sum", to=float("nan")), "loss_sum is nan"),
        (put("position", "steps", to=1), "steps"),
        (put("history", to=None), "history"),
        (put("history", 0, "lr", to=None), "lr is None"),
        (put("history", 0, "lr", to=...), "history"),
        (put("learning_rates", to=[]), "damaged"),
        (put("learning_rates", to=0.1), "damaged"),
        (put("learning_rates", to=...), "lacks 'learning_rates'"),
        (put("learning_rates", 0, to="fast"), "learning rate is 'fast'"),
        (put("random", to=...), "lacks 'random'"),
        (put("random", to={}), "lacks"),
        (put("random", "philox_key", to="key"), "damaged"),
        (rename("model.0.weight", "model.9.weight"), "missing: 0.weight"),
        (rename("optimizer.0.exp_avg", "optimizer.0.average"), "missing: 0.exp_avg"),
        (rename("optimizer.0.step", "optimizer.99.step"), "unexpected: 99.step"),
        (rename("optimizer.0.step", "optimizer.x"), "unexpected: x"),
        (replace("model.5.bias", np.zeros(3)), "5.bias is float64[3], expected float32[3]"),
        (replace("optimizer.0.exp_avg", np.zeros(3, np.float32)), "0.exp_avg is float32[3]"),
        (replace("best.0.weight", np.zeros(3, np.float32)), "does not fit the network"),
    ],
)
def test_edited_checkpoints_are_refused(refused, checkpoint, change, words):
    edit(checkpoint, change)
    assert words in refused()


def test_nan_is_refused(refused, checkpoint):
    arrays, _ = read_tensors(checkpoint)
    arrays["model.0.weight"][0, 0, 0, 0] = np.nan
    safetensors.numpy.save_file(arrays, checkpoint)
    assert "model.0.weight holds NaN or infinity" in refused()


def test_weights_alone_are_no_checkpoint(refused, checkpoint):
    safetensors.numpy.save_file(read_tensors(checkpoint)[0], checkpoint)
    assert "a file of weights" in refused()


def test_random_numbers_go_on(new_trainer, new_loader, checkpoint):
    before = tinyconv.backend.random_state()
    tinyconv.manual_seed(77)
    new_trainer(seed=77).fit(new_loader(), epochs=1, resume=True)
    saved = read_tensors(checkpoint)[1]["random"]
    assert saved == tinyconv.backend.random_state()
    assert before["philox_key"] == saved["philox_key"]
