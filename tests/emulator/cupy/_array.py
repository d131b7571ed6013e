"""ndarray: a NumPy array in the memory of the emulated device, and as strict as CuPy's."""

import numpy

from cupy import cuda

# cuBLAS computes these: CuPy refuses them while a stream captures.
_CUBLAS = {numpy.matmul, numpy.dot, numpy.einsum, numpy.tensordot, numpy.inner, numpy.vdot}


class _Flags:
    def __init__(self, host, owndata):
        self.c_contiguous = host.flags.c_contiguous
        self.f_contiguous = host.flags.f_contiguous
        self.owndata = owndata
        self.forc = host.flags.forc
        self.fnc = host.flags.fnc

    def __getitem__(self, name):
        return getattr(self, name.lower())


class ndarray:
    """`_host` is the NumPy array in device memory; `_memory` keeps its allocation alive."""

    __module__ = "cupy"
    __slots__ = ("__weakref__", "_host", "_memory", "base")
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        shape = (shape,) if isinstance(shape, int | numpy.integer) else tuple(shape)
        dtype = numpy.dtype(dtype)
        size = int(numpy.prod(shape, dtype=numpy.int64)) * dtype.itemsize
        memptr = memptr or cuda.alloc(size)
        self._memory, self.base = memptr.mem, None
        start = memptr.ptr - memptr.mem.region.ptr
        self._host = numpy.ndarray(
            shape, dtype, memptr.mem.bytes, start, strides, None if strides else order
        )

    @classmethod
    def _view(cls, host, source):
        """An array on the memory of the array `source`."""
        array = cls.__new__(cls)
        array._host, array._memory = host, source._memory
        array.base = source if source.base is None else source.base
        return array

    # What it is -----------------------------------------------------------------------------------

    shape = property(lambda self: self._host.shape, lambda self, shape: self._reshape(shape))
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: _Flags(self._host, self.base is None))
    T = property(lambda self: self.transpose())
    device = property(lambda self: cuda.Device(0))

    def _reshape(self, shape):
        self._host.shape = shape

    @property
    def data(self):
        memory = self._memory
        return cuda.MemoryPointer(memory, self._host.ctypes.data - memory.ptr)

    def __len__(self):
        return len(self._host)

    # To the host and from it ----------------------------------------------------------------------

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(self, stream=None, order="C", out=None, blocking=True):
        stream = stream or cuda.get_current_stream()
        host = self._host
        if not blocking and out is not None and cuda._is_pinned(out):
            stream._submit_late(lambda: numpy.copyto(out, host))
            return out
        stream._no_capture("get()")
        stream._finish()
        if out is None:
            return numpy.array(host, order=order)
        numpy.copyto(out, host)
        return out

    def set(self, arr, stream=None):
        if not isinstance(arr, numpy.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        stream = stream or cuda.get_current_stream()
        host = self._host
        if cuda._is_pinned(arr) and arr.flags.forc:
            stream._submit_late(lambda: numpy.copyto(host, arr))
        else:
            stream._no_capture("a copy from pageable memory")
            stream._finish()
            numpy.copyto(host, arr)

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def tobytes(self, order="C"):
        return self.get().tobytes(order)

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __format__(self, text):
        return format(self.get(), text)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __reduce__(self):
        return array, (self.get(),)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    # Values ---------------------------------------------------------------------------------------

    def __getitem__(self, index):
        return call(numpy.ndarray.__getitem__, (self, _on_host(index)), {})

    def __setitem__(self, index, value):
        if isinstance(value, numpy.ndarray):
            if value.ndim:
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            value = value.item()
        index, value, host = _on_host(index), _on_host(value), self._host
        cuda.get_current_stream()._submit(lambda: host.__setitem__(index, value))

    def fill(self, value):
        self[...] = value

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self.dtype == numpy.dtype(dtype):
            return self
        return call(numpy.ndarray.astype, (self, dtype), {"order": order})

    def copy(self, order="C"):
        return call(numpy.ndarray.copy, (self, order), {})

    def sort(self, axis=-1):
        self[...] = call(numpy.sort, (self,), {"axis": axis})

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        out = kwargs.pop("out", None)
        if method != "__call__" or (out and not isinstance(out[0], ndarray)):
            return NotImplemented
        return call(ufunc, inputs, kwargs | ({"out": out[0]} if out else {}))

    def __array_function__(self, function, types, args, kwargs):
        import cupy

        mine = getattr(cupy, function.__name__, None)
        return mine(*args, **kwargs) if mine else NotImplemented


def _method(name):
    function = getattr(numpy.ndarray, name)
    return lambda self, *args, **kwargs: call(function, (self, *args), kwargs)


_METHODS = """
all any argmax argmin argsort clip cumprod cumsum diagonal dot flatten max mean min nonzero prod
ravel repeat reshape round squeeze std sum swapaxes take transpose var view
"""
for _name in _METHODS.split():
    setattr(ndarray, _name, _method(_name))


def _operator(ufunc, swapped=False, in_place=False):
    def apply(self, other):
        if not isinstance(other, ndarray | numpy.ndarray | numpy.generic | int | float | complex):
            return NotImplemented
        args = (other, self) if swapped else (self, other)
        return call(ufunc, args, {"out": self} if in_place else {})

    return apply


for _name, _ufunc in {
    "add": numpy.add, "sub": numpy.subtract, "mul": numpy.multiply, "truediv": numpy.true_divide,
    "floordiv": numpy.floor_divide, "mod": numpy.remainder, "pow": numpy.power,
    "matmul": numpy.matmul, "and": numpy.bitwise_and, "or": numpy.bitwise_or,
    "xor": numpy.bitwise_xor, "lshift": numpy.left_shift, "rshift": numpy.right_shift,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _operator(_ufunc))
    setattr(ndarray, f"__r{_name}__", _operator(_ufunc, swapped=True))
    setattr(ndarray, f"__i{_name}__", _operator(_ufunc, in_place=True))
del ndarray.__imatmul__  # CuPy's arrays have none
for _name, _ufunc in {
    "eq": numpy.equal, "ne": numpy.not_equal, "lt": numpy.less, "le": numpy.less_equal,
    "gt": numpy.greater, "ge": numpy.greater_equal,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _operator(_ufunc))
for _name, _ufunc in {
    "neg": numpy.negative, "pos": numpy.positive, "abs": numpy.absolute, "invert": numpy.invert,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", lambda self, ufunc=_ufunc: call(ufunc, (self,), {}))


# Calls of NumPy -----------------------------------------------------------------------------------


def _on_host(value, strict=False):
    """`value` with the NumPy array of each ndarray in it; strict: arrays of NumPy are refused."""
    if isinstance(value, ndarray):
        return value._host
    if strict and isinstance(value, numpy.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(_on_host(v, strict) for v in value)
    return value


def _arrays(values):
    for value in values:
        if isinstance(value, ndarray):
            yield value
        elif isinstance(value, tuple | list):
            yield from _arrays(value)


def call(function, args, kwargs):
    """A function of NumPy on arrays of the device, and its result as one or several of them.

    While the current stream captures, the call is made anew by each launch of the graph; made now
    it only tells the shapes.
    """
    is_index = function is numpy.ndarray.__getitem__
    sources = (*_arrays(args), *_arrays(kwargs.values()))
    args = _on_host(args, strict=not is_index)
    kwargs = {key: _on_host(value, strict=True) for key, value in kwargs.items()}
    out = next((s for s in sources if s._host is kwargs.get("out")), None)
    stream = cuda.get_current_stream()

    def compute():
        with numpy.errstate(all="ignore"):
            return function(*args, **kwargs)

    if stream.is_capturing() and function in _CUBLAS:
        raise NotImplementedError("cuBLAS is not supported while a stream captures")
    if out is not None:
        stream._submit(compute)
        return out
    stream._finish()
    return _wrap(compute, compute(), sources)


def _wrap(compute, result, sources):
    """The result of `compute()`: views stay views, anything else goes to memory of its own."""
    if isinstance(result, tuple | list):
        return type(result)(
            _wrap(lambda i=i: compute()[i], part, sources) for i, part in enumerate(result)
        )
    if not isinstance(result, numpy.ndarray | numpy.generic):
        return result
    for source in sources:
        if result is source._host:
            return source
    if region := _region(result):
        address = result.__array_interface__["data"][0]
        for source in sources:
            memory = source._memory
            if region is memory.region and 0 <= address - memory.ptr <= memory.size:
                return ndarray._view(result, source)
    return _new(compute, result)


def _region(array):
    """The memory region that a NumPy array is a view of, or None."""
    while isinstance(array, numpy.ndarray):
        array = array.base
    return array if isinstance(array, cuda._Region) else None


def _new(compute, value):
    """A new array of the device with the value, laid out alike."""
    value = numpy.asanyarray(value)
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    if value.flags.forc:
        new = ndarray(value.shape, value.dtype, order=order)
    else:  # axes in another order, as NumPy's elementwise functions keep it
        axes = sorted(range(value.ndim), key=lambda i: -abs(value.strides[i]))
        base = ndarray([value.shape[i] for i in axes], value.dtype)
        new = ndarray._view(base._host.transpose(numpy.argsort(axes)), base)
        new.base = None
    host, stream = new._host, cuda.get_current_stream()
    if stream.is_capturing():
        stream._submit(lambda: numpy.copyto(host, compute()))
    else:
        numpy.copyto(host, value)
    return new


def array(value, dtype=None, copy=True, order="K", ndmin=0):
    """An array of the device with the values of an array of either kind, or of a list."""
    if isinstance(value, ndarray):
        same = dtype is None or value.dtype == numpy.dtype(dtype)
        if order == "C":
            same = same and value.flags.c_contiguous
        if not copy and same and value.ndim >= ndmin:
            return value
        return call(numpy.array, (value,), {"dtype": dtype, "order": order, "ndmin": ndmin})
    stream = cuda.get_current_stream()
    stream._no_capture("a copy from the host")
    host = numpy.array(value, dtype, order="C" if order == "K" else order, ndmin=ndmin)
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    stream._finish()
    return _new(None, host)


def created(value):
    """The array that a NumPy function created, as one that a kernel on the device filled."""
    return _new(lambda: value, value)
