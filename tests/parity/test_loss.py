"""Cross-entropy, negative log-likelihood and binary cross-entropy."""

import numpy as np
import pytest

import tinyconv.functional as F
from tinyconv import Tensor

torch = pytest.importorskip("torch")

from .compare import drawn, torch_tensor  # noqa: E402

TF = torch.nn.functional


def with_constants(function, convert, settings, target, **arrays):
    """A loss of x alone; arrays in the settings take x's dtype, as PyTorch demands."""

    def call(x):
        dtype = str(x.dtype).removeprefix("torch.")
        own = {k: None if a is None else convert(a.astype(dtype)) for k, a in arrays.items()}
        t = convert(target.astype(dtype) if target.dtype.kind == "f" else target)
        return function(x, t, **own, **settings)

    return call


def check(parity, names, x, settings, target, **arrays):
    ours, theirs = getattr(F, names), getattr(TF, names)
    with np.errstate(invalid="ignore"):  # 0 / 0 where every target is ignored
        parity.check(
            with_constants(ours, lambda a: a, settings, target, **arrays),
            with_constants(theirs, torch_tensor, settings, target, **arrays),
            x,
        )


def drawn_class_loss(draw):
    """x, class numbers, settings and weights."""
    C = draw.integer(1, 6)
    N, rest = draw.integer(1, 5), draw.shape(0, 3, largest=3)
    x = draw.normal(N, C, *rest) * draw.one_of(1, 1, 5, 1e4)
    target = draw.rng.integers(0, C, (N, *rest))
    if draw.chance(0.15):
        x, target = x[0, :, *(0 for _ in rest)], np.array(target.flat[0])
    ignore_index = draw.one_of(-100, -100, 0, -1, C, C - 1)
    if draw.chance(0.4):
        target = np.where(draw.rng.random(target.shape) < 0.3, ignore_index, target)
    settings = {
        "ignore_index": int(ignore_index), "reduction": draw.one_of("mean", "sum", "none"),
    }  # fmt: skip
    weight = draw.rng.random(C) + 0.1 if draw.chance(0.5) else None
    return x, target, settings, weight


@drawn(150)
def test_cross_entropy(parity, draw):
    x, target, settings, weight = drawn_class_loss(draw)
    settings["label_smoothing"] = draw.one_of(0.0, 0.0, 0.1, 0.5, 1.0)
    check(parity, "cross_entropy", x, settings, target, weight=weight)


@drawn(60)
def test_cross_entropy_with_probabilities(parity, draw):
    x, _, settings, weight = drawn_class_loss(draw)
    del settings["ignore_index"]
    settings["label_smoothing"] = draw.one_of(0.0, 0.0, 0.1, 1.0)
    target = draw.rng.random(x.shape)
    if draw.chance(0.7):
        target /= target.sum(axis=min(1, x.ndim - 1), keepdims=True)
    check(parity, "cross_entropy", x, settings, target, weight=weight)


@drawn(60)
def test_nll_loss(parity, draw):
    x, target, settings, weight = drawn_class_loss(draw)
    x = -np.abs(x)
    check(parity, "nll_loss", x, settings, target, weight=weight)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_ignored(parity, name, reduction, weighted):
    x = np.array([[-1.0, -2.0, -0.5], [-0.1, -3.0, -1.0]])
    settings = {"reduction": reduction, "ignore_index": 1}
    weight = np.array([1.0, 2.0, 3.0]) if weighted else None
    check(parity, name, x, settings, np.array([1, 1]), weight=weight)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_logits_of_minus_infinity(parity, reduction):
    """A class that cannot be: harmless beside the target, an infinite loss as the target."""
    x = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]])
    settings = {"reduction": reduction}
    for target in ([0, 2], [2, 2], [1, 2]):
        check(parity, "cross_entropy", x, settings, np.array(target), weight=None)
        check(
            parity, "cross_entropy", x, settings, np.array(target), weight=np.array([1.0, 2, 0.5])
        )


def test_logits_of_1e4_stay_finite(parity):
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4]])
    for target in ([0, 2], [1, 0]):
        check(parity, "cross_entropy", x, {"reduction": "none"}, np.array(target), weight=None)


@drawn(60)
def test_binary_cross_entropy_with_logits(parity, draw):
    shape = draw.shape(1, 4, largest=4)
    x = draw.normal(*shape) * draw.one_of(1, 5, 1e4)
    target = draw.one_of(draw.rng.random(shape), draw.rng.integers(0, 2, shape).astype(float))
    broadcast = tuple(1 if draw.chance(0.4) else n for n in shape[draw.integer(0, len(shape)) :])
    check(
        parity, "binary_cross_entropy_with_logits", x,
        {"reduction": draw.one_of("mean", "sum", "none")}, target,
        weight=draw.one_of(None, np.asarray(draw.rng.random(broadcast))),
        pos_weight=draw.one_of(None, np.asarray(draw.rng.random(broadcast) * 3)),
    )  # fmt: skip


def test_binary_cross_entropy_at_the_ends(parity):
    x = np.array([0.0, -0.0, 1e-30, 50.0, -50.0, 200.0, -200.0, 1e4, -1e4, 1e30, -1e30])
    for target in (np.zeros(11), np.ones(11), np.full(11, 0.3)):
        settings = {"reduction": "none"}
        for i in range(11):  # one by one, so that the large ones hide no error of the small ones
            check(
                parity, "binary_cross_entropy_with_logits", x[i : i + 1], settings, target[:1],
                weight=None, pos_weight=np.array([2.5]),
            )  # fmt: skip


@pytest.mark.parametrize("wrong", [3, -1, 100])
def test_a_class_out_of_range_is_refused_by_both(wrong):
    x, target = np.zeros((2, 3)), np.array([0, wrong])
    for name in ("cross_entropy", "nll_loss"):
        with pytest.raises(IndexError, match=str(wrong)):
            getattr(F, name)(x, target)
        with pytest.raises(IndexError, match=str(wrong)):
            getattr(TF, name)(torch.from_numpy(x), torch.from_numpy(target))


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_class_numbers_of_other_integers(dtype):
    """PyTorch wants int64; here any integers do, with the same result."""
    x, target = np.array([[1.0, 2.0], [0.5, 0.1]]), np.array([0, 1])
    expected = TF.cross_entropy(torch.from_numpy(x), torch.from_numpy(target)).item()
    assert F.cross_entropy(Tensor(x), target.astype(dtype)).item() == pytest.approx(expected)
