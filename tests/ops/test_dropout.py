"""Dropout and its random numbers, against SplitMix64 in plain Python integers."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F
from tinyconv.backend import asarray, dropout_stream, random_state, xp
from tinyconv.ops.dropout import uniform
from tinyconv.tensor import Tensor

MASK = 2**64 - 1


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def number(seed, position):
    """The random number at a position (from 0) of the stream of a seed, in [0, 1)."""
    counter = ((position + 1) * 0x9E3779B97F4A7C15) & MASK
    return (mix(counter ^ mix(seed)) >> 40) / 2**24


def test_the_oracle_gives_the_published_numbers():
    # The first outputs of SplitMix64 with seed 0, as the reference implementations print them.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert [mix((i * 0x9E3779B97F4A7C15) & MASK) for i in (1, 2, 3, 4)] == published
    assert number(0, 0) == (0xE220A8397B1DCDAF >> 40) / 2**24


@given(seed=st.integers(0, 2**63 - 1), start=st.integers(0, 2**64 - 1), size=st.integers(0, 40))
def test_uniform(seed, start, size, backend):
    stream = asarray(numpy.array([seed, start], numpy.uint64))
    found = tinyconv.to_numpy(uniform(xp(), stream, size))
    assert found.dtype == numpy.float32
    assert found.tolist() == [number(seed, (start + i) & MASK) for i in range(size)]
    assert tinyconv.to_numpy(stream).tolist() == [seed, (start + size) & MASK]


def draw(seed, count):
    return uniform(numpy, numpy.array([seed, 0], numpy.uint64), count).astype(numpy.float64)


def test_mean_and_variance():
    n = 1_000_000
    for seed in (0, 1, 2**62):
        u = draw(seed, n)
        assert abs(u.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
        assert abs(u.var() - 1 / 12) < 5 * (1 / 180 / n) ** 0.5
        counts = numpy.bincount((u * 256).astype(int), minlength=256)
        chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum()
        assert abs(chi2 - 255) < 5 * (2 * 255) ** 0.5


def test_neighbours_and_streams_are_not_correlated():
    n = 200_000
    u = draw(0, n) - 0.5

    def correlation(a, b):
        return abs((a * b).mean()) * 12

    bound = 5 / n**0.5
    for lag in (1, 2, 3, 64, 128, 1024):
        assert correlation(u[:-lag], u[lag:]) < bound
    for seed in (1, 2, 3, 1000, 2**40, 2**62):
        assert correlation(u, draw(seed, n) - 0.5) < bound
        assert correlation(u[:-1], draw(seed, n)[1:] - 0.5) < bound


def test_dropout_zeroes_and_scales(backend):
    tinyconv.manual_seed(5)
    x = Tensor(numpy.arange(1.0, 13).reshape(3, 4), requires_grad=True)
    y = F.dropout(x, 0.4)
    y.backward(numpy.ones((3, 4)))
    kept = numpy.array([number(5, i) >= numpy.float32(0.4) for i in range(12)]).reshape(3, 4)
    assert 0 < kept.sum() < 12
    assert numpy.allclose(y.numpy(), x.numpy() * kept / 0.6, rtol=1e-15)
    assert numpy.allclose(x.grad.numpy(), kept / 0.6, rtol=1e-15)


def test_a_number_equal_to_the_probability_keeps_its_value():
    p = number(0, 0)
    assert F.dropout(numpy.ones(1), p).item() == 1 / (1 - p)


def test_each_call_draws_its_own_mask():
    x = numpy.ones(1000)
    first, second = F.dropout(x).numpy(), F.dropout(x).numpy()
    assert (first != second).mean() == pytest.approx(0.5, abs=0.1)
    assert random_state()["dropout"] == [0, 2000]


def test_the_expected_value_stays():
    y = F.dropout(numpy.ones(100_000, numpy.float32), 0.3).numpy()
    assert y.mean() == pytest.approx(1, abs=5 * (0.3 / 0.7 / 100_000) ** 0.5)
    assert (y == 0).mean() == pytest.approx(0.3, abs=5 * (0.21 / 100_000) ** 0.5)


def test_nothing_is_dropped_outside_of_training():
    x = Tensor(numpy.ones(4))
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert random_state()["dropout"] == [0, 0]


def test_everything_dropped():
    x = Tensor(numpy.ones(4), requires_grad=True)
    y = F.dropout(x, 1.0)
    y.sum().backward()
    assert not y.numpy().any()
    assert not x.grad.numpy().any()


def test_the_mask_does_not_depend_on_dtype_or_layout():
    x = numpy.arange(1.0, 25).reshape(4, 6)
    masks = []
    for change in (numpy.float32, numpy.float64, numpy.asfortranarray):
        tinyconv.manual_seed(1)
        masks.append(F.dropout(change(x)).numpy() == 0)
    assert (masks[0] == masks[1]).all()
    assert (masks[0] == masks[2]).all()


def test_a_numpy_probability_does_not_promote():
    assert F.dropout(numpy.ones(2, numpy.float32), numpy.float64(0.5)).dtype == numpy.float32


def test_bad_probability():
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected a probability from 0 to 1"):
            F.dropout(numpy.ones(2), p)


def test_the_stream_lives_on_the_backend(backend):
    assert type(dropout_stream()).__module__.split(".")[0] == backend
