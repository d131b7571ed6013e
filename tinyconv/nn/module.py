"""Module: a part of a network that holds parameters, buffers and other modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy

from tinyconv.backend import Array, asarray, to_numpy
from tinyconv.errors import ShapeError
from tinyconv.nn.symbolic import SymbolicTensor, contains, layer_name, symbolic_call
from tinyconv.recorder import recorder
from tinyconv.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module registers as one of its weights."""

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"


# hook(module, inputs, output): what it returns takes the place of the output, unless it is None.
Hook = Callable[["Module", tuple[Any, ...], Any], Any]


class HookHandle:
    """One registration of a hook on a module."""

    def __init__(self, module: Module, hook: Hook) -> None:
        self.module = module
        # A new dictionary each time: a compiled step notices by identity, and a hook may remove
        # itself while the hooks are being called.
        module._forward_hooks = {**module._forward_hooks, self: hook}

    def remove(self) -> None:
        """Call the hook no more; removing it twice changes nothing."""
        hooks = self.module._forward_hooks
        self.module._forward_hooks = {k: hook for k, hook in hooks.items() if k is not self}


class Module:
    """A part of a network. Subclasses assign parameters and modules in __init__ and write forward.

    Parameters and modules are registered by being assigned; arrays that training changes without
    a gradient (running statistics) by register_buffer. Calling the module calls forward; called on
    symbolic tensors (nn.Input) it becomes a part of a graph, see nn.Model.
    """

    training: bool
    _frozen: bool
    _forward_hooks: dict[HookHandle, Hook]

    def __init__(self) -> None:
        self.__dict__.update(_parameters={}, _buffers={}, _modules={}, training=True)
        self.__dict__.update(_frozen=False, _forward_hooks={})

    def forward(self, *inputs: Any) -> Tensor:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        if contains((*inputs, *settings.values()), SymbolicTensor):
            return symbolic_call(self, inputs, settings)
        if record := recorder():
            record.uses(self)
        try:
            output = self.forward(*inputs, **settings)
        except ShapeError as error:
            self._name_layer(error)
            raise
        for hook in self._forward_hooks.values():
            changed = hook(self, inputs, output)
            output = output if changed is None else changed
        return output

    def _name_layer(self, error: ShapeError) -> None:
        """Say in the error which layer it comes from, by its path from the outermost module."""
        if error.module is None:
            error.module = self
        error.layer = self._naming(error.module)

    def _naming(self, inside: Module) -> str:
        """How messages name a module inside of this one: by its path, and a layer's settings."""
        path = next((name for name, module in self.named_modules() if module is inside), "")
        return f"layer {path!r} {layer_name(inside)}" if path else layer_name(inside)

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

    def register_forward_hook(self, hook: Hook) -> HookHandle:
        """Call hook(module, inputs, output) after each forward, until remove() of the handle.

        `inputs` is the tuple of positional arguments. What the hook returns takes the place of the
        output, unless it is None. A step with hooks in it is not compiled: tinyconv.compile raises
        CompileError, or with strict=False runs it as it is. Raises TypeError for no function.
        """
        if not callable(hook):
            raise TypeError(
                f"register_forward_hook: {hook!r} found, expected a function "
                "hook(module, inputs, output)"
            )
        return HookHandle(self, hook)

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
        """Whether all weights of this module get gradients; the mode stays (see freeze)."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def train(self, mode: bool = True) -> Module:
        """Training mode (batch statistics, dropout) here and inside; False for evaluation.

        Modules that freeze() keeps in evaluation mode stay in it.
        """
        for module in self.modules():
            module.training = mode and not module._frozen
        return self

    def eval(self) -> Module:
        """Evaluation mode: running statistics, no dropout."""
        return self.train(False)

    # Freezing -------------------------------------------------------------------------------------

    def freeze(self, *names: str, statistics: bool = True) -> Module:
        """Leave weights out of training: "features", "0", "conv1.weight", "features*"; none: all.

        A name is the path of a module inside of this one, with all that it holds, or of a single
        weight; `*` and `?` stand for any characters, dots too. The weights get no gradients, and
        with statistics=True (as trainable=False does in Keras) the frozen modules stay in
        evaluation mode, whatever train() says: batch norms use their running statistics and leave
        them as they are, dropout is off. With statistics=False (PyTorch's requires_grad_(False))
        modes follow train(): the running statistics still move, dropout is still on. A name of a
        single weight never changes a mode. Raises ValueError for a name that is not there,
        TypeError for anything but names.
        """
        modules, parameters = self._named(names)
        for parameter in parameters:
            parameter.requires_grad = False
        for module in modules if statistics else ():
            module._frozen, module.training = True, False
        return self

    def unfreeze(self, *names: str) -> Module:
        """Take back freeze(), by the same kinds of names; none: all.

        The modules come to the mode that this one is in. Raises ValueError as freeze does.
        """
        modules, parameters = self._named(names)
        for parameter in parameters:
            parameter.requires_grad = True
        for module in modules:
            module._frozen, module.training = False, self.training
        return self

    def _named(self, patterns: tuple[str, ...]) -> tuple[set[Module], set[Parameter]]:
        """The modules that match, with all modules inside; and the weights that match or do."""
        if not patterns:
            return set(self.modules()), set(self.parameters())
        all_modules = dict(self._all_modules())
        del all_modules[""]
        all_parameters = {
            f"{path}.{name}" if path else name: parameter
            for path, module in self._all_modules()
            for name, parameter in module._parameters.items()
        }
        modules: set[Module] = set()
        parameters: set[Parameter] = set()
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(
                    f"{pattern!r} found, expected names of modules or weights as texts, one after "
                    'another: "features", "0"'
                )
            found = [m for path, m in all_modules.items() if fnmatchcase(path, pattern)]
            single = [p for path, p in all_parameters.items() if fnmatchcase(path, pattern)]
            if not found and not single:
                paths = [*all_modules, *all_parameters]
                more = f" and {len(paths) - 12} more" if len(paths) > 12 else ""
                raise ValueError(
                    f"{pattern!r} names no module or weight of {type(self).__name__}; "
                    f"there are {', '.join(paths[:12])}{more}"
                )
            modules.update(inside for module in found for inside in module.modules())
            parameters.update(single)
        parameters.update(p for module in modules for p in module.parameters())
        return modules, parameters

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
