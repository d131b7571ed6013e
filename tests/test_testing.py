"""The checks must find what is wrong, not only pass what is right."""

import dataclasses
import math

import numpy
import pytest

from tinyconv.op import Op, register
from tinyconv.ops.activation import ReLU
from tinyconv.ops.elementwise import Multiply
from tinyconv.ops.norm import BatchNorm
from tinyconv.ops.update import SGDUpdate
from tinyconv.tensor import apply
from tinyconv.testing import gradient_error, kernel_error, relative_error

X = numpy.array([-1.0, 2.0, 3.0])


pytestmark = pytest.mark.usefixtures("empty_registry")


def always(op, xp, *arguments):
    return True


def test_relative_error():
    assert relative_error([1, 2], [1, 4]) == 0.5  # by the largest value expected
    assert relative_error([], []) == 0
    assert relative_error(numpy.zeros((2, 2)), numpy.zeros((2, 2))) == 0
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\) differ"):
        relative_error(numpy.ones(2), numpy.ones(3))


def test_nan_is_an_infinite_error():
    for found, expected in (([numpy.nan, 1], [1.0, 1]), ([1.0, 1], [1, numpy.nan])):
        assert relative_error(found, expected) == math.inf
    assert gradient_error(lambda x: apply(Square(numpy.nan), x), X) == math.inf

    @register(ReLU, "backward", when=always)
    def wrong(op, xp, gy, saved, needs):
        return (gy * xp.nan,)

    assert kernel_error(ReLU(), X) == math.inf


@dataclasses.dataclass(frozen=True)
class Square(Op):
    """y = x^2, with a gradient that is wrong by a factor"""

    factor: float = 1.0

    def forward(self, xp, x):
        return x * x, (x,)

    def backward(self, xp, gy, saved, needs):
        return (2 * gy * saved[0] * self.factor,)


def test_gradient_error_measures_the_error():
    assert gradient_error(lambda x: apply(Square(), x), X) < 1e-9
    assert gradient_error(lambda x: apply(Square(1.001), x), X) == pytest.approx(1e-3, rel=1e-5)
    assert gradient_error(lambda x: apply(Square(-1.0), x), X) == pytest.approx(2)


def test_gradient_error_leaves_the_inputs_alone():
    before = X.copy()
    gradient_error(lambda x: x * x, X)
    assert numpy.array_equal(X, before)


def test_gradient_error_needs_float64():
    with pytest.raises(TypeError, match="float32, expected float64"):
        gradient_error(lambda x: x * x, X.astype(numpy.float32))


def test_kernel_error_without_kernels_is_0():
    assert kernel_error(ReLU(), X) == 0
    weight, mean, var = numpy.ones(3), numpy.zeros(3), numpy.ones(3)
    x = numpy.outer(numpy.arange(1.0, 5), X)
    assert kernel_error(BatchNorm(training=True), x, weight, None, mean, var) == 0
    assert mean.tolist() == [0, 0, 0]  # what the op writes to are copies
    p, g, lr, t = X.copy(), X.copy(), numpy.array(0.1), numpy.array(1.0)
    assert kernel_error(SGDUpdate(momentum=0.9), p, g, lr, t, numpy.zeros(3)) == 0
    assert numpy.array_equal(p, X)


def test_kernel_error_finds_a_wrong_forward():
    @register(ReLU, "forward", when=always)
    def wrong(op, xp, x):
        y = xp.maximum(x, 0) * 1.01
        return y, (y,)

    assert kernel_error(ReLU(), X) == pytest.approx(0.01)


def test_kernel_error_finds_a_wrong_backward():
    @register(ReLU, "backward", when=always)
    def wrong(op, xp, gy, saved, needs):
        return (gy,)

    assert kernel_error(ReLU(), X) > 0


def test_kernel_error_finds_a_forward_that_saves_something_else():
    @register(ReLU, "forward", when=always)
    def saves_too_much(op, xp, x):
        y = xp.maximum(x, 0)
        return y, (x + 2,)

    assert kernel_error(ReLU(), X) > 0


def test_kernel_error_finds_a_backward_that_needs_its_own_forward():
    @register(ReLU, "forward", when=always)
    def marks_what_is_cut(op, xp, x):  # the reference backward can read it
        return xp.maximum(x, 0), (xp.where(x > 0, x, -1),)

    @register(ReLU, "backward", when=always)
    def looks_for_the_mark(op, xp, gy, saved, needs):
        return (gy * (saved[0] != -1),)

    assert kernel_error(ReLU(), X) > 0


def test_kernel_error_runs_the_reference_backward_on_what_a_kernel_saved():
    @register(ReLU, "forward", when=always)
    def saves_a_mask_too(op, xp, x):
        y = xp.maximum(x, 0)
        return y, (y + 2, y > 0)

    @register(ReLU, "backward", when=always)
    def takes_either(op, xp, gy, saved, needs):
        return (gy * (saved[1] if len(saved) > 1 else saved[0] > 0),)

    with pytest.raises(ValueError, match="too many values"):
        kernel_error(ReLU(), X)


def test_kernel_error_finds_a_wrong_update():
    @register(SGDUpdate, "forward", when=always)
    def too_far(op, xp, p, g, lr, t, v):
        p -= 1.1 * lr * g
        return None, ()

    p, g, lr, t = X.copy(), X.copy(), numpy.array(0.1), numpy.array(1.0)
    assert kernel_error(SGDUpdate(), p, g, lr, t, None) > 1e-3


def test_kernel_error_asks_for_the_gradients_that_are_named():
    asked = []

    @register(Multiply, "backward", when=always)
    def noted(op, xp, gy, saved, needs):
        asked.append(tuple(needs))
        return op.backward(xp, gy, saved, needs)

    kernel_error(Multiply(), X, X, needs=(False, True))
    kernel_error(Multiply(), X, X)
    assert set(asked) == {(False, True), (True, True)}
