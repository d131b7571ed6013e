"""Optimisers: 100 steps in float64, with PyTorch's to 1e-12 of the largest value."""

import numpy as np
import pytest

from tinyconv import optim
from tinyconv.nn import Parameter

torch = pytest.importorskip("torch")

STEPS, RTOL = 100, 1e-12
SHAPES = [(4, 3), (5,), (), (2, 3, 2, 2)]


def gradient(p, t, i):
    """Depends on the parameter, so that an error of one step carries on into the next."""
    noise = np.random.default_rng([t, i]).standard_normal(p.shape)
    return np.asarray(np.tanh(p) + noise * (0.1 if t % 10 else 10))


def train(step, params, read, write, missing=()):
    """STEPS steps; the parameters numbered in `missing` get no gradient in some of them."""
    for t in range(STEPS):
        for i, p in enumerate(params):
            absent = i in missing and t % 7 in (0, 3)
            write(p, None if absent else gradient(read(p), t, i))
        step()


def trained(make_ours, make_theirs, dtype="float64", missing=(1,), change=lambda p, g: g):
    """Parameters and optimisers after STEPS steps; `change` alters PyTorch's gradients."""
    rng = np.random.default_rng(5)
    start = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES]
    start[0][1] = 0
    ours = [Parameter(a.copy()) for a in start]
    theirs = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in start]
    optimizer, reference = make_ours(ours), make_theirs(theirs)

    def write_ours(p, g):
        p.grad = None if g is None else Parameter(g.astype(dtype), requires_grad=False)

    def write_theirs(p, g):
        p.grad = None if g is None else change(p, torch.from_numpy(g.astype(dtype)))

    train(optimizer.step, ours, lambda p: p.numpy(), write_ours, missing)
    train(reference.step, theirs, lambda p: p.detach().numpy(), write_theirs, missing)
    return ours, theirs, optimizer, reference


def check(parity, ours, theirs, optimizer, reference, rtol=RTOL):
    for p, q in zip(ours, theirs, strict=True):
        parity.equal(p, q, "parameter", rtol)
    expected = reference.state_dict()["state"]
    found = optimizer.state_dict()["state"]
    for i in expected:
        for name, value in expected[i].items():
            if isinstance(value, torch.Tensor) and name != "step":
                parity.equal(found[i][name], value, "state", rtol)


SETTINGS = {
    "SGD": [
        {}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1},
        {"momentum": 0.5, "weight_decay": 0.05, "maximize": True}, {"maximize": True},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01, "maximize": True},
    ],
    "Adam": [
        {}, {"betas": (0.5, 0.9)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"amsgrad": True},
        {"maximize": True}, {"lr": 0.3, "betas": (0.0, 0.5)},
        {"amsgrad": True, "weight_decay": 0.02, "maximize": True, "betas": (0.8, 0.95)},
    ],
    "AdamW": [
        {}, {"weight_decay": 0.0}, {"weight_decay": 0.3, "betas": (0.7, 0.99)},
        {"amsgrad": True}, {"maximize": True, "eps": 1e-4}, {"amsgrad": True, "maximize": True},
    ],
    "RMSprop": [
        {}, {"alpha": 0.9}, {"centered": True}, {"momentum": 0.9}, {"weight_decay": 0.1},
        {"eps": 1e-2}, {"maximize": True}, {"centered": True, "momentum": 0.5},
        {"centered": True, "momentum": 0.9, "weight_decay": 0.01, "maximize": True, "alpha": 0.8},
    ],
}  # fmt: skip
CASES = [(name, settings) for name, several in SETTINGS.items() for settings in several]
IDS = [f"{name} {' '.join(f'{k}={v}' for k, v in settings.items())}" for name, settings in CASES]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=IDS)
def test_100_steps(parity, name, settings):
    settings = {"lr": 0.05, **settings}
    check(
        parity,
        *trained(
            lambda params: getattr(optim, name)(params, **settings),
            lambda params: getattr(torch.optim, name)(params, **settings),
        ),
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_default_settings(parity, name):
    lr = {} if name != "SGD" else {"lr": 1e-3}
    check(
        parity,
        *trained(
            lambda params: getattr(optim, name)(params),
            lambda params: getattr(torch.optim, name)(params, **lr),
        ),
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_float32(parity, name):
    extra = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    check(
        parity,
        *trained(
            lambda params: getattr(optim, name)(params, lr=0.01, **extra),
            lambda params: getattr(torch.optim, name)(params, lr=0.01, **extra),
            dtype="float32",
        ),
        rtol=1e-5,
    )


GROUPS = {
    "SGD": [
        {"lr": 0.1, "momentum": 0.9},
        {"weight_decay": 0.2, "nesterov": True, "momentum": 0.5}, {},
    ],
    "Adam": [{"lr": 0.1, "weight_decay": 0.2}, {"betas": (0.5, 0.6)}, {"amsgrad": True}],
    "AdamW": [{"lr": 0.1, "weight_decay": 0.2}, {"betas": (0.5, 0.6)}, {"maximize": True}],
    "RMSprop": [{"lr": 0.1, "alpha": 0.5}, {"centered": True, "momentum": 0.7}, {}],
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_parameter_groups(parity, name):
    first, second, third = GROUPS[name]

    def groups(params):
        return [
            {"params": params[:1], **first}, {"params": params[1:3], **second},
            {"params": params[3], **third},
        ]  # fmt: skip

    check(
        parity,
        *trained(
            lambda params: getattr(optim, name)(groups(params), lr=0.02),
            lambda params: getattr(torch.optim, name)(groups(params), lr=0.02),
        ),
    )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("maximize", [False, True])
def test_l1(parity, name, maximize):
    """l1 adds l1 * sign(p) to the gradient, 0 at 0, and works against maximising too."""
    l1, sign = 0.2, -1 if maximize else 1
    settings = {"lr": 0.03, "weight_decay": 0.01, "maximize": maximize}

    def change(p, g):
        return g + sign * l1 * torch.sign(p.detach())

    check(
        parity,
        *trained(
            lambda params: getattr(optim, name)(params, l1=l1, **settings),
            lambda params: getattr(torch.optim, name)(params, **settings),
            change=change,
        ),
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_l1_leaves_zeros_alone(name):
    p = Parameter(np.zeros(3))
    optimizer = getattr(optim, name)([p], lr=0.1, l1=1.0)
    for _ in range(5):
        p.grad = Parameter(np.zeros(3), requires_grad=False)
        optimizer.step()
    assert not p.numpy().any()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_saved_state_goes_on_as_pytorch_does(parity, name):
    """PyTorch's state after some steps, loaded into tinyconv's optimiser."""
    settings = {"lr": 0.05, "weight_decay": 0.01}
    if name in ("SGD", "RMSprop"):
        settings["momentum"] = 0.9
    start = np.random.default_rng(0).standard_normal(6)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    reference = getattr(torch.optim, name)([theirs], **settings)

    def their_steps(first, last):
        for t in range(first, last):
            theirs.grad = torch.from_numpy(gradient(theirs.detach().numpy(), t, 0))
            reference.step()

    their_steps(0, 20)
    ours = Parameter(theirs.detach().numpy().copy())
    optimizer = getattr(optim, name)([ours], **settings)
    state = {k: np.asarray(v) for k, v in reference.state_dict()["state"][0].items()}
    optimizer.load_state_dict(
        {
            "state": {0: {"step": 20.0, **state}},  # PyTorch's SGD counts no steps
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
    their_steps(20, 50)
    for t in range(20, 50):
        ours.grad = Parameter(gradient(ours.numpy(), t, 0), requires_grad=False)
        optimizer.step()
    parity.equal(ours, theirs, "parameter", RTOL)
