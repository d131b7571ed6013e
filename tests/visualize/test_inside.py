"""Maps against the layers run by hand, gradients against finite differences and closed forms."""

import numpy as np
import pytest

from tinyconv import Tensor, nn, no_grad
from tinyconv.errors import ShapeError
from tinyconv.models.catdog_wide import Repeat
from tinyconv.testing import relative_error
from tinyconv.visualize import feature_maps, grad_cam, input_gradient


def network(channels=3, activation=nn.Tanh):
    """For (N, channels, 8, 8), 3 classes, float64, smooth; its batch norm has moved already."""
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        activation(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 5, 2),
        nn.BatchNorm2d(5),
        activation(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(20, 3),
    ).astype(np.float64)
    model(photos(6, channels))
    return model


def photos(count=2, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, channels, 8, 8))


def by_hand(layers, x):
    """The output of each layer in turn."""
    outputs = []
    with no_grad():
        for layer in layers:
            x = layer(x)
            outputs.append(x.numpy())
    return outputs


def differences(function, x, step=1e-5):
    """d function(x)[n] / d x[n, ...] by central differences; image n depends on image n only."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape[1:]):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[(slice(None), *index)] += sign * step
            values.append(function(moved))
        gradient[(slice(None), *index)] = (values[0] - values[1]) / (2 * step)
    return gradient


def state(model):
    """All that looking must not change."""
    return (
        {name: array.tolist() for name, array in model.state_dict().items()},
        [module.training for module in model.modules()],
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [len(module._forward_hooks) for module in model.modules()],
    )


# Feature maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_are_the_layers_outputs(channels):
    model, x = network(channels), photos(channels=channels)
    maps = feature_maps(model, x)
    assert list(maps) == ["0", "4"]
    every = feature_maps(model, Tensor(x), "*")
    expected = by_hand(model.eval(), x)
    assert list(every) == [str(i) for i in range(10)]
    for i, output in enumerate(expected):
        np.testing.assert_array_equal(every[str(i)], output)
    np.testing.assert_array_equal(maps["4"], expected[4])


def test_a_layer_that_is_applied_several_times_has_several_entries():
    block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
    model = nn.Sequential(Repeat(block, 3), nn.Flatten())
    x = photos().astype(np.float32)
    maps = feature_maps(model, x)
    assert list(maps) == ["0.block.0", "0.block.0#2", "0.block.0#3"]
    expected = by_hand([*block, *block, *block], x)
    for found, output in zip(maps.values(), expected[::2], strict=True):
        np.testing.assert_array_equal(found, output)
    assert list(feature_maps(model, x, "0.block*"))[:4] == [
        "0.block.0", "0.block.1", "0.block", "0.block.0#2",
    ]  # fmt: skip


def test_functional_networks_with_branches_and_shared_layers():
    x = nn.Input((3, 8, 8))
    shared, other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
    y = shared(shared(x)) + other(x)
    model = nn.Model(x, nn.Linear(192, 2)(nn.Flatten()(y)))
    images = photos().astype(np.float32)
    maps = feature_maps(model, images)
    once, twice = by_hand([shared, shared], images)
    assert list(maps) == ["conv2d_1", "conv2d_1#2", "conv2d_2"]
    np.testing.assert_array_equal(maps["conv2d_1"], once)
    np.testing.assert_array_equal(maps["conv2d_1#2"], twice)
    np.testing.assert_array_equal(maps["conv2d_2"], by_hand([other], images)[0])


def test_layers_in_the_order_of_the_network():
    assert list(feature_maps(network(), photos(), ["4", "2"])) == ["2", "4"]


def test_unknown_layers_are_named():
    with pytest.raises(ValueError, match=r"'conv' found, expected some of 0, 1, 2, .*, 9$"):
        feature_maps(network(), photos(), ["0", "conv"])
    many = nn.Sequential(*(nn.ReLU() for _ in range(50)))
    with pytest.raises(ValueError, match=r"38, 39 and 10 more$"):
        feature_maps(many, photos(), "conv")


class Lazy(nn.Module):
    """Has a layer that it does not use."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.used(x).mean((2, 3))


def test_layers_that_are_not_used_give_nothing():
    x = photos().astype(np.float32)
    assert list(feature_maps(Lazy(), x)) == ["used"]
    with pytest.raises(ValueError, match="has spare, and does not use it"):
        feature_maps(Lazy(), x, "spare")


# Gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target", [None, 0, 2])
def test_input_gradient(channels, target):
    model, x = network(channels), photos(channels=channels)
    found = input_gradient(model, x, target)
    model.eval()
    scores = model(x).numpy()
    classes = scores.argmax(axis=1) if target is None else [target, target]
    expected = differences(lambda moved: model(moved).numpy()[[0, 1], classes], x)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("layer", ["0", "3", "6"])
def test_grad_cam_is_its_formula(layer):
    model, x = network(), photos()
    found = grad_cam(model, x, target=1, layer=layer)
    model.eval()
    first, rest = model[: int(layer) + 1], model[int(layer) + 1 :]
    maps = first(x).numpy()
    weights = differences(lambda moved: rest(moved).numpy()[:, 1], maps).mean(axis=(2, 3))
    expected = np.maximum(np.einsum("nk,nkij->nij", weights, maps), 0)
    assert expected.any()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_grad_cam_of_global_average_pooling_is_cam():
    """Zhou et al., 2016: there, a_k is the class's weight for map k, divided by the pixels."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).astype(np.float64)
    x = photos()
    maps = feature_maps(model, x, "1")["1"]
    weights = model[4].weight.numpy()[model(x).numpy().argmax(axis=1)] / 36
    expected = np.maximum(np.einsum("nk,nkij->nij", weights, maps), 0)
    np.testing.assert_allclose(grad_cam(model, x), expected, rtol=1e-12)


def test_grad_cam_takes_the_last_convolution_with_its_activation():
    model, x = network(), photos()
    np.testing.assert_array_equal(grad_cam(model, x), grad_cam(model, x, layer="6"))
    assert grad_cam(model, x).shape == (2, 2, 2)
    assert grad_cam(model, x, layer="0").shape == (2, 6, 6)
    one_pixel = [nn.Conv2d(5, 3, 2).astype(np.float64), nn.Flatten()]  # tells no places apart
    model = nn.Sequential(*model[:7], *one_pixel)
    np.testing.assert_array_equal(grad_cam(model, x), grad_cam(model, x, layer="6"))


def test_grad_cam_takes_the_last_application():
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]  # the class is a mean of a map
    x = photos().astype(np.float32)
    found = grad_cam(nn.Sequential(Repeat(convolution, 2), *head), x, 2, "0.block")
    expected = np.maximum(by_hand([convolution, convolution], x)[1][:, 2] / 64, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_layer_beside_the_way_to_the_class_says_nothing_of_it():
    class Beside(Lazy):
        def forward(self, x):
            self.spare(x)
            return super().forward(x)

    x = photos().astype(np.float32)
    assert not grad_cam(Beside(), x, layer="spare").any()


@pytest.mark.parametrize("look", [input_gradient, grad_cam])
def test_float32_and_its_kernels_give_the_same(look):
    """The kernels are asked for the gradient of the images alone, which no training step wants."""
    model, x = network(activation=nn.ReLU), photos()
    expected = look(model, x, 0)
    found = look(model.astype(np.float32), x.astype(np.float32), 0)
    assert found.dtype == np.float32
    assert relative_error(found, expected) < 1e-5


def test_bad_questions():
    model, x = network(), photos()
    with pytest.raises(ValueError, match="target: 3 found, expected a class from 0 to 2"):
        input_gradient(model, x, 3)
    with pytest.raises(ValueError, match="target: -1 found"):
        grad_cam(model, x, -1)
    with pytest.raises(ShapeError, match=r"layer '9' gives \(2, 3\), expected \(N, C, H, W\)"):
        grad_cam(model, x, layer="9")
    with pytest.raises(ValueError, match="no convolution gives maps of more"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), x.astype(np.float32))
    with pytest.raises(ShapeError, match=r"gives \(2, 4, 6, 6\), expected one tensor"):
        input_gradient(model[:3], x)
    with pytest.raises(TypeError, match="only floats have gradients, found uint8"):
        input_gradient(model, x.astype(np.uint8))


# Without a trace ----------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [feature_maps, input_gradient, grad_cam])
def test_the_network_stays_as_it_was(look):
    model = network()
    model[1].eval()
    model[0].requires_grad_(False)
    before = state(model)
    assert before[1][0]
    assert not before[1][2]
    look(model, photos())
    assert state(model) == before
    with pytest.raises(ShapeError, match="expects 3"):
        look(model, photos(channels=2))
    assert state(model) == before
