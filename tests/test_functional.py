"""What all functions share: arguments of all kinds, sizes, and names."""

import inspect

import numpy
import pytest

import tinyconv
import tinyconv.functional as F
from tinyconv import Tensor

IMAGE = numpy.ones((1, 2, 6, 6), numpy.float32)

# Each function with one set of arguments that it takes.
CALLS = {
    "adaptive_avg_pool2d": (IMAGE, 2),
    "avg_pool2d": (IMAGE, 2),
    "batch_norm": (IMAGE, numpy.zeros(2), numpy.ones(2)),
    "binary_cross_entropy_with_logits": (IMAGE, IMAGE),
    "cat": ([IMAGE, IMAGE],),
    "conv2d": (IMAGE, numpy.ones((3, 2, 3, 3), numpy.float32), numpy.ones(3, numpy.float32)),
    "cross_entropy": (IMAGE[0, 0], numpy.array([0, 1, 2, 3, 4, 5])),
    "dropout": (IMAGE,),
    "flatten": (IMAGE, 1),
    "fold": (numpy.ones((1, 4, 4), numpy.float32), 3, 2),
    "leaky_relu": (IMAGE, 0.2),
    "linear": (IMAGE, numpy.ones((3, 6), numpy.float32), numpy.ones(3, numpy.float32)),
    "log_softmax": (IMAGE, 1),
    "matmul": (IMAGE, IMAGE),
    "max_pool2d": (IMAGE, 2),
    "maximum": (IMAGE, 0),
    "minimum": (IMAGE, IMAGE),
    "nll_loss": (IMAGE[0, 0], numpy.array([0, 1, 2, 3, 4, 5])),
    "normalize_image": (numpy.zeros((1, 2, 2, 1), numpy.uint8), [0.5], [0.5]),
    "pad": (IMAGE, (1, 1)),
    "relu": (IMAGE,),
    "relu6": (IMAGE,),
    "sigmoid": (IMAGE,),
    "softmax": (IMAGE, 1),
    "tanh": (IMAGE,),
    "unfold": (IMAGE, 2),
}


def test_every_function_is_listed_here():
    assert set(F.__all__) == {*CALLS, "conv_output_size"}
    defined = inspect.getmembers(F, inspect.isfunction)
    own = {name for name, f in defined if f.__module__ == F.__name__ and not name.startswith("_")}
    assert own == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_give_a_float32_tensor(name, backend):
    y = getattr(F, name)(*CALLS[name])
    assert isinstance(y, Tensor)
    assert y.dtype == numpy.float32
    assert not y.requires_grad
    assert tinyconv.backend.array_module(y.data).__name__ == backend


@pytest.mark.parametrize("name", CALLS)
def test_tensors_give_the_same(name):
    arguments = [Tensor(a) if isinstance(a, numpy.ndarray) else a for a in CALLS[name]]
    tinyconv.manual_seed(0)
    expected = getattr(F, name)(*CALLS[name])
    tinyconv.manual_seed(0)
    assert numpy.array_equal(getattr(F, name)(*arguments).numpy(), expected.numpy())


SIZES = {
    "one number": (2, (2, 2)),
    "a list": ([2, 1], (2, 1)),
    "NumPy's numbers": ((numpy.int64(2), numpy.int32(1)), (2, 1)),
}


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size):
    given, meant = SIZES[size]
    assert F.max_pool2d(IMAGE, given).shape == F.max_pool2d(IMAGE, meant).shape
    w = numpy.ones((3, 2, 1, 1), numpy.float32)
    assert F.conv2d(IMAGE, w, None, given).shape == F.conv2d(IMAGE, w, None, meant).shape


@pytest.mark.parametrize("size", [0, -1, 1.5, "2", (1,), (1, 2, 3), None, (1, 0), numpy.ones(2)])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match=r"kernel_size: .* found, expected a whole number >= 1"):
        F.max_pool2d(IMAGE, size)


def test_the_stride_of_a_pooling_is_its_window():
    assert F.max_pool2d(IMAGE, (2, 3)).shape == (1, 2, 3, 2)
    assert F.avg_pool2d(IMAGE, (3, 2)).shape == (1, 2, 2, 3)


def test_errors_are_value_errors():
    assert issubclass(tinyconv.ShapeError, ValueError)
    assert issubclass(tinyconv.DataError, ValueError)
    assert issubclass(tinyconv.BackendError, RuntimeError)


def test_lists_take_the_dtype_of_what_they_stand_beside():
    assert F.linear([[1.0, 2.0]], [[1.0, 2.0]], [1]).numpy().tolist() == [[6.0]]
    x = numpy.ones((1, 1, 2, 2), numpy.float32)
    assert F.conv2d(x, x, bias=[1]).dtype == numpy.float32
    y = F.batch_norm(x, None, None, weight=[2.0], bias=[3.0], training=True)
    assert y.dtype == numpy.float32
    assert numpy.allclose(y.numpy(), 3)


def test_unlike_dtypes_are_refused():
    for other in (numpy.float64, numpy.int64, numpy.uint8):
        x = numpy.ones((1, 1, 2, 2), other)
        with pytest.raises(TypeError, match=f"conv2d: input is {numpy.dtype(other)}, weight is "):
            F.conv2d(x, numpy.ones((1, 1, 2, 2), numpy.float32))
        with pytest.raises(TypeError, match="linear: input is"):
            F.linear(x, numpy.ones((3, 2), numpy.float32))
