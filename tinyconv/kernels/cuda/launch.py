"""Compiling the .cu sources of this folder at run time, and launching what is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv.backend import Array, xp

FOLDER = Path(__file__).parent
OPTIONS = ("-std=c++17",)

# Multiprocessors of an H100, by which work is cut. A constant and not the device's own number: how
# sums are cut decides their last digits, which are to be the same on every card.
PROCESSORS = 132


@cache
def source(name: str) -> str:
    """The text of a .cu or .cuh file, with this folder's headers in the place of their #include.

    The compiler's cache knows a kernel by its text alone: a changed header must change it. Lines
    keep the file and the number that they have in the folder.
    """
    included: set[str] = set()

    def inlined(name: str) -> str:
        text = (FOLDER / name).read_text().replace("#pragma once", "")

        def insert(match: re.Match[str]) -> str:
            header = match[1]
            if not (FOLDER / header).exists():
                return match[0]
            if header in included:
                return ""
            included.add(header)
            after = text.count("\n", 0, match.end()) + 2
            return f'{inlined(header)}\n#line {after} "{name}"'

        return f'#line 1 "{name}"\n{_INCLUDE.sub(insert, text)}'

    return inlined(name)


_INCLUDE = re.compile(r'^#include "([^"]+)".*$', re.MULTILINE)


@cache
def _function(name: str, kernel: str, constants: tuple[tuple[str, Any], ...], device: int) -> Any:
    """A kernel of the file `name`, compiled with `constants` as macros, on one device.

    They are not given as -D: NVRTC's own header, which goes before the text, uses names like T.
    """
    macros = "".join(
        f"#define {key} {int(v) if isinstance(v, bool) else v}\n" for key, v in constants
    )
    return xp().RawModule(code=macros + source(name), options=OPTIONS).get_function(kernel)


def launch(
    name: str,
    kernel: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    *arguments: Any,
    shared: int = 0,
    **constants: Any,
) -> None:
    """Run `kernel` of the file `name` on the current stream.

    grid, block   numbers of blocks, and of threads in each (up to three dimensions)
    arguments     arrays (their addresses), whole numbers (int), numbers (float), None (null)
    shared        bytes of shared memory for SHARED_MEMORY (see device.cuh)
    constants     macros that the source is compiled with: TX="half_t", KERNEL=3

    A whole number outside of int32 raises OverflowError; pass np.int64(n) for a long long.
    """
    device = xp().cuda.Device().id
    function = _function(name, kernel, tuple(sorted(constants.items())), device)
    if shared > 48 * 1024:  # more than that has to be asked for beforehand
        function.max_dynamic_shared_size_bytes = shared
    function(_three(grid), _three(block), tuple(map(_argument, arguments)), shared_mem=shared)


def _three(sizes: int | Sequence[int]) -> tuple[int, ...]:
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)


def _argument(value: Any) -> Any:
    """An argument in the width that the kernels expect."""
    if isinstance(value, bool | int):
        return np.int32(value)
    if isinstance(value, float):
        return np.float32(value)
    return np.uint64(0) if value is None else value


def type_name(array: Array) -> str:
    """The name of an array's element type in the sources, for a constant T."""
    return _TYPES[array.dtype]


_TYPES = {np.dtype(np.float32): "float", np.dtype(np.float16): "half_t"}


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up: how many blocks of b cover a."""
    return -(-a // b)
