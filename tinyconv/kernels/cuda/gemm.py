"""Matrix products in tiles: which tile and how many parts, and what comes before and after them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinyconv.backend import Array, backend_name, precision, xp
from tinyconv.kernels.cuda.launch import PROCESSORS, ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import contiguous, empty

LINE = 128  # bytes of k in a step, see gemm.cuh
_BESIDE = 4096  # bytes: the most that kernels keep beside the tiles
LONGEST = 32_768  # terms of a sum in one accumulator: more would lose digits


class Tile(NamedTuple):
    """Rows and columns of a block's tile, those of each warp's part, and steps in the ring.

    blocks: how many are to run on a multiprocessor at once; bounds the registers of a thread.
    cached: whether a convolution's x goes through the first cache, for windows that overlap.
    """

    m: int
    n: int
    warp_m: int
    warp_n: int
    stages: int
    blocks: int
    cached: bool

    @property
    def threads(self) -> int:
        return self.m // self.warp_m * (self.n // self.warp_n) * 32

    @property
    def cycles(self) -> float:
        """Of a multiprocessor for one step of float32 numbers: those of its slowest part.

        By mma.sync tensor cores do 640 TF32 products per cycle, shared memory moves 32 numbers
        (those of a tile are written once and read by every warp), the second cache delivers 7.
        """
        from_memory = 1 / self.m + 1 / self.n
        in_shared = 1 / self.warp_m + 1 / self.warp_n + from_memory
        return 32 * self.m * self.n * max(1 / 640, in_shared / 32, from_memory / 7)

    def constants(self, stages: int) -> dict[str, int]:
        """The tile as constants of gemm.cuh."""
        return {
            "BLOCK_M": self.m, "BLOCK_N": self.n, "WARP_M": self.warp_m, "WARP_N": self.warp_n,
            "STAGES": stages, "BLOCKS": self.blocks,
        }  # fmt: skip


TILES = (
    Tile(256, 128, 64, 64, 4, 1, False),
    Tile(128, 128, 64, 64, 3, 2, False),
    Tile(128, 64, 64, 32, 3, 3, True),
    Tile(64, 128, 32, 64, 3, 3, False),
    Tile(64, 64, 32, 32, 3, 4, True),
    Tile(128, 32, 32, 32, 3, 3, True),
    Tile(32, 128, 32, 32, 3, 3, False),
    Tile(64, 32, 32, 16, 4, 4, True),
    Tile(32, 64, 16, 32, 4, 4, True),
    Tile(128, 16, 32, 16, 3, 4, True),
    Tile(64, 16, 16, 16, 4, 5, True),
    Tile(32, 32, 16, 16, 4, 5, True),
)

# Orders of magnitude, in cycles of a multiprocessor: a step that waits for memory, what a block
# takes beside its steps, another launch, a number of a result in memory.
_STEP, _BLOCK, _LAUNCH, _NUMBER = 400, 2500, 4000, 0.2


class Plan(NamedTuple):
    """How a product of M x N sums over `steps` steps is cut."""

    tile: Tile
    stages: int
    tiles: int
    splits: int

    @classmethod
    def of(cls, tile: Tile, splits: int, M: int, N: int, steps: int) -> Plan:
        """The plan with this tile and so many parts of the sum."""
        # With hardly a step to copy ahead, memory is better used by more blocks.
        stages = 2 if ceil_div(steps, splits) <= 2 else tile.stages
        return cls(tile, stages, ceil_div(M, tile.m) * ceil_div(N, tile.n), splits)

    @property
    def constants(self) -> dict[str, int]:
        return self.tile.constants(self.stages)

    def shared(self, a_along: bool, b_along: bool, beside: int = 0) -> int:
        """Bytes of shared memory: the ring or the result's tile, and what lies beside it."""
        lines = self.tile.m + self.tile.n + 8 * (2 - a_along - b_along)
        result = self.tile.m * (self.tile.n + 8) * 4
        return max(self.stages * lines * LINE, result) + beside


@cache
def fastest(
    M: int,
    N: int,
    steps: int,
    batch: int,
    fewest_splits: int,
    may_split: bool,
    tiles: tuple[Tile, ...] | None = None,
) -> Plan:
    """The fastest way to cut `batch` products, by a rough model of the machine.

    It chooses among `tiles`, or all that fit into the device's shared memory.
    """
    tiles = tiles or tiles_in(_most_shared())

    def cycles(plan: Plan) -> float:
        tile, _, count, splits = plan
        each, blocks = ceil_div(steps, splits), count * batch * splits
        in_turn = ceil_div(blocks, PROCESSORS)
        products, results = in_turn * each * tile.cycles, in_turn * tile.m * tile.n * _NUMBER
        waits = ceil_div(blocks, PROCESSORS * tile.blocks) * (each * _STEP + _BLOCK)
        # Blocks that share a multiprocessor write while others multiply.
        busy = max(products, results) + min(products, results) / tile.blocks
        adding = _LAUNCH + splits * (10 + M * N * _NUMBER * 2 / PROCESSORS)
        return max(busy, waits) + min(busy, waits) / 4 + (adding if splits > 1 else 0)

    most = max(steps, fewest_splits) if may_split else 1
    fewest = min(fewest_splits, _SPLITS[-1])
    counts = [splits for splits in _SPLITS if fewest <= splits <= most]
    return min((Plan.of(t, s, M, N, steps) for t in tiles for s in counts), key=cycles)


def tiles_in(memory: int) -> tuple[Tile, ...]:
    """The tiles that need no more bytes of shared memory in any product."""
    plans = [Plan(tile, tile.stages, 1, 1) for tile in TILES]
    return tuple(p.tile for p in plans if p.shared(False, False, _BESIDE) <= memory)


def _most_shared() -> int:
    """Bytes of shared memory that a block may have; an H100's where there is no device."""
    if backend_name() != "cupy":
        return 227 * 1024
    return xp().cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]


_SPLITS = (*range(1, 33), *range(34, 64, 2), *range(64, 128, 4), *range(128, 513, 16))

# What `plan` asks; another function in this place measures other ways (benchmarks/tiles.py).
planner: ContextVar[Callable[..., Plan]] = ContextVar("planner", default=fastest)


def plan(
    M: int, N: int, steps: int, batch: int = 1, fewest_splits: int = 1, may_split: bool = True
) -> Plan:
    """How to cut `batch` products of M x N that sum over `steps` steps."""
    return planner.get()(M, N, steps, batch, fewest_splits, may_split)


class Finish(NamedTuple):
    """What is done to each sum before it is written, see finish.cuh.

    The order of the fields is that of the parameters of the kernels, which get *finish.
    """

    residual: Array | None = None
    b: Array | None = None
    weight: Array | None = None
    bias: Array | None = None
    mean: Array | None = None
    var: Array | None = None
    eps: float = 0.0
    low: float = -np.inf
    high: float = np.inf


def exact(array: Array) -> bool:
    """Whether numbers of this type are to be multiplied as they are, without tensor cores."""
    return array.dtype == np.float32 and precision() == "float32"


def unit(array: Array, length: int) -> int:
    """Bytes that can be copied at once of rows of `length` numbers: 16, 8, 4 or 2."""
    together = array.data.ptr | length * array.dtype.itemsize
    return min(together & -together, 16)


def lay_out(w: Array, backward: bool, dtype: Any) -> Array:
    """Weights (O, C, KH, KW) as (O, KH*KW, C), or backward as (C, KH*KW, O), ready for tiles."""
    O, C, KH, KW = w.shape
    taps = KH * KW
    rows, inner, strides = (C, O, (taps, C * taps)) if backward else (O, C, (C * taps, taps))
    out = empty((rows, taps, inner), dtype)
    launch(
        "gemm.cu", "lay_out_weights", ceil_div(rows * inner, 256), 256,
        contiguous(w), out, rows, inner, taps, *strides,
        TX="float", NUMBER=type_name(out), EXACT=exact(out),
    )  # fmt: skip
    return out


def sum_product(y: Array, N: int, parts: Array, finish: Finish) -> None:
    """y = the sum of its parts (splits, ...), finished; rows of N numbers."""
    launch(
        "gemm.cu", "sum_product", ceil_div(y.size, 32), (32, 8),
        parts, y, *finish, y.size, N, len(parts),
        TX=type_name(y), NUMBER="float", EXACT=False,
    )  # fmt: skip


def sum_gradient(gw: Array, gb: Array | None, parts: Array, C: int, taps: int) -> None:
    """gw (O, C, taps) and gb (O,), the sums of their parts, each (O, taps, C) and then (O,)."""
    launch(
        "gemm.cu", "sum_gradient", ceil_div(parts.shape[1], 32), (32, 8),
        parts, gw, gb, parts.shape[1], gw.size, C, taps, len(parts),
        TX="float", NUMBER="float", EXACT=False,
    )  # fmt: skip
