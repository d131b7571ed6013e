"""Batch normalisation as a function."""

import numpy as np
import pytest

import tinyconv.functional as F

torch = pytest.importorskip("torch")

from .compare import drawn, torch_tensor  # noqa: E402

TF = torch.nn.functional


@drawn(80)
def test_batch_norm(parity, draw):
    C = draw.integer(1, 5)
    shape = (draw.integer(2, 5), C, *draw.shape(0, 3, largest=5))
    training = draw.chance(0.6)
    momentum, eps = draw.one_of(0.1, 0.1, 0.0, 1.0, 0.37), draw.one_of(1e-5, 1e-3, 0.5)
    x = draw.normal(*shape) * draw.one_of(1, 1, 3) + draw.one_of(0, 0, 2)
    tracked = not training or draw.chance(0.7)
    vectors = [draw.normal(C) if draw.chance(0.7) else None for _ in range(2)]
    given = [v for v in vectors if v is not None]
    statistics = [draw.normal(C), draw.rng.random(C) + 0.1]
    ours, theirs = {}, {}

    def call(function, tensor, kept):
        def batch_norm(x, *affine):
            affine = iter(affine)
            weight, bias = (None if v is None else next(affine) for v in vectors)
            dtype = str(x.dtype).removeprefix("torch.")
            r = kept[dtype] = [tensor(s.astype(dtype)) if tracked else None for s in statistics]
            return function(x, *r, weight, bias, training, momentum, eps)

        return batch_norm

    parity.check(
        call(F.batch_norm, np.array, ours), call(TF.batch_norm, torch_tensor, theirs), x, *given
    )
    for dtype in ("float64", "float32"):
        for a, b in zip(ours[dtype], theirs[dtype], strict=True):
            if tracked:
                parity.equal(a, b, "statistics")


def test_large_mean(parity):
    """Statistics at a mean of 1e4: float64 as PyTorch's, float32 near the exact ones."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 3, 16, 16)) + 1e4
    parity.check(
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: TF.batch_norm(x, None, None, training=True),
        x,
        dtypes=["float64"],
        rtol=1e-9,  # PyTorch multiplies out (x - mean) * scale: 1e4 costs it four digits
    )
    x32 = x.astype(np.float32)
    exact = TF.batch_norm(torch.from_numpy(x32).double(), None, None, training=True).numpy()
    mean, var = np.zeros(3, np.float32), np.zeros(3, np.float32)
    ours = F.batch_norm(x32, mean, var, training=True, momentum=1.0).numpy()
    # One float32 at 1e4 is known to 5e-4, and so is a mean of them.
    assert np.abs(ours - exact).max() < 1e-3
    np.testing.assert_allclose(mean, x32.astype(float).mean((0, 2, 3)), rtol=1.2e-7)
    np.testing.assert_allclose(var, x32.astype(float).var((0, 2, 3), ddof=1), rtol=1e-5)


def test_constant_channels(parity):
    """No variance at all: eps alone keeps the result finite."""
    x = np.full((4, 2, 3, 3), 5.0)
    parity.check(
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: TF.batch_norm(x, None, None, training=True),
        x,
        dtypes=["float64"],
    )
    assert not F.batch_norm(x.astype(np.float32), None, None, training=True).numpy().any()


def test_empty_batch_leaves_the_statistics(parity):
    mean, var = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    theirs = [torch.from_numpy(mean.copy()), torch.from_numpy(var.copy())]
    parity.check(
        lambda x: F.batch_norm(x, mean, var, training=True),
        lambda x: TF.batch_norm(x, *theirs, training=True),
        np.zeros((0, 2, 3, 3)),
        dtypes=["float64"],
    )
    parity.equal(mean, theirs[0])
    parity.equal(var, theirs[1])


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_one_value_per_channel_is_refused_by_both(shape):
    x = np.zeros(shape)
    with pytest.raises(ValueError, match="one value per channel"):
        F.batch_norm(x, None, None, training=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        TF.batch_norm(torch.from_numpy(x), None, None, training=True)
