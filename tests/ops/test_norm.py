"""Batch normalisation against loops over every value, and its known traps."""

import math

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F
from tinyconv.tensor import Tensor

from .drawing import values


def batch_norm_by_loops(x, weight, bias, momentum, eps):
    """y, batch mean, biased and unbiased variance, channel by channel from the definition."""
    y = numpy.zeros(x.shape)
    means, biased, unbiased = [], [], []
    for c in range(x.shape[1]):
        numbers = [float(v) for v in x[:, c].flat]
        n = len(numbers)
        mean = math.fsum(numbers) / n
        squares = math.fsum((v - mean) ** 2 for v in numbers)
        means.append(mean)
        biased.append(squares / n)
        unbiased.append(squares / (n - 1))
        scale = 1 / math.sqrt(squares / n + eps)
        for index in numpy.ndindex(x[:, c].shape):
            at = (index[0], c, *index[1:])
            y[at] = (float(x[at]) - mean) * scale * weight[c] + bias[c]
    return y, *(numpy.array(v) for v in (means, biased, unbiased))


SHAPES = st.one_of(
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
)


@given(
    shape=SHAPES,
    dtype=st.sampled_from([numpy.float32, numpy.float64]),
    momentum=st.sampled_from([0.0, 0.1, 1.0]),
    eps=st.sampled_from([1e-5, 0.1]),
    reversed_memory=st.booleans(),
)
def test_batch_norm(shape, dtype, momentum, eps, reversed_memory, backend):
    assume(numpy.prod(shape) > shape[1])
    C = shape[1]
    x = values(shape, dtype) * 3 + 1
    x = numpy.asfortranarray(x) if reversed_memory else x
    weight, bias = values((C,), dtype), values((2 * C,), dtype)[C:]
    mean, var = (tinyconv.backend.asarray(a) for a in (numpy.full(C, 2.0), numpy.full(C, 3.0)))
    y = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=momentum, eps=eps)
    expected, batch_mean, _, unbiased = batch_norm_by_loops(x, weight, bias, momentum, eps)
    tolerance = 1e-12 if dtype == numpy.float64 else 2e-5
    assert y.dtype == dtype
    assert numpy.allclose(y.numpy(), expected, rtol=tolerance, atol=tolerance)
    new_mean, new_var = tinyconv.to_numpy(mean), tinyconv.to_numpy(var)
    for found, batch, before in ((new_mean, batch_mean, 2), (new_var, unbiased, 3)):
        moved = (1 - momentum) * before + momentum * batch
        assert numpy.allclose(found, moved, rtol=tolerance, atol=tolerance)


@given(shape=SHAPES, dtype=st.sampled_from([numpy.float32, numpy.float64]))
def test_inference_uses_the_running_statistics_and_leaves_them(shape, dtype, backend):
    C = shape[1]
    x, mean, var = values(shape, dtype), values((C,)), values((C,)) ** 2 + 0.1
    y = F.batch_norm(x, mean.copy(), var.copy())
    expected = numpy.zeros(shape)
    for index in numpy.ndindex(shape):
        c = index[1]
        expected[index] = (float(x[index]) - mean[c]) / math.sqrt(var[c] + 1e-5)
    assert y.dtype == dtype
    tolerance = 1e-12 if dtype == numpy.float64 else 1e-5
    assert numpy.allclose(y.numpy(), expected, rtol=tolerance, atol=tolerance)


# Known traps --------------------------------------------------------------------------------------


def test_the_running_variance_is_the_unbiased_one(backend):
    mean, var = numpy.zeros(1, numpy.float32), numpy.ones(1, numpy.float32)
    x = numpy.array([1, 2, 3, 4], numpy.float32).reshape(4, 1)
    y = F.batch_norm(x, mean, var, training=True)
    assert mean[0] == pytest.approx(0.25)
    assert var[0] == pytest.approx(0.9 + 0.1 * 5 / 3)  # 1.0667; with the biased one it is 1.025
    # ... but the output is normalised with the biased one, 5/4.
    assert y.numpy()[3, 0] == pytest.approx(1.5 / math.sqrt(1.25 + 1e-5))


def test_statistics_in_numpy_are_updated_in_place():
    mean, var = numpy.zeros(2), numpy.ones(2)
    F.batch_norm(values((4, 2)), mean, var, training=True)
    assert mean.any()
    assert (var != 1).all()


def test_statistics_may_be_tensors():
    mean, var = Tensor(numpy.zeros(2)), Tensor(numpy.ones(2))
    F.batch_norm(values((4, 2)), mean, var, training=True)
    assert mean.numpy().any()
    assert not mean.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_without_running_statistics(training):
    if training:
        y = F.batch_norm(values((4, 2)), None, None, training=True)
        assert abs(y.numpy().mean()) < 1e-12
    else:
        with pytest.raises(ValueError, match="running_mean and running_var are needed"):
            F.batch_norm(values((4, 2)), None, None)


def test_a_mean_of_1e4_leaves_the_variance_exact():
    # E[x^2] - E[x]^2 in float32 gives about -8 here.
    deviation = numpy.array([-0.0107, 0.0088, 0.0098, -0.0078])
    x = (1e4 + deviation).astype(numpy.float32).reshape(4, 1)
    true = x.astype(numpy.float64).var(ddof=1)
    var = numpy.ones(1)
    y = F.batch_norm(x, numpy.zeros(1), var, training=True, momentum=1.0)
    assert var[0] == pytest.approx(true, rel=1e-3)
    assert numpy.isfinite(y.numpy()).all()


def test_one_value_per_channel_cannot_be_trained_on():
    for shape in ((1, 3), (1, 3, 1, 1)):
        with pytest.raises(ValueError, match="one value per channel"):
            F.batch_norm(numpy.ones(shape), None, None, training=True)
        F.batch_norm(numpy.ones(shape), numpy.zeros(3), numpy.ones(3))  # inference can do it


def test_an_empty_batch_leaves_the_statistics_alone(backend):
    mean, var = numpy.full(3, 2.0), numpy.full(3, 5.0)
    x = Tensor(numpy.zeros((0, 3, 2, 2), numpy.float32), requires_grad=True)
    weight = Tensor(numpy.ones(3, numpy.float32), requires_grad=True)
    y = F.batch_norm(x, mean, var, weight, training=True)
    y.sum().backward()
    assert y.shape == (0, 3, 2, 2)
    assert y.dtype == numpy.float32
    assert mean.tolist() == [2, 2, 2]
    assert var.tolist() == [5, 5, 5]
    assert not weight.grad.numpy().any()


def test_numpy_settings_do_not_promote():
    x = values((4, 2), numpy.float32)
    y = F.batch_norm(
        x, numpy.zeros(2), numpy.ones(2), training=True,
        momentum=numpy.float64(0.1), eps=numpy.float64(1e-5),
    )  # fmt: skip
    assert y.dtype == numpy.float32


def test_gradients_of_x_sum_to_zero():
    # A shift of a whole channel changes nothing: the reason why a bias before it is of no use.
    x = Tensor(values((3, 2, 4, 4)), requires_grad=True)
    F.batch_norm(x, None, None, training=True).backward(values((3, 2, 4, 4)))
    assert numpy.abs(x.grad.numpy().sum(axis=(0, 2, 3))).max() < 1e-12


def test_a_later_training_step_does_not_change_an_earlier_backward():
    mean, var = numpy.zeros(2), numpy.ones(2)
    x = Tensor(values((4, 2)), requires_grad=True)
    y = F.batch_norm(x, mean, var)
    F.batch_norm(values((4, 2)) * 9, mean, var, training=True)
    y.sum().backward()
    assert numpy.allclose(x.grad.numpy(), 1 / math.sqrt(1 + 1e-5))


def test_shapes_that_do_not_fit():
    with pytest.raises(tinyconv.ShapeError, match=r"\(4, 3\).*3 channels; running_mean.*\(2,\)"):
        F.batch_norm(numpy.ones((4, 3)), numpy.zeros(2), numpy.ones(3))
    with pytest.raises(tinyconv.ShapeError, match=r"weight has shape \(1,\), expected \(3,\)"):
        F.batch_norm(numpy.ones((4, 3)), numpy.zeros(3), numpy.ones(3), numpy.ones(1))
    with pytest.raises(tinyconv.ShapeError, match=r"input has shape \(4,\)"):
        F.batch_norm(numpy.ones(4), None, None, training=True)
