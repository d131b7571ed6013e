"""The GPU's benchmarks: their tables and arithmetic, and as much of their code as runs without one.

What only a device can do (CUDA graphs of PyTorch) is run on stand-ins that do it at once.
"""

import contextlib
import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinyconv
from tinyconv import nn
from tinyconv.kernels.cuda import gemm

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(monkeypatch):
    """Imports a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def small(load):
    """A workload of the GPU that takes no time, as `small(kind, precision)`."""

    def make(kind, precision):
        workload = load("workloads").Workload
        return workload(
            "small", kind, "lenet_mnist", {"size": 28}, (2, 1, 28, 28),
            backend="cupy", precision=precision,
        )  # fmt: skip

    return make


def test_what_matters_most_is_measured_first(load):
    names = list(load("workloads").gpu_workloads())
    assert names[:5] == [
        "train-lenet_mnist-4-tf32",
        "train-lenet_mnist-256-tf32",
        "train-catdog_notebook-20-tf32",
        "train-catdog_notebook-128-tf32",
        "train-catdog_wide-32-tf32",
    ]
    assert names.index("infer-catdog-1-tf32") > names.index("train-catdog-128-mixed")


def test_a_few_configurations_at_a_time_each_time_beside_ours(load, small):
    groups = load("driver").groups
    workload = small("train", "tf32")
    names = workload.configurations
    found = groups(workload, names)
    assert [len(group) for group in found] == [5, 4]
    assert all(group[0] == "tinyconv-compiled" for group in found)
    assert {name for group in found for name in group} == set(names)
    assert groups(workload, ("tinyconv-compiled",)) == [("tinyconv-compiled",)]
    on_cpu = load("workloads").WORKLOADS["train-lenet-4"]
    assert groups(on_cpu, on_cpu.configurations) == [on_cpu.configurations]


def test_graphs_count_as_compiled(load):
    seconds = {
        "tinyconv-eager": 2, "tinyconv-compiled": 1, "torch-eager": 5, "torch-channels-last": 4,
        "torch-graph": 3, "torch-graph-channels-last": 2.5, "torch-compile-max-autotune": 2.8,
    }  # fmt: skip
    found = load("driver").ratios({name: {"median": s} for name, s in seconds.items()})
    assert found == {
        "tinyconv-eager": {"ratio": 2, "beside": "torch-channels-last"},
        "tinyconv-compiled": {"ratio": 2.5, "beside": "torch-graph-channels-last"},
    }


def test_a_configuration_that_does_not_answer_is_ended(load, small, monkeypatch, tmp_path):
    driver = load("driver")
    monkeypatch.setattr(driver, "LIMIT", 0.01)
    worker = driver.Worker(small("train", "tf32"), "torch-eager", str(tmp_path))
    with pytest.raises(driver.WorkerEnded, match="no answer within 0 s"):
        worker.receive()
    assert worker.process.wait(10) != 0
    worker.close()


def test_one_that_fails_leaves_the_others(load, small, monkeypatch):
    driver = load("driver")

    class Worker:
        def __init__(self, workload, configuration, folder):
            self.name = configuration

        def receive(self):
            if self.name == "torch-graph":
                raise driver.WorkerEnded("failed", "no such kernel")

        def ask(self, command, *arguments):
            if command == "measure" and self.name == "torch-channels-last":
                raise driver.WorkerEnded("failed", "out of memory")
            seconds = 0.2 if self.name.startswith("tinyconv") else 0.6
            return {"check": {"fall": np.ones(1)}, "calls": 2, "measure": seconds, "memory": {}}[
                command
            ]

        def close(self):
            pass

    monkeypatch.setattr(driver, "Worker", Worker)
    workload = small("train", "tf32")
    names = ("tinyconv-compiled", "torch-eager", "torch-channels-last", "torch-graph")
    entry = driver.compare(workload, (*names, "torch-graph-channels-last", "torch-compile"), 3, 1)
    rows = entry["configurations"]
    assert entry["status"] == "ok"
    assert rows["torch-graph"] == {"status": "failed", "reason": "no such kernel"}
    assert rows["torch-channels-last"]["reason"] == "out of memory"
    assert len(rows["tinyconv-compiled"]["seconds"]) == 6  # in both groups
    assert len(rows["torch-compile"]["seconds"]) == 3
    assert entry["ratios"]["tinyconv-compiled"]["ratio"] == pytest.approx(3)


def test_no_workload_is_started_after_the_time_limit(load, small, monkeypatch, tmp_path, capsys):
    main = load("__main__")
    clock = iter([0.0, 1.0, 11.0])
    monkeypatch.setattr(main.time, "monotonic", lambda: next(clock))
    row = {"status": "ok", "median": 1.0, "quartiles": [1, 1], "peak_device_mib": 5.0}
    entry = {"status": "ok", "unit": "step", "ratios": {}, "configurations": {"torch-graph": row}}
    monkeypatch.setattr(main, "compare", lambda *arguments: entry)
    flags = SimpleNamespace(
        backend="cupy", rounds=1, seconds=1.0, time_limit=10.0, out=tmp_path, name="gpu"
    )
    main.compare_all([small("train", "tf32"), small("infer", "tf32")], lambda names: names, flags)
    shown = capsys.readouterr().out
    assert "torch-graph" in shown
    assert "5 MiB" in shown
    assert "what follows are left out" in shown
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["workloads"]) == ["small"]
    assert found["settings"] == {"rounds": 1, "seconds": 1.0}
    assert "gpu" in found["machine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training"], "--training and --tiles need --backend cupy"),
        (["--tiles"], "--training and --tiles need --backend cupy"),
        (["--backend", "cupy", "--scaling"], "are of the CPU"),
    ],
)
def test_flags_that_do_not_go_together(load, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit):
        load("__main__").parse()
    assert message in capsys.readouterr().err


# PyTorch, on its CPU ------------------------------------------------------------------------------


@pytest.fixture
def theirs(load, tmp_path):
    """Builds a workload in PyTorch, as `theirs(workload, configuration)`."""
    pytest.importorskip("torch")

    def make(workload, configuration):
        load("driver").write_inputs(workload, tmp_path)
        return load("torch_side").build(workload, configuration, tmp_path, device="cpu")

    return make


@pytest.fixture
def cuda_at_once(load, monkeypatch):
    """PyTorch's streams and graphs, without a device: what is captured is done, and done again."""
    torch = pytest.importorskip("torch")
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
    replays = []
    graph = SimpleNamespace(replay=lambda: replays.append(1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda g: contextlib.nullcontext())
    return replays


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_layouts_and_precisions_compute_the_same(load, small, theirs, kind):
    differences = load("driver").differences
    expected = theirs(small(kind, "float32"), "torch-eager").check()
    tf32 = differences(theirs(small(kind, "tf32"), "torch-channels-last").check(), expected)
    mixed = differences(theirs(small(kind, "mixed"), "torch-channels-last").check(), expected)
    assert tf32.pop("fall", 0) < 1e-2  # a CPU rounds nothing to TF32
    assert mixed.pop("fall", 0) < 0.3
    assert max(tf32.values()) < 1e-6
    assert 1e-6 < max(mixed.values()) < 5e-2


@pytest.mark.parametrize("precision", ["tf32", "mixed"])
def test_a_captured_step_begins_where_the_others_do(
    load, small, theirs, cuda_at_once, monkeypatch, tmp_path, precision
):
    torch, torch_side = pytest.importorskip("torch"), load("torch_side")
    models, optimizers = [], []

    def keep(into, make):
        def made(*arguments, **settings):
            into.append(make(*arguments, **settings))
            return into[-1]

        return made

    monkeypatch.setattr(
        torch_side.torch_models, "create", keep(models, torch_side.torch_models.create)
    )
    monkeypatch.setattr(torch.optim, "Adam", keep(optimizers, torch.optim.Adam))
    case = theirs(small("train", precision), "torch-graph-channels-last")
    case.call()
    weights = np.load(tmp_path / "weights.npz")
    for key, value in models[0].state_dict().items():
        assert np.array_equal(value.numpy(), weights[key]), key
    (group,) = optimizers[0].param_groups
    assert group["capturable"]
    assert group["fused"]
    states = optimizers[0].state.values()
    assert len(states) == len(weights)
    assert not any(tensor.any() for state in states for tensor in state.values())
    assert case.check()["losses"].shape == (3,)
    assert len(cuda_at_once) == 4  # replays


def test_a_captured_forward_pass(small, theirs, cuda_at_once):
    expected = theirs(small("infer", "tf32"), "torch-eager").check()["logits"]
    found = theirs(small("infer", "tf32"), "torch-graph").check()["logits"]
    assert np.array_equal(found, expected)
    assert len(cuda_at_once) == 1


def test_tf32_is_switched_on_and_off(load):
    torch = pytest.importorskip("torch")
    use_precision = load("torch_side").use_precision
    try:
        for precision, on in (("tf32", True), ("float32", False), ("mixed", True)):
            use_precision(precision)
            assert torch.backends.cuda.matmul.allow_tf32 == on
            assert torch.backends.cudnn.allow_tf32 == on
    finally:
        use_precision("float32")


# tinyconv, on a GPU or its emulator ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["train", "infer"])
@pytest.mark.parametrize("precision", ["tf32", "mixed"])
def test_the_same_as_on_the_cpu(load, small, cuda, tmp_path, kind, precision):
    driver, side, worker = load("driver"), load("tinyconv_side"), load("worker")
    workload = small(kind, precision)
    tinyconv.use_backend("numpy")
    driver.write_inputs(workload, tmp_path)
    on_cpu = type(workload)(**{**vars(workload), "backend": "numpy", "precision": "float32"})
    expected = side.build(on_cpu, "tinyconv-eager", tmp_path).check()
    case = side.build(workload, "tinyconv-compiled", tmp_path)
    tolerance, of_fall = driver.TOLERANCES[precision]
    for key, share in driver.differences(case.check(), expected).items():
        assert share <= (of_fall if key == "fall" else tolerance), key
    assert worker.measure(case, 1) > 0
    assert case.device_mib() > 0


def test_ops_and_their_floors(load, small, cuda, monkeypatch, tmp_path, capsys):
    roofline = load("gpu_roofline")
    monkeypatch.setattr(roofline, "PRODUCT", 16)
    monkeypatch.setattr(roofline, "COPY", 1024)
    monkeypatch.setattr(roofline, "STEPS", ("small-mixed",))
    monkeypatch.setattr(roofline, "gpu_workloads", lambda: {"small-mixed": small("train", "mixed")})
    roofline.run(tmp_path)
    found = json.loads((tmp_path / "gpu_roofline.json").read_text())
    peak = max(found["flops_per_second"]["mixed"].values())
    bandwidth = found["bytes_per_second"]
    rows = found["steps"]["small-mixed"]
    first = rows[0]
    assert first["op"] == "Conv2d"
    assert first["flops"] == 2 * (2 * 6 * 24 * 24) * (1 * 5 * 5)
    x, w, b, y = 2 * 28 * 28, 6 * 25, 6, 2 * 6 * 24 * 24
    assert first["bytes"] == 2 * (x + y) + 4 * (w + b)  # images in float16, weights in float32
    assert first["floor"] == max(first["flops"] / peak, first["bytes"] / bandwidth)
    assert all(row["kernel"] and row["seconds"] >= 0 for row in rows)
    assert (tmp_path / "gpu_roofline.png").stat().st_size > 0
    assert "floor µs" in capsys.readouterr().out


@pytest.fixture
def one_layer(load, monkeypatch):
    """The second convolution is all that --tiles finds; its name, without the direction."""
    tiles = load("tiles")
    products = tiles.products
    monkeypatch.setattr(
        tiles,
        "products",
        lambda workload: {k: v for k, v in products(workload).items() if "16x6x5x5" in k},
    )
    return "2x6x12x12 * 16x6x5x5 mixed"


def test_tiles(load, small, cuda, one_layer, monkeypatch, tmp_path, capsys):
    tiles, roofline, last = load("tiles"), load("gpu_roofline"), gemm.TILES[-1]
    monkeypatch.setattr(roofline, "PRODUCT", 16)
    monkeypatch.setattr(roofline, "COPY", 1024)
    tiles.run([small("train", "mixed")] * 2, tmp_path, 1e9, torch=False, tiles=(last,))
    assert gemm.planner.get() is gemm.fastest
    found = json.loads((tmp_path / "gpu_tiles.json").read_text())
    peak = max(found["flops_per_second"]["mixed"].values())
    x, w, b, y = 2 * 6 * 12 * 12, 16 * 6 * 5 * 5, 16, 2 * 16 * 8 * 8
    for direction, moved in (
        ("y", 2 * x + 4 * (w + b) + 2 * y),
        ("gx", 2 * y + 4 * w + 2 * x),
        ("gw", 2 * y + 2 * x + 4 * (w + b)),
    ):
        row = found["products"].pop(f"{one_layer} {direction}")
        assert row["flops"] == 2 * y * 6 * 5 * 5
        assert row["floor"] == max(row["flops"] / peak, moved / found["bytes_per_second"])
        chosen, *others = row["cuts"]
        assert row["chosen"] == chosen
        assert row["fastest"]["seconds"] == min(cut["seconds"] for cut in row["cuts"]) > 0
        assert {(cut["tile"]["m"], cut["tile"]["n"]) for cut in others} <= {(last.m, last.n)}
        tried = {(cut["tile"]["cached"], cut["splits"]) for cut in row["cuts"]}
        assert len(tried) > 1
    assert not found["products"]  # the second time they are known
    shown = capsys.readouterr().out
    assert shown.count("TFLOP/s") == 6
    assert shown.count("fastest") == 3


def test_a_cut_that_cannot_run_is_told_and_left_out(load, small, cuda, one_layer, capsys):
    tiles, roofline, last = load("tiles"), load("gpu_roofline"), gemm.TILES[-1]
    call = tiles.products(small("train", "mixed"))[f"{one_layer} y"]
    tinyconv.use_backend("cupy")
    impossible = last._replace(stages=100)  # more shared memory than there is
    row = tiles.measured(*tiles.on_device(call, "mixed"), roofline.H100, (last, impossible))
    (failed,) = {cut["tile"]["stages"] for cut in row["cuts"] if cut["seconds"] is None}
    assert failed == 100
    assert row["fastest"]["seconds"] > 0
    assert "stages=100" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Conv2d", "Linear"])
def test_a_layer_in_pytorch_makes_what_ours_does(load, small, kind):
    pytest.importorskip("torch")
    tiles, layer = load("tiles"), load("torch_side").layer
    calls = [
        c for c in tiles.products(small("train", "tf32")).values() if type(c.op).__name__ == kind
    ]
    for call in calls:
        found = layer(call, "tf32", "cpu")()
        found = found if isinstance(found, tuple) else (found,)
        shapes = [None if g is None else tuple(g.shape) for g in found]
        assert shapes == [None if v is None else v.shape for v in call.outputs]


def test_a_training_and_how_idle_it_leaves_the_device(load, cuda, monkeypatch, tmp_path, capsys):
    training = load("training")
    monkeypatch.delenv("TINYCONV_DATA", raising=False)
    monkeypatch.setattr(training, "CASES", (("mixed", "none", 2), ("mixed", "light", 2)))
    monkeypatch.setattr(
        tinyconv.models,
        "create",
        lambda name, size: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 7 * 7, 2)
        ),
    )
    monkeypatch.setattr(training, "EPOCHS", 2)
    training.run(tmp_path, images=2, size=16)
    found = json.loads((tmp_path / "training.json").read_text())
    assert found["images"] == "images of noise"
    for row in found["trainings"]:
        assert row["steps"] == 1
        assert len(row["epoch_seconds"]) == 1
        assert row["idle"] == 1 - row["step_seconds"] / row["epoch_seconds"][0]
        assert row["memory_at_the_end"]["used"] == row["memory_after_epoch_1"]["used"]
    assert "mixed, light, 2" in capsys.readouterr().out


# Arithmetic ---------------------------------------------------------------------------------------


def test_bounds_of_a_step(load, capsys):
    roofline = load("gpu_roofline")
    rows = roofline.bounds("catdog", size=16, batch=2)
    first = rows[0]
    assert first["flops"] == 2 * (2 * 32 * 16 * 16) * (3 * 3 * 3)
    assert first["bytes"] == 4 * (2 * 3 * 256 + 2 * 32 * 256 + 32 * 27 + 32)
    assert first["floor"] == first["bytes"] / 3e12
    assert first["limit"] == "memory"
    (update,) = (row for row in rows if row["op"].startswith("AdamUpdate"))
    parameters = 4 * sum(
        p.data.size for p in tinyconv.models.create("catdog", size=16).parameters()
    )
    assert update["bytes"] == pytest.approx(7 * parameters, rel=0.01)
    shown = capsys.readouterr().out
    assert "ridge at 133 FLOP/byte" in shown
    assert "Conv2d backward" in shown


def test_limits(load):
    limits = load("gpu_roofline").Limits(flops=100.0, bytes=10.0)
    assert limits.ridge == 10
    assert limits.floor(200, 10) == 2  # operations
    assert limits.floor(200, 50) == 5  # bytes


def test_nvidia_smi_is_read(load, monkeypatch):
    device = load("device")
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    answer = SimpleNamespace(returncode=0, stdout="NVIDIA H100 80GB HBM3, 580.159.04, 81559\n")
    monkeypatch.setattr(device.subprocess, "run", lambda *a, **k: answer)
    assert device.describe() == {
        "name": "NVIDIA H100 80GB HBM3", "driver_version": "580.159.04", "memory.total": "81559",
    }  # fmt: skip
    answer.returncode = 9
    assert device.describe() is None
