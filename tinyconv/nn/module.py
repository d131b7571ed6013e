"""Module: a part of a network that holds parameters, buffers and other modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from tinyconv.backend import Array, asarray, to_numpy
from tinyconv.errors import ShapeError
from tinyconv.recorder import recorder
from tinyconv.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module registers as one of its weights."""

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"


class Module:
    """A part of a network. Subclasses assign parameters and modules in __init__ and write forward.

    Parameters and modules are registered by being assigned; arrays that training changes without
    a gradient (running statistics) by register_buffer. Calling the module calls forward.
    """

    training: bool

    def __init__(self) -> None:
        self.__dict__.update(_parameters={}, _buffers={}, _modules={}, training=True)

    def forward(self, *inputs: Any) -> Tensor:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any, **settings: Any) -> Tensor:
        if record := recorder():
            record.uses(self)
        try:
            return self.forward(*inputs, **settings)
        except ShapeError as error:
            self._name_layer(error)
            raise

    def _name_layer(self, error: ShapeError) -> None:
        """Say in the error which layer it comes from, by its path from the outermost module."""
        if error.module is None:
            error.module = self
        path = next((name for name, m in self.named_modules() if m is error.module), "")
        error.layer = f"layer {path!r} {error.module!r}" if path else repr(error.module)

    # Registration ---------------------------------------------------------------------------------

    def _registers(self) -> tuple[dict[str, Any], ...]:
        return self._parameters, self._modules, self._buffers

    def __setattr__(self, name: str, value: Any) -> None:
        kinds = {"_parameters": Parameter, "_modules": Module}
        for register, kind in kinds.items():
            if isinstance(value, kind):
                if register not in self.__dict__:
                    raise RuntimeError(f"{type(self).__name__}: call super().__init__() first")
                for other in self._registers():
                    other.pop(name, None)
                self.__dict__.pop(name, None)
                self.__dict__[register][name] = value
                return
        if name in self.__dict__.get("_buffers", ()):
            self._buffers[name] = None if value is None else asarray(value)
            return
        for register in kinds:
            self.__dict__.get(register, {}).pop(name, None)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for register in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(register, ()):
                return self.__dict__[register][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for register in self._registers():
            if name in register:
                del register[name]
                return
        object.__delattr__(self, name)

    def register_buffer(self, name: str, value: Array | None) -> None:
        """Hold an array that is saved with the weights but has no gradient."""
        self._buffers[name] = None if value is None else asarray(value)

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Hold a weight, or None where a layer is built without it (no bias)."""
        if value is None:
            object.__setattr__(self, name, None)
        else:
            setattr(self, name, value)

    # Walking --------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all inside of it; one that is shared comes once."""
        seen: set[Module] = set()
        for path, module in self._all_modules(prefix):
            if module not in seen:
                seen.add(module)
                yield path, module

    def _all_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, module in self._modules.items():
            yield from module._all_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all inside of it."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """The modules directly inside of this one."""
        return iter(self._modules.values())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of all weights; one that is shared comes once."""
        seen: set[Parameter] = set()
        for path, module in self._all_modules():
            for name, parameter in module._parameters.items():
                if parameter not in seen:
                    seen.add(parameter)
                    yield f"{path}.{name}" if path else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """All weights."""
        return (parameter for _, parameter in self.named_parameters())

    @property
    def dtype(self) -> Any:
        """The dtype of the weights (of the first one): what the inputs' dtype must be."""
        return next((p.dtype for p in self.parameters()), numpy.dtype(numpy.float32))

    # State ----------------------------------------------------------------------------------------

    def _state(self) -> dict[str, tuple[dict[str, Any], str]]:
        """PyTorch's state dictionary keys, each with the register and the name that hold it."""
        entries = {}
        for path, module in self._all_modules():
            for register in (module._parameters, module._buffers):
                for name, value in register.items():
                    if value is not None:
                        entries[f"{path}.{name}" if path else name] = (register, name)
        return entries

    def state_dict(self) -> dict[str, numpy.ndarray]:
        """Copies of all weights and buffers as NumPy arrays under PyTorch's keys."""
        return {
            key: to_numpy(register[name]).copy() for key, (register, name) in self._state().items()
        }

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Copy arrays (NumPy, or PyTorch tensors on the CPU) into the weights and buffers.

        Dtypes stay as the module has them. Raises ValueError that lists missing, unexpected and
        misshapen keys; with strict=False only misshapen ones. Nothing is changed where it raises.
        """
        own = self._state()
        arrays = {key: to_numpy(value) for key, value in state.items()}
        problems = []
        if strict:
            problems += [f"missing: {key}" for key in own if key not in arrays]
            problems += [f"unexpected: {key}" for key in arrays if key not in own]
        for key, (register, name) in own.items():
            if key in arrays and arrays[key].shape != register[name].shape:
                problems.append(
                    f"{key}: shape {arrays[key].shape} found, expected {register[name].shape}"
                )
        if problems:
            more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
            raise ValueError(
                f"state dictionary does not fit {type(self).__name__}: "
                + "; ".join(problems[:8])
                + more
            )
        for key, (register, name) in own.items():
            if key in arrays:
                held = register[name]
                target = held.data if isinstance(held, Tensor) else held
                target[...] = asarray(arrays[key])

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freeze (False) or release all weights of this module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def train(self, mode: bool = True) -> Module:
        """Training mode (batch statistics, dropout) here and inside; False for evaluation."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Evaluation mode: running statistics, no dropout."""
        return self.train(False)

    def astype(self, dtype: Any) -> Module:
        """Convert all floating-point weights and buffers to `dtype` (float32 or float64)."""
        for register, name in self._state().values():
            held = register[name]
            if isinstance(held, Parameter):
                held.data = held.data.astype(dtype)
                held.grad = None
            elif held.dtype.kind == "f":
                register[name] = held.astype(dtype)
        return self

    # Printing -------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """A layer's settings, for its repr."""
        return ""

    def __repr__(self) -> str:
        if not self._modules:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {module!r}" for name, module in self._modules.items()]
        inside = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inside}\n)"


class Sequential(Module):
    """Modules one after another, each taking the output of the one before."""

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        super().__init__()
        named: dict[str, Any] = {str(i): module for i, module in enumerate(modules)}
        if len(modules) == 1 and isinstance(modules[0], dict):
            named = modules[0]
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: item {name} is {module!r}, expected a Module")
            setattr(self, name, module)

    def forward(self, x: Any) -> Tensor:
        for module in self.children():
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):  # the names stay, and with them the keys of the weights
            return Sequential(dict(list(self._modules.items())[index]))
        return list(self.children())[index]
