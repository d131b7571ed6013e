"""The benchmarks run and report what they found; how fast anything is, is not tested."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TORCH = importlib.util.find_spec("torch") is not None
# The smallest workloads; with PyTorch one of which nothing is compiled, which takes long.
NAME = "conv-1-6-28-b64" if TORCH else "train-lenet-4"


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.driver")


def run(*flags):
    environment = {name: value for name, value in os.environ.items() if name != "TINYCONV_DATA"}
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--rounds", "2", "--seconds", "0.01", *flags],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_a_run_from_end_to_end(tmp_path):
    shown = run("--only", NAME, "mnist-epoch", "--out", str(tmp_path), "--name", "small")
    found = json.loads((tmp_path / "small.json").read_text())
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["versions"]["numpy"] == np.__version__
    assert list(found["workloads"]) == [NAME, "mnist-epoch"]
    entry = found["workloads"][NAME]
    assert entry["status"] == "ok", entry
    row = entry["configurations"]["tinyconv-eager"]
    assert len(row["seconds"]) == 2
    assert 0 < row["quartiles"][0] <= row["median"] <= row["quartiles"][1]
    if TORCH:
        rivals = ("torch-eager", "torch-channels-last")
        fastest = min(entry["configurations"][name]["median"] for name in rivals)
        assert entry["ratios"]["tinyconv-eager"]["ratio"] == fastest / row["median"]
        assert 0 < max(row["differences"].values()) < 1e-4
        assert (tmp_path / "small.png").stat().st_size > 0
    assert found["workloads"]["mnist-epoch"]["status"] == "skipped"
    assert "TINYCONV_DATA names no folder that holds mnist/" in shown


def test_a_training_step_without_torch(tmp_path):
    shown = run("--only", "train-lenet-4", "--no-torch", "--out", str(tmp_path))
    entry = json.loads((tmp_path / "comparison.json").read_text())["workloads"]["train-lenet-4"]
    assert entry["configurations"]["tinyconv-eager"]["status"] == "ok"
    assert entry["ratios"] == {}
    assert "ms/step" in shown or "µs/step" in shown


def test_what_differs_is_not_measured(driver, monkeypatch):
    workloads = importlib.import_module("benchmarks.workloads")
    results = {"a": np.ones(3), "b": np.array([1, 1, 1.01])}

    class Worker:
        def __init__(self, workload, configuration, folder):
            self.result = results[configuration]

        def receive(self):
            return None

        def ask(self, command, *arguments):
            answers = {"check": {"logits": self.result}, "calls": 1, "measure": 0.5, "memory": {}}
            return answers[command]

        def close(self):
            pass

    monkeypatch.setattr(driver, "Worker", Worker)
    workload = workloads.WORKLOADS["conv-1-6-28-b64"]
    rows = driver.compare(workload, ("a", "b"), 1, 0.01)["configurations"]
    assert rows["a"]["median"] == 0.5
    assert rows["b"]["status"] == "failed"
    assert rows["b"]["reason"] == "logits of b and of a differ by 1.0e-02"
    assert "median" not in rows["b"]
    results["b"][0] = np.nan
    rows = driver.compare(workload, ("a", "b"), 1, 0.01)["configurations"]
    assert rows["b"]["status"] == "failed"


def test_a_ratio_sets_like_beside_like(driver):
    seconds = {"tinyconv-eager": 2, "tinyconv-compiled": 1, "torch-eager": 4, "torch-compile": 3}
    found = driver.ratios({name: {"median": s} for name, s in seconds.items()})
    assert found == {
        "tinyconv-eager": {"ratio": 2, "beside": "torch-eager"},
        "tinyconv-compiled": {"ratio": 3, "beside": "torch-compile"},
    }


def test_networks_of_both_sides_have_the_same_weights(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT))
    ours = importlib.import_module("benchmarks.tinyconv_side")
    theirs = importlib.import_module("benchmarks.torch_models")
    workloads = importlib.import_module("benchmarks.workloads")
    networks = {w.network: w for w in [*workloads.WORKLOADS.values(), workloads.blocks()]}
    for name, workload in networks.items():
        if name:
            found = ours.create(name, workload.options).state_dict()
            expected = theirs.create(name, workload.options).state_dict()
            assert list(found) == list(expected)
            for key, value in found.items():
                assert value.shape == tuple(expected[key].shape), key
