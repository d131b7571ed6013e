"""Losses against loops over every target, and their known traps."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F
from tinyconv.tensor import Tensor

from .drawing import values


def log_softmax(row):
    largest = max(row)
    total = math.fsum(math.exp(v - largest) for v in row)
    return [v - largest - math.log(total) for v in row]


def cross_entropy_by_loops(x, target, weight, ignore_index, reduction, smoothing):
    """The loss from PyTorch's formulas: x (N, C) floats, target class numbers or probabilities."""
    losses, total_weight = [], 0.0
    N, C = x.shape
    for n in range(N):
        logp = log_softmax([float(v) for v in x[n]])
        if target.ndim == 2:
            share = [t * (1 - smoothing) + smoothing / C for t in target[n]]
            losses.append(-sum(weight[c] * share[c] * logp[c] for c in range(C)))
            total_weight += 1
        elif target[n] == ignore_index:
            losses.append(0.0)
        else:
            nll = -weight[target[n]] * logp[target[n]]
            smooth = sum(weight[c] * -logp[c] for c in range(C)) / C
            losses.append((1 - smoothing) * nll + smoothing * smooth)
            total_weight += weight[target[n]]
    if reduction == "none":
        return losses
    return math.fsum(losses) / (total_weight if reduction == "mean" else 1)


@given(
    data=st.data(),
    N=st.integers(1, 5),
    C=st.integers(1, 5),
    maps=st.booleans(),
    weighted=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    probabilities=st.booleans(),
    label_type=st.sampled_from([numpy.int64, numpy.int32, numpy.uint8]),
    dtype=st.sampled_from([numpy.float32, numpy.float64]),
)
def test_cross_entropy(
    data, N, C, maps, weighted, reduction, smoothing, probabilities, label_type, dtype, backend
):
    ignore_index = data.draw(st.sampled_from([-100, 0, 255]))
    x = values((N, C), dtype) * 4
    weight = numpy.arange(1.0, C + 1) / 2
    if probabilities:
        target = numpy.abs(values((N, C))) + 0.01
        target /= target.sum(axis=1, keepdims=True)
    else:
        target = numpy.array([data.draw(st.integers(0, C - 1)) for _ in range(N)], label_type)
        if ignore_index == 0:
            target[0] = C - 1  # not all ignored: that is the test of nan
            if C == 1:
                return
        elif ignore_index == 255 and N > 1:
            target[1] = 255 if label_type == numpy.uint8 else ignore_index
    expected = cross_entropy_by_loops(
        x, target, weight if weighted else numpy.ones(C), ignore_index, reduction, smoothing
    )
    if maps:  # the same targets as the pixels of one image
        x = x.T[None]
        target = target.T[None]
    found = F.cross_entropy(
        x,
        target,
        weight if weighted else None,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    tolerance = 1e-12 if dtype == numpy.float64 else 2e-6
    assert found.dtype == dtype
    assert numpy.allclose(found.numpy().reshape(-1), expected, rtol=tolerance, atol=tolerance)


def test_nll_loss_is_cross_entropy_without_the_softmax(backend):
    x, labels, weight = values((4, 3)) * 5, numpy.array([0, 2, 1, 2]), numpy.array([1, 2, 0.5])
    for reduction in ("mean", "sum", "none"):
        settings = {"ignore_index": 1, "reduction": reduction}
        expected = F.cross_entropy(x, labels, weight, **settings)
        found = F.nll_loss(F.log_softmax(x, 1), labels, weight, **settings)
        assert numpy.allclose(found.numpy(), expected.numpy(), rtol=1e-14)


# Known traps --------------------------------------------------------------------------------------


def test_the_weighted_mean_divides_by_the_targets_weights():
    x = numpy.zeros((2, 2))
    loss = F.cross_entropy(x, numpy.array([0, 1]), numpy.array([1.0, 3.0]))
    assert loss.item() == pytest.approx(math.log(2))  # (1 + 3) log 2 / (1 + 3), not / 2


def test_label_smoothing_by_hand():
    # (1 - e) nll + e * mean over classes of -log p
    p = numpy.array([0.7, 0.2, 0.1])
    expected = 0.9 * -math.log(0.7) + 0.1 * -(math.log(0.7) + math.log(0.2) + math.log(0.1)) / 3
    loss = F.cross_entropy(numpy.log(p)[None], numpy.array([0]), label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_all_targets_ignored(smoothing):
    x = Tensor(values((2, 3)), requires_grad=True)
    with numpy.errstate(invalid="ignore"):
        loss = F.cross_entropy(x, numpy.array([-100, -100]), label_smoothing=smoothing)
    loss.backward()
    assert math.isnan(loss.item())
    assert not x.grad.numpy().any()
    assert F.cross_entropy(x, numpy.array([-100, -100]), reduction="sum").item() == 0


def test_ignored_targets_get_no_gradient():
    x = Tensor(values((3, 2)), requires_grad=True)
    F.cross_entropy(x, numpy.array([0, -100, 1]), label_smoothing=0.3).backward()
    assert not x.grad.numpy()[1].any()
    assert x.grad.numpy()[::2].all()


@pytest.mark.parametrize("wrong", [3, -1, 200])
def test_a_label_out_of_range(wrong):
    for loss in (F.cross_entropy, F.nll_loss):
        with pytest.raises(IndexError, match=f"class {wrong} found, expected 0 to 2"):
            loss(values((2, 3)), numpy.array([0, wrong]))
    F.cross_entropy(values((2, 3)), numpy.array([0, wrong]), ignore_index=wrong)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_logits_of_1e4_stay_finite(dtype, backend):
    x = Tensor(numpy.array([[1e4, -1e4, 0], [-1e4, -1e4, 1e4]], dtype), requires_grad=True)
    loss = F.cross_entropy(x, numpy.array([1, 2]), reduction="none")
    loss.backward(numpy.ones(2))
    assert loss.numpy().tolist() == [2e4, 0]
    assert x.grad.numpy().tolist() == [[1, -1, 0], [0, 0, 0]]


def test_each_rows_own_maximum_is_taken_out():
    # With the global maximum 1e4, every e^x of the second row would be 0.
    loss = F.cross_entropy(
        numpy.array([[1e4, 0], [0.0, 1.0]]), numpy.array([0, 0]), reduction="none"
    )
    assert loss.numpy()[1] == pytest.approx(math.log(1 + math.e))


def test_a_probability_of_0_that_nobody_asks_for():
    with numpy.errstate(divide="ignore"):
        logp = numpy.log(numpy.array([[0.0, 1.0]]))
    assert F.nll_loss(logp, numpy.array([1])).item() == 0


def test_masked_classes_of_minus_infinity():
    x = Tensor(numpy.array([[-numpy.inf, 0, 0]]), requires_grad=True)
    loss = F.cross_entropy(x, numpy.array([1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert numpy.allclose(x.grad.numpy(), [[0, -0.5, 0.5]])


def test_one_sample_and_tensors_as_targets():
    x = values((4,))
    assert F.cross_entropy(x, 2).item() == pytest.approx(-log_softmax(list(x))[2])
    assert F.cross_entropy(x, 2, reduction="none").shape == ()
    found = F.cross_entropy(x[None], Tensor(numpy.array([2])))
    assert found.item() == pytest.approx(-log_softmax(list(x))[2])


def test_float64_weights_do_not_promote():
    x = values((4, 3), numpy.float32)
    loss = F.cross_entropy(
        x, numpy.array([0, 1, 2, 0]), numpy.ones(3), label_smoothing=numpy.float64(0.1)
    )
    assert loss.dtype == numpy.float32


def test_the_target_gets_no_gradient_silently():
    target = F.softmax(Tensor(values((2, 3)), requires_grad=True), 1)
    with pytest.raises(RuntimeError, match=r"CrossEntropy.*no gradient for one of its inputs"):
        F.cross_entropy(values((2, 3)), target).backward()
    x = Tensor(values((2, 3)), requires_grad=True)
    F.cross_entropy(x, target.detach()).backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("x", "target", "settings", "message"),
    [
        ((2, 3), (3,), {}, r"target: shape \(3,\) found, expected \(2,\).*\(2, 3\)"),
        ((2, 3, 4), (2,), {}, r"expected \(2, 4\)"),
        ((2, 3), (2, 1), {}, r"target: shape \(2, 1\)"),
        ((2, 3), (2,), {"weight": numpy.ones(2)}, r"weight: shape \(2,\) found, expected \(3,\)"),
        ((), (), {}, "a single number"),
    ],
)
def test_shapes_that_do_not_fit(x, target, settings, message):
    with pytest.raises(tinyconv.ShapeError, match=message):
        F.cross_entropy(numpy.ones(x), numpy.zeros(target, int), **settings)


def test_bad_settings():
    x, labels = values((2, 3)), numpy.array([0, 1])
    for loss in (F.cross_entropy, F.nll_loss):
        with pytest.raises(ValueError, match="reduction: 'average' found"):
            loss(x, labels, reduction="average")
    with pytest.raises(ValueError, match=r"label_smoothing: 1\.5 found"):
        F.cross_entropy(x, labels, label_smoothing=1.5)


# Binary cross-entropy -----------------------------------------------------------------------------


@given(
    N=st.integers(1, 6),
    dtype=st.sampled_from([numpy.float32, numpy.float64]),
    weighted=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
def test_binary_cross_entropy(N, dtype, weighted, reduction, backend):
    x, target = values((N, 2), dtype) * 6, numpy.abs(values((N, 2)))
    weight, pos_weight = numpy.array([[1.5, 0.5]]), numpy.array([2.0, 3.0])
    losses = []
    for n, c in numpy.ndindex(N, 2):
        s = 1 / (1 + math.exp(-float(x[n, c])))
        loss = -target[n, c] * math.log(s) * (pos_weight[c] if weighted else 1)
        loss -= (1 - target[n, c]) * math.log(1 - s)
        losses.append(loss * (weight[0, c] if weighted else 1))
    expected = {"mean": sum(losses) / len(losses), "sum": sum(losses), "none": losses}[reduction]
    own = {"weight": weight, "pos_weight": pos_weight} if weighted else {}
    found = F.binary_cross_entropy_with_logits(x, target, reduction=reduction, **own)
    tolerance = 1e-10 if dtype == numpy.float64 else 1e-5
    assert found.dtype == dtype
    assert numpy.allclose(found.numpy().reshape(-1), expected, rtol=tolerance, atol=tolerance)


def test_binary_cross_entropy_of_large_logits():
    x = Tensor(numpy.array([1e4, -1e4, 1e4, -1e4]), requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, numpy.array([1, 0, 0, 1]), reduction="none")
    loss.backward(numpy.ones(4))
    assert loss.numpy().tolist() == [0, 0, 1e4, 1e4]
    assert x.grad.numpy().tolist() == [0, 0, 1, -1]


def test_binary_cross_entropy_with_bad_arguments():
    with pytest.raises(tinyconv.ShapeError, match=r"target: shape \(2,\) found, expected \(2, 1\)"):
        F.binary_cross_entropy_with_logits(numpy.ones((2, 1)), numpy.ones(2))
    with pytest.raises(ValueError, match="reduction"):
        F.binary_cross_entropy_with_logits(numpy.ones(2), numpy.ones(2), reduction=None)
    target = F.sigmoid(Tensor(values((2,)), requires_grad=True))
    with pytest.raises(RuntimeError, match="no gradient for one of its inputs"):
        F.binary_cross_entropy_with_logits(values((2,)), target).backward()
