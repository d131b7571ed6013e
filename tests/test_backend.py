"""Which array library runs, and random numbers that can be put back."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy
import pytest

import tinyconv
import tinyconv.functional as F
from tinyconv import Tensor, backend, nn

ROOT = Path(__file__).parents[1]


def child(code, **environment):
    """A fresh Python that runs `code`."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_numpy_is_used_unless_something_else_is_asked_for():
    assert tinyconv.backend_name() == "numpy"
    assert backend.xp() is numpy


def test_unknown_backend():
    message = "backend 'jax' is not known; expected one of numpy, cupy"
    with pytest.raises(tinyconv.BackendError, match=message):
        tinyconv.use_backend("jax")
    assert tinyconv.backend_name() == "numpy"


def test_cupy_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(tinyconv.BackendError) as caught:
        tinyconv.use_backend("cupy")
    message = str(caught.value)
    assert "\n" not in message
    assert "CuPy" in message
    assert "pip install -e '.[cuda12]'" in message
    assert "'.[cuda13]'" in message
    assert tinyconv.backend_name() == "numpy"


def cupy_that_counts(devices):
    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        if devices is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver")
        return devices

    cupy = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    return cupy


def test_no_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(None))
    with pytest.raises(tinyconv.BackendError, match=r"no usable NVIDIA GPU.*InsufficientDriver"):
        tinyconv.use_backend("cupy")


def test_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(0))
    with pytest.raises(tinyconv.BackendError, match="no NVIDIA GPU on this machine"):
        tinyconv.use_backend("cupy")


def test_a_gpu_that_is_too_old(monkeypatch):
    cupy = cupy_that_counts(1)
    cupy.cuda.Device = lambda: types.SimpleNamespace(compute_capability="75")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(tinyconv.BackendError, match=r"compute capability 8\.0.* has 7\.5"):
        tinyconv.use_backend("cupy")


def test_a_network_from_another_backend_is_refused(cuda):
    x = tinyconv.Tensor(numpy.ones((1, 1, 4, 4), numpy.float32))
    tinyconv.use_backend("numpy")
    for layer in (nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Linear(4, 2)):
        with pytest.raises(tinyconv.BackendError, match="cupy, weight on numpy; make the network"):
            layer(x)


def test_the_environment_chooses():
    ask = "import tinyconv; print(tinyconv.backend_name())"
    assert child(ask, TINYCONV_BACKEND="numpy").stdout == "numpy\n"
    found = child(ask, TINYCONV_BACKEND="fast")
    assert found.returncode == 1
    assert "BackendError: backend 'fast' is not known" in found.stderr.splitlines()[-1]


def test_conversions(backend):
    array = numpy.arange(3.0)
    there = tinyconv.backend.asarray(array)
    assert tinyconv.backend.array_module(there).__name__ == backend
    assert tinyconv.backend.asarray(there) is there
    assert tinyconv.to_numpy(there).tolist() == [0, 1, 2]
    assert tinyconv.to_numpy(Tensor(array)).tolist() == [0, 1, 2]
    assert tinyconv.to_numpy([1, 2]).tolist() == [1, 2]
    assert tinyconv.backend.asarray(Tensor(array), numpy.float32).dtype == numpy.float32
    assert tinyconv.backend.array_module([1, 2]) is numpy
    tinyconv.synchronize()


def test_numpy_arrays_are_not_copied():
    array = numpy.arange(3.0)
    assert tinyconv.to_numpy(Tensor(array)) is array


# Random numbers -----------------------------------------------------------------------------------


def draws():
    """All kinds of random numbers that a training uses."""
    weights = [p.numpy() for p in nn.Linear(3, 5).parameters()]
    return [*weights, F.dropout(numpy.ones(50)).numpy(), backend.generator().random(3)]


def same(a, b):
    return all(numpy.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_seed_starts_all_of_them_anew():
    tinyconv.manual_seed(12)
    first = draws()
    assert not same(first, draws())
    tinyconv.manual_seed(12)
    assert same(first, draws())
    tinyconv.manual_seed(13)
    assert not same(first, draws())


@pytest.mark.parametrize("before", range(1, 5))
def test_the_random_state_can_be_put_back_through_json(before):
    tinyconv.manual_seed(3)
    for count in range(before):  # leaves numbers in the generator's buffer
        backend.generator().integers(0, 100, count, numpy.uint32)
        draws()
    state = json.loads(json.dumps(tinyconv.backend.random_state()))
    expected = draws(), draws()
    tinyconv.manual_seed(99)
    backend.set_random_state(state)
    assert same(draws(), expected[0])
    assert same(draws(), expected[1])


def test_seeds_from_end_to_end():
    for seed in (0, 2**63 - 1, numpy.int64(5)):
        tinyconv.manual_seed(seed)
        assert json.dumps(backend.random_state())
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"seed: {seed} is out of range"):
            tinyconv.manual_seed(seed)


def test_another_process_draws_the_same():
    ask = (
        "import tinyconv; tinyconv.manual_seed(4);"
        "print(tinyconv.nn.Linear(2, 2).weight.numpy().tobytes().hex())"
    )
    tinyconv.manual_seed(4)
    assert child(ask).stdout.strip() == nn.Linear(2, 2).weight.numpy().tobytes().hex()
