"""Fully connected layers and matrix products in CUDA against the reference in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconv.kernels.cuda import gemm, linear
from tinyconv.op import run, run_backward, which
from tinyconv.ops.linear import Linear, MatMul

from .products import MODES, check, error, exact, values


def check_linear(cuda, x, w, b, mode):
    inputs = (values(x, 0, MODES[mode][0]), values(w, 1), values((w[0],), 2) if b else None)
    check(cuda, Linear(), inputs, mode, "linear_by_tiles", "linear_backward_by_tiles")


# Long sums are cut into parts; lengths that 16, 8, 4 or 2 bytes divide; one row, one column.
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("x", "w", "b"),
    [
        ((5, 300), (20, 300), True),
        ((4, 3000), (3, 3000), False),
        ((2, 3, 7), (5, 7), True),
        ((1, 9), (1, 9), True),
        ((200, 6), (10, 6), True),
        ((600, 24), (12, 24), True),
    ],
)
def test_linear(cuda, x, w, b, mode):
    check_linear(cuda, x, w, b, mode)


@settings(max_examples=25)
@given(R=st.integers(1, 70), quarters=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_linear_of_any_size(cuda, R, quarters):
    O, I = (4 * n for n in quarters)
    check_linear(cuda, (R, I), (O, I), True, "float32")


@pytest.mark.parametrize("rows", [linear._MANY_ROWS - 1, linear._MANY_ROWS])
def test_many_float16_rows_multiply_float16_weights(cuda, rows):
    """2**-26 is a number in float32 and TF32, and 0 in float16."""
    small = 0 if rows == linear._MANY_ROWS else 2.0**-16
    x, w = cuda.full((rows, 24), 64, np.float16), cuda.full((5, 24), 2.0**-26, np.float32)
    w[0, 1:] = 0
    w[0, :1] = 2.0**-6
    y, saved = run(Linear(), x, w, None)
    np.testing.assert_array_equal(y.get(), np.broadcast_to([1] + [1.5 * small] * 4, (rows, 5)))
    gy = cuda.full((rows, 5), 1024, np.float16)
    gx, _, _ = run_backward(Linear(), gy, saved, (True, False, False))
    expected = np.full((rows, 24), 4 * small, np.float16)
    expected[:, 0] += 16
    np.testing.assert_array_equal(gx.get(), expected)


def test_gradients_that_nobody_needs_are_none(cuda):
    op = Linear()
    y, saved = run(op, *(cuda.asarray(values(s)) for s in ((6, 8), (4, 8), (4,))))
    gy = cuda.ones_like(y)
    for needs in [(True, False, False), (False, True, False), (False, False, True)]:
        gradients = run_backward(op, gy, saved, needs)
        assert [g is not None for g in gradients] == list(needs)
    np.testing.assert_allclose(gradients[2].get(), np.full(4, 6), rtol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_arrays_that_lie_otherwise(cuda, turned):
    """Slices of a buffer that begin at any number, and transposes."""
    op, x, w = Linear(), values((6, 8)), values((12, 8), 1)

    def put(a):
        if turned:
            return cuda.asarray(a.T.copy()).T
        buffer = cuda.empty(a.size + 1, a.dtype)
        buffer[1:] = cuda.asarray(a.ravel())
        return buffer[1:].reshape(a.shape)

    y, saved = run(op, put(x), put(w), None)
    expected, reference = op.forward(np, *exact((x, w)), None)
    assert error(y, expected) <= 5e-4
    gy, needs = values((6, 12), 2), (True, True, False)
    gradients = run_backward(op, put(gy), saved, needs)[:2]
    wanted = op.backward(np, *exact([gy]), reference, needs)[:2]
    for a, b in zip(gradients, wanted, strict=True):
        assert error(a, b) <= 5e-4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((6, 7), (7, 9)),
        ((1, 8), (8, 1)),
        ((40, 500), (500, 24)),
        ((2, 3, 6, 8), (2, 3, 8, 12)),
        ((3, 5, 8), (8, 12)),
    ],
)
def test_matmul(cuda, a, b, mode):
    dtype = MODES[mode][0]
    inputs = (values(a, 0, dtype), values(b, 1, dtype))
    check(cuda, MatMul(), inputs, mode, "matmul_by_tiles", "matmul_backward_by_tiles")


def test_where_the_reference_is_used(cuda):
    x, w = cuda.asarray(values((6, 8))), cuda.asarray(values((4, 8)))
    assert which(Linear(), "forward", x, w, None) == "linear_by_tiles"
    for case in [(x.astype(np.float64), w), (x, w.astype(np.float16)), (x[:0], w), (x, w[:, :3])]:
        assert which(Linear(), "forward", *case, None) == "reference"
        assert which(Linear(), "backward", x, case, (True, True, False)) == "reference"
    rows = columns = cuda.broadcast_to(x[:1, :1], (2**16, 1))
    assert which(Linear(), "forward", rows, columns[: 2**15 - 1], None) == "linear_by_tiles"
    assert which(Linear(), "forward", rows, columns[: 2**15], None) == "reference"
    assert which(MatMul(), "forward", x, w.T) == "matmul_by_tiles"
    for case in [(x, w.T.astype(np.float16)), (x, w), (x.reshape(2, 3, 8), w.T[None])]:
        assert which(MatMul(), "forward", *case) == "reference"


# How products are cut -----------------------------------------------------------------------------


@given(M=st.integers(1, 10**7), N=st.integers(1, 5000), steps=st.integers(0, 10**6))
def test_a_plan_covers_the_product(M, N, steps):
    cut = gemm.plan(M, N, steps)
    assert cut.tiles == -(-M // cut.tile.m) * -(-N // cut.tile.n)
    assert 1 <= cut.splits <= max(steps, 1)
    for along in [(True, True), (True, False), (False, False)]:
        assert cut.shared(*along, 4096) <= 227 * 1024  # what a block may have


@pytest.mark.parametrize("memory", [99, 163, 227])  # KB: GeForce, A100, H100
def test_tiles_fit_into_the_memory_of_smaller_cards(memory):
    tiles = gemm.tiles_in(memory * 1024)
    assert {tile.m for tile in tiles} >= {32, 64, 128}
    for tile in tiles:
        cut = gemm.fastest(10**6, 512, 100, 1, 1, True, (tile,))
        assert cut.shared(False, False, 4096) <= memory * 1024


def test_a_large_product_fills_the_machine_and_a_small_one_takes_one_launch():
    large = gemm.plan(20, 256, 2048)  # 65536 inputs, 256 outputs
    assert large.tiles * large.splits >= 100
    assert gemm.plan(4, 120, 8).splits == 1
    assert linear.plan is gemm.plan
