"""Loss scaling: PyTorch's GradScaler step by step, overflow, and a state that can be saved."""

import json

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import functional as F
from tinyconv import nn
from tinyconv.backend import to_numpy
from tinyconv.optim import SGD, Adam, LossScaler

SETTINGS = {"init_scale": 1024.0, "growth_factor": 4.0, "backoff_factor": 0.25}


@pytest.fixture
def backend(backend, request):
    """Each array library, CuPy by the reference: what it computes is tested with the kernels."""
    kernels = tc.backend.kernels_wanted()
    tc.use_backend(backend, kernels=backend == "numpy" and kernels)
    yield backend
    tc.use_backend("numpy", kernels=kernels)


def test_steps_against_pytorch(backend):
    """Overflows in the steps 2, 3 and 8; the scale grows after three good ones."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = rng.standard_normal(5).astype(np.float32)
    ours, theirs = nn.Parameter(start), torch.nn.Parameter(torch.tensor(start))
    adam = Adam([ours], lr=0.1)
    reference = torch.optim.Adam([theirs], lr=0.1)
    scaler = LossScaler(**SETTINGS, growth_interval=3)
    expected = torch.amp.GradScaler("cpu", **SETTINGS, growth_interval=3)
    for step in range(12):
        factor = rng.standard_normal(5).astype(np.float32)
        if step in (2, 3, 8):
            factor[step % 5] = np.inf if step == 3 else np.nan
        adam.zero_grad()
        scaler.scale((ours * tc.Tensor(factor)).sum()).backward()
        scaler.step(adam)
        scaler.update()
        reference.zero_grad()
        expected.scale((theirs * torch.tensor(factor)).sum()).backward()
        expected.step(reference)
        expected.update()
        assert scaler.get_scale() == expected.get_scale()
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)
    state = expected.state_dict()
    assert scaler.state_dict() == {
        "scale": state["scale"],
        "growth_tracker": state["_growth_tracker"],
    }
    assert to_numpy(adam.state[ours]["step"]) == 12 - 3


def test_one_overflow_stops_all_groups(backend):
    """Also of parameters before and after it, in other groups."""
    params = [nn.Parameter(np.ones(3, np.float32)) for _ in range(3)]
    sgd = SGD([{"params": params[:2]}, {"params": params[2:], "lr": 0.5}], lr=0.1, momentum=0.9)
    scaler = LossScaler(8.0)
    for factor in (1.0, np.inf, 1.0):
        sgd.zero_grad()
        scaler.scale((params[0] + params[1] * factor + params[2]).sum()).backward()
        scaler.step(sgd)
        scaler.update()
    velocity = 1 + 1.9  # of two steps
    for p, lr in zip(params, (0.1, 0.1, 0.5), strict=True):
        np.testing.assert_allclose(p.numpy(), 1 - lr * velocity, rtol=1e-6)
    assert scaler.get_scale() == 4.0


@pytest.mark.parametrize("bad", [0, 1])
def test_an_overflow_of_one_optimizer_of_two(backend, bad):
    """The other one is updated; the scale falls, whichever came last."""
    params = [nn.Parameter(np.ones(3, np.float32)) for _ in range(2)]
    optimizers, scaler = [SGD([p], lr=0.1) for p in params], LossScaler(8.0)
    scaler.scale((params[bad] * np.float32(np.inf) + params[1 - bad]).sum()).backward()
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    np.testing.assert_array_equal(params[bad].numpy(), 1)
    np.testing.assert_allclose(params[1 - bad].numpy(), 0.9)


def test_a_scale_changes_nothing(backend):
    """Where nothing overflows, the training is the same as without a scaler."""
    results = []
    for scaler in (None, LossScaler()):
        tc.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        adam = Adam(model.parameters(), lr=0.01)
        x = tc.Tensor(np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32))
        for _ in range(3):
            adam.zero_grad()
            loss = F.cross_entropy(model(x), np.array([0, 1, 2, 0, 1]))
            if scaler is None:
                loss.backward()
                adam.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(adam)
                scaler.update()
        results.append(model.state_dict())
    for name, array in results[0].items():
        np.testing.assert_allclose(array, results[1][name], rtol=1e-6, err_msg=name)


def test_small_gradients_of_float16_survive():
    """1e-9 is 0 in float16; 65536 times as much is not."""
    weight = nn.Parameter(np.ones(1, np.float32))
    x = np.full(1, 1e-4, np.float16)
    sgd = SGD([weight], lr=1.0)
    scaler = LossScaler()
    for scaled in (False, True):
        sgd.zero_grad()
        half = (tc.Tensor(x) * weight.astype(np.float16)).astype(np.float32)
        loss = (half * np.float32(1e-5)).sum()
        (scaler.scale(loss) if scaled else loss).backward()
        gradient = float(weight.grad.numpy()[0])
        assert gradient == (pytest.approx(65536 * 1e-9, rel=0.05) if scaled else 0)
    scaler.step(sgd)
    assert float(weight.numpy()[0]) == pytest.approx(1 - 1e-9)


def test_a_compiled_step_is_the_eager_one(backend):
    results = []
    for compiled in (False, True):
        tc.manual_seed(2)
        model = nn.Sequential(nn.Linear(4, 3))
        adam = Adam(model.parameters(), lr=0.01)
        scaler = LossScaler(16.0, growth_interval=2)

        def step(x, labels, model=model, adam=adam, scaler=scaler):
            adam.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            scaler.scale(loss).backward()
            scaler.step(adam)
            scaler.update()
            return loss

        run = tc.compile(step) if compiled else step
        rng = np.random.default_rng(0)
        for call in range(6):
            x = rng.standard_normal((5, 4)).astype(np.float32)
            x[0, 0] = np.nan if call == 3 else 1
            run(tc.backend.asarray(x), tc.backend.asarray(np.arange(5) % 3))
        results.append((scaler.state_dict(), model.state_dict(), adam.state_dict()["state"]))
    (state, weights, moments), (other, other_weights, other_moments) = results
    assert state == other == {"scale": 32.0, "growth_tracker": 0}  # 16, 32, 16, 32
    for name, array in weights.items():
        np.testing.assert_allclose(array, other_weights[name], rtol=1e-6, err_msg=name)
    assert moments[0]["step"] == other_moments[0]["step"] == 5


def test_the_state_goes_through_json(backend):
    scaler = LossScaler(2.0**20, growth_interval=7)
    state = {"scale": 3.5, "growth_tracker": 6}
    scaler.load_state_dict(json.loads(json.dumps(state)))
    assert scaler.state_dict() == state
    weight = nn.Parameter(np.ones(1, np.float32))
    loss = scaler.scale(weight.sum())
    assert loss.item() == 3.5
    loss.backward()
    scaler.step(SGD([weight], lr=0.5))
    scaler.update()
    assert float(weight.numpy()[0]) == 0.5
    assert scaler.state_dict() == {"scale": 7.0, "growth_tracker": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"backoff_factor": 0.0},
        {"growth_interval": 0},
        {"init_scale": 0.0},
        {"init_scale": float("inf")},
    ],
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="expected"):
        LossScaler(**settings)


@pytest.mark.parametrize("state", [{"scale": float("nan"), "growth_tracker": 0},
                                   {"scale": 1.0, "growth_tracker": -1}])  # fmt: skip
def test_a_state_that_cannot_be(state):
    with pytest.raises(ValueError, match="scale: "):
        LossScaler().load_state_dict(state)
