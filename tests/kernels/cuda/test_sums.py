"""Sums over all but the channel, and how a matrix is cut among blocks."""

import numpy as np
import pytest

from tinyconv.kernels.cuda import launch
from tinyconv.kernels.cuda.sums import (
    REDUCING_BLOCKS,
    REDUCING_THREADS,
    as_matrix,
    channel_sums,
    cut,
    vector_width,
)

from .compare import error, laid_out, values


def exact(x):
    return x.astype(np.float64).sum(axis=(0, *range(2, x.ndim)))


@pytest.mark.parametrize("C", [1, 3, 4, 6, 8, 17, 32, 65, 320])
@pytest.mark.parametrize("rows", [1, 7, 3000])
def test_rows(cuda, rows, C):
    x = values((rows, C))
    sums = channel_sums(cuda.asarray(x)).get()
    assert sums.shape == (C,)
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, exact(x), rtol=1e-6, atol=1e-6 * np.sqrt(rows))


@pytest.mark.parametrize(("C", "slices"), [(8_448, 2), (8_452, 1), (20_000, 1)])
def test_many_columns(cuda, C, slices):
    """Blocks that share a column count themselves: they must not outnumber the counters."""
    x = values((600, C))
    assert cut(*x.shape, 4, REDUCING_THREADS, REDUCING_BLOCKS, 8)[0][1] == slices
    first = channel_sums(cuda.asarray(x)).get()
    assert error(first, exact(x)) <= 1e-6
    assert error(channel_sums(cuda.asarray(x)).get(), exact(x)) <= 1e-6  # counters are back at 0


@pytest.mark.parametrize("C", [3, 8, 20])
def test_float16(cuda, C):
    x = values((700, C), np.float16)
    sums = channel_sums(cuda.asarray(x)).get()
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, exact(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "turned", "gaps"])
def test_images(cuda, layout):
    x = values((2, 6, 13, 11))
    sums = channel_sums(laid_out(cuda, x, layout))
    np.testing.assert_allclose(sums.get(), exact(x), rtol=1e-5, atol=1e-5)


def test_digits_of_a_long_sum(cuda):
    """Added one after the other in float32, 300,000 numbers near 1 are off by up to 1e-5."""
    x = np.random.default_rng(0).uniform(0.5, 1.5, (300_000, 4)).astype(np.float32)
    assert error(channel_sums(cuda.asarray(x)).get(), exact(x)) <= 1e-7


def test_the_result_is_the_same_every_time(cuda):
    x = cuda.asarray(values((9000, 8)))
    assert cut(*x.shape, 4, REDUCING_THREADS, REDUCING_BLOCKS, 8)[0][1] > 1  # several blocks
    first = channel_sums(x).get()
    for _ in range(2):  # the counters of the blocks are back at zero
        np.testing.assert_array_equal(channel_sums(x).get(), first)


def test_an_array_that_begins_at_any_number(cuda):
    memory = cuda.asarray(np.arange(41, dtype=np.float32))
    x = memory[1:].reshape(5, 8)
    assert vector_width(8, memory[:40].reshape(5, 8)) == 4
    assert vector_width(8, x) == 1
    np.testing.assert_array_equal(channel_sums(x).get(), exact(x.get()))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_vectors_are_16_bytes_where_channels_allow_it(cuda, dtype):
    whole = 16 // np.dtype(dtype).itemsize
    for C in range(1, 40):
        V = vector_width(C, cuda.zeros((2, C), dtype))
        assert C % V == 0
        assert whole == V or C % (2 * V)


def test_as_matrix(cuda):
    x = cuda.zeros((2, 3, 4, 5))
    assert as_matrix(x).transpose(0, 2, 3, 1).flags.c_contiguous
    assert as_matrix(x[:, 0, 0, :].T).flags.c_contiguous
    matrix = cuda.zeros((2, 3))
    assert as_matrix(matrix) is matrix or as_matrix(matrix).data.ptr == matrix.data.ptr


def test_sizes_are_those_of_the_source():
    text = (launch.FOLDER / "columns.cuh").read_text()
    assert f"REDUCING_THREADS = {REDUCING_THREADS}, REDUCING_BLOCKS = {REDUCING_BLOCKS};" in text


@pytest.mark.parametrize("C", [1, 3, 4, 17, 64, 100, 1280, 4096, 8447, 8449, 20_000])
@pytest.mark.parametrize("rows", [1, 40, 1_000_000])
def test_cut(rows, C):
    """Every channel has a thread, a block is 64 channels wide at most, and no block is idle."""
    for V in (1, 2, 4, 8):
        if C % V:
            continue
        (chunks, slices), lanes = cut(rows, C, V, REDUCING_THREADS, REDUCING_BLOCKS, 8)
        assert chunks * lanes * V >= C > (chunks - 1) * lanes * V
        assert lanes * V <= 64
        assert slices == 1 or chunks * slices <= REDUCING_BLOCKS
        assert (slices - 1) * (REDUCING_THREADS // lanes) < rows
