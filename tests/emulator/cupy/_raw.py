"""RawModule and RawKernel: CUDA sources on the emulated device."""

import math

import numpy

from cupy import _library, cuda
from cupy._array import ndarray

_launches = 0
launched = set()  # ("pool.cu", "max_pool"), ...: what ran in this process


class CompileException(Exception):
    pass


class CUDADriverError(RuntimeError):
    pass


class RawModule:
    """The kernels of one source text."""

    def __init__(self, code, *, options=(), backend="nvrtc", **unused):
        if not isinstance(options, tuple):
            raise TypeError("options should be a tuple of str")
        try:
            self._kernels = _library.Kernels(code, options)
        except _library.CompileError as error:
            raise CompileException(str(error)) from None

    def get_function(self, name):
        if name not in self._kernels.names:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return RawKernel._of(self._kernels, name)


class RawKernel:
    """One kernel: called with a grid, a block and its arguments."""

    def __init__(self, code, name, options=(), **unused):
        kernels = RawModule(code, options=options)._kernels
        self.__dict__.update(RawKernel._of(kernels, name).__dict__)

    @classmethod
    def _of(cls, kernels, name):
        kernel = cls.__new__(cls)
        kernel.name, kernel._kernels = name, kernels
        kernel._parameters, kernel._bound = kernels.signature(name), kernels.bound(name)
        kernel.max_dynamic_shared_size_bytes = 48 * 1024 - kernels.static_bytes
        return kernel

    @property
    def max_threads_per_block(self):
        return self._bound

    def __call__(self, grid, block, args, *, shared_mem=0):
        grid, block = ((*sizes, 1, 1)[:3] for sizes in (grid, block))
        self._check_sizes(grid, block, shared_mem)
        if len(args) != len(self._parameters):
            raise TypeError(
                f"{self.name}: {len(args)} arguments, {len(self._parameters)} parameters"
            )
        packed = [self._pack(i, a) for i, a in enumerate(args)]
        # They also keep the memory from going back to the system before a graph does.
        guards = [(i, a._memory._guards) for i, a in enumerate(args) if isinstance(a, ndarray)]

        def work():
            global _launches
            _launches += 1
            launched.add((self._kernels.file, self.name))
            message = self._kernels.launch(
                self.name, grid, block, packed, shared_mem, _launches % 2 == 0
            )
            for i, around in guards:
                if not message and any((guard != 0xFF).any() for guard in around):
                    message = f"a write just outside of the array that is argument {i}"
            if message:
                raise cuda.runtime.CUDARuntimeError(
                    f"{self.name}: {message}; source: {self._kernels.path}"
                )

        cuda.get_current_stream()._submit(work)

    def _check_sizes(self, grid, block, shared):
        threads = math.prod(block)
        for ok, what in (
            (all(n >= 1 for n in (*grid, *block)), f"empty grid {grid} or block {block}"),
            (threads <= 1024 and block[2] <= 64, f"a block of {block} threads"),
            (threads <= self._bound, f"{threads} threads beyond __launch_bounds__({self._bound})"),
            (grid[0] < 2**31 and max(grid[1:]) <= 65535, f"a grid of {grid} blocks"),
            (
                shared <= self.max_dynamic_shared_size_bytes,
                f"{shared} bytes of dynamic shared memory: max_dynamic_shared_size_bytes is "
                f"{self.max_dynamic_shared_size_bytes}",
            ),
            (
                shared + self._kernels.static_bytes <= 227 * 1024,
                f"{shared} + {self._kernels.static_bytes} bytes of shared memory",
            ),
        ):
            if not ok:
                raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {self.name}: {what}")

    def _pack(self, position, value):
        """The bytes of an argument, checked against the type of its parameter."""
        kind, expected, size = self._parameters[position]
        if isinstance(value, ndarray):
            found, data = value.dtype, numpy.uint64(value.data.ptr).tobytes()
            fits = kind == "array" and expected in ("any", found.name)
        else:
            if not isinstance(value, bool | int | float | complex | numpy.generic | numpy.ndarray):
                raise TypeError(f"Unsupported type {type(value)}")
            value = numpy.asarray(value)  # an array of NumPy is a structure, passed by value
            found, data = value.dtype, value.tobytes()
            fits = len(data) == size
            if kind == "array":
                fits = fits and found.kind in "ui" and value == 0
            elif expected != "any":
                kinds = {found.kind, numpy.dtype(expected).kind}
                fits = fits and not value.shape and (len(kinds) == 1 or kinds == {"i", "u"})
        if not fits:
            raise TypeError(
                f"{self.name}: parameter {position} is {kind} {expected} of {size} bytes, but "
                f"{type(value).__name__} of {found} with {len(data)} bytes was passed"
            )
        return data
