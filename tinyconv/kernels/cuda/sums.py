"""Sums over all but the channel, and how kernels are cut that work channel by channel."""

from __future__ import annotations

from tinyconv.backend import Array
from tinyconv.kernels.cuda.launch import PROCESSORS, ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import channels_last, contiguous, empty

# A block's threads, and how many blocks there are at most: see sums.cu and columns.cuh.
REDUCING_THREADS, REDUCING_BLOCKS = 512, 2 * PROCESSORS

# Channels that a block works on at most.
_WIDTH = 64


def channel_sums(x: Array) -> Array:
    """The sums (C,) of x over all but its channel, float32, in one launch.

    x (N, C, H, W) or (rows, C), float32 or float16, fewer than 2**31 numbers. Deterministic.
    """
    x = as_matrix(x)
    rows, C = x.size // x.shape[1], x.shape[1]
    V = vector_width(C, x)
    grid, lanes = cut(rows, C, V, REDUCING_THREADS, REDUCING_BLOCKS, 8)
    sums = empty((C,))
    launch(
        "sums.cu", "channel_sums", grid, REDUCING_THREADS,
        x, sums, empty((grid[1], C)), rows, C, lanes,
        TX=type_name(x), V=V,
    )  # fmt: skip
    return sums


def as_matrix(x: Array) -> Array:
    """x (N, C, H, W) or (rows, C), copied unless it lies as (pixels or rows, C) in memory."""
    return channels_last(x) if x.ndim == 4 else contiguous(x)


def vector_width(C: int, *arrays: Array) -> int:
    """How many neighbouring channels a thread takes: as many as 16 bytes hold, where C allows it.

    All arrays are read in such pieces, so that they must also begin at a multiple of a piece.
    """
    V = 16 // max(a.itemsize for a in arrays)
    while C % V or any(a.data.ptr % (V * a.itemsize) for a in arrays):
        V //= 2
    return V


def cut(
    rows: int, C: int, V: int, threads: int, most_blocks: int, least_rows: int = 1
) -> tuple[tuple[int, int], int]:
    """The grid and the threads in a line for a matrix (rows, C), as columns.cuh has them.

    A thread gets least_rows rows at least before there is another block. Channels share their rows
    among several blocks only where most_blocks is enough for all of them.
    """
    vectors = C // V
    chunks = ceil_div(vectors, _WIDTH // V)
    lanes = ceil_div(vectors, chunks)
    wanted = ceil_div(rows, threads // lanes * least_rows)
    return (chunks, max(1, min(wanted, most_blocks // chunks))), lanes
