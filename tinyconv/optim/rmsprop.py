"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyconv.ops.update import RMSpropUpdate
from tinyconv.optim.optimizer import Optimizer


class RMSprop(Optimizer):
    """RMSprop, also centered and with momentum; formulas in ops/update.py."""

    slots = ("square_avg", "grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        l1: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
            "momentum": momentum, "centered": centered, "l1": l1, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def used_slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        asked = (True, group["centered"], group["momentum"] > 0)
        return tuple(name for name, used in zip(self.slots, asked, strict=True) if used)

    def update(self, group: dict[str, Any]) -> RMSpropUpdate:
        return RMSpropUpdate(
            group["weight_decay"], group["l1"], group["maximize"],
            group["alpha"], group["eps"], group["momentum"], group["centered"],
        )  # fmt: skip
