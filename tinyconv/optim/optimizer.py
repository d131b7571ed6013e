"""What all optimisers share: parameter groups, state, and one update op for each parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from tinyconv.backend import Array, array_module, asarray, to_numpy
from tinyconv.op import run
from tinyconv.ops.update import CheckGradients, CountStep, Scaled, Update
from tinyconv.recorder import recorder
from tinyconv.tensor import Tensor


class Optimizer:
    """Base of all optimisers. `params` is an iterable of parameters, or of groups of them.

    A group is a dictionary {"params": ..., "lr": ..., ...} whose settings replace the defaults.
    Every optimiser takes weight_decay (L2) and l1: their gradients weight_decay * p and
    l1 * sign(p) (0 at 0) are added to the gradient of p.
    Raises ValueError for no parameters, one that is given twice, or a setting out of range.
    """

    # Names of the arrays, shaped as the parameter, that the update op takes after p, g, lr and t.
    slots: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params: a single tensor found, expected a list of tensors")
        groups = list(params)
        if not groups:
            raise ValueError("params: no parameters were given")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Array]] = {}
        seen: set[Tensor] = set()
        for group in groups:
            unknown = set(group) - set(defaults) - {"params"}
            if unknown:
                raise ValueError(f"params: unknown setting {sorted(unknown)[0]!r} in a group")
            full = {**defaults, **group}
            full["params"] = [group["params"]] if isinstance(group["params"], Tensor) else list(
                group["params"]
            )  # fmt: skip
            _check_settings(full)
            for p in full["params"]:
                if not isinstance(p, Tensor):
                    raise TypeError(f"params: {type(p).__name__} found, expected tensors")
                if p in seen:
                    raise ValueError(f"params: a parameter of shape {p.shape} is given twice")
                seen.add(p)
            self.param_groups.append(full)
        # Each group's learning rate as an array that stays the same: a recorded step reads it anew.
        self._rates: dict[int, Array] = {}
        self._written: dict[int, float] = {}  # what they hold: a GPU is told only what is new

    def update(self, group: dict[str, Any]) -> Update:
        """The update op for a group's settings."""
        raise TypeError(f"{type(self).__name__} defines no update")

    def used_slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Those of `slots` that the group's settings make use of."""
        return self.slots

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self, scaling: Array | None = None) -> None:
        """Update every parameter that has a gradient.

        With `scaling` (see LossScaler) the gradients are those of scale * loss, and nothing is
        updated where one of them overflowed.
        """
        if record := recorder():
            record.uses(self)
        if scaling is not None:
            gradients = [p.grad.data for p in self._all_params() if p.grad is not None]
            run(CheckGradients(), scaling, *gradients)
        for number, group in enumerate(self.param_groups):
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            xp = array_module(params[0].data)
            rate = self._rates.setdefault(number, xp.zeros((), xp.float64))
            self.set_rates()
            op, used = self.update(group), self.used_slots(group)
            for p in params:
                state = self.state.setdefault(p, {"step": xp.zeros((), xp.float64)})
                for name in used:
                    if name not in state:
                        state[name] = xp.zeros_like(p.data)
                slots = [state.get(name) for name in self.slots]
                count, inputs = state["step"], (p.data, p.grad.data, rate, state["step"], *slots)
                if scaling is None:
                    run(CountStep(), count)
                    run(op, *inputs)
                else:
                    run(Scaled(CountStep()), scaling, count)
                    run(Scaled(op), scaling, *inputs)

    def set_rates(self) -> None:
        """Write the groups' learning rates into the arrays that the update ops read them from."""
        for number, rate in self._rates.items():
            lr = self.param_groups[number]["lr"]
            if self._written.get(number) != lr:
                rate[...] = self._written[number] = lr

    def _all_params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """Copies: {"state": {parameter number: {name: array}}, "param_groups": settings}."""
        numbers = {p: i for i, p in enumerate(self._all_params())}
        groups = [
            {**group, "params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {
            numbers[p]: {name: to_numpy(a).copy() for name, a in slots.items()}
            for p, slots in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict() gave. Raises ValueError where it does not fit."""
        sizes = [len(group["params"]) for group in self.param_groups]
        found = [len(group["params"]) for group in state["param_groups"]]
        if sizes != found:
            raise ValueError(f"param_groups: {found} parameters found, expected {sizes}")
        params = self._all_params()
        loaded = {n: _known(slots) for n, slots in state["state"].items()}
        for number, slots in loaded.items():
            if int(number) not in range(len(params)):
                raise ValueError(f"state: {number} found, expected 0 to {len(params) - 1}")
            p = params[int(number)]
            for name, a in slots.items():
                if name not in ("step", *self.slots):
                    raise ValueError(f"state {number}: {type(self).__name__} has no {name!r}")
                expected = () if name == "step" else p.shape
                if numpy.shape(a) != expected:
                    raise ValueError(
                        f"state {number}.{name}: shape {numpy.shape(a)} found, expected {expected}"
                    )
        settings = [  # PyTorch's groups hold more than ours
            {**group, **{key: saved[key] for key in saved if key in group and key != "params"}}
            for group, saved in zip(self.param_groups, state["param_groups"], strict=True)
        ]
        for group in settings:
            _check_settings(group)
        self.param_groups = settings
        self.state = {}
        for number, slots in loaded.items():
            p = params[int(number)]
            # PyTorch counts steps in float32, which is too short for powers of beta.
            self.state[p] = {
                name: asarray(numpy.array(a, numpy.float64 if name == "step" else p.dtype))
                for name, a in slots.items()
            }


def _known(slots: dict[str, Any]) -> dict[str, Any]:
    """A parameter's state as it was saved; PyTorch's SGD counts no steps and saves None."""
    given = {name: a for name, a in slots.items() if a is not None}
    if "step" not in given and given.keys() - {"momentum_buffer"}:
        raise ValueError(f"state: {', '.join(given)} found without 'step'")
    return {"step": numpy.array(float(bool(given))), **given}


def _check_settings(group: dict[str, Any]) -> None:
    at_least_0 = ("lr", "weight_decay", "l1", "eps", "momentum", "alpha")
    for name in at_least_0:
        if name in group and not group[name] >= 0:
            raise ValueError(f"{name}: {group[name]} found, expected a number >= 0")
    for beta in group.get("betas", ()):
        if not 0 <= beta < 1:
            raise ValueError(f"betas: {group['betas']} found, expected two numbers in [0, 1)")
