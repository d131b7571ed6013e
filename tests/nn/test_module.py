"""Module and Sequential: registration, walking, state, and errors that name the layer."""

import numpy
import pytest

import tinyconv
from tinyconv import nn
from tinyconv.tensor import Tensor


class Two(nn.Module):
    """Two linear layers around a weight of its own, in an order that is not the alphabet's."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(2, 3)
        self.scale = nn.Parameter(numpy.ones(3, numpy.float32))
        self.first = nn.Linear(3, 1, bias=False)
        self.register_buffer("seen", numpy.zeros(2))

    def forward(self, x):
        return self.first(self.second(x) * self.scale)


def image(*shape):
    return numpy.ones(shape, numpy.float32)


# Registration -------------------------------------------------------------------------------------


def test_names_come_in_the_order_of_registration():
    # A module's own weights first, then its parts', as PyTorch orders them.
    names = [name for name, _ in Two().named_parameters()]
    assert names == ["scale", "second.weight", "second.bias", "first.weight"]
    names = [name for name, _ in nn.Sequential(Two(), Two()).named_parameters()]
    assert names[:2] == ["0.scale", "0.second.weight"]
    assert [name for name, _ in Two().named_modules()] == ["", "second", "first"]


def test_what_is_assigned_is_registered_once():
    model = Two()
    model.scale = nn.Linear(3, 3)  # a module takes the weight's place
    assert "scale" not in dict(model.named_parameters())
    assert "scale.weight" in dict(model.named_parameters())
    model.scale = nn.Parameter(numpy.ones(3))
    assert "scale.weight" not in dict(model.named_parameters())
    model.scale = 5
    assert "scale" not in dict(model.named_parameters())
    assert model.scale == 5


def test_deleting():
    model = Two()
    del model.first
    del model.scale
    assert [name for name, _ in model.named_parameters()] == ["second.weight", "second.bias"]
    with pytest.raises(AttributeError, match="Two has no attribute 'first'"):
        model.first  # noqa: B018
    with pytest.raises(AttributeError):
        del model.first


def test_unknown_attributes():
    with pytest.raises(AttributeError, match="Linear has no attribute 'weights'"):
        nn.Linear(1, 1).weights  # noqa: B018


def test_assigning_before_init():
    class Hasty(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    with pytest.raises(RuntimeError, match=r"Hasty: call super\(\).__init__\(\) first"):
        Hasty()


def test_buffers_are_arrays_that_stay_buffers():
    model = Two()
    model.seen = numpy.ones(2)
    assert model.state_dict()["seen"].tolist() == [1, 1]
    assert "seen" not in dict(model.named_parameters())
    model.seen = None
    assert "seen" not in model.state_dict()


def test_a_shared_module_comes_once_and_is_saved_under_every_name():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert len(list(model.modules())) == 3
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    state = {key: array + 1 for key, array in model.state_dict().items()}
    model.load_state_dict(state)
    assert numpy.array_equal(shared.weight.numpy(), state["2.weight"])


def test_a_shared_weight_comes_once():
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    assert len(list(model.parameters())) == 1
    model(image(1, 2)).sum().backward()
    assert first.weight.grad is second.weight.grad


# State --------------------------------------------------------------------------------------------


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


KEYS = [
    "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
    "1.num_batches_tracked", "3.weight", "3.bias",
]  # fmt: skip


def test_the_keys_are_pytorchs():
    state = network().state_dict()
    assert list(state) == KEYS
    assert state["1.num_batches_tracked"].dtype == numpy.int64
    assert state["1.num_batches_tracked"].shape == ()
    assert {a.dtype for k, a in state.items() if "num" not in k} == {numpy.dtype("float32")}


def test_the_state_is_a_copy():
    model = network()
    state = model.state_dict()
    state["0.weight"][...] = 9
    assert not (model[0].weight.numpy() == 9).any()
    taken = model.state_dict()["1.running_mean"]
    model(image(2, 1, 4, 4))
    assert not taken.any()


def test_there_and_back(backend):
    a, b = network(), network()
    a(numpy.arange(32, dtype=numpy.float32).reshape(2, 1, 4, 4))
    b.load_state_dict(a.state_dict())
    a.eval(), b.eval()
    assert numpy.array_equal(a(image(2, 1, 4, 4)).numpy(), b(image(2, 1, 4, 4)).numpy())
    assert all(numpy.array_equal(b.state_dict()[k], v) for k, v in a.state_dict().items())


def test_loading_writes_into_the_same_arrays():
    model = network()
    weight = model[0].weight
    data = weight.data
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    assert model[0].weight is weight
    assert weight.data is data


def test_loading_takes_arrays_tensors_and_other_dtypes():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": Tensor(numpy.array([[1.0, 2.0]])), "bias": [3.0]})
    assert layer.weight.numpy().tolist() == [[1, 2]]
    assert layer.weight.dtype == numpy.float32


def test_a_state_that_does_not_fit_lists_the_differences_and_changes_nothing():
    model = network()
    before = model.state_dict()
    state = {k: v + 1 for k, v in before.items()}
    del state["0.bias"]
    state["4.weight"] = numpy.ones(3)
    state["3.weight"] = numpy.ones((2, 9))
    with pytest.raises(ValueError, match="does not fit Sequential") as caught:
        model.load_state_dict(state)
    message = str(caught.value)
    assert "missing: 0.bias" in message
    assert "unexpected: 4.weight" in message
    assert "3.weight: shape (2, 9) found, expected (2, 8)" in message
    assert all(numpy.array_equal(model.state_dict()[k], v) for k, v in before.items())


def test_only_the_first_differences_are_listed():
    with pytest.raises(ValueError, match=r"\(and 8 more\)") as caught:
        network().load_state_dict({f"layer{i}": numpy.ones(1) for i in range(7)})
    assert str(caught.value).count("missing") == 8


def test_loading_without_strict():
    model = network()
    model.load_state_dict({"3.bias": numpy.array([5.0, 6.0]), "other": numpy.ones(1)}, strict=False)
    assert model[3].bias.numpy().tolist() == [5, 6]
    with pytest.raises(ValueError, match=r"3\.bias: shape"):
        model.load_state_dict({"3.bias": numpy.ones(3)}, strict=False)


# Modes and dtypes ---------------------------------------------------------------------------------


def test_train_and_eval_reach_everything():
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(2)))
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert all(m.training for m in model.train().modules())
    assert not any(m.training for m in model.train(False).modules())


def test_astype():
    model = network().astype(numpy.float64)
    dtypes = {k: a.dtype for k, a in model.state_dict().items()}
    assert dtypes.pop("1.num_batches_tracked") == numpy.int64
    assert set(dtypes.values()) == {numpy.dtype("float64")}
    y = model(numpy.ones((2, 1, 4, 4)))
    y.sum().backward()
    assert y.dtype == numpy.float64
    assert {p.grad.dtype for p in model.parameters()} == {numpy.dtype("float64")}
    assert model.astype(numpy.float32)(image(2, 1, 4, 4)).dtype == numpy.float32


def test_freezing():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    assert model[0].requires_grad_(False) is model[0]
    model(image(3, 2)).sum().backward()
    assert model[0].weight.grad is None
    assert model[1].weight.grad is not None
    model[0].requires_grad_()
    model(image(3, 2)).sum().backward()
    assert model[0].weight.grad is not None


def test_zero_grad():
    model = nn.Linear(2, 1)
    model(image(3, 2)).sum().backward()
    model.zero_grad()
    assert model.weight.grad is None
    assert model.bias.grad is None


def test_training_step_works_on_every_backend(backend):
    model = network()
    loss = nn.CrossEntropyLoss()(model(image(4, 1, 4, 4)), numpy.array([0, 1, 0, 1]))
    loss.backward()
    tinyconv.optim.Adam(model.parameters()).step()
    assert {tinyconv.backend.array_module(p.data).__name__ for p in model.parameters()} == {backend}


# Errors name the layer ----------------------------------------------------------------------------


def test_a_shape_error_names_the_path_and_both_shapes():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Conv2d(8, 2, 3)))
    )
    with pytest.raises(tinyconv.ShapeError) as caught:
        model(image(1, 3, 8, 8))
    message = str(caught.value)
    assert message.startswith("layer '1.1.0' Conv2d(8, 2, kernel_size=(3, 3)): ")
    assert "(1, 4, 6, 6)" in message
    assert "(2, 8, 3, 3)" in message


@pytest.mark.parametrize(
    ("layer", "shape", "parts"),
    [
        (nn.Linear(4, 2), (3, 5), ["(3, 5)", "(2, 4)"]),
        (nn.BatchNorm2d(4), (2, 3, 5, 5), ["(2, 3, 5, 5)", "(N, 4, H, W)"]),
        (nn.BatchNorm2d(4), (2, 4), ["(2, 4)", "(N, 4, H, W)"]),
        (nn.BatchNorm1d(4), (2, 3), ["(2, 3)", "(N, 4) or (N, 4, L)"]),
        (nn.MaxPool2d(2), (2, 4), ["(2, 4)", "(N, C, H, W)"]),
        (nn.MaxPool2d(3), (1, 1, 2, 2), ["3 pixels", "2 pixels"]),
        (nn.Conv2d(1, 1, 3), (1, 28, 28), ["(1, 28, 28)", "(N, C, H, W)"]),
    ],
    ids=repr,
)
def test_every_layer_says_what_it_found_and_expected(layer, shape, parts):
    model = nn.Sequential({"first": nn.Identity(), "wrong": layer})
    with pytest.raises(
        tinyconv.ShapeError, match=f"layer 'wrong' {type(layer).__name__}"
    ) as caught:
        model(image(*shape))
    for part in parts:
        assert part in str(caught.value)


def test_a_layer_alone_is_named_without_a_path():
    with pytest.raises(tinyconv.ShapeError, match=r"^Linear\(4, 2\): linear: input has shape"):
        nn.Linear(4, 2)(image(1, 3))


def test_an_error_in_the_modules_own_forward():
    class Wrong(nn.Module):
        def forward(self, x):
            return x @ x

    model = nn.Sequential(nn.Sequential(Wrong()))
    with pytest.raises(tinyconv.ShapeError, match=r"^layer '0\.0' Wrong\(\): matmul: shapes"):
        model(Tensor(image(2, 3)))


def test_a_module_without_forward():
    with pytest.raises(TypeError, match="Module defines no forward"):
        nn.Module()(1)


# Sequential ---------------------------------------------------------------------------------------


def test_sequential():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    model = nn.Sequential(*layers)
    assert len(model) == 3
    assert list(model) == layers
    assert model[0] is layers[0]
    assert model[-1] is layers[2]
    expected = layers[2](layers[1](layers[0](image(4, 2))))
    assert numpy.array_equal(model(image(4, 2)).numpy(), expected.numpy())
    with pytest.raises(IndexError):
        model[3]


def test_slices_keep_their_layers_and_keys():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    part = model[1:]
    assert isinstance(part, nn.Sequential)
    assert part[1] is model[2]
    assert list(part.state_dict()) == ["2.weight", "2.bias"]
    assert len(model[5:]) == 0


def test_sequential_with_names():
    model = nn.Sequential({"features": nn.Linear(2, 3), "head": nn.Linear(3, 1)})
    assert next(iter(model.state_dict())) == "features.weight"
    assert model.head is model[1]


def test_sequential_of_something_else():
    with pytest.raises(TypeError, match=r"item 1 is .*, expected a Module"):
        nn.Sequential(nn.ReLU(), tinyconv.functional.relu)


def test_empty_sequential():
    x = Tensor(image(1))
    assert nn.Sequential()(x) is x


# Printing -----------------------------------------------------------------------------------------


def test_repr():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Sequential(nn.ReLU()))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 8, kernel_size=(3, 3), padding=1, bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Linear(2, 1).weight) == "Parameter(shape=(1, 2), dtype=float32)"
