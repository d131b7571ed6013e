"""Convolution in CUDA against the reference in float64: every direction, tile, border and type."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyconv
from tinyconv.errors import ShapeError
from tinyconv.kernels.cuda import conv, gemm
from tinyconv.kernels.fused import ConvNormReLU, PaddedConv2d
from tinyconv.op import run, run_backward, which
from tinyconv.ops.activation import ReLU, ReLU6
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.norm import BatchNorm

from .products import MODES, check, error, exact, values

NEEDS = (True, True, True)
EVALUATION = BatchNorm(False, eps=1e-3)


def make_inputs(N, C, O, size, kernel, mode, bias=True):
    dtype = MODES[mode][0]
    b = values((O,), 2) if bias else None
    return values((N, C, *size), 0, dtype), values((O, C, *kernel), 1), b


def check_conv(cuda, op, inputs, mode, turned=False):
    check(cuda, op, inputs, mode, "implicit_gemm", "implicit_gemm_backward", turned)


@pytest.fixture
def cut(monkeypatch):
    """Calling it with a tile and a number of parts makes all products be cut so."""

    def force(tile, splits, stages=None):
        def plan(M, N, steps, batch=1, fewest_splits=1, may_split=True):
            tiles = -(-M // tile.m) * -(-N // tile.n)
            parts = max(1, min(splits, steps)) if may_split else 1
            return gemm.Plan(tile, stages or tile.stages, tiles, parts)

        monkeypatch.setattr(conv, "plan", plan)

    return force


# Channels of all widths: 16, 8, 4 and 2 bytes; weights as they lie (few) and laid out; DEPTH of C.
CASES = [
    (Conv2d(padding=(1, 1)), (2, 3, 5, (9, 8), (3, 3))),
    (Conv2d((2, 1), (2, 3), (1, 2)), (1, 5, 8, (9, 11), (4, 3))),
    (Conv2d((3, 2), (1, 0)), (2, 20, 6, (10, 9), (2, 5))),
    (Conv2d(padding=(1, 1)), (1, 64, 16, (5, 6), (3, 3))),
    (Conv2d((2, 2)), (1, 1, 4, (11, 8), (1, 1))),
    (PaddedConv2d((2, 2), before=(0, 1), after=(1, 2)), (2, 4, 3, (7, 9), (3, 2))),
]


@pytest.mark.parametrize(
    ("case", "mode"),
    [(i, "tf32") for i in range(6)] + [(0, "half"), (3, "half"), (5, "half"), (3, "float32")],
)
def test_all_directions(cuda, case, mode):
    op, sizes = CASES[case]
    check_conv(cuda, op, make_inputs(*sizes, mode), mode)


@settings(max_examples=100)
@given(
    N=st.integers(1, 3), channels=st.sampled_from([(3, 5), (4, 20)]),
    room=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    before=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    after=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    splits=st.integers(1, 3), turned=st.booleans(),
)  # fmt: skip
def test_every_window(
    cuda, cut, N, channels, room, kernel, stride, padding, dilation, before, after, splits, turned
):
    cut(gemm.TILES[-1], splits)
    op = Conv2d(stride, padding, dilation)
    if any(before + after):
        op = PaddedConv2d(stride, padding, dilation, before=before, after=after)
    size = [
        max(1, d * (k - 1) + 1 - 2 * p) + r
        for d, k, p, r in zip(dilation, kernel, padding, room, strict=True)
    ]
    inputs = make_inputs(N, *channels, size, kernel, "float32")
    check_conv(cuda, op, inputs, "float32", turned)


# More than one tile of any size in each direction, cut off at both ends; two parts of the sum.
@pytest.mark.parametrize("tile", gemm.TILES, ids=lambda t: f"{t.m}x{t.n}")
def test_every_tile(cuda, cut, tile):
    cut(tile, 2)
    inputs = make_inputs(1, 36, 132, (14, 20), (1, 1), "tf32")
    check(cuda, Conv2d(), inputs, "tf32", "implicit_gemm")


@pytest.mark.parametrize("mode", MODES)
def test_a_large_tile_in_all_directions(cuda, cut, mode):
    cut(gemm.TILES[1], 3)
    check_conv(cuda, Conv2d(padding=(1, 1)), make_inputs(2, 24, 40, (8, 9), (3, 3), mode), mode)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_rings_of_any_length(cuda, cut, stages):
    cut(gemm.TILES[-1], 1, stages)
    check_conv(cuda, Conv2d(), make_inputs(1, 40, 8, (5, 6), (3, 3), "tf32"), "tf32")


def test_pixels_that_no_window_sees_get_a_gradient_of_zero(cuda):
    op, (x, w, b) = Conv2d((4, 4)), make_inputs(1, 4, 4, (11, 11), (2, 2), "tf32")
    y, saved = run(op, *map(cuda.asarray, (x, w, b)))
    gx, _, _ = run_backward(op, cuda.ones_like(y), saved, NEEDS)
    unseen = np.ones((11, 11), bool)
    for u in (0, 1, 4, 5, 8, 9):
        for v in (0, 1, 4, 5, 8, 9):
            unseen[u, v] = False
    assert (gx.get()[:, :, unseen] == 0).all()
    assert (gx.get()[:, :, ~unseen] != 0).all()


@pytest.mark.parametrize(("offset", "kernel"), [(1, (3, 3)), (2, (1, 1))])
def test_arrays_that_begin_anywhere(cuda, offset, kernel):
    """Parameters are slices of one buffer: 16 bytes at a time would be a misaligned address."""
    op, (x, w, b) = Conv2d(), make_inputs(2, 8, 8, (5, 6), kernel, "tf32")

    def moved(a):
        buffer = cuda.empty(a.size + offset, a.dtype)
        buffer[offset:] = cuda.asarray(a.ravel())
        return buffer[offset:].reshape(a.shape)

    x = x.transpose(0, 2, 3, 1).copy()
    y, saved = run(op, moved(x).transpose(0, 3, 1, 2), moved(w), moved(b))
    x = x.transpose(0, 3, 1, 2)
    expected, reference = op.forward(np, *exact((x, w, b)))
    assert error(y, expected) <= 5e-4
    gy = values(expected.shape)
    gradients = run_backward(op, cuda.asarray(gy), saved, NEEDS)
    for found, wanted in zip(
        gradients, op.backward(np, *exact([gy]), reference, NEEDS), strict=True
    ):
        assert error(found, wanted) <= 5e-4


def test_gradients_that_nobody_needs_are_none(cuda):
    op, inputs = Conv2d(), make_inputs(1, 4, 4, (6, 6), (3, 3), "tf32")
    y, saved = run(op, *map(cuda.asarray, inputs))
    gy = cuda.ones_like(y)
    for needs in [(True, False, False), (False, True, False), (False, False, True)]:
        gradients = run_backward(op, gy, saved, needs)
        assert [g is not None for g in gradients] == list(needs)
    np.testing.assert_allclose(gradients[2].get(), np.full(4, 16), rtol=1e-6)


# Numbers ------------------------------------------------------------------------------------------


def test_tf32_rounds_to_nearest_and_float32_not_at_all(cuda):
    number = np.float32(1 + 2**-11 + 2**-20)  # more than half way from 1 to the next TF32
    x, w = np.full((1, 4, 2, 2), number), np.full((4, 4, 1, 1), np.float32(0.25))
    for precision, expected in (("tf32", 1 + 2**-10), ("float32", number)):
        tinyconv.use_backend("cupy", precision=precision)
        for a, b in ((x, w), (w.reshape(1, 4, 2, 2), x.reshape(4, 4, 1, 1))):
            y, _ = run(Conv2d(), cuda.asarray(a), cuda.asarray(b), None)
            assert (y.get() == np.float32(expected)).all()


def test_many_pixels_keep_their_digits(cuda):
    """All terms are positive: one long float32 sum would be wrong by more than 1e-5."""
    tinyconv.use_backend("cupy", precision="float32")
    op, x, w = Conv2d(), 1 + np.abs(values((1, 1, 300, 401))), values((1, 1, 1, 1))
    gy = 1 + np.abs(values((1, 1, 300, 401), 3))
    _, gw, gb = run_backward(
        op, cuda.asarray(gy), (cuda.asarray(x), cuda.asarray(w)), (False, True, True)
    )
    assert error(gw, np.sum(exact([x * 1.0])[0] * gy).reshape(1, 1, 1, 1)) <= 2e-6
    assert error(gb, gy.astype(np.float64).sum().reshape(1)) <= 2e-6


@pytest.mark.parametrize("mode", ["tf32", "half"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(cuda, mode, value):
    x, w, _ = make_inputs(1, 4, 4, (6, 6), (3, 3), mode)
    x[0, 1, 2, 3] = value
    y, saved = run(Conv2d(), cuda.asarray(x), cuda.asarray(w), None)
    touched = np.zeros((4, 4), bool)
    touched[0:3, 1:4] = True
    assert (np.isfinite(y.get()).all(axis=(0, 1)) == ~touched).all()
    _, gw, _ = run_backward(Conv2d(), cuda.ones_like(y), saved, (False, True, False))
    assert (np.isfinite(gw.get()).all(axis=(0, 2, 3)) == [True, False, True, True]).all()


def test_the_same_at_every_run(cuda, cut):
    cut(gemm.TILES[-1], 5)
    op, inputs = Conv2d(), make_inputs(3, 4, 4, (9, 9), (3, 3), "tf32")
    y, saved = run(op, *map(cuda.asarray, inputs))
    first, second = (run_backward(op, cuda.ones_like(y), saved, NEEDS) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())


# With norm and ReLU, for inference ----------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("relu", [None, ReLU(), ReLU6()])
@pytest.mark.parametrize("parts", [(), ("b", "weight", "bias", "residual"), ("bias", "residual")])
def test_norm_residual_and_relu(cuda, cut, mode, splits, relu, parts):
    cut(gemm.TILES[-1], splits)
    op = ConvNormReLU(PaddedConv2d((2, 2), after=(1, 1)), EVALUATION, relu)
    dtype, precision, bound = MODES[mode]
    tinyconv.use_backend("cupy", precision=precision)
    x, w, _ = make_inputs(2, 8, 20, (6, 9), (3, 3), mode)
    vectors = [
        values((20,), i) if n in parts else None for i, n in enumerate(("b", "weight", "bias"))
    ]
    given = [x, w, *vectors, values((20,), 5), 0.5 + values((20,), 6) ** 2]
    if "residual" in parts:
        given.append(values((2, 20, 3, 4), 7, dtype))
    mine = [None if a is None else cuda.asarray(a) for a in given]
    assert which(op, "forward", *mine) == "implicit_gemm_with_norm"
    y, saved = run(op, *mine)
    assert saved == ()
    assert y.dtype == dtype
    assert error(y, op.forward(np, *exact(given))[0]) <= 2 * bound


# Which kernel ------------------------------------------------------------------------------------


def test_a_window_that_does_not_fit(cuda):
    x, w, _ = map(cuda.asarray, make_inputs(1, 4, 4, (4, 4), (5, 5), "tf32"))
    assert which(Conv2d(), "forward", x, w, None) == "implicit_gemm"
    with pytest.raises(ShapeError, match="window of 5 pixels"):
        run(Conv2d(), x, w, None)


def test_where_the_reference_is_used(cuda):
    x, w, _ = map(cuda.asarray, make_inputs(1, 4, 4, (6, 6), (3, 3), "tf32"))
    gy = cuda.zeros((1, 4, 4, 4), np.float32)

    def names(op, x, w, gy=gy):
        return which(op, "forward", x, w, None), which(op, "backward", gy, (x, w), NEEDS)

    assert names(Conv2d(), x, w) == ("implicit_gemm", "implicit_gemm_backward")
    for case in [
        (Conv2d(), x.astype(np.float64), w),
        (Conv2d(), x, w.astype(np.float64)),
        (Conv2d(), x[:0], w),
        (Conv2d(groups=2), x, w[:, :2]),
        (Conv2d(padding=(9000, 0)), x, w),
    ]:
        assert names(*case) == ("reference", "reference")
    assert names(Conv2d(), x, w, gy.astype(np.float16))[1] == "reference"
    training = ConvNormReLU(Conv2d(), BatchNorm(True), None)
    v = cuda.ones(4, np.float32)
    assert which(training, "forward", x, w, None, v, v, v, v) == "reference"
