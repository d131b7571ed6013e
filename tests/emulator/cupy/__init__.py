"""A stand-in for CuPy on the CPU, to test with where there is no GPU: see ../README.md.

It has what the engine uses, on NumPy, and is as strict as CuPy: arrays of NumPy do not mix with its
own, and nothing goes to the host unasked.
"""

import numpy

from cupy import cuda
from cupy._array import array, ndarray
from cupy._array import call as _call
from cupy._array import created as _created
from cupy._raw import RawKernel as RawKernel
from cupy._raw import RawModule as RawModule

__version__ = "14.2.0"

_TAKEN_OVER = """
bool_ complex64 complex128 dtype e finfo float16 float32 float64 iinfo inf int8 int16 int32 int64
intp nan newaxis pi promote_types uint8 uint16 uint32 uint64
"""
_FUNCTIONS = """
abs absolute add arctan ceil clip cos divide equal exp expm1 floor floor_divide greater
greater_equal invert isfinite isinf isnan left_shift less less_equal log log1p log2 logaddexp
logical_and logical_not logical_or maximum minimum mod multiply negative not_equal power reciprocal
remainder right_shift rint round sign signbit sin sqrt square subtract tan tanh true_divide trunc
where bitwise_and bitwise_or bitwise_xor nan_to_num

all amax amin any argmax argmin argsort count_nonzero cumsum max mean median min nonzero prod sort
std sum unique var

atleast_1d atleast_2d broadcast_arrays broadcast_to concatenate copyto diag expand_dims flip hstack
moveaxis pad repeat reshape roll split squeeze stack swapaxes take take_along_axis tile transpose
vstack

dot einsum inner matmul outer tensordot vdot allclose array_equal may_share_memory result_type
"""
_CREATORS = "arange eye identity linspace tri"


def _function(name):
    function = getattr(numpy, name)
    return lambda *args, **kwargs: _call(function, args, kwargs)


def _creator(name):
    function = getattr(numpy, name)
    return lambda *args, **kwargs: _created(function(*args, **kwargs))


globals().update({name: getattr(numpy, name) for name in _TAKEN_OVER.split()})
globals().update({name: _function(name) for name in _FUNCTIONS.split()})
globals().update({name: _creator(name) for name in _CREATORS.split()})


def asarray(a, dtype=None, order=None):
    return array(a, dtype, copy=False, order=order or "K")


asanyarray = asarray


def ascontiguousarray(a, dtype=None):
    return array(a, dtype, copy=False, order="C", ndmin=1)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return numpy.asarray(a)


def copy(a, order="K"):
    return a.copy(order)


def get_array_module(*args):
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else numpy


def shape(a):
    return a.shape


def ndim(a):
    return a.ndim


def empty(shape, dtype=float, order="C"):
    return ndarray(shape, dtype, order=order)


def full(shape, fill_value, dtype=None, order="C"):
    new = empty(shape, dtype or numpy.asarray(fill_value).dtype, order)
    new.fill(fill_value)
    return new


def zeros(shape, dtype=float, order="C"):
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float, order="C"):
    return full(shape, 1, dtype, order)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    if shape is not None:
        return empty(shape, dtype or prototype.dtype)
    axes = sorted(range(prototype.ndim), key=lambda i: -abs(prototype.strides[i]))
    if order == "C" or axes == sorted(axes):
        return empty(prototype.shape, dtype or prototype.dtype)
    new = empty([prototype.shape[i] for i in axes], dtype or prototype.dtype)
    return new.transpose(sorted(range(len(axes)), key=axes.__getitem__))


def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    new = empty_like(a, dtype, order, subok, shape)
    new.fill(fill_value)
    return new


def zeros_like(a, dtype=None, order="K", subok=None, shape=None):
    return full_like(a, 0, dtype, order, subok, shape)


def ones_like(a, dtype=None, order="K", subok=None, shape=None):
    return full_like(a, 1, dtype, order, subok, shape)


def get_default_memory_pool():
    return cuda._get_default_memory_pool()


def is_available():
    return True
