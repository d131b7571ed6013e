"""How results are compared with PyTorch's, in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest

import tinyconv
from tinyconv import Tensor

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

# |ours - theirs| <= rtol * |theirs| + atol * max(1, the largest |theirs|); nan equals nan, and
# infinities equal themselves. The float32 figures are those PyTorch's own tests use.
TOLERANCES = {"float64": (1e-12, 1e-12), "float32": (1.3e-6, 1e-5)}


class Parity:
    """Compares arrays and whole computations; `worst` collects the largest relative errors."""

    def __init__(self, worst: dict[str, float]) -> None:
        self.worst = worst

    def equal(self, ours: Any, theirs: Any, what: str = "value", rtol: float | None = None) -> None:
        """Assert that two arrays agree; with `rtol`, to that share of the largest value."""
        ours, theirs = to_numpy(ours), to_numpy(theirs)
        assert ours.dtype == theirs.dtype, what
        assert ours.shape == theirs.shape, what
        if ours.dtype.kind != "f":
            numpy.testing.assert_array_equal(ours, theirs, what)
            return
        finite = numpy.isfinite(theirs)
        scale = float(numpy.abs(theirs[finite]).max(initial=0))
        if rtol is None:
            scale = max(1, scale)
            rtol, atol = TOLERANCES[ours.dtype.name]
        else:
            rtol, atol = 0, rtol
        numpy.testing.assert_allclose(ours, theirs, rtol, atol * scale, err_msg=what)
        error = float(numpy.abs(ours[finite] - theirs[finite]).max(initial=0)) / (scale or 1)
        self.note(ours.dtype.name, error)

    def note(self, dtype: str, error: float) -> None:
        self.worst[dtype] = max(self.worst.get(dtype, 0), error)

    def check(
        self,
        function: Callable[..., Tensor],
        reference: Callable[..., torch.Tensor],
        *inputs: Any,
        frozen: Sequence[int] = (),
        dtypes: Sequence[str] = ("float64", "float32"),
        rtol: float | None = None,
    ) -> None:
        """Compare outputs and gradients of two functions, in float64 and in float32.

        Float arrays are handed over as tensors with a gradient (those numbered in `frozen` without
        one), other arrays as NumPy arrays to tinyconv and tensors to PyTorch.
        """
        for dtype in dtypes:
            arrays = [x.astype(dtype) if is_float(x) else x for x in inputs]
            ours = [Tensor(x.copy(order="K"), i not in frozen) if is_float(x) else x
                    for i, x in enumerate(arrays)]  # fmt: skip
            theirs = [torch_tensor(x, is_float(x) and i not in frozen)
                      for i, x in enumerate(arrays)]  # fmt: skip
            y, expected = function(*ours), reference(*theirs)
            self.equal(y, expected, "output", rtol)
            if not expected.requires_grad:
                assert not y.requires_grad
                continue
            gy = numpy.random.default_rng(17).standard_normal(y.shape).astype(dtype)
            y.backward(gy)
            expected.backward(torch.from_numpy(gy))
            for x, reference_x in zip(ours, theirs, strict=True):
                if isinstance(reference_x, torch.Tensor) and reference_x.grad is not None:
                    self.equal(x.grad, reference_x.grad, "gradient", rtol)
                elif isinstance(x, Tensor):
                    assert x.grad is None


def is_float(x: Any) -> bool:
    return isinstance(x, numpy.ndarray) and x.dtype.kind == "f"


def torch_tensor(x: Any, requires_grad: bool = False) -> Any:
    if not isinstance(x, numpy.ndarray):
        return x
    return torch.from_numpy(x.copy(order="K")).requires_grad_(requires_grad)


def to_numpy(x: Any) -> numpy.ndarray:
    return x.detach().numpy() if isinstance(x, torch.Tensor) else tinyconv.to_numpy(x)


# Drawing ------------------------------------------------------------------------------------------


class Draw:
    """Random choices from a seed."""

    def __init__(self, seed: Sequence[int]) -> None:
        self.rng = numpy.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.integer(low, high), self.integer(low, high)

    def shape(self, least: int, most: int, largest: int = 5) -> tuple[int, ...]:
        return tuple(self.integer(1, largest) for _ in range(self.integer(least, most)))

    def one_of(self, *choices: Any) -> Any:
        return choices[self.integer(0, len(choices) - 1)]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def normal(self, *shape: int) -> numpy.ndarray:
        return self.rng.standard_normal(shape)

    def image(self, *shape: int) -> numpy.ndarray:
        """Normal numbers (N, C, H, W), in memory sometimes channels last."""
        x = self.normal(*shape)
        return x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) if self.chance(0.25) else x


def drawn(count: int) -> pytest.MarkDecorator:
    """Parametrise a test with `draw`, `count` different ones that are the same in every run."""
    return pytest.mark.parametrize("draw", range(count), indirect=True)
