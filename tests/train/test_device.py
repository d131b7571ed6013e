"""What the device is called, and how many images fit in its memory."""

import gc

import numpy as np
import pytest

import tinyconv
from tinyconv import BackendError, nn, optim
from tinyconv.backend import backend_name, precision
from tinyconv.data import ArrayDataset, Loader, RandomHorizontalFlip
from tinyconv.errors import OutOfDeviceMemoryError
from tinyconv.io.tensor_file import read_tensors
from tinyconv.train import Trainer, clear_errors, evaluate, use_device
from tinyconv.train.device import Work, device_name, out_of_memory

MEAN = STD = [0.5] * 3


def test_the_cpu_computes_in_float32():
    use_device("numpy", None)
    use_device("numpy", "float32")
    assert device_name() == "CPU"
    for other in ("tf32", "mixed"):
        with pytest.raises(BackendError, match=f"--precision {other}: the CPU computes in float32"):
            use_device("numpy", other)


@pytest.mark.parametrize(
    ("asked", "gets"), [(None, "tf32"), ("tf32", "tf32"), ("mixed", "tf32"), ("float32", "float32")]
)
def test_a_gpu_s_precision(gpu, asked, gets):
    use_device("cupy", asked)
    assert (backend_name(), precision()) == ("cupy", gets)
    assert device_name() == gpu.cuda.runtime.getDeviceProperties(0)["name"].decode()


# Memory -------------------------------------------------------------------------------------------


@pytest.fixture
def limited(gpu):
    """limited(bytes): from now on the pool has so much more than what is in use."""
    pool = gpu.get_default_memory_pool()

    def limit(size):
        gc.collect()
        pool.free_all_blocks()
        pool.set_limit(size=pool.used_bytes() + size)

    yield limit
    pool.set_limit(size=0)


def photos(count=300, size=12):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return ArrayDataset(pixels, np.arange(count) % 2, ["a", "b"])


def new_trainer(out=None, mixed=False, eager=True):
    tinyconv.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(),
        nn.Linear(800, 2),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    return Trainer(
        model, optimizer, mean=MEAN, std=STD, out=out, eager=eager, mixed=mixed, quiet=True
    )


def fit(trainer, batch_size, validation=None, **options):
    loader = Loader(photos(), batch_size, augment=RandomHorizontalFlip(), workers=0)
    return trainer.fit(loader, validation, epochs=1, **options)


def suggestion(error):
    """The batch size that would fit."""
    text = str(error.value)
    size = int(text.rsplit("--batch-size ", 1)[1].rstrip(")"))
    assert f"batch size {size} would fit" in text
    return size


@pytest.mark.parametrize(
    ("validated", "options"),
    [(False, {}), (True, {}), (True, {"mixed": True}), (True, {"eager": False})],
)
def test_training_names_the_batch_size_that_fits(limited, validated, options):
    validation = photos(200) if validated else None
    limited(4_000_000)
    with pytest.raises(OutOfDeviceMemoryError) as error:
        fit(new_trainer(**options), 256, validation)
    text = str(error.value)
    assert text.startswith(f"not enough memory on {device_name()}: ")
    assert "batch size 256 needs about " in text
    size = suggestion(error)
    assert 10 < size < 200
    limited(4_000_000)
    fit(new_trainer(**options), size, validation)
    limited(4_000_000)
    with pytest.raises(OutOfDeviceMemoryError):  # the suggestion is no smaller than it has to be
        fit(new_trainer(**options), 2 * size, validation)


def test_nothing_is_held_and_nothing_changes(limited, gpu, tmp_path):
    limited(4_000_000)
    trainer = new_trainer(tmp_path)
    fit(trainer, 16)
    gc.collect()
    used = gpu.get_default_memory_pool().used_bytes()
    saved, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    other = new_trainer(tmp_path)
    weights, random = other.model.state_dict(), tinyconv.backend.random_state()
    with pytest.raises(OutOfDeviceMemoryError):
        fit(other, 256)
    for name, array in other.model.state_dict().items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    assert tinyconv.backend.random_state() == random
    assert other.optimizer.state == {}
    again, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    for name, array in saved.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
    del other
    gc.collect()
    assert gpu.get_default_memory_pool().used_bytes() <= used + 100_000


def test_evaluation_names_the_batch_size_that_fits(limited):
    model = new_trainer().model
    limited(1_500_000)
    with pytest.raises(OutOfDeviceMemoryError) as error:
        evaluate(model, photos(), MEAN, STD, 300, eager=True)
    size = suggestion(error)
    assert evaluate(model, photos(), MEAN, STD, size, eager=True).probabilities.shape == (300, 2)
    assert model.training


def test_where_no_batch_fits(limited):
    trainer = new_trainer()
    limited(20_000)
    with pytest.raises(OutOfDeviceMemoryError, match="too little for the smallest batch"):
        fit(trainer, 64)


def test_a_line_through_two_sizes(gpu, monkeypatch):
    """A step that takes 1000 + 64 n KiB, where 80 MB are free, a tenth of that to be left."""
    monkeypatch.setattr("tinyconv.train.device.free_bytes", lambda: 100_000_000)
    held = []

    def step(size):
        held.append(gpu.empty(1000 * 1024 + 64 * 1024 * size, np.uint8))

    text = str(out_of_memory(2000, [Work(step, 4000)], kept=20_000_000))
    assert "80.00 MB are free" in text
    assert "batch size 2000 needs about 0.13 GB" in text
    assert [array.nbytes for array in held] == [1024 * (1000 + 64 * n) for n in (500, 250)]
    # 4000 = 4 * 1000: one size. Any other from 2000 down has a last batch with memory of its own.
    assert text.endswith("; batch size 1000 would fit (--batch-size 1000)")
    room = 0.9 * 80_000_000 - 1000 * 1024
    eager = str(out_of_memory(2000, [Work(step, 4000)], kept=20_000_000, compiled=False))
    assert eager.endswith(f"(--batch-size {int(room / (64 * 1024))})")


def test_an_estimate_that_is_too_low_is_not_told(gpu, monkeypatch):
    """What did not fit needs more than is free, whatever was measured."""
    monkeypatch.setattr("tinyconv.train.device.free_bytes", lambda: 100_000_000)
    work = Work(lambda size: gpu.empty(1024 * size, np.uint8), 4000)
    text = str(out_of_memory(2000, [work], compiled=False))
    assert "batch size 2000 needs more; batch size 1800 would fit" in text
    assert "about" not in text


def test_what_is_kept_by_one_work_is_missing_for_the_next(gpu, monkeypatch):
    """Beginning takes 3 arrays of n KiB, of which 1 stays; 12 MB are free."""
    monkeypatch.setattr("tinyconv.train.device.free_bytes", lambda: 12_000_000)
    undone = []

    def attempt(size):
        arrays = [gpu.empty(1024 * size, np.uint8) for _ in range(3)]
        return arrays[0]

    works = [Work(attempt, 0, lambda: undone.append(1)) for _ in range(2)]
    text = str(out_of_memory(4000, works))
    assert "batch size 4000 needs about 16.38 MB; " in text  # 1 + 3 arrays
    assert text.endswith(f"(--batch-size {int(0.9 * 12_000_000 / (4 * 1024))})")
    assert len(undone) == 4


def test_the_host_s_memory_error_stays_what_it_is(backend):
    def loss(logits, labels):
        raise MemoryError("of NumPy")

    trainer = new_trainer()
    trainer.loss = loss
    with pytest.raises(MemoryError, match="of NumPy"):
        fit(trainer, 4)


def test_the_error_ends_a_program_in_one_line():
    with pytest.raises(SystemExit) as end, clear_errors():
        raise OutOfDeviceMemoryError("not enough memory on a GPU: batch size 2 would fit")
    assert end.value.code == "error: not enough memory on a GPU: batch size 2 would fit"
