"""nn.Input and nn.Model: the numbers of the same network written by hand, names, and errors."""

import numpy
import pytest

import tinyconv
from tinyconv import functional as F
from tinyconv import nn, optim
from tinyconv.backend import random_state


def images(count=3, channels=1, size=8):
    rng = numpy.random.default_rng(0)
    return rng.standard_normal((count, channels, size, size), numpy.float32)


def layers():
    return [
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 5),
    ]  # fmt: skip


def chain():
    x = y = nn.Input((1, 8, 8))
    for layer in layers():
        y = layer(y)
    return nn.Model(x, y)


class ByHand(nn.Module):
    """The network of `branches`, written as a module."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.side = nn.Linear(3, 4)
        self.head = nn.Linear(8 * 64, 2)
        self.count = nn.Linear(8 * 64, 1)

    def forward(self, x, extra):
        a = self.stem(x)
        b = self.body(self.body(a)) + a  # the body twice, with one set of weights
        c = 1.0 - b * a * 0.5
        side = F.tanh(self.side(extra))
        both = F.flatten(F.cat([b - c, c], 1), 1)
        return self.head(both), self.count(both), side


def branches():
    x, extra = nn.Input((1, 8, 8)), nn.Input((3,))
    hand = ByHand()
    a = hand.stem(x)
    b = hand.body(hand.body(a)) + a
    c = 1.0 - b * a * 0.5
    side = nn.Tanh()(hand.side(extra))
    both = nn.Flatten()(nn.Concatenate()(b - c, c))
    names = {name: getattr(hand, name) for name in ("stem", "body", "side", "head", "count")}
    return nn.Model([x, extra], [hand.head(both), hand.count(both), side], names)


def gradients(model):
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


# The same numbers ---------------------------------------------------------------------------------


def train(model, wrap):
    tinyconv.manual_seed(3)  # dropout
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @wrap
    def step(x, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    labels = numpy.array([0, 3, 4])
    return [step(images().astype(model.dtype), labels).item() for _ in range(4)]


@pytest.mark.parametrize("wrap", [lambda step: step, tinyconv.compile], ids=["eager", "compiled"])
def test_a_chain_is_the_sequential(wrap):
    model, sequential = chain().astype("float64"), nn.Sequential(*layers()).astype("float64")
    keys = dict(zip(model.state_dict(), sequential.state_dict(), strict=True))
    state = sequential.state_dict()
    model.load_state_dict({ours: state[theirs] for ours, theirs in keys.items()})
    assert train(model, wrap) == train(sequential, wrap)
    for ours, theirs in keys.items():
        assert numpy.array_equal(model.state_dict()[ours], sequential.state_dict()[theirs]), ours
    for ours, theirs in zip(model.parameters(), sequential.parameters(), strict=True):
        assert numpy.array_equal(ours.grad.numpy(), theirs.grad.numpy())


def test_branches_shared_layers_several_inputs_and_outputs():
    model, hand = branches(), ByHand()
    assert list(model.state_dict()) == list(hand.state_dict())
    model.load_state_dict(hand.state_dict())
    extra = numpy.ones((3, 3), numpy.float32)
    ours, theirs = model(images(), extra), hand(images(), extra)
    assert isinstance(ours, tuple)
    for a, b in zip(ours, theirs, strict=True):
        assert numpy.array_equal(a.numpy(), b.numpy())
    for outputs in (ours, theirs):
        sum((y * y).sum() for y in outputs).backward()
    for name, gradient in gradients(hand).items():
        numpy.testing.assert_allclose(gradients(model)[name], gradient, rtol=1e-5, atol=1e-5)


def test_gradients_against_finite_differences():
    model = branches().astype("float64")
    x, extra = images(1).astype("float64"), numpy.ones((1, 3))
    weight = model.body[0].weight

    def loss():
        return sum((y * y).sum() for y in model(x, extra))

    loss().backward()
    for index in [(0, 0, 0, 0), (3, 2, 1, 2)]:
        around = []
        for step in (1e-6, -2e-6):
            weight.data[index] += step
            around.append(loss().item())
        weight.data[index] += 1e-6
        numeric = (around[0] - around[1]) / 2e-6
        assert weight.grad.numpy()[index] == pytest.approx(numeric, rel=1e-6)


def test_a_model_is_a_layer():
    inner = chain()
    x = nn.Input((1, 8, 8))
    outer = nn.Model(x, nn.Linear(5, 2)(nn.Sequential(inner, nn.ReLU())(x) + inner(x)))
    expected = inner.eval()(images())
    expected = outer.linear_1(F.relu(expected) + expected)
    assert numpy.array_equal(outer.eval()(images()).numpy(), expected.numpy())
    assert "model_1.conv2d_1.weight" in outer.state_dict()
    assert "sequential_1.0.conv2d_1.weight" in outer.state_dict()  # as in nn.Sequential: both
    assert len(list(outer.parameters())) == len(list(inner.parameters())) + 2


def test_a_layer_with_several_results_and_settings():
    class Split(nn.Module):
        def forward(self, x, at, flip=False):
            parts = x[:, :at], x[:, at:]
            return parts[::-1] if flip else parts

    x = nn.Input((4, 2, 2))
    first, rest = Split()(x, 1, flip=True)
    assert (first.shape, rest.shape) == ((None, 3, 2, 2), (None, 1, 2, 2))
    model = nn.Model(x, [rest, first])
    given = images(2, 4, 2)
    one, three = model(tinyconv.Tensor(given))
    assert numpy.array_equal(one.numpy(), given[:, :1])
    assert numpy.array_equal(three.numpy(), given[:, 1:])


def test_a_list_of_one_output_stays_a_list():
    x = nn.Input((2,))
    (y,) = nn.Model([x], [nn.ReLU()(x)])(numpy.ones((1, 2), numpy.float32))
    assert y.shape == (1, 2)


def test_parts_of_a_graph_are_models_of_the_same_layers():
    x = nn.Input((1, 8, 8))
    maps = nn.Conv2d(1, 4, 3)(x)
    y = nn.Linear(144, 2)(nn.Flatten()(maps))
    whole, front, back = nn.Model(x, y), nn.Model(x, maps), nn.Model(maps, y)
    assert front.conv2d_1 is whole.conv2d_1
    assert numpy.array_equal(back(front(images())).numpy(), whole(images()).numpy())


def test_a_layer_may_be_replaced():
    model = chain()
    model.linear_1 = nn.Linear(64, 9)
    assert model(images()).shape == (3, 9)


def test_results_are_let_go_when_no_layer_needs_them():
    import weakref

    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            alive.append(sum(ref() is not None for ref in seen))
            y = F.relu(x)
            seen.append(weakref.ref(y))
            return y

    alive = []
    x = y = nn.Input((2,))
    for _ in range(5):
        y = Watch()(y)
    model = nn.Model(x, y)
    seen.clear()
    alive.clear()
    with tinyconv.no_grad():
        model(numpy.ones((1, 2), numpy.float32))
    assert alive == [0, 1, 1, 1, 1]


# Building -----------------------------------------------------------------------------------------


def test_shapes_are_known_while_building():
    x = nn.Input((3, 28, 20))
    assert x.shape == (None, 3, 28, 20)
    y = nn.MaxPool2d(2)(nn.Conv2d(x.shape[1], 6, 5)(x))
    assert y.shape == (None, 6, 12, 8)
    assert (y + 1).shape == y.shape
    assert nn.Concatenate(dim=3)(y, y).shape == (None, 6, 12, 16)
    assert nn.Flatten()(y).shape == (None, 6 * 12 * 8)
    assert repr(y) == (
        "output of MaxPool2d(kernel_size=2, stride=2, padding=0) of shape (N, 6, 12, 8)"
    )
    assert repr(nn.Input((3,), name="age")) == "input 'age' of shape (N, 3)"


def test_building_changes_nothing_of_a_layer():
    parts = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten())
    parts[1].eval()
    before, random = parts.state_dict(), random_state()
    parts(nn.Input((1, 4, 4)))
    assert random_state() == random
    assert [module.training for module in parts.modules()] == [True, True, False, True]
    for key, array in parts.state_dict().items():
        assert numpy.array_equal(array, before[key]), key


def test_building_calls_no_hooks():
    layer, calls = nn.Sequential(nn.ReLU()), []
    for module in layer.modules():
        module.register_forward_hook(lambda *call: calls.append(call))
    x = nn.Input((3,))
    model = nn.Model(x, layer(x))
    assert calls == []
    model(numpy.ones((1, 3), numpy.float32))
    assert len(calls) == 2


def test_building_computes_nothing_where_it_can():
    counts = []

    class Count(nn.Module):
        def forward(self, x):
            counts.append(len(x))
            return F.relu(x)

    class Flat(Count):
        def forward(self, x):
            return super().forward(x).reshape(x.shape[0], -1)

    assert Count()(nn.Input((2, 3))).shape == (None, 2, 3)
    assert counts == [0]
    assert Flat()(nn.Input((2, 3))).shape == (None, 6)  # -1 has no meaning in an empty batch
    assert counts == [0, 0, 1]


def test_float64_layers():
    x = nn.Input((4,))
    layer = nn.Linear(4, 2).astype("float64")
    assert nn.Model(x, layer(x))(numpy.ones((1, 4))).dtype == "float64"


def test_names_depend_on_this_network_alone():
    first, second = chain(), chain()
    assert list(first.state_dict()) == list(second.state_dict())
    assert [name for name, _ in first.named_modules()] == [
        "", "conv2d_1", "batchnorm2d_1", "relu_1", "maxpool2d_1", "flatten_1", "dropout_1",
        "linear_1",
    ]  # fmt: skip


def test_names_that_are_given():
    x = nn.Input((4,))
    first, second, third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    y = third(first(second(x)))
    model = nn.Model(x, y, {"stem": first})
    # Numbers are those of the order of use, whatever names others have.
    assert [name for name, _ in model.named_modules()] == ["", "linear_1", "stem", "linear_3"]
    assert model.stem is first
    with pytest.raises(ValueError, match="two layers have the name 'linear_3'"):
        nn.Model(x, y, {"linear_3": first})
    for bad in ("a.b", "", "training", "forward", "several"):
        with pytest.raises(ValueError, match=f"{bad!r} cannot be the name of a layer"):
            nn.Model(x, y, {bad: first})
    with pytest.raises(ValueError, match=r"names has 'other' for ReLU\(\), which is not in"):
        nn.Model(x, y, {"other": nn.ReLU()})
    with pytest.raises(ValueError, match="names has one layer twice, in a, b"):
        nn.Model(x, y, {"a": first, "b": first})


# Errors -------------------------------------------------------------------------------------------


def test_shapes_that_do_not_fit_name_both_layers():
    pooled = nn.MaxPool2d(2)(nn.Input((3, 8, 8)))
    with pytest.raises(
        tinyconv.ShapeError,
        match=r"^Linear\(100, 10\) cannot take the output of MaxPool2d\(kernel_size=2, .*\) of "
        r"shape \(N, 3, 4, 4\): linear: .* expects \(\.\.\., 100\)",
    ):
        nn.Linear(100, 10)(pooled)
    with pytest.raises(
        tinyconv.ShapeError,
        match=r"^Sequential cannot take the output of MaxPool2d.*: layer '1' Linear\(100, 10\): ",
    ):
        nn.Sequential(nn.Flatten(), nn.Linear(100, 10))(pooled)
    with pytest.raises(
        tinyconv.ShapeError,
        match=r"^Add\(\) cannot take the output of MaxPool2d.* of shape \(N, 3, 4, 4\) and the "
        r"input 'b' of shape \(N, 2, 4, 4\): ",
    ):
        pooled + nn.Input((2, 4, 4), name="b")
    with pytest.raises(tinyconv.ShapeError, match=r"^Concatenate\(dim=1\) cannot take the output"):
        nn.Concatenate()(pooled, nn.Input((3, 4, 5)))


def test_layers_that_do_not_return_images():
    class Loose(nn.Module):
        def forward(self, x):
            return x.sum()

    class Wrong(nn.Module):
        def forward(self, x):
            return x.shape[1]

    with pytest.raises(tinyconv.ShapeError, match=r"Loose\(\) returns shape \(\) for 0 images"):
        Loose()(nn.Input((3,)))
    with pytest.raises(TypeError, match=r"Wrong\(\) returns int, expected a tensor"):
        Wrong()(nn.Input((3,)))


LOOKS = {
    "bool": bool, "float": float, "int": int, "len": len, "list": list,
    "index": lambda y: y[0], "in": lambda y: 3 in y, "array": numpy.asarray,
    "numpy": lambda y: y.numpy(), "item": lambda y: y.item(), "tensor": tinyconv.Tensor,
    "function": F.relu, "cat": lambda y: F.cat([y, y]), "divide": lambda y: y / 2,
    "divide by": lambda y: 1 / y, "minus": lambda y: -y, "power": lambda y: y**2,
    "product": lambda y: y @ y, "less": lambda y: y < 3, "abs": abs,
    "tensor before it": lambda y: tinyconv.Tensor([1.0, 2.0, 3.0]) * y,
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_symbolic_tensors_have_no_values(look):
    y = nn.ReLU()(nn.Input((3,)))
    with pytest.raises(TypeError, match=r"output of ReLU\(\) of shape \(N, 3\) is symbolic and"):
        look(y)


HIDDEN = {
    "list": lambda x, y: nn.Concatenate()([x, y]), "list beside": lambda x, y: nn.Add()([x], y),
    "keyword": lambda x, y: nn.Add()(a=x, b=y), "in a keyword": lambda x, y: nn.Add()(x, b=[y]),
}  # fmt: skip


@pytest.mark.parametrize("call", HIDDEN.values(), ids=HIDDEN)
def test_symbolic_tensors_are_given_one_after_another(call):
    with pytest.raises(TypeError, match=r"^(Add|Concatenate)\(.*\): symbolic .* one after another"):
        call(nn.Input((3,)), nn.Input((3,)))


LOOSE = {
    "parameter": lambda x, p: x * p, "parameter after minus": lambda x, p: x - p,
    "tensor": lambda x, p: x + p * 2.0, "argument": lambda x, p: nn.Multiply()(p, x),
    "keyword": lambda x, p: nn.Multiply()(x, b=p), "list": lambda x, p: nn.Concatenate()(x, [p]),
}  # fmt: skip


@pytest.mark.parametrize("call", LOOSE.values(), ids=LOOSE)
def test_a_weight_needs_a_layer_that_holds_it(call):
    """The model could not list it among its parameters otherwise."""
    with pytest.raises(TypeError, match="a layer has to hold it"):
        call(nn.Input((3,)), nn.Parameter(numpy.ones(3, numpy.float32)))


@pytest.mark.parametrize("shape", [3, (), (None, 3), (0,), (3.0,), "28"])
def test_shapes_of_inputs(shape):
    with pytest.raises(ValueError, match=r"Input: shape .* found, expected sizes"):
        nn.Input(shape)


def test_graphs_that_cannot_be():
    x, other = nn.Input((3,), name="photo"), nn.Input((3,), name="age")
    y = nn.ReLU()(x) + nn.Tanh()(other)
    with pytest.raises(ValueError, match=r"input 'age' .*, which Tanh\(\) needs, is not among"):
        nn.Model(x, y)
    with pytest.raises(ValueError, match=r"input 'photo' .*, which an output needs, is not among"):
        nn.Model(other, x)
    with pytest.raises(ValueError, match=r"'age' .* is among the inputs, but no output depends"):
        nn.Model([x, other], nn.ReLU()(x))
    with pytest.raises(ValueError, match=r"'photo' of shape .* is given twice"):
        nn.Model([x, x], nn.ReLU()(x))
    with pytest.raises(TypeError, match="outputs has Tensor, expected symbolic tensors"):
        nn.Model(x, nn.ReLU()(numpy.ones((1, 3), numpy.float32)))
    with pytest.raises(TypeError, match="inputs has int, expected symbolic tensors"):
        nn.Model(3, y)
    with pytest.raises(ValueError, match="outputs is empty"):
        nn.Model(x, [])


def test_there_are_no_cycles():
    """A layer that takes its own result is a second call of it, after the first."""
    x = nn.Input((3,))
    layer = nn.Linear(3, 3)
    y = layer(layer(x))
    model = nn.Model(x, y)
    before = repr(model), model(images(2, 1, 3)[:, 0, 0]).numpy()
    assert repr(model).count("Linear") == 1
    y = layer(y)  # what is built on afterwards does not change the model
    assert numpy.array_equal(model(images(2, 1, 3)[:, 0, 0]).numpy(), before[1])
    longer = nn.Model(x, y)
    expected = layer(model(images(2, 1, 3)[:, 0, 0]))
    assert numpy.array_equal(longer(images(2, 1, 3)[:, 0, 0]).numpy(), expected.numpy())


def test_the_number_of_inputs():
    model = branches()
    with pytest.raises(TypeError, match=r"1 inputs found, expected 2, of .* \(N, 1, 8, 8\), \(N"):
        model(images())
    with pytest.raises(TypeError, match="Model: 2 inputs found, expected 1"):
        chain()(nn.Input((1, 8, 8)), nn.Input((1, 8, 8)))


def test_the_shapes_of_inputs_are_those_of_the_model():
    x, age = nn.Input((1, 8, 8)), nn.Input((3,), name="age")
    model = nn.Model([x, age], nn.Concatenate()(nn.Flatten()(x), age))
    right = numpy.ones((2, 3), numpy.float32)
    assert model(images(2), right).shape == (2, 67)
    for wrong in (images(2, 1, 10), images(2, 3), images(2)[0], numpy.float32(1)):
        with pytest.raises(tinyconv.ShapeError) as caught:
            model(wrong, right)
        assert str(caught.value) == (
            f"Model: shape {wrong.shape} found for the input of shape (N, 1, 8, 8)"
        )
    with pytest.raises(tinyconv.ShapeError, match=r"\(2, 4\) found for the input 'age' of shape"):
        model(images(2), numpy.ones((2, 4), numpy.float32))
    with pytest.raises(tinyconv.ShapeError, match=r"^Model cannot take .* \(N, 1, 9, 9\).*: shape"):
        model(nn.Input((1, 9, 9)), age)


def test_errors_while_running_name_the_layer():
    model = chain()
    model.linear_1 = nn.Linear(60, 5)
    with pytest.raises(tinyconv.ShapeError, match=r"^layer 'linear_1' Linear\(60, 5\): "):
        model(images())
