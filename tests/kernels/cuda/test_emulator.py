"""The functions of device.cuh do what they say, and the emulator finds the errors that it promises.

The first half holds on a device and on the emulator alike.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinyconv.kernels.cuda.launch import source

EMULATOR = Path(__file__).parents[2] / "emulator"


@pytest.fixture
def emulated(cuda):
    """The stand-in for CuPy; no device."""
    if not Path(cuda.__file__).is_relative_to(EMULATOR):
        pytest.skip("there is a device")
    return cuda


def kernel(cupy, parameters, body, before=""):
    """A kernel with the functions of device.cuh at hand."""
    text = (
        f'{source("device.cuh")}\n{before}\n#line 1 "test.cu"\n'
        f'extern "C" __global__ void __launch_bounds__(256) test({parameters}) {{ {body} }}'
    )
    return cupy.RawModule(code=text, options=("-std=c++17",)).get_function("test")


def small(seed, *shape, dtype=np.float32):
    """Whole numbers, whose products and sums are exact in any format."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


# device.cuh ---------------------------------------------------------------------------------------


def test_mma_tf32(cuda):
    test = kernel(
        cuda,
        "const float *A, const float *B, float *D",
        """
        int g = threadIdx.x / 4, t = threadIdx.x % 4;
        uint32_t a[4] = {to_tf32(A[g * 8 + t]), to_tf32(A[(g + 8) * 8 + t]),
                         to_tf32(A[g * 8 + t + 4]), to_tf32(A[(g + 8) * 8 + t + 4])};
        uint32_t b[2] = {to_tf32(B[t * 8 + g]), to_tf32(B[(t + 4) * 8 + g])};
        float d[4] = {1, 1, 1, 1};
        mma_tf32(d, a, b);
        for (int i = 0; i < 4; i++) D[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
        """,
    )
    A, B, D = small(1, 16, 8), small(2, 8, 8), cuda.empty((16, 8), np.float32)
    test((1,), (32,), (cuda.asarray(A), cuda.asarray(B), D))
    np.testing.assert_array_equal(D.get(), A @ B + 1)


def test_mma_half_with_load_matrices(cuda):
    """A (16x16) by rows, B (16x8) by rows, so that B's registers come transposed."""
    test = kernel(
        cuda,
        "const half_t *A, const half_t *B, float *D",
        """
        __shared__ __align__(16) half_t a_tile[16 * 16], b_tile[32 * 8];
        int lane = threadIdx.x, g = lane / 4, t = lane % 4;
        for (int i = lane; i < 256; i += 32) a_tile[i] = A[i];
        for (int i = lane; i < 256; i += 32) b_tile[i] = B[i];
        __syncthreads();
        uint32_t a[4], columns[4];
        load_matrices(a, a_tile + (lane % 16) * 16 + lane / 16 * 8);
        load_matrices_transposed(columns, b_tile + lane * 8);
        uint32_t b[2] = {columns[0], columns[1]};
        float d[4] = {};
        mma_half(d, a, b);
        for (int i = 0; i < 4; i++) D[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
        """,
    )
    A, B = small(3, 16, 16, dtype=np.float16), small(4, 32, 8, dtype=np.float16)
    D = cuda.empty((16, 8), np.float32)
    test((1,), (32,), (cuda.asarray(A), cuda.asarray(B), D))
    np.testing.assert_array_equal(D.get(), A.astype(np.float32) @ B[:16].astype(np.float32))


def test_every_half(cuda):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    wide, back = cuda.empty(2**16, np.float32), cuda.empty(2**16, np.float16)
    test = kernel(
        cuda,
        "const half_t *x, float *wide, half_t *back",
        "int i = blockIdx.x * 256 + threadIdx.x;"
        "wide[i] = to_float(x[i]); back[i] = to_half(wide[i]);",
    )
    test((256,), (256,), (cuda.asarray(halves), wide, back))
    np.testing.assert_array_equal(wide.get(), halves.astype(np.float32))
    np.testing.assert_array_equal(back.get(), halves)


@given(arrays(np.float32, 64, elements=st.floats(width=32, allow_nan=True)))
def test_rounding(cuda, x):
    half, tf32 = cuda.empty(64, np.float16), cuda.empty(64, np.uint32)
    test = kernel(
        cuda,
        "const float *x, half_t *half, uint32_t *tf32",
        "int i = threadIdx.x; half[i] = to_half(x[i]); tf32[i] = to_tf32(x[i]);",
    )
    test((1,), (64,), (cuda.asarray(x), half, tf32))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(half.get(), x.astype(np.float16))
        # To 10 bits of mantissa; a number in the middle of two may go to either.
        fraction, exponent = np.frexp(x.astype(np.float64))
        scaled = fraction * 2**11
        expected = np.ldexp(np.rint(scaled), exponent - 11)
        middle = abs(scaled - np.trunc(scaled)) == 0.5
    normal = np.isfinite(x) & ((abs(x) >= 2.0**-126) | (x == 0)) & (abs(expected) < 2.0**128)
    normal &= ~middle
    rounded = tf32.get() & np.uint32(0xFFFFE000)
    np.testing.assert_array_equal(rounded.view(np.float32)[normal], expected[normal])


def test_warp_functions(cuda):
    test = kernel(
        cuda,
        "const float *x, float *sums, float *largest, unsigned *votes, int *shuffled",
        """
        int i = threadIdx.x;
        sums[i] = warp_sum(x[i]);
        largest[i] = warp_max(x[i]);
        votes[i] = __ballot_sync(0xffffffffu, x[i] > 0);
        shuffled[i] = __shfl_sync(0xffffffffu, i, 3) + 100 * __shfl_down_sync(0xffffffffu, i, 1)
                      + 10000 * __shfl_up_sync(0xffffffffu, i, 2, 8);
        """,
    )
    x, i = small(5, 64), np.arange(64)
    out = [cuda.empty(64, t) for t in (np.float32, np.float32, np.uint32, np.int32)]
    test((1,), (64,), (cuda.asarray(x), *out))
    sums, largest, votes, shuffled = (a.get() for a in out)
    warps = x.reshape(2, 32)
    np.testing.assert_array_equal(sums, warps.sum(axis=1).repeat(32))
    np.testing.assert_array_equal(largest, warps.max(axis=1).repeat(32))
    bits = (warps > 0).astype(np.uint64) @ (np.uint64(1) << np.arange(32, dtype=np.uint64))
    np.testing.assert_array_equal(votes, bits.repeat(32))
    down = np.where(i % 32 < 31, i + 1, i)
    up = np.where(i % 8 >= 2, i - 2, i)
    np.testing.assert_array_equal(shuffled, i // 32 * 32 + 3 + 100 * down + 10000 * up)


COPIES = """
    __shared__ __align__(16) float tile[2][128];
    int i = threadIdx.x * 4;
    copy_async_16(tile[0] + i, x + i, true);
    commit_copies();
    copy_async_8(tile[1] + i, x + 128 + i, true);
    copy_async_8(tile[1] + i + 2, x, false);
    commit_copies();
    wait_for_copies<{}>();
    __syncthreads();
    for (int k = 0; k < 4; k++) y[i + k] = tile[0][i + k], y[128 + i + k] = tile[1][i + k];
"""


def test_copies_that_are_waited_for(cuda):
    test = kernel(cuda, "const float *x, float *y", COPIES.format(0))
    x, y = np.arange(256, dtype=np.float32), cuda.empty(256, np.float32)
    test((1,), (32,), (cuda.asarray(x), y))
    expected = np.where((np.arange(256) >= 128) & (np.arange(256) % 4 >= 2), 0, x)
    np.testing.assert_array_equal(y.get(), expected)


def test_counters_stay_and_votes_count(cuda):
    test = kernel(
        cuda,
        "int *y",
        "int positive = __syncthreads_count(threadIdx.x % 3 == 0);"
        "if (threadIdx.x == 0) { atomicAdd(&counters[1], 1u); y[0] = positive; }"
        "__syncthreads(); if (threadIdx.x == 1) y[1] = counters[1];",
        before="DEVICE_COUNTERS(counters, 2)",
    )
    y = cuda.empty(2, np.int32)
    for count in (1, 2, 3):
        test((1,), (64,), (y,))
        assert y.get().tolist() == [22, count]


# What the emulator finds --------------------------------------------------------------------------


def test_copies_that_are_not_waited_for(emulated):
    test = kernel(emulated, "const float *x, float *y", COPIES.format(1))
    x, y = np.arange(256, dtype=np.float32), emulated.empty(256, np.float32)
    test((1,), (32,), (emulated.asarray(x), y))
    assert np.array_equal(y.get()[:128], x[:128])
    assert np.isnan(y.get()[128:]).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[n] = 0;", r"a write just outside of the array that is argument 0"),
        ("y[-1] = 0;", r"a write just outside of the array that is argument 0"),
        ("y[n + 3] = 0;", r"outside of any array .* at test.cu:1"),
        ("y[0] = y[threadIdx.x == 5 ? 100000 : 0];", r"block 0, 0, 0; thread 5, 0, 0"),
        ("float t[4]; for (int i = 0; i <= n % 4 + 3; i++) t[i] = 0; y[0] = t[n % 4];",
         "an index outside of its array at test.cu:1"),
        ("y[0] = reinterpret_cast<float4 *>(y + 1)->x;", "not aligned"),
        ("y[0] = 1 / (n - 61);", "division by zero"),
        ("SHARED_MEMORY(float, t); t[n] = 0;", "past the end of the dynamic shared memory"),
        ("if (threadIdx.x < 32) __syncthreads();",
         "deadlock: 32 of 64 threads wait at __syncthreads.* 32 have returned"),
        ("if (threadIdx.x < 32) __syncthreads();\nelse __syncthreads();",
         r"64 of 64 threads wait at __syncthreads\(\) of lines 1 and 2"),
        ("if (threadIdx.x % 2) __syncwarp(); else __syncthreads();",
         "deadlock: 32 of 64 .*, 32 in a function of their warp, 0 have returned"),
        ("if (threadIdx.x == 3) __syncwarp(0xf0);", "leaves out the caller, lane 3"),
        ("uint32_t r[4]; load_matrices(r, y);", "is not an address in shared memory"),
    ],
)  # fmt: skip
def test_errors_of_a_kernel(emulated, body, message):
    y = emulated.zeros(61, np.float32)
    with pytest.raises(emulated.cuda.runtime.CUDARuntimeError, match=f"test: .*{message}"):
        kernel(emulated, "float *y, int n", body)((1,), (64,), (y, np.int32(61)), shared_mem=244)
    fine = kernel(emulated, "float *y, int n", "if (threadIdx.x < n) y[threadIdx.x] = 1;")
    y = emulated.zeros(61, np.float32)
    fine((1,), (64,), (y, np.int32(61)))  # an error does not stay
    assert y.get().sum() == 61


@pytest.mark.parametrize("shift", [1, 31])
def test_a_missing_barrier_shows(emulated, shift):
    """Whether a thread reads what the one before it wrote, or the one after it."""
    body = "__shared__ float t[32]; t[threadIdx.x] = 1; {} y[blockIdx.x * 32 + threadIdx.x] = t[(threadIdx.x + {}) % 32];"  # noqa: E501
    for barrier in ("__syncthreads();", ""):
        y = emulated.empty(64, np.float32)
        kernel(emulated, "float *y", body.format(barrier, shift))((2,), (32,), (y,))
        assert np.isnan(y.get()).any() == (not barrier)


def test_what_was_never_written_is_nan(emulated):
    body = (
        "__shared__ float t[32]; SHARED_MEMORY(float, u);y[0] = t[3]; y[1] = u[3]; t[3] = u[3] = 0;"
    )
    y, fresh = emulated.empty(2, np.float32), emulated.empty(5, np.float16)
    kernel(emulated, "float *y", body)((2,), (1,), (y,), shared_mem=128)
    assert np.isnan(y.get()).all()
    assert np.isnan(fresh.get()).all()


@pytest.mark.parametrize(
    ("grid", "block", "arguments", "shared", "error", "message"),
    [
        ((1,), (32,), ("y",), 0, TypeError, "1 arguments, 2 parameters"),
        ((1,), (32,), ("y", 3), 0, TypeError, "parameter 1 is value int32 .* int64"),
        ((1,), (32,), ("y", np.float32(3)), 0, TypeError, "parameter 1 is value int32 .* float32"),
        ((1,), (32,), ("half", np.int32(3)), 0, TypeError, "0 is array float32 .* float16"),
        ((1,), (32,), (np.zeros(3), np.int32(3)), 0, TypeError, "0 is array float32 .* 24 bytes"),
        ((0,), (32,), ("y", np.int32(3)), 0, RuntimeError, "empty grid"),
        ((1, 65536), (32,), ("y", np.int32(3)), 0, RuntimeError, "a grid of"),
        ((1,), (257,), ("y", np.int32(3)), 0, RuntimeError, "257 threads beyond __launch_bounds__"),
        ((1,), (32, 33), ("y", np.int32(3)), 0, RuntimeError, "a block of"),
        ((1,), (32,), ("y", np.int32(3)), 49153, RuntimeError, "max_dynamic_shared_size_bytes is"),
    ],
)
def test_errors_of_a_launch(emulated, grid, block, arguments, shared, error, message):
    named = {"y": emulated.zeros(3, np.float32), "half": emulated.zeros(3, np.float16)}
    given = tuple(named[a] if isinstance(a, str) else a for a in arguments)
    with pytest.raises(error, match=message):
        kernel(emulated, "float *y, int n", "y[0] = n;")(grid, block, given, shared_mem=shared)


def test_shared_memory_up_to_227_kilobytes(emulated):
    y = emulated.zeros(1, np.float32)
    test = kernel(emulated, "float *y", "SHARED_MEMORY(float, t); t[58111] = 5; y[0] = t[58111];")
    for kilobytes, error in ((227, None), (228, "bytes of shared memory")):
        test.max_dynamic_shared_size_bytes = kilobytes * 1024
        if error:
            with pytest.raises(RuntimeError, match=error):
                test((1,), (1,), (y,), shared_mem=kilobytes * 1024)
        else:
            test((1,), (1,), (y,), shared_mem=kilobytes * 1024)
    assert y.get() == 5


# The stand-in for CuPy ----------------------------------------------------------------------------


_LIST = """
import functools, inspect, json, sys
sys.path[:0] = sys.argv[1:]
import cupy, cupyx
paths = '''
    cupy cupyx cupy.ndarray cupy.RawModule cupy.RawKernel cupy.cuda cupy.cuda.runtime
    cupy.cuda.memory cupy.cuda.Stream cupy.cuda.Event cupy.cuda.Graph cupy.cuda.Device
    cupy.cuda.MemoryPool cupy.cuda.MemoryPointer cupy.cuda.UnownedMemory
'''.split()
def names(path):
    first, *rest = path.split(".")
    space = functools.reduce(getattr, rest, {"cupy": cupy, "cupyx": cupyx}[first])
    imported = sys.argv[1:] and [n for n, v in vars(space).items() if inspect.ismodule(v)]
    return [n for n in dir(space) if n[0] != "_" and n not in imported]
print(json.dumps({path: names(path) for path in paths}))
"""


def names(*path):
    """The public names of CuPy, or of the stand-in where its folder is given."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST, *path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"CuPy cannot be imported: {done.stderr.splitlines()[-1]}")
    return json.loads(done.stdout)


def test_every_name_is_one_of_cupys():
    real = names()
    for space, offered in names(str(EMULATOR)).items():
        assert set(offered) <= set(real[space]), space


def test_arrays_are_as_strict_as_cupys(emulated):
    x, host = emulated.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    for mixed in (
        lambda: x + host,
        lambda: host * x,
        lambda: emulated.maximum(x, host),
        lambda: emulated.where(x > 0, x, host),
        lambda: emulated.concatenate([x, host]),
        lambda: np.asarray(x),
        lambda: np.stack([host, x]),
        lambda: x.set([1, 2]),
    ):
        with pytest.raises(TypeError):
            mixed()
    with pytest.raises(ValueError, match="non-scalar"):
        x[...] = host
    with pytest.raises(ValueError, match="Shape mismatch"):
        x.set(host[:1])
    assert type(x).__module__ == "cupy"
    for made in (x.sum(), x[0, 1], x.mean(axis=0), np.exp(x), x.T @ x, x > 2, 1 - x, x.argmax()):
        assert isinstance(made, emulated.ndarray)
    assert x.sum().shape == x[0, 1].shape == ()
    assert emulated.asarray(x) is x


def test_views_share_memory(emulated):
    x = emulated.zeros((4, 6), np.float32)
    views = x[1:, ::2], x.T, x.reshape(3, 8), x.swapaxes(0, 1), emulated.broadcast_to(x, (2, 4, 6))
    for view in views:
        assert not view.flags.owndata
    x.fill(3)
    assert all((view.get() == 3).all() for view in views)
    assert x.flags.owndata
    assert x.T.reshape(24).flags.owndata
    assert x[1:].data.ptr == x.data.ptr + 24


def test_capture_and_replay(emulated):
    stream = emulated.cuda.Stream(non_blocking=True)
    add = kernel(emulated, "float *y, float f", "y[threadIdx.x] += f;")
    with stream:
        x, y = emulated.ones(4, np.float32), emulated.zeros(4, np.float32)
        stream.begin_capture()
        add((1,), (4,), (y, np.float32(2)))
        z = y * x + 1
        z += y
        x[1:] = y[1:]
        y[0] = 0
        for forbidden in (y.get, lambda: float(x.sum()), stream.synchronize, lambda: bool(x[0])):
            with pytest.raises(RuntimeError, match="StreamCaptureUnsupported"):
                forbidden()
        with pytest.raises(RuntimeError, match="StreamCaptureUnsupported"):
            emulated.asarray(np.ones(3))
        with pytest.raises(NotImplementedError):
            x @ y
        graph = stream.end_capture()
        assert y.get().tolist() == [0, 0, 0, 0]
        assert np.isnan(z.get()).all()
        graph.launch()
        assert z.get().tolist() == [5, 5, 5, 5]
        assert y.get().tolist() == [0, 2, 2, 2]
        graph.launch()
        assert z.get().tolist() == [5, 13, 13, 13]
        assert y.get().tolist() == [0, 4, 4, 4]


def test_a_pool_reuses_what_is_free_and_has_a_limit(emulated):
    pool = emulated.cuda.MemoryPool()
    with emulated.cuda.using_allocator(pool.malloc):
        x = emulated.ones(100, np.float32)
        place = x.data.ptr
        assert pool.used_bytes() == pool.total_bytes() == 512
        del x
        assert (pool.used_bytes(), pool.total_bytes()) == (0, 512)
        y = emulated.empty(100, np.float32)
        assert y.data.ptr == place
        assert np.isnan(y.get()).all()
        pool.set_limit(size=1024)
        with pytest.raises(emulated.cuda.memory.OutOfMemoryError, match="limit set to: 1,024"):
            emulated.empty(300, np.float32)
        del y
        pool.free_all_blocks()
        assert pool.total_bytes() == 0


def test_copies_on_another_stream_are_late(emulated):
    import cupyx

    pinned = cupyx.zeros_pinned(3, np.float32)
    stream, event = emulated.cuda.Stream(non_blocking=True), emulated.cuda.Event()
    x = emulated.zeros(3, np.float32)
    pinned[:] = 1
    x.set(pinned, stream)
    event.record(stream)
    x_then = x.get()
    assert x_then.tolist() == [0, 0, 0]
    emulated.cuda.get_current_stream().wait_event(event)
    assert x.get().tolist() == [1, 1, 1]
    x.set(pinned, stream)
    pinned[:] = 2  # too early
    stream.synchronize()
    assert x.get().tolist() == [2, 2, 2]
