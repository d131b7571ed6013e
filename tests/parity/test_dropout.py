"""Dropout: another random sequence than PyTorch's, so the statistics are compared."""

import numpy as np
import pytest

import tinyconv.functional as F
from tinyconv import Tensor

torch = pytest.importorskip("torch")

from .compare import to_numpy  # noqa: E402

N = 200_000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_statistics(p, dtype):
    x = np.ones(N, dtype)
    for y in (F.dropout(x, p), torch.nn.functional.dropout(torch.from_numpy(x), p)):
        y = to_numpy(y)
        assert y.dtype == dtype
        kept = y != 0
        np.testing.assert_allclose(y[kept], 1 / (1 - p), rtol=1e-6)
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / N)
        for lag in (1, 2, 3, 10, 100, 1000):
            correlation = np.corrcoef(kept[:-lag], kept[lag:])[0, 1]
            assert abs(correlation) < 5 / np.sqrt(N)


def test_the_gradient_goes_where_the_values_went():
    x = Tensor(np.arange(1.0, 1001.0), requires_grad=True)
    y = F.dropout(x, 0.3)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.numpy() / x.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (1.0, True), (0.5, False), (0.0, False)])
def test_without_chance(parity, p, training):
    parity.check(
        lambda x: F.dropout(x, p, training),
        lambda x: torch.nn.functional.dropout(x, p, training),
        np.arange(6.0).reshape(2, 3),
    )


def test_two_calls_differ():
    x = np.ones(1000, np.float32)
    assert not np.array_equal(F.dropout(x).numpy(), F.dropout(x).numpy())


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_no_probability_is_refused_by_both(p):
    with pytest.raises(ValueError, match="p: "):
        F.dropout(np.ones(3), p)
    with pytest.raises(ValueError, match="probability"):
        torch.nn.functional.dropout(torch.ones(3), p)
