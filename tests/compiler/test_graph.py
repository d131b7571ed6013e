"""Plans of a GPU: what is captured, where it lies, what stays outside; on a device or the emulator.

That compiled and eager steps give the same numbers is in test_compile.py.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import functional as F
from tinyconv import nn, optim
from tinyconv.compiler import CompileError
from tinyconv.op import Op
from tinyconv.tensor import apply

pytestmark = pytest.mark.usefixtures("cuda")


def network():
    tc.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 2),
    )  # fmt: skip


def training(model, loss_scale=None, dtype=np.float32):
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    scaler = optim.LossScaler(init_scale=loss_scale) if loss_scale else None

    def step(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(F.normalize_image(images, (0.5,), (0.5,), dtype)), labels)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss

    return optimizer, step


def batch(seed=0, size=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (size, 12, 12, 1), dtype=np.uint8), rng.integers(0, 2, size)


def gray(model):
    tc.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 3, 1), model)


def test_a_training_step_is_one_graph_of_kernels():
    _, step = training(gray(network()))
    compiled = tc.compile(step)
    compiled(*batch())
    assert compiled.plan.summary() == "1 CUDA graph"
    assert "reference" not in compiled.plan.kernels
    names = [type(call.op).__name__ for call in compiled.plan.calls]
    assert names.count("NormReLUPool") == 4
    assert not {"BatchNorm", "ReLU", "MaxPool2d"} & set(names)


def test_mixed_precision_is_one_graph_too():
    """A loss scale too large for float16: the first steps are left out, the rest are done."""
    model = gray(network())
    before = model.state_dict()
    _, step = training(model, loss_scale=2.0**30, dtype=np.float16)
    compiled = tc.compile(step)
    compiled(*batch())
    assert compiled.plan.summary() == "1 CUDA graph"
    assert "reference" not in compiled.plan.kernels
    after = model.state_dict()
    for name, array in before.items():
        if "running" not in name and "batches" not in name:
            np.testing.assert_array_equal(after[name], array, err_msg=name)
    losses = [compiled(*batch()).item() for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]


def test_memory_is_planned():
    """Maps whose time is over make room: a chain of 12 takes little more than two of them."""
    model = nn.Sequential(*[nn.LeakyReLU() for _ in range(12)])
    forward = tc.compile(lambda x: model(x))
    x = np.ones((1000, 100), np.float32)
    forward(x)
    assert 2 * x.nbytes <= forward.plan.memory.nbytes < 3 * x.nbytes


def test_another_step_does_not_disturb_it():
    """Other work takes and frees memory between two runs of a graph."""
    model = network().eval()
    images = np.random.default_rng(0).random((4, 3, 12, 12), np.float32)
    with tc.no_grad():
        expected = model(images).numpy()
        forward = tc.compile(lambda x: model(x))
        for _ in range(3):
            np.testing.assert_allclose(forward(images).numpy(), expected, rtol=1e-4, atol=1e-5)
            rubbish = [tc.Tensor(np.full(n, np.nan, np.float32)) for n in (10, 1000, 4 * 8 * 144)]
            del rubbish


@dataclass(frozen=True)
class Triple(Op):
    """y = 3 x, by a reference that nothing is faster than."""

    def forward(self, xp, x):
        return 3 * x, ()

    def backward(self, xp, gy, saved, needs):
        return (3 * gy,)


def test_an_op_without_a_kernel_runs_between_two_graphs():
    weight = tc.Tensor(np.full((4, 5), 2, np.float32), requires_grad=True)

    @tc.compile
    def step(x):
        weight.grad = None
        loss = (F.relu(apply(Triple(), F.relu(weight)) * 2.0) * x).sum()
        loss.backward()
        return loss

    for value in (1.0, 5.0):
        assert step(np.full((4, 5), value, np.float32)).item() == 20 * 12 * value
        np.testing.assert_array_equal(weight.grad.numpy(), 6 * value)
    assert "with 2 ops by reference in between" in step.plan.summary()


def test_measuring_changes_nothing():
    model = gray(network())
    _, step = training(model)
    compiled = tc.compile(step)
    for seed in range(2):
        compiled(*batch(seed))
    parameters = list(model.parameters())
    before = model.state_dict(), [p.grad.numpy() for p in parameters]
    stream = tc.backend.random_state()
    times = compiled.plan.milliseconds(repeats=3)
    assert len(times) == len(compiled.plan.calls)
    assert all(math.isfinite(t) and t >= 0 for t in times)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[0][name], err_msg=name)
    for p, gradient in zip(parameters, before[1], strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), gradient)
    assert tc.backend.random_state() == stream


def test_the_learning_rate_is_read_on_the_device():
    model = gray(network())
    optimizer, step = training(model)
    compiled = tc.compile(step)
    compiled(*batch())
    plan, before = compiled.plan, model.state_dict()
    optimizer.param_groups[0]["lr"] = 0.0
    compiled(*batch())
    assert compiled.plan is plan
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.numpy(), before[name], err_msg=name)


def test_what_changes_outside_of_ops_is_refused():
    model = nn.Linear(3, 2)

    def step(x):
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        for p in model.parameters():
            p.grad.data *= np.float32(0.5)
        return loss

    with pytest.raises(CompileError, match="in place outside of any op"):
        tc.compile(step)(np.ones((1, 3), np.float32))


def test_other_memory_than_planned_is_refused(cuda):
    """A weight with gaps is copied before use; the copy that plans are made with has none."""
    model = nn.Linear(8, 4)
    model.weight.data = cuda.ones((4, 16), np.float32)[:, ::2]
    x = np.ones((2, 8), np.float32)
    with tc.no_grad():
        with pytest.raises(CompileError, match="a view with gaps"):
            tc.compile(lambda x: model(x))(x)
        loose = tc.compile(lambda x: model(x), strict=False)
        np.testing.assert_allclose(loose(x).numpy(), model(x).numpy())


def test_a_change_of_precision_is_noticed():
    model = nn.Linear(64, 8)
    forward = tc.compile(lambda x: model(x))
    x = np.random.default_rng(0).random((16, 64), np.float32)
    tc.use_backend("cupy", precision="float32")
    exact = forward(x).numpy()
    tc.use_backend("cupy", precision="tf32")
    rounded = forward(x).numpy()
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 2e-3
