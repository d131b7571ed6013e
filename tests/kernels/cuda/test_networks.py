"""Whole networks, compiled: logits and gradients in every precision against NumPy in float64."""

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import functional as F
from tinyconv import models

from .compare import error

# The type of the images, how float32 is multiplied, and the errors allowed of the logits and of all
# gradients together. Where rounding puts a value on the other side of a ReLU, or makes another
# pixel the largest, a gradient takes another way: with four images a few such turns are percents.
# What each op may err is in the tests of its own.
MODES = {
    "float32": (np.float32, "float32", 1e-5, 1e-5),
    "tf32": (np.float32, "tf32", 5e-3, 0.15),
    "mixed": (np.float16, "tf32", 2e-2, 0.2),
}
NETWORKS = {"lenet_mnist": (28, 1), "fashion": (28, 1), "catdog": (32, 3)}
LARGER = {"horses": (64, 3), "catdog_notebook": (190, 3), "catdog_wide": (64, 3)}


def logits_and_gradients(name, dtype, weights):
    size, C = (NETWORKS | LARGER)[name]
    tc.manual_seed(0)
    model = models.create(name, num_classes=2, size=size).astype(weights)
    for module in model.modules():
        if isinstance(module, tc.nn.Dropout):
            module.p = 0.0  # masks are drawn for another number of digits
    images = np.random.default_rng(1).standard_normal((4, C, size, size)).astype(dtype)

    @tc.compile
    def step(images, labels):
        model.zero_grad()
        logits = model(images)
        F.cross_entropy(logits, labels).backward()
        return logits

    logits = step(images, np.array([0, 1, 1, 0])).numpy()
    gradients = [p.grad.numpy().ravel() for p in model.parameters()]
    return logits, np.concatenate(gradients), step.plan


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*NETWORKS, *LARGER])
def test_network(name, mode, cuda, on_device):
    if name in LARGER and not on_device:
        pytest.skip("takes minutes on the emulator")
    dtype, precision, logits_error, gradients_error = MODES[mode]
    tc.use_backend("numpy")
    expected, expected_gradients, _ = logits_and_gradients(name, np.float64, np.float64)
    tc.use_backend("cupy", precision=precision)
    logits, gradients, plan = logits_and_gradients(name, dtype, np.float32)
    assert plan.summary() == "1 CUDA graph"
    assert "reference" not in plan.kernels
    assert error(logits, expected) <= logits_error
    assert error(gradients, expected_gradients) <= gradients_error
