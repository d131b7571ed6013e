"""How the functions of this package are compiled: `kernel` for what is launched, `jit` inside.

A kernel is a Numba function of pointers and whole numbers, compiled to a C function, so that a list
of them can be run from one native loop without Python in between (runner.py). Its parameters are
annotated F32, F64, U8, I32, I64 (a pointer to such numbers, from an array) or INT; the last three
are always `part, begin, end`: the number of the part of the work, and the items that it does.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core.ccallback import CFunc
from numba.core.typing import signature

F32 = types.CPointer(types.float32)
F64 = types.CPointer(types.float64)
U8 = types.CPointer(types.uint8)
I32 = types.CPointer(types.int32)
I64 = types.CPointer(types.int64)
INT = types.int64

# Sums may be reordered and multiplications fused with additions; NaN and infinity count.
_OPTIONS = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}


def _stamp() -> tuple[float, int]:
    """Newest change and size of this package's sources."""
    files = [path.stat() for path in Path(__file__).parent.glob("*.py")]
    return max(f.st_mtime for f in files), sum(f.st_size for f in files)


_STAMP = _stamp()


def _stamped(compiled: Any) -> Any:
    # Numba looks for changes in a function's own file alone, but functions here call one another.
    compiled._cache._cache_file._source_stamp = _STAMP
    return compiled


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return _stamped(numba.njit(nogil=True, cache=True, **_OPTIONS)(function))


class _Function(CFunc):
    """A C function that says so, once, where it is not found on disk and takes its time."""

    told: ClassVar[bool] = False

    def _compile_uncached(self) -> Any:
        if not _Function.told:
            _Function.told = True
            sys.stderr.write("tinyconv: compiling kernels for this machine, once, some seconds\n")
        return super()._compile_uncached()  # type: ignore[misc]


def _compile(function: Callable[..., Any], kinds: list[Any]) -> CFunc:
    """A C function, from disk where it was compiled before."""
    compiled = _Function(function, (tuple(kinds), types.void), {}, dict(_OPTIONS))
    compiled.enable_caching()
    _stamped(compiled).compile()
    return compiled


def _kinds(function: Callable[..., Any]) -> list[Any]:
    """The types of a function's parameters, from its annotations."""
    kinds = inspect.get_annotations(function, eval_str=True)
    return [kinds[name] for name in inspect.signature(function).parameters]


_shared: list[Callable[..., Any]] = []
_provided: list[CFunc] = []


def shared(function: Callable[..., Any]) -> Any:
    """Compile a large function that many kernels call once, not once in each of them.

    Its parameters are annotated like a kernel's.
    """
    _shared.append(function)
    return types.ExternalFunction(
        f"tinyconv_{function.__name__}", signature(types.void, *_kinds(function))
    )


def _provide_shared() -> None:
    """Make the shared functions known to the linker, before any kernel is compiled or loaded."""
    while len(_provided) < len(_shared):
        function = _shared[len(_provided)]
        _provided.append(_compile(function, _kinds(function)))
        llvm.add_symbol(f"tinyconv_{function.__name__}", _provided[-1].address)


class KernelFunction:
    """A function compiled when it is first needed, kept on disk, and called by its address."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__name__
        self.kinds = _kinds(function)
        if self.kinds[-3:] != [INT, INT, INT]:
            raise TypeError(f"{self.name}: expected part, begin, end as the last parameters")
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Where the machine code is; compiles it, or loads it from disk, at the first call."""
        if self._compiled is None:
            _provide_shared()
            self._compiled = _compile(self.function, self.kinds)
        return self._compiled.address

    def pack(self, arguments: tuple[Any, ...]) -> np.ndarray:
        """The arguments as 64-bit words, addresses or numbers. Raises TypeError where one is wrong.

        Arrays must be C-contiguous and of the annotated dtype, and must be kept alive.
        """
        if len(arguments) != len(self.kinds) - 3:
            raise TypeError(f"{self.name}: {len(arguments)} arguments found, {len(self.kinds) - 3}")
        words = np.empty(len(arguments), np.int64)
        for i, (kind, value) in enumerate(zip(self.kinds, arguments, strict=False)):
            if kind is INT:
                words[i] = value
                continue
            if value.dtype != _DTYPES[kind] or not value.flags.c_contiguous:
                raise TypeError(
                    f"{self.name}: argument {i} is {value.dtype} with strides {value.strides}, "
                    f"expected contiguous {_DTYPES[kind]}"
                )
            words[i] = value.ctypes.data
        return words


_DTYPES = {
    F32: np.dtype(np.float32),
    F64: np.dtype(np.float64),
    U8: np.dtype(np.uint8),
    I32: np.dtype(np.int32),
    I64: np.dtype(np.int64),
}


def kernel(function: Callable[..., Any]) -> KernelFunction:
    """Make a kernel of a function with annotated parameters, the last three part, begin, end."""
    return KernelFunction(function)
