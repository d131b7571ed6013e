"""SGD, Adam, AdamW and RMSprop against their formulas in plain Python numbers."""

import math

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinyconv import nn
from tinyconv.optim import SGD, Adam, AdamW, RMSprop
from tinyconv.tensor import Tensor

GRADIENTS = [0.5, -0.25, 2.0, 0.0, -1.5, 0.125]


def parameter(values=(1.0,), dtype=numpy.float64):
    return nn.Parameter(numpy.array(values, dtype))


def follow(optimizer, p, gradients=GRADIENTS):
    """Where the parameter is after each of the gradients."""
    places = []
    for g in gradients:
        p.grad = Tensor(numpy.full(p.shape, g, p.dtype))
        optimizer.step()
        places.append(p.numpy().copy())
    return numpy.array(places)[:, 0]


# First steps by hand ------------------------------------------------------------------------------


def test_sgd_by_hand(backend):
    p = parameter()
    assert follow(SGD([p], lr=0.1), p, [0.5, 0.5]) == pytest.approx([0.95, 0.9])


def test_momentum_by_hand():
    p = parameter()  # v: 0.5, 0.9 * 0.5 + 0.5 = 0.95
    assert follow(SGD([p], 0.1, 0.9), p, [0.5, 0.5]) == pytest.approx([0.95, 0.855])


def test_dampening_by_hand():
    p = parameter()  # v: 0.5 (the first is not damped), 0.9 * 0.5 + 0.5 * 0.5 = 0.7
    optimizer = SGD([p], 0.1, momentum=0.9, dampening=0.5)
    assert follow(optimizer, p, [0.5, 0.5]) == pytest.approx([0.95, 0.88])


def test_nesterov_by_hand():
    p = parameter()  # g + 0.9 v: 0.95, 0.5 + 0.9 * 0.95 = 1.355
    optimizer = SGD([p], 0.1, momentum=0.9, nesterov=True)
    assert follow(optimizer, p, [0.5, 0.5]) == pytest.approx([0.905, 0.7695])


def test_weight_decay_by_hand():
    p = parameter()  # 0.5 + 0.2 * 1
    assert follow(SGD([p], 0.1, weight_decay=0.2), p, [0.5]) == pytest.approx([0.93])


def test_adams_first_step_is_lr_long(backend):
    p = parameter()  # m' / sqrt(v') = g / |g|
    assert follow(Adam([p], 0.1), p, [0.5])[0] == pytest.approx(1 - 0.1 * 0.5 / (0.5 + 1e-8), abs=0)


def test_adams_eps_is_outside_of_the_root():
    p = parameter()
    assert follow(Adam([p], 0.1, eps=0.5), p, [0.5])[0] == pytest.approx(
        1 - 0.1 * 0.5 / (0.5 + 0.5)
    )


def test_adamw_by_hand():
    p = parameter()  # first 1 - 0.1 * 0.2, then Adam's step, into which the decay does not go
    places = follow(AdamW([p], 0.1, weight_decay=0.2), p, [0.5])
    assert places[0] == pytest.approx(0.98 - 0.1 * 0.5 / (0.5 + 1e-8), abs=1e-15)


def test_adam_adds_its_weight_decay_to_the_gradient():
    p = parameter()
    places = follow(Adam([p], 0.1, weight_decay=0.2), p, [0.0])
    assert places[0] == pytest.approx(1 - 0.1 * 0.2 / (0.2 + 1e-8), abs=1e-15)


def test_rmsprop_by_hand():
    p = parameter()  # v = 0.01 * 0.25, sqrt(v) = 0.05, eps outside
    assert follow(RMSprop([p], 0.1), p, [0.5])[0] == pytest.approx(1 - 0.1 * 0.5 / (0.05 + 1e-8))


# Many steps by formulas in plain numbers ----------------------------------------------------------


def sign(x):
    return (x > 0) - (x < 0)


def sgd(p, lr, momentum, dampening, nesterov, weight_decay, l1):
    v = None
    for g in GRADIENTS:
        g += weight_decay * p + l1 * sign(p)
        if momentum:
            v = g if v is None else momentum * v + (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        p -= lr * g
        yield p


def adam(p, lr, betas, eps, weight_decay, amsgrad, l1, decoupled):
    m = v = largest = 0.0
    for t, g in enumerate(GRADIENTS, 1):
        if decoupled:
            p *= 1 - lr * weight_decay
        else:
            g += weight_decay * p
        g += l1 * sign(p)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        largest = max(largest, v)
        m_hat = m / (1 - betas[0] ** t)
        v_hat = (largest if amsgrad else v) / (1 - betas[1] ** t)
        p -= lr * m_hat / (math.sqrt(v_hat) + eps)
        yield p


def rmsprop(p, lr, alpha, eps, weight_decay, momentum, centered, l1):
    v = mean = buffer = 0.0
    for g in GRADIENTS:
        g += weight_decay * p + l1 * sign(p)
        v = alpha * v + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        step = g / (math.sqrt(v - mean * mean if centered else v) + eps)
        buffer = momentum * buffer + step
        p -= lr * (buffer if momentum else step)
        yield p


def well_conditioned(places, l1):
    """Not so near to 0 that the rounding decides on the sign in L1's gradient."""
    return not l1 or all(abs(p) > 1e-6 for p in places)


DECAYS = {"weight_decay": st.sampled_from([0.0, 0.1]), "l1": st.sampled_from([0.0, 0.05])}
START = st.floats(-2, 2)


@given(
    start=START, lr=st.floats(0.001, 0.5), momentum=st.sampled_from([0.0, 0.9]),
    dampening=st.sampled_from([0.0, 0.3]), nesterov=st.booleans(), **DECAYS,
)  # fmt: skip
def test_sgd(start, lr, momentum, dampening, nesterov, weight_decay, l1):
    nesterov = nesterov and momentum > 0
    dampening = 0.0 if nesterov else dampening
    expected = list(sgd(start, lr, momentum, dampening, nesterov, weight_decay, l1))
    assume(well_conditioned(expected, l1))
    p = parameter([start])
    found = follow(SGD([p], lr, momentum, dampening, weight_decay, nesterov, l1=l1), p)
    assert numpy.allclose(found, expected, rtol=1e-12, atol=1e-13)


@given(
    start=START, lr=st.floats(0.001, 0.5),
    betas=st.sampled_from([(0.9, 0.999), (0.5, 0.7), (0, 0.9)]),
    eps=st.sampled_from([1e-8, 0.1]), amsgrad=st.booleans(), decoupled=st.booleans(), **DECAYS,
)  # fmt: skip
def test_adam_and_adamw(start, lr, betas, eps, amsgrad, decoupled, weight_decay, l1):
    expected = list(adam(start, lr, betas, eps, weight_decay, amsgrad, l1, decoupled))
    assume(well_conditioned(expected, l1))
    p = parameter([start])
    kind = AdamW if decoupled else Adam
    found = follow(kind([p], lr, betas, eps, weight_decay, amsgrad, l1=l1), p)
    assert numpy.allclose(found, expected, rtol=1e-11, atol=1e-12)


@given(
    start=START, lr=st.floats(0.001, 0.1), alpha=st.sampled_from([0.99, 0.5]),
    eps=st.sampled_from([1e-3, 0.1]), momentum=st.sampled_from([0.0, 0.9]), centered=st.booleans(),
    **DECAYS,
)  # fmt: skip
def test_rmsprop(start, lr, alpha, eps, momentum, centered, weight_decay, l1):
    expected = list(rmsprop(start, lr, alpha, eps, weight_decay, momentum, centered, l1))
    assume(well_conditioned(expected, l1))
    p = parameter([start])
    found = follow(RMSprop([p], lr, alpha, eps, weight_decay, momentum, centered, l1=l1), p)
    assert numpy.allclose(found, expected, rtol=1e-9, atol=1e-10)


# What all of them share ---------------------------------------------------------------------------

ALL = {
    "SGD": lambda p, **own: SGD(p, 0.1, **own),
    "SGD momentum": lambda p, **own: SGD(p, 0.1, momentum=0.9, **own),
    "SGD Nesterov": lambda p, **own: SGD(p, 0.1, momentum=0.9, nesterov=True, **own),
    "Adam": lambda p, **own: Adam(p, 0.1, **own),
    "Adam amsgrad": lambda p, **own: Adam(p, 0.1, amsgrad=True, **own),
    "AdamW": lambda p, **own: AdamW(p, 0.1, **own),
    "RMSprop": lambda p, **own: RMSprop(p, 0.1, **own),
    "RMSprop centered": lambda p, **own: RMSprop(p, 0.1, centered=True, momentum=0.5, **own),
}
EACH = pytest.mark.parametrize("name", ALL)


@EACH
def test_l1_has_subgradient_0_at_0(name):
    p = parameter([0.0, 0.0, 0.5])
    optimizer = ALL[name]([p], l1=0.3)
    for _ in range(3):
        p.grad = Tensor(numpy.zeros(3))
        optimizer.step()
    assert p.numpy()[:2].tolist() == [0, 0]
    assert p.numpy()[2] < 0.5


@EACH
@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_dtypes_stay(name, dtype, backend):
    p = parameter([1.0, -2.0], dtype)
    optimizer = ALL[name]([p], weight_decay=numpy.float64(0.1), l1=numpy.float64(0.1))
    data = p.data
    for g in GRADIENTS:
        p.grad = Tensor(numpy.full(2, g, dtype))
        optimizer.step()
    assert p.data is data  # in place
    assert p.dtype == dtype
    arrays = {key: a for key, a in optimizer.state[p].items() if key != "step"}
    assert {a.dtype for a in arrays.values()} <= {numpy.dtype(dtype)}


@EACH
def test_maximize_climbs(name):
    p, q = parameter(), parameter()
    down, up = ALL[name]([p], weight_decay=0), ALL[name]([q], maximize=True, weight_decay=0)
    assert numpy.allclose(1 - follow(down, p), follow(up, q) - 1, rtol=1e-12)


@EACH
def test_it_finds_the_lowest_point(name):
    p = parameter([3.0, -2.0])
    optimizer = ALL[name]([p])
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.02, 0.0
    for _ in range(600):
        optimizer.zero_grad()
        ((p - numpy.array([1.0, 0.5])) ** 2).sum().backward()
        optimizer.step()
    assert numpy.abs(p.numpy() - [1, 0.5]).max() < 0.05


def test_state_without_a_step_count():
    """PyTorch's SGD counts none and saves None for what it does not use; Adam's must be there."""
    p = nn.Parameter(numpy.array([1.0, 2.0]))
    sgd, adam = SGD([p], lr=0.1, momentum=0.9), Adam([p], lr=0.1)
    groups = [{"params": [0], "lr": 0.5, "foreach": None}]
    sgd.load_state_dict({"state": {0: {"momentum_buffer": numpy.ones(2)}}, "param_groups": groups})
    assert sgd.param_groups[0]["lr"] == 0.5
    assert "foreach" not in sgd.param_groups[0]
    p.grad = Tensor(numpy.zeros(2))
    sgd.step()
    assert p.numpy().tolist() == pytest.approx([1 - 0.5 * 0.9, 2 - 0.5 * 0.9])
    sgd.load_state_dict({"state": {0: {"momentum_buffer": None}}, "param_groups": groups})
    sgd.step()
    moments = {"exp_avg": numpy.ones(2), "exp_avg_sq": numpy.ones(2)}
    with pytest.raises(ValueError, match="without 'step'"):
        adam.load_state_dict({"state": {0: moments}, "param_groups": groups})
    with pytest.raises(ValueError, match="lr: -3 found"):
        adam.load_state_dict({"state": {}, "param_groups": [{"params": [0], "lr": -3}]})


def test_an_empty_group_is_nothing_to_do():
    p = nn.Parameter(numpy.ones(2))
    optimizer = SGD([{"params": []}, {"params": [p]}], lr=0.5)
    p.grad = Tensor(numpy.ones(2))
    optimizer.step()
    assert p.numpy().tolist() == [0.5, 0.5]
