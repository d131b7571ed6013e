"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyconv.ops.update import AdamUpdate
from tinyconv.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Adam; formulas in ops/update.py. weight_decay is L2, added to the gradient."""

    slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        l1: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "l1": l1, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def used_slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["amsgrad"] else self.slots[:2]

    def update(self, group: dict[str, Any]) -> AdamUpdate:
        decay = group["weight_decay"]
        l2, shrink = (0.0, decay) if self.decoupled else (decay, 0.0)
        return AdamUpdate(
            l2, group["l1"], group["maximize"],
            tuple(group["betas"]), group["eps"], shrink, group["amsgrad"],
        )  # fmt: skip


class AdamW(Adam):
    """Adam whose weight_decay shrinks the weights directly, apart from the gradient."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        l1: float = 0.0,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, l1=l1, maximize=maximize)
