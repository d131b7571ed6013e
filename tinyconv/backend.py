"""The array library in use, numpy or cupy, and the random numbers that are the same on both."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any, Literal, get_args

import numpy

from tinyconv.errors import BackendError

Array = Any  # numpy.ndarray or cupy.ndarray: the engine uses only what both offer

Precision = Literal["tf32", "float32"]

_NAMES = ("numpy", "cupy")


def _load(name: str) -> ModuleType:
    """The array library called `name`, checked to be usable on this machine."""
    if name == "numpy":
        return numpy
    if name != "cupy":
        raise BackendError(f"backend {name!r} is not known; expected one of {', '.join(_NAMES)}")
    try:
        import cupy
    except ImportError as error:
        raise BackendError(
            "backend 'cupy' needs CuPy, which is not installed: "
            "in tinyconv's folder, pip install -e '.[cuda12]' or, for CUDA 13, '.[cuda13]'"
        ) from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"backend 'cupy' found no usable NVIDIA GPU or driver: {error}"
        ) from error
    if devices == 0:
        raise BackendError("backend 'cupy' found no NVIDIA GPU on this machine")
    found = cupy.cuda.Device().compute_capability  # "90" is 9.0
    if int(found) < 80:
        raise BackendError(
            f"backend 'cupy' needs a GPU of compute capability 8.0 (Ampere, 2020) or later; "
            f"this one has {found[:-1]}.{found[-1]}"
        )
    return cupy


_xp: ModuleType | None = None
_kernels_wanted = os.environ.get("TINYCONV_KERNELS") != "0"
_precision: Precision = "tf32"


def use_backend(name: str, kernels: bool | None = None, precision: Precision | None = None) -> None:
    """Choose where new tensors, weights and batches live: "numpy" (CPU) or "cupy" (NVIDIA GPU).

    kernels=False computes everything by the reference code in ops/, True by compiled kernels where
    there is one; None leaves that as it is. precision says how a GPU's kernels multiply float32
    numbers in convolutions and matrix products: "tf32", as at the start, rounds them to 10 bits of
    mantissa first, as PyTorch does in convolutions; "float32" does not. The CPU never rounds. The
    environment variables TINYCONV_BACKEND and TINYCONV_KERNELS (0 for none) set what a program
    starts with.
    Raises BackendError where CuPy or a GPU is missing, or the name is not known; ValueError for an
    unknown precision.
    """
    global _xp, _kernels_wanted, _precision
    if precision is not None and precision not in get_args(Precision):
        expected = ", ".join(get_args(Precision))
        raise ValueError(f"precision: {precision!r} found, expected one of {expected}")
    _xp = _load(name)
    if kernels is not None:
        _kernels_wanted = kernels
    if precision is not None:
        _precision = precision
    if _kernels_wanted:  # they register themselves on the ops
        importlib.import_module(f"tinyconv.kernels.{'cpu' if _xp is numpy else 'cuda'}")


def precision() -> Precision:
    """How kernels on a GPU multiply float32 numbers: "tf32" or "float32"."""
    return _precision


def kernels_wanted() -> bool:
    """Whether ops may be computed by kernels, not by their reference code alone."""
    return _kernels_wanted


def xp() -> ModuleType:
    """The array library in use."""
    if _xp is None:
        use_backend(os.environ.get("TINYCONV_BACKEND") or "numpy")
    assert _xp is not None
    return _xp


def backend_name() -> str:
    """The name of the array library in use: "numpy" or "cupy"."""
    return xp().__name__


def array_module(array: Array) -> ModuleType:
    """The array library that `array` belongs to; numpy for anything that is not an array yet."""
    if isinstance(array, numpy.ndarray) or not type(array).__module__.startswith("cupy"):
        return numpy
    return importlib.import_module("cupy")


def asarray(value: Any, dtype: Any = None) -> Array:
    """`value` as an array of the library in use, copied only where it is not on its device."""
    return to_module(xp(), value, dtype)


def to_module(module: ModuleType, value: Any, dtype: Any = None) -> Array:
    """`value` as an array of the library `module`."""
    if module is numpy:
        value = to_numpy(value)
    elif hasattr(value, "requires_grad"):
        value = value.data
    return module.asarray(value, dtype=dtype)


def to_numpy(value: Any) -> numpy.ndarray:
    """A tensor or an array of either library as a NumPy array, without a copy where it is one."""
    if hasattr(value, "requires_grad"):
        return value.detach().numpy()
    return numpy.asarray(value) if array_module(value) is numpy else value.get()


def synchronize() -> None:
    """Wait until the device has finished what it was given; nothing to wait for on the CPU."""
    if backend_name() == "cupy":
        xp().cuda.get_current_stream().synchronize()


# Random numbers are drawn on the host (weights, shuffles) or computed from a counter (dropout, see
# ops/dropout.py), so that one seed gives the same ones on either backend.


class _Random:
    def __init__(self, seed: int) -> None:
        self.generator = numpy.random.Generator(numpy.random.Philox(seed))
        # [seed, position]: dropout reads it and moves the position on, on the device.
        self.dropout_stream: Array = numpy.array([seed, 0], dtype=numpy.uint64)


_random = _Random(0)


def manual_seed(seed: int) -> None:
    """Start all random numbers (initial weights, dropout) anew from `seed` (0 <= seed < 2**63)."""
    global _random
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: {seed} is out of range, expected 0 <= seed < 2**63")
    _random = _Random(seed)


def generator() -> numpy.random.Generator:
    """The host generator that initial weights are drawn from."""
    return _random.generator


def dropout_stream() -> Array:
    """Seed and position (uint64, shape (2,)) of the dropout masks, on the backend in use."""
    _random.dropout_stream = asarray(_random.dropout_stream)
    return _random.dropout_stream


def random_state() -> dict[str, Any]:
    """Where all random numbers stand now, as plain values that JSON can hold."""
    state = _random.generator.bit_generator.state
    return {
        "philox_counter": state["state"]["counter"].tolist(),
        "philox_key": state["state"]["key"].tolist(),
        "philox_buffer": state["buffer"].tolist(),
        "philox_buffer_pos": int(state["buffer_pos"]),
        "philox_has_uint32": int(state["has_uint32"]),
        "philox_uinteger": int(state["uinteger"]),
        "dropout": to_numpy(_random.dropout_stream).tolist(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all random numbers back to where `random_state()` found them."""
    words = {key: numpy.array(state[f"philox_{key}"], numpy.uint64) for key in ("counter", "key")}
    _random.generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": words,
        "buffer": numpy.array(state["philox_buffer"], numpy.uint64),
        "buffer_pos": state["philox_buffer_pos"],
        "has_uint32": state["philox_has_uint32"],
        "uinteger": state["philox_uinteger"],
    }
    dropout_stream()[...] = asarray(numpy.array(state["dropout"], numpy.uint64))
