"""The op contract, the choice of kernels, and which()."""

import dataclasses

import numpy
import pytest

import tinyconv
from tinyconv import Tensor
from tinyconv.op import Op, register, run, run_backward
from tinyconv.ops.activation import ReLU
from tinyconv.ops.elementwise import Multiply, Power
from tinyconv.tensor import apply
from tinyconv.testing import kernel_error

X = numpy.array([-1.0, 2.0, 3.0])


pytestmark = pytest.mark.usefixtures("empty_registry")


def always(op, xp, *arguments):
    return True


def fast_relu(op, xp, x):
    y = x * (x > 0)
    return y, (y,)


def fast_relu_backward(op, xp, gy, saved, needs):
    return (gy * (saved[0] > 0),)


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Power(2.0).exponent = 3.0
    assert Power(2.0) == Power(2.0)
    assert Power(2.0) != Power(3.0)


def test_the_reference_runs_where_no_kernel_is_registered():
    assert tinyconv.which(ReLU(), "forward", X) == "reference"
    y, saved = run(ReLU(), X)
    assert y.tolist() == [0, 2, 3]
    assert run_backward(ReLU(), numpy.ones(3), saved, (True,))[0].tolist() == [0, 1, 1]


def test_a_registered_kernel_is_named_and_used():
    calls = []

    @register(ReLU, "forward", when=always)
    def counted_relu(op, xp, x):
        calls.append((op, xp))
        return fast_relu(op, xp, x)

    assert tinyconv.which(ReLU(), "forward", X) == "counted_relu"
    assert tinyconv.which(ReLU(), "backward", X, (X,), (True,)) == "reference"
    assert counted_relu(ReLU(), numpy, X)[0].tolist() == [0, 2, 3]  # decorating changes nothing
    calls.clear()
    assert apply(ReLU(), Tensor(X)).numpy().tolist() == [0, 2, 3]
    assert calls == [(ReLU(), numpy)]


def test_the_first_kernel_whose_condition_holds():
    register(ReLU, "forward", when=lambda op, xp, x: x.dtype == numpy.float32)(fast_relu)

    @register(ReLU, "forward", when=lambda op, xp, x: x.size < 10)
    def small_relu(op, xp, x):
        return fast_relu(op, xp, x)

    register(ReLU, "forward", when=always)(lambda *arguments: None)
    assert tinyconv.which(ReLU(), "forward", X.astype(numpy.float32)) == "fast_relu"
    assert tinyconv.which(ReLU(), "forward", X) == "small_relu"
    assert tinyconv.which(ReLU(), "forward", numpy.ones(10)) == "<lambda>"


def test_conditions_see_the_settings():
    @register(Power, "forward", when=lambda op, xp, x: op.exponent == 2)
    def square(op, xp, x):
        return x * x, (x,)

    assert tinyconv.which(Power(2.0), "forward", X) == "square"
    assert tinyconv.which(Power(3.0), "forward", X) == "reference"


def test_a_kernel_belongs_to_one_op_alone():
    @dataclasses.dataclass(frozen=True)
    class OtherReLU(ReLU):
        """A subclass is another op."""

    register(ReLU, "forward", when=always)(fast_relu)
    assert tinyconv.which(OtherReLU(), "forward", X) == "reference"


@pytest.mark.parametrize("fast_forward", [False, True])
@pytest.mark.parametrize("fast_backward", [False, True])
def test_any_forward_goes_with_any_backward(fast_forward, fast_backward):
    if fast_forward:
        register(ReLU, "forward", when=always)(fast_relu)
    if fast_backward:
        register(ReLU, "backward", when=always)(fast_relu_backward)
    expected = ["reference", "fast_relu"][fast_forward]
    assert tinyconv.which(ReLU(), "forward", X) == expected
    expected = ["reference", "fast_relu_backward"][fast_backward]
    assert tinyconv.which(ReLU(), "backward", X, (X,), (True,)) == expected
    x = Tensor(X, requires_grad=True)
    apply(ReLU(), x).backward(numpy.array([5.0, 6, 7]))
    assert x.grad.numpy().tolist() == [0, 6, 7]
    assert kernel_error(ReLU(), X) == 0


def test_backward_is_told_which_gradients_are_wanted():
    asked = []

    @register(Multiply, "backward", when=always)
    def noted(op, xp, gy, saved, needs):
        asked.append(needs)
        return op.backward(xp, gy, saved, needs)

    x, y = Tensor(X, requires_grad=True), Tensor(X)
    (x * y).sum().backward()
    (y * x).sum().backward()
    (x * x).sum().backward()
    assert asked == [(True, False), (False, True), (True, True)]


def test_an_op_without_gradient_or_forward():
    @dataclasses.dataclass(frozen=True)
    class Rounded(Op):
        """y = x to the nearest whole number"""

        def forward(self, xp, x):
            return xp.round(x), ()

    with pytest.raises(TypeError, match="Rounded has no gradient"):
        apply(Rounded(), Tensor(X, requires_grad=True)).sum().backward()
    with pytest.raises(TypeError, match="Op defines no forward"):
        run(Op(), X)


def test_an_op_of_ones_own():
    @dataclasses.dataclass(frozen=True)
    class Cube(Op):
        """y = x^3"""

        def forward(self, xp, x):
            return x**3, (x,)

        def backward(self, xp, gy, saved, needs):
            (x,) = saved
            return (3 * gy * x * x,)

    x = Tensor(X, requires_grad=True)
    apply(Cube(), x).sum().backward()
    assert x.grad.numpy().tolist() == [3, 12, 27]
