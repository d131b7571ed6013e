"""Forward hooks: when they are called, what they change, and that a compiled step refuses them."""

import numpy
import pytest

import tinyconv
from tinyconv import nn
from tinyconv.compiler import CompileError
from tinyconv.tensor import Tensor


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def ones(*shape):
    return numpy.ones(shape, numpy.float32)


def test_a_hook_sees_module_inputs_and_output():
    model, seen = network(), []
    model[1].register_forward_hook(lambda *call: seen.append(call))
    y = model(ones(5, 3))
    ((module, inputs, output),) = seen
    assert module is model[1]
    assert isinstance(inputs, tuple)
    assert numpy.array_equal(inputs[0].numpy(), model[0](ones(5, 3)).numpy())
    assert numpy.array_equal(model[2](output).numpy(), y.numpy())


def test_hooks_run_in_order_from_the_inside_until_they_are_removed():
    model, calls = network(), []
    model.register_forward_hook(lambda *_: calls.append("model"))
    first = model[0].register_forward_hook(lambda *_: calls.append("first"))
    model[0].register_forward_hook(lambda *_: calls.append("second"))
    model(ones(1, 3))
    assert calls == ["first", "second", "model"]
    first.remove()
    first.remove()
    model(ones(1, 3))
    assert calls[3:] == ["second", "model"]


def test_what_a_hook_returns_is_the_output_and_carries_its_gradient():
    model = network()
    model[0].register_forward_hook(lambda module, inputs, output: output * 2.0)
    model[0].register_forward_hook(lambda module, inputs, output: None)
    x = ones(2, 3)
    plain = network()
    plain.load_state_dict(model.state_dict())
    expected = plain[2](plain[1](plain[0](x) * 2.0))
    y = model(x)
    assert numpy.array_equal(y.numpy(), expected.numpy())
    y.sum().backward()
    expected.sum().backward()
    assert numpy.array_equal(model[0].weight.grad.numpy(), plain[0].weight.grad.numpy())


def test_a_hook_may_remove_itself():
    model, calls = network(), []

    def once(*_):
        calls.append(1)
        handle.remove()

    handle = model.register_forward_hook(once)
    model(ones(1, 3))
    model(ones(1, 3))
    assert calls == [1]


def test_a_hook_is_a_function():
    model = network()
    with pytest.raises(TypeError, match=r"register_forward_hook: 3 found, expected a function"):
        model.register_forward_hook(3)
    model(ones(1, 3))


def test_hooks_are_no_part_of_the_state():
    model = network()
    keys = list(model.state_dict())
    model[0].register_forward_hook(lambda *_: None)
    assert list(model.state_dict()) == keys


def forward_of(model, strict=True):
    @tinyconv.compile
    def forward(x):
        with tinyconv.no_grad():
            return model(x)

    forward.strict = strict
    return forward


def test_a_compiled_step_refuses_hooks_by_name():
    model = network()
    model[1].register_forward_hook(lambda *_: None)
    with pytest.raises(CompileError, match=r"layer '1' ReLU\(\) has a forward hook"):
        forward_of(model)(ones(1, 3))


def test_a_compiled_step_notices_a_hook_that_comes_later():
    model = network()
    forward = forward_of(model)
    before = forward(ones(1, 3)).numpy()
    handle = model[0].register_forward_hook(lambda module, inputs, output: output * 2.0)
    with pytest.raises(CompileError, match=r"layer '0' Linear.* has a forward hook"):
        forward(ones(1, 3))
    handle.remove()
    numpy.testing.assert_allclose(forward(ones(1, 3)).numpy(), before, rtol=1e-6)


def test_without_strict_a_step_with_hooks_runs_as_it_is():
    model, calls = network(), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    forward = forward_of(model, strict=False)
    for _ in range(2):
        y = forward(ones(1, 3))
    assert calls == [1, 1]
    assert isinstance(y, Tensor)
    assert "forward hook" in str(forward.refusal)
