"""Groups, state and arguments: what all optimisers share."""

import json

import numpy
import pytest

from tinyconv import nn, optim
from tinyconv.tensor import Tensor


def parameter(*values):
    return nn.Parameter(numpy.array(values))


def give(p, value):
    p.grad = Tensor(numpy.full(p.shape, value, p.dtype))


def test_groups_have_settings_of_their_own():
    a, b, c = parameter(1.0), parameter(1.0), parameter(1.0)
    optimizer = optim.SGD(
        [{"params": [a, b]}, {"params": c, "lr": 1.0, "l1": 0.25}], lr=0.5, weight_decay=0.5
    )
    for p in (a, b, c):
        give(p, 0.0)
    optimizer.step()
    assert (a.item(), b.item()) == (0.75, 0.75)
    assert c.item() == 1 - (0.5 + 0.25)


def test_momentum_in_one_group_only():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = optim.SGD([{"params": [a]}, {"params": [b], "momentum": 0.9}], lr=0.1)
    for _ in range(2):
        give(a, 1.0), give(b, 1.0)
        optimizer.step()
    assert a.item() == pytest.approx(0.8)
    assert b.item() == pytest.approx(1 - 0.1 - 0.19)


def test_parameters_without_a_gradient_stay():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = optim.Adam([a, b], weight_decay=0.5)
    give(a, 1.0)
    optimizer.step()
    assert a.item() < 1
    assert b.item() == 1
    assert optimizer.state_dict()["state"].keys() == {0}


def test_steps_are_counted_for_each_parameter():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = optim.Adam([a, b], lr=0.1)
    give(a, 1.0)
    optimizer.step()
    give(b, 1.0)
    optimizer.step()
    assert b.item() == pytest.approx(0.9)  # its own first step, bias-corrected as such
    assert [int(s["step"]) for s in optimizer.state_dict()["state"].values()] == [2, 1]


def test_zero_grad_forgets():
    a = parameter(1.0)
    optimizer = optim.SGD([a], 0.1)
    give(a, 1.0)
    optimizer.zero_grad()
    assert a.grad is None
    optimizer.step()
    assert a.item() == 1


def test_parameters_may_come_from_a_generator():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), 0.1)
    assert optimizer.param_groups[0]["params"] == [model.weight, model.bias]


# State --------------------------------------------------------------------------------------------

MAKE = {
    "SGD": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.1),
    "Adam amsgrad": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, 0.01, l1=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
}


def train(model, optimizer, steps, start=0):
    for i in range(start, start + steps):
        x = numpy.sin(numpy.arange(i, i + 12, dtype=numpy.float32)).reshape(4, 3)
        optimizer.zero_grad()
        (model(x) ** 2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", MAKE)
def test_a_state_goes_on_bit_for_bit(name, backend):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = MAKE[name](model.parameters())
    train(model, optimizer, 5)
    state, weights = optimizer.state_dict(), model.state_dict()
    groups = json.loads(json.dumps(state["param_groups"]))
    train(model, optimizer, 5, start=5)

    other = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    other.load_state_dict(weights)
    resumed = MAKE[name](other.parameters())
    resumed.load_state_dict({"state": state["state"], "param_groups": groups})
    train(other, resumed, 5, start=5)
    for key, array in model.state_dict().items():
        assert array.tobytes() == other.state_dict()[key].tobytes()


def test_the_state_is_a_copy():
    a = parameter(1.0)
    optimizer = optim.SGD([a], 0.1, momentum=0.9)
    give(a, 1.0)
    optimizer.step()
    state = optimizer.state_dict()
    optimizer.step()
    assert state["state"][0]["momentum_buffer"].tolist() == [1.0]
    optimizer.load_state_dict(state)
    optimizer.step()
    assert state["state"][0]["momentum_buffer"].tolist() == [1.0]


def test_the_state_holds_settings_and_arrays_as_pytorch_does():
    a, b = parameter(1.0), parameter(1.0, 2.0)
    optimizer = optim.Adam([{"params": [a]}, {"params": [b], "lr": 0.5}])
    give(a, 1.0), give(b, 1.0)
    optimizer.step()
    state = optimizer.state_dict()
    assert [g["params"] for g in state["param_groups"]] == [[0], [1]]
    assert [g["lr"] for g in state["param_groups"]] == [1e-3, 0.5]
    assert set(state["state"][1]) == {"step", "exp_avg", "exp_avg_sq"}
    assert state["state"][1]["exp_avg"].shape == (2,)


def test_a_state_that_does_not_fit():
    a, b = parameter(1.0), parameter(1.0, 2.0)
    one, two = optim.Adam([a]), optim.Adam([a, b])
    with pytest.raises(ValueError, match=r"param_groups: \[1\] parameters found, expected \[2\]"):
        two.load_state_dict(one.state_dict())
    give(a, 1.0)
    one.step()
    before = optim.Adam([b])
    with pytest.raises(ValueError, match=r"state 0.exp_avg: shape \(1,\) found, expected \(2,\)"):
        before.load_state_dict(one.state_dict())
    assert before.state_dict()["state"] == {}


def test_a_state_of_another_optimiser():
    a = parameter(1.0)
    adam, sgd = optim.Adam([a]), optim.SGD([a], 0.1, momentum=0.9)
    give(a, 1.0)
    adam.step()
    with pytest.raises(ValueError, match="state 0: SGD has no 'exp_avg'"):
        sgd.load_state_dict(adam.state_dict())
    state = adam.state_dict()
    for number in (1, -1):
        with pytest.raises(ValueError, match=f"state: {number} found, expected 0 to 0"):
            adam.load_state_dict({**state, "state": {number: state["state"][0]}})


def test_momentum_that_is_switched_on_later():
    a = parameter(1.0)
    optimizer = optim.SGD([a], 0.1)
    give(a, 1.0)
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.step()
    optimizer.step()
    assert a.item() == pytest.approx(1 - 0.1 - 0.1 - 0.19)


# Arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([]), "no parameters"),
        (lambda p: optim.SGD(iter(())), "no parameters"),
        (lambda p: optim.SGD([p, p]), r"a parameter of shape \(1,\) is given twice"),
        (lambda p: optim.SGD([{"params": [p]}, {"params": [p]}]), "given twice"),
        (lambda p: optim.SGD([{"params": [p], "rate": 1}]), "unknown setting 'rate'"),
        (lambda p: optim.SGD([p], lr=-1), "lr: -1 found"),
        (lambda p: optim.SGD([p], lr=float("nan")), "lr: nan found"),
        (lambda p: optim.SGD([{"params": [p], "lr": -2}]), "lr: -2 found"),
        (lambda p: optim.SGD([p], momentum=-0.1), "momentum: -0.1 found"),
        (lambda p: optim.SGD([p], weight_decay=-1), "weight_decay: -1 found"),
        (lambda p: optim.SGD([p], l1=-1), "l1: -1 found"),
        (lambda p: optim.SGD([p], nesterov=True), "nesterov: needs momentum > 0"),
        (lambda p: optim.SGD([p], 0.1, 0.9, 0.5, nesterov=True), "dampening 0"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), r"betas: \(0.9, 1.0\) found"),
        (lambda p: optim.AdamW([p], betas=(-0.1, 0.9)), "betas"),
        (lambda p: optim.Adam([p], eps=-1), "eps: -1 found"),
        (lambda p: optim.RMSprop([p], alpha=-1), "alpha: -1 found"),
    ],
)  # fmt: skip
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(parameter(1.0))


def test_what_is_not_a_parameter():
    with pytest.raises(TypeError, match="a single tensor found"):
        optim.SGD(parameter(1.0, 2.0))
    with pytest.raises(TypeError, match="ndarray found, expected tensors"):
        optim.SGD([numpy.ones(2)])
    with pytest.raises(TypeError, match="tuple found, expected tensors"):
        optim.SGD(nn.Linear(1, 1).named_parameters())
