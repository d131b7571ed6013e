"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyconv.ops.update import SGDUpdate
from tinyconv.optim.optimizer import Optimizer


class SGD(Optimizer):
    """SGD with momentum and Nesterov momentum; formulas in ops/update.py.

    Raises ValueError for Nesterov without momentum or with dampening.
    """

    slots = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        l1: float = 0.0,
        maximize: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov: needs momentum > 0 and dampening 0")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov, "l1": l1, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def used_slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["momentum"] else ()

    def update(self, group: dict[str, Any]) -> SGDUpdate:
        return SGDUpdate(
            group["weight_decay"], group["l1"], group["maximize"],
            group["momentum"], group["dampening"], group["nesterov"],
        )  # fmt: skip
