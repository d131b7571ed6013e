"""LossScaler: gradients of float16 that do not vanish, and steps that skip those that overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy

from tinyconv.backend import asarray, to_numpy
from tinyconv.op import run
from tinyconv.ops.update import AdjustScale
from tinyconv.optim.optimizer import Optimizer
from tinyconv.tensor import Tensor


class LossScaler:
    """Mixed precision's scale of the loss, as torch.amp.GradScaler keeps it.

        scaler.scale(loss).backward()
        scaler.step(optimizer)  # instead of optimizer.step()
        scaler.update()

    The gradients of scale * loss are large enough for float16. Where one of them overflows, nothing
    is updated and the scale falls by `backoff_factor`; after `growth_interval` steps without that
    it grows by `growth_factor`. All of it happens on the device: nothing waits for a value. The
    gradients in `.grad` stay scaled: there is no unscale_(), they are divided in the update.
    Raises ValueError for factors or an interval out of range.
    Source: Micikevicius et al., 2017, arXiv:1710.03740.
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        if not (growth_factor > 1 > backoff_factor > 0 and growth_interval >= 1):
            raise ValueError(
                f"growth_factor={growth_factor}, backoff_factor={backoff_factor}, "
                f"growth_interval={growth_interval}: expected > 1, between 0 and 1, and >= 1"
            )
        self._adjust = AdjustScale(growth_factor, backoff_factor, growth_interval)
        # The scale, overflow, steps since the scale changed: see ops/update.py.
        self.scaling = asarray(numpy.array([0, 0, 0], numpy.float32))
        self._scale = Tensor._of(self.scaling[..., 0])  # a view: what moves the one moves the other
        self._set(init_scale, 0)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss (float32) times the scale, to call backward() on."""
        return loss * self._scale

    def step(self, optimizer: Optimizer) -> None:
        """Update the parameters by the gradients over the scale, or none where one overflowed."""
        optimizer.step(self.scaling)

    def update(self) -> None:
        """Move the scale on after a step."""
        run(self._adjust, self.scaling)

    def get_scale(self) -> float:
        """The scale now (waits for the device)."""
        return float(to_numpy(self.scaling)[0])

    def state_dict(self) -> dict[str, Any]:
        """Where the scale stands, as plain values."""
        scale, _, steps = to_numpy(self.scaling).tolist()
        return {"scale": scale, "growth_tracker": max(int(steps), 0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where state_dict() was taken. Raises ValueError for a scale that cannot be."""
        self._set(state["scale"], state["growth_tracker"])

    def _set(self, scale: float, steps: int) -> None:
        if not 0 < scale < math.inf or steps < 0:
            raise ValueError(f"scale: {scale} after {steps} steps found, expected a number > 0")
        self.scaling[...] = asarray(numpy.array([scale, 0, steps], numpy.float32))
