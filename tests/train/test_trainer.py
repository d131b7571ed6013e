"""The training loop: against PyTorch, early stopping, schedules, divergence, interrupts."""

import errno
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import tinyconv
from tinyconv import functional as F
from tinyconv import optim
from tinyconv.data.transforms import RandomHorizontalFlip
from tinyconv.errors import DataError
from tinyconv.io.tensor_file import read_tensors
from tinyconv.train import Evaluation, TrainingDiverged, TrainingInterrupted, trainer
from tinyconv.train.device import device_name
from tinyconv.train.progress import ProgressReport


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name, strict=True)


def test_a_training_against_pytorch(backend, new_trainer, new_loader, validation_set):
    torch = pytest.importorskip("torch")
    loader = new_loader()
    ours = new_trainer(
        optimizer=lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
        scheduler=lambda o: optim.lr_scheduler.StepLR(o, 1, 0.5),
    )
    ours.model[4].p = 0.0  # the one part whose random numbers are not PyTorch's
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.0),
        torch.nn.Linear(64, 3),
    )
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.model.state_dict().items()})
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (ours.mean, ours.std))

    def run(images, labels):
        x = (torch.tensor(images).permute(0, 3, 1, 2) / 255 - mean) / std
        logits = theirs(x)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
        right = int((logits.argmax(1) == torch.tensor(labels)).sum())
        return loss, loss.item() * len(labels), right

    history = ours.fit(loader, validation_set, epochs=3)
    for row in history.epochs:
        theirs.train()
        sums = np.zeros(2)
        assert row.lr == pytest.approx(optimizer.param_groups[0]["lr"])
        for batch in loader.epoch(row.epoch - 1):
            loss, *figures = run(batch.images, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums += figures
        scheduler.step()
        theirs.eval()
        _, val_loss, val_right = run(validation_set.images, validation_set.labels)
        assert row.train_loss == pytest.approx(sums[0] / 26, rel=1e-4)
        assert row.train_accuracy == sums[1] / 26
        assert row.val_loss == pytest.approx(val_loss / 15, rel=1e-4)
        assert row.val_accuracy == val_right / 15
    for name, array in ours.model.state_dict().items():
        np.testing.assert_allclose(array, theirs.state_dict()[name].numpy(), atol=1e-5)


# Early stopping -----------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """scripted(losses): validation gives these losses (accuracy = -loss), and keeps the weights."""

    def script(losses):
        weights = []

        def run(evaluator):
            weights.append(evaluator.model.state_dict())
            loss = losses[len(weights) - 1]
            return Evaluation(loss, -loss, np.zeros((3, 3), int), np.zeros((0, 3)))

        monkeypatch.setattr(trainer.Evaluator, "run", run)
        return weights

    return script


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_early_stopping_restores_the_best_weights(
    backend, new_trainer, new_loader, validation_set, scripted, monitor
):
    weights = scripted([0.9, 0.5, 0.6, 0.5, 0.7, 0.1])
    ours = new_trainer()
    history = ours.fit(
        new_loader(), validation_set, epochs=6, patience=3, monitor=monitor, restore_best=True
    )
    assert history.column("val_loss") == [0.9, 0.5, 0.6, 0.5, 0.7]
    assert_same(ours.model.state_dict(), weights[1])


def test_without_restore_best_the_last_weights_stay(
    new_trainer, new_loader, validation_set, scripted
):
    weights = scripted([0.1, 0.2, 0.3])
    ours = new_trainer()
    history = ours.fit(new_loader(), validation_set, epochs=6, patience=2)
    assert len(history) == 3
    assert_same(ours.model.state_dict(), weights[2])


def test_the_best_weights_and_the_patience_survive_a_resume(
    new_trainer, new_loader, validation_set, scripted
):
    scripted([0.9, 0.5, 0.6])
    options = {"patience": 2, "restore_best": True}
    first = new_trainer()
    first.fit(new_loader(), validation_set, epochs=3, **options)
    best = first.model.state_dict()
    scripted([0.7, 0.1])
    second = new_trainer(seed=8)
    history = second.fit(new_loader(), validation_set, epochs=9, resume=True, **options)
    assert history.column("val_loss") == [0.9, 0.5, 0.6, 0.7]
    assert_same(second.model.state_dict(), best)
    third = new_trainer(seed=9)  # what has stopped stays stopped
    third.fit(new_loader(), validation_set, epochs=9, resume=True, **options)
    assert_same(third.model.state_dict(), best)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": 1, "patience": 0},
        {"epochs": 1, "patience": 3},
        {"epochs": 1, "restore_best": True},
    ],
)
def test_arguments_that_make_no_sense(new_trainer, new_loader, options):
    with pytest.raises(ValueError, match=r"expected 1 or more|need a validation set"):
        new_trainer().fit(new_loader(), **options)


def test_a_loader_without_batches(new_trainer, new_loader):
    with pytest.raises(ValueError, match="no batch"):
        new_trainer().fit(new_loader(batch_size=99, drop_last=True), epochs=1)


# Schedules ----------------------------------------------------------------------------------------


def test_a_schedule_by_steps(new_trainer, new_loader):
    ours = new_trainer(
        scheduler=lambda o: optim.lr_scheduler.StepLR(o, 7, 0.1), scheduler_every="step"
    )
    assert ours.fit(new_loader(), epochs=2).column("lr") == pytest.approx([0.001, 0.0001])


def test_the_plateau_schedule_sees_the_validation_loss(
    new_trainer, new_loader, validation_set, scripted
):
    def plateau(mode):
        return lambda o: optim.lr_scheduler.ReduceLROnPlateau(o, mode, 0.1, patience=0)

    for monitor in ("val_loss", "val_accuracy"):
        options = {"epochs": 4, "monitor": monitor}
        scripted([-0.1, -0.2, -0.3, -0.4])  # the loss falls while the accuracy rises
        history = new_trainer(scheduler=plateau("min")).fit(new_loader(), validation_set, **options)
        assert history.column("lr") == [0.01] * 4
        scripted([-0.1, -0.2, -0.3, -0.4])
        history = new_trainer(scheduler=plateau("max")).fit(new_loader(), validation_set, **options)
        assert history.column("lr") == pytest.approx([0.01, 0.01, 0.001, 0.0001])
    with pytest.raises(ValueError, match="once an epoch"):
        new_trainer(scheduler=plateau("min"), scheduler_every="step")


# Divergence ---------------------------------------------------------------------------------------


class LossAt:
    """Cross-entropy that does something else in its n-th call."""

    def __init__(self, call, action):
        self.call, self.action, self.calls = call, action, 0

    def __call__(self, logits, labels):
        self.calls += 1
        loss = F.cross_entropy(logits, labels)
        return self.action(loss) if self.calls == self.call else loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    backend, new_trainer, new_loader, tmp_path, value
):
    loss = LossAt(10, lambda loss: loss * value)
    ours = new_trainer(loss=loss, checkpoint_every=2)
    with pytest.raises(TrainingDiverged) as caught:
        ours.fit(new_loader(), epochs=3)
    path = tmp_path / "out" / "checkpoint.safetensors"
    # A GPU's loss is looked at before the next checkpoint.
    steps, value = ("step 3", value) if backend == "numpy" else ("steps 3 to 4", math.nan)
    assert str(caught.value) == (
        f"epoch 2, {steps}: the loss is {value} (learning rate 0.01); "
        f"{path} keeps the last good state"
    )
    _, metadata = read_tensors(path)
    assert (metadata["position"]["epoch"], metadata["position"]["step"]) == (2, 2)


def test_weights_that_are_not_finite_are_never_saved(backend, new_trainer, new_loader, tmp_path):
    ours = new_trainer(checkpoint_every=3)
    step = ours.optimizer.step

    def step_into_the_void():
        step()
        if ours.optimizer.state_dict()["state"][0]["step"] == 6:
            next(ours.model.parameters()).data[0, 0, 0, 0] = math.nan

    ours.optimizer.step = step_into_the_void
    with pytest.raises(TrainingDiverged, match=r"step 6: model\.0\.weight holds NaN"):
        ours.fit(new_loader(), epochs=1)
    _, metadata = read_tensors(tmp_path / "out" / "checkpoint.safetensors")
    assert metadata["position"]["step"] == 3


def test_a_validation_loss_that_is_not_finite(
    backend, new_trainer, new_loader, validation_set, scripted
):
    scripted([0.5, math.nan])
    with pytest.raises(TrainingDiverged, match="epoch 2, step 7: the validation loss is nan"):
        new_trainer(out=None).fit(new_loader(), validation_set, epochs=3)


def test_a_full_disk_keeps_the_last_checkpoint(new_trainer, new_loader, tmp_path, monkeypatch):
    path = tmp_path / "out" / "checkpoint.safetensors"

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(loss):
        monkeypatch.setattr(os, "fsync", full)
        return loss

    with pytest.raises(DataError, match="No space left on device") as caught:
        new_trainer(loss=LossAt(10, fill)).fit(new_loader(), epochs=3)
    assert str(caught.value).startswith(f"{path}: ")
    assert read_tensors(path)[1]["position"]["epoch"] == 2
    assert os.listdir(path.parent) == [path.name]


def test_out_that_is_a_file(new_trainer, new_loader, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="File exists"):
        new_trainer().fit(new_loader(), epochs=1)


# Interrupts ---------------------------------------------------------------------------------------


def interrupt(number):
    def action(loss):
        signal.raise_signal(number)
        return loss

    return action


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("call", "long_steps"), [(1, True), (10, True), (10, False), (14, False)])
def test_an_interrupt_saves_the_last_whole_step(
    backend, new_trainer, new_loader, monkeypatch, tmp_path, capsys, number, call, long_steps
):
    monkeypatch.setattr(trainer, "_LONG_STEP_SECONDS", -1.0 if long_steps else math.inf)
    before = signal.getsignal(number)
    ours = new_trainer(loss=LossAt(call, interrupt(number)), checkpoint_every=1000)
    with pytest.raises(TrainingInterrupted) as caught:
        ours.fit(new_loader(), epochs=3)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is before
    # A short step is finished first, a long one is broken off and undone; a GPU's is launched.
    epoch, step = divmod(call - 1, 7)
    step += 0 if long_steps and backend == "numpy" else 1
    path = tmp_path / "out" / "checkpoint.safetensors"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"interrupted in epoch {epoch + 1} after step {step}; saved {path}: "
        "go on with --resume (resume=True)"
    )
    resumed = new_trainer(seed=3)
    history = resumed.fit(new_loader(), epochs=3, resume=True)
    whole = new_trainer(out=None)
    expected = whole.fit(new_loader(), epochs=3)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert history.column("train_loss") == expected.column("train_loss")


def test_an_interrupt_in_validation(backend, new_trainer, new_loader, validation_set, tmp_path):
    # Calls 1 to 7 are the steps of epoch 1, call 8 its validation.
    ours = new_trainer(loss=LossAt(8, interrupt(signal.SIGINT)))
    with pytest.raises(TrainingInterrupted):
        ours.fit(new_loader(), validation_set, epochs=2)
    _, metadata = read_tensors(tmp_path / "out" / "checkpoint.safetensors")
    assert (metadata["position"]["epoch"], metadata["position"]["step"]) == (1, 7)
    resumed = new_trainer(seed=3)
    history = resumed.fit(new_loader(), validation_set, epochs=2, resume=True)
    whole = new_trainer(out=None)
    expected = whole.fit(new_loader(), validation_set, epochs=2)
    assert history.column("val_loss") == expected.column("val_loss")
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


def test_a_second_interrupt_does_not_break_the_saving(
    new_trainer, new_loader, tmp_path, monkeypatch
):
    write = trainer.write_tensors

    def interrupted_write(*arguments):
        signal.raise_signal(signal.SIGINT)
        write(*arguments)

    monkeypatch.setattr(trainer, "write_tensors", interrupted_write)
    with pytest.raises(TrainingInterrupted):
        new_trainer(loss=LossAt(3, interrupt(signal.SIGINT))).fit(new_loader(), epochs=1)
    _, metadata = read_tensors(tmp_path / "out" / "checkpoint.safetensors")
    assert metadata["position"]["step"] == 3


def test_without_a_folder_an_interrupt_is_python_s_own(new_trainer, new_loader):
    ours = new_trainer(out=None, loss=LossAt(3, interrupt(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        ours.fit(new_loader(), epochs=1)


@pytest.mark.skipif(os.name != "posix", reason="sends signals to another process")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_program_ends_quietly_with_the_signal_s_exit_code(tmp_path, number, code):
    program = textwrap.dedent("""
        import sys, time
        import numpy as np
        from tinyconv import functional as F, nn, optim
        from tinyconv.data.dataset import ArrayDataset
        from tinyconv.data.loader import Loader
        from tinyconv.train import Trainer

        def slow_loss(logits, labels):
            print("step", flush=True)
            time.sleep(60)
            return F.cross_entropy(logits, labels)

        dataset = ArrayDataset(np.zeros((8, 2, 2, 1), np.uint8), np.arange(8) % 2, ["a", "b"])
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(model, optimizer, mean=[0], std=[1], loss=slow_loss, out=sys.argv[1])
        trainer.fit(Loader(dataset, 2), epochs=1)
    """)
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "step\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == code
    path = tmp_path / "checkpoint.safetensors"
    assert errors.splitlines() == [
        f"interrupted in epoch 1 after step 0; saved {path}: go on with --resume (resume=True)"
    ]
    read_tensors(path)


# A GPU --------------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """How many steps had been done when the figures were fetched from the device."""
    steps = []
    read = trainer._Run.read

    def counted(run):
        steps.append(run.state.position.step)
        read(run)

    monkeypatch.setattr(trainer._Run, "read", counted)
    return steps


def test_the_figures_of_a_cpu_are_read_after_each_step(new_trainer, new_loader, reads):
    new_trainer(out=None).fit(new_loader(), epochs=2)
    assert reads == [1, 2, 3, 4, 5, 6, 7] * 2


@pytest.mark.parametrize(
    ("seconds", "every", "expected"),
    [
        (math.inf, None, [7, 7]),  # at the end of each epoch
        (math.inf, 3, [3, 6, 7, 3, 6, 7]),  # and before checkpoints
        (-1.0, None, [1, 2, 3, 4, 5, 6, 7] * 2),  # and after a while
    ],
)
def test_the_figures_of_a_gpu_are_read_now_and_then(
    gpu, new_trainer, new_loader, reads, monkeypatch, seconds, every, expected
):
    monkeypatch.setattr(trainer, "_READ_SECONDS", seconds)
    history = new_trainer(checkpoint_every=every).fit(new_loader(), epochs=2)
    assert reads == expected
    monkeypatch.undo()
    tinyconv.use_backend("numpy")
    same = new_trainer(out=None).fit(new_loader(), epochs=2)
    assert history.column("train_accuracy") == same.column("train_accuracy")
    assert history.column("train_loss") == pytest.approx(same.column("train_loss"), rel=1e-5)


@pytest.mark.parametrize("augment", [None, RandomHorizontalFlip()])
def test_a_gpu_is_not_waited_for_in_a_step(
    gpu, new_trainer, new_loader, validation_set, monkeypatch, augment
):
    """As many copies to the host in an epoch of 26 steps as in one of 4, validation included."""
    if not device_name().startswith("an emulator"):
        pytest.skip("copies of a real device cannot be counted")
    monkeypatch.setattr(trainer, "_READ_SECONDS", math.inf)
    copies, get = [], gpu.ndarray.get
    monkeypatch.setattr(gpu.ndarray, "get", lambda *a, **k: copies.append(1) or get(*a, **k))

    def copied(batch_size, epochs):
        ours = new_trainer(out=None, eager=False, optimizer=lambda p: optim.SGD(p, lr=0.0))
        ours.model.freeze("1")  # one image has no variance to normalise by
        copies.clear()
        ours.fit(new_loader(batch_size=batch_size, augment=augment), validation_set, epochs=epochs)
        assert ours._compiled_step.refusal is None
        return len(copies)

    few, many = (copied(size, epochs=3) - copied(size, epochs=2) for size in (8, 1))
    assert few == many


@pytest.mark.parametrize("augment", [None, RandomHorizontalFlip()])
def test_a_gpu_s_memory_does_not_grow(
    gpu, new_trainer, new_loader, validation_set, monkeypatch, augment
):
    sizes = []
    pool = gpu.get_default_memory_pool()
    monkeypatch.setattr(
        ProgressReport, "end_epoch", lambda report, row: sizes.append(pool.total_bytes())
    )
    ours = new_trainer(eager=False)
    ours.fit(new_loader(augment=augment), validation_set, epochs=6, restore_best=True)
    assert len(set(sizes[1:])) == 1


def test_a_gpu_s_long_steps_need_no_copy_to_go_back_to(gpu, new_trainer, new_loader, monkeypatch):
    monkeypatch.setattr(trainer, "_LONG_STEP_SECONDS", -1.0)
    packed = []
    pack = trainer.pack
    monkeypatch.setattr(trainer, "pack", lambda *a: packed.append(1) or pack(*a))
    new_trainer().fit(new_loader(), epochs=2)
    assert len(packed) == 2  # the checkpoints


@pytest.mark.parametrize("eager", [True, False])
def test_mixed_precision_comes_close_to_float32(
    backend, new_trainer, new_loader, validation_set, eager
):
    exact = new_trainer(out=None, eager=eager).fit(new_loader(), validation_set, epochs=2)
    ours = new_trainer(out=None, eager=eager, mixed=True)
    seen = []
    if eager:  # a layer with a hook would not be compiled
        ours.model[2].register_forward_hook(lambda module, inputs, y: seen.append(y.dtype))
    history = ours.fit(new_loader(), validation_set, epochs=2)
    for column in ("train_loss", "val_loss"):
        assert history.column(column) == pytest.approx(exact.column(column), rel=3e-2)
    assert history.column("train_loss") != exact.column("train_loss")
    assert set(seen) == ({np.dtype(np.float16)} if eager else set())
    assert all(p.dtype == np.float32 for p in ours.model.parameters())
    assert ours.scaler.state_dict() == {"scale": 65536.0, "growth_tracker": 14}
    assert ours._compiled_step.refusal is None


# What is shown ------------------------------------------------------------------------------------


def test_one_line_for_each_epoch_where_there_is_no_terminal(
    new_trainer, new_loader, validation_set, capsys
):
    history = new_trainer().fit(new_loader(), validation_set, epochs=2)
    out, err = capsys.readouterr()
    header, *rows = err.splitlines()
    assert out == ""
    assert " ".join(header.split()) == "epoch loss accuracy val loss val acc seconds"
    assert len(rows) == 2
    for row, line in zip(history.epochs, rows, strict=True):
        figures = line.split()
        assert figures[0] == f"{row.epoch}/2"
        assert figures[1] == f"{row.train_loss:.4f}"
        assert figures[4] == f"{row.val_accuracy:.1%}"


def test_quiet(new_trainer, new_loader, capsys):
    new_trainer(quiet=True).fit(new_loader(), epochs=1)
    assert capsys.readouterr() == ("", "")


def test_the_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressReport(epochs=3) as report:
        report.start_epoch(2, steps=10, step=4, seen=16)
        time.sleep(0.15)
        report.step(5, loss=0.25, accuracy=0.5, seen=20)
    shown = capsys.readouterr().err
    assert "epoch 2/3" in shown
    assert "5/10" in shown
    assert "loss 0.2500  accuracy 50.0%" in shown
    assert "images/s" in shown
