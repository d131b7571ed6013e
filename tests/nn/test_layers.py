"""Every layer does what its function does, with PyTorch's arguments, defaults and first weights."""

import inspect
import math

import numpy
import pytest

import tinyconv
import tinyconv.functional as F
from tinyconv import nn
from tinyconv.tensor import Tensor

X = numpy.sin(numpy.arange(1.0, 2 * 4 * 6 * 5 + 1) ** 2).reshape(2, 4, 6, 5).astype(numpy.float32)
ROWS = X[:, :, 0, 0]
LABELS = numpy.array([3, 1])
COLUMNS = X.reshape(2, 12, 10)

# (layer, its input, the function of it, repr)
LAYERS = [
    (nn.ReLU(), X, F.relu, "ReLU()"),
    (nn.ReLU6(), X, F.relu6, "ReLU6()"),
    (nn.LeakyReLU(), X, F.leaky_relu, "LeakyReLU(negative_slope=0.01)"),
    (nn.LeakyReLU(0.2), X, lambda x: F.leaky_relu(x, 0.2), "LeakyReLU(negative_slope=0.2)"),
    (nn.Tanh(), X, F.tanh, "Tanh()"),
    (nn.Sigmoid(), X, F.sigmoid, "Sigmoid()"),
    (nn.Softmax(1), X, lambda x: F.softmax(x, 1), "Softmax(dim=1)"),
    (nn.LogSoftmax(dim=-1), X, lambda x: F.log_softmax(x, -1), "LogSoftmax(dim=-1)"),
    (
        nn.MaxPool2d(2), X, lambda x: F.max_pool2d(x, 2),
        "MaxPool2d(kernel_size=2, stride=2, padding=0)",
    ),
    (
        nn.MaxPool2d(3, 2, 1, 1, True), X, lambda x: F.max_pool2d(x, 3, 2, 1, 1, True),
        "MaxPool2d(kernel_size=3, stride=2, padding=1)",
    ),
    (
        nn.AvgPool2d(3, (2, 1), 1, True, False), X,
        lambda x: F.avg_pool2d(x, 3, (2, 1), 1, True, False),
        "AvgPool2d(kernel_size=3, stride=(2, 1), padding=1)",
    ),
    (
        nn.AvgPool2d((2, 3), divisor_override=4), X,
        lambda x: F.avg_pool2d(x, (2, 3), divisor_override=4),
        "AvgPool2d(kernel_size=(2, 3), stride=(2, 3), padding=0)",
    ),
    (
        nn.AdaptiveAvgPool2d((3, 2)), X, lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        "AdaptiveAvgPool2d(output_size=(3, 2))",
    ),
    (nn.Flatten(), X, lambda x: F.flatten(x, 1), None),
    (nn.Flatten(2, 3), X, lambda x: F.flatten(x, 2, 3), None),
    (nn.Unfold(2, 1, 0, 2), X, lambda x: F.unfold(x, 2, 1, 0, 2), None),
    (nn.Fold((3, 6), 2), COLUMNS, lambda x: F.fold(x, (3, 6), 2), None),
    (nn.Dropout(0.3).eval(), X, lambda x: x, "Dropout(p=0.3)"),
    (nn.CrossEntropyLoss(), (ROWS, LABELS), F.cross_entropy, "CrossEntropyLoss()"),
    (
        nn.CrossEntropyLoss(
            numpy.arange(1.0, 5), ignore_index=3, reduction="sum", label_smoothing=0.1
        ),
        (ROWS, LABELS),
        lambda x, t: F.cross_entropy(
            x, t, numpy.arange(1.0, 5), ignore_index=3, reduction="sum", label_smoothing=0.1
        ),
        None,
    ),
    (
        nn.NLLLoss(numpy.arange(1.0, 5), ignore_index=3, reduction="none"), (ROWS, LABELS),
        lambda x, t: F.nll_loss(x, t, numpy.arange(1.0, 5), ignore_index=3, reduction="none"), None,
    ),
    (
        nn.BCEWithLogitsLoss(
            numpy.ones(4) / 2, reduction="sum", pos_weight=numpy.arange(1.0, 5)
        ),
        (ROWS, numpy.abs(ROWS)),
        lambda x, t: F.binary_cross_entropy_with_logits(
            x, t, numpy.ones(4) / 2, reduction="sum", pos_weight=numpy.arange(1.0, 5)
        ),
        None,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "inputs", "function", "text"), LAYERS, ids=lambda v: None)
def test_layer_is_its_function(layer, inputs, function, text):
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    found, expected = layer(*inputs), function(*inputs)
    assert numpy.array_equal(tinyconv.to_numpy(found), tinyconv.to_numpy(expected))
    assert found.dtype == numpy.float32
    assert text is None or repr(layer) == text


def test_every_layer_is_public():
    found = set()
    waiting = [nn.Module]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found |= {c.__name__ for c in subclasses if c.__module__.startswith("tinyconv.nn")}
    public = {name for name in found if not name.startswith("_")}
    others = {"Input", "Module", "Parameter", "SymbolicTensor"}
    assert public | others == set(nn.__all__)


# The arguments of PyTorch's classes, in its order (torch.nn 2.x).
PYTORCH = {
    nn.Conv2d: "in_channels out_channels kernel_size stride padding dilation groups bias",
    nn.Linear: "in_features out_features bias",
    nn.MaxPool2d: "kernel_size stride padding dilation",
    nn.AvgPool2d: "kernel_size stride padding ceil_mode count_include_pad divisor_override",
    nn.AdaptiveAvgPool2d: "output_size",
    nn.BatchNorm2d: "num_features eps momentum affine track_running_stats",
    nn.Dropout: "p",
    nn.Flatten: "start_dim end_dim",
    nn.LeakyReLU: "negative_slope",
    nn.Softmax: "dim",
    nn.Unfold: "kernel_size dilation padding stride",
    nn.Fold: "output_size kernel_size dilation padding stride",
}


@pytest.mark.parametrize("layer", PYTORCH)
def test_arguments_come_in_pytorchs_order(layer):
    names = list(inspect.signature(layer).parameters)
    expected = PYTORCH[layer].split()
    assert names[: len(expected)] == expected


# Layers with weights ------------------------------------------------------------------------------


def test_conv2d():
    layer = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=2)
    assert layer.weight.shape == (6, 2, 3, 2)
    assert layer.bias.shape == (6,)
    expected = F.conv2d(X, layer.weight, layer.bias, 2, 1, (1, 2), 2)
    assert numpy.array_equal(layer(X).numpy(), expected.numpy())
    assert repr(layer) == (
        "Conv2d(4, 6, kernel_size=(3, 2), stride=2, padding=1, dilation=(1, 2), groups=2)"
    )
    assert nn.Conv2d(4, 4, 3, padding="same")(X).shape == X.shape


def test_conv2d_without_bias():
    layer = nn.Conv2d(4, 3, 3, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert repr(layer) == "Conv2d(4, 3, kernel_size=(3, 3), bias=False)"
    assert layer(X).shape == (2, 3, 4, 3)


def test_conv2d_with_groups_that_do_not_divide():
    for channels in ((3, 4), (4, 3)):
        with pytest.raises(ValueError, match="groups: 2 does not divide"):
            nn.Conv2d(*channels, 3, groups=2)
    with pytest.raises(ValueError, match="kernel_size: 0 found"):
        nn.Conv2d(1, 1, 0)


def test_linear():
    layer = nn.Linear(5, 3)
    expected = X @ layer.weight.numpy().T + layer.bias.numpy()
    assert numpy.allclose(layer(X).numpy(), expected, rtol=1e-6, atol=1e-6)
    assert repr(layer) == "Linear(5, 3)"
    assert repr(nn.Linear(5, 3, bias=False)) == "Linear(5, 3, bias=False)"
    assert list(nn.Linear(5, 3, bias=False).state_dict()) == ["weight"]


def test_dropout_in_training_only():
    layer = nn.Dropout(0.5)
    assert (layer(X).numpy() == 0).any()
    assert layer.eval()(Tensor(X)).numpy() is X
    with pytest.raises(ValueError, match="p: 2 found"):
        nn.Dropout(2)


# First weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Linear(400, 300), 400),
        (lambda: nn.Conv2d(32, 64, 3), 32 * 9),
        (lambda: nn.Conv2d(32, 64, (5, 1), groups=4), 8 * 5),
    ],
)
def test_first_weights_are_uniform_by_fan_in(layer, fan_in):
    layer, bound = layer(), 1 / math.sqrt(fan_in)
    for parameter in layer.parameters():
        assert parameter.dtype == numpy.float32
        assert parameter.requires_grad
        values = parameter.numpy().astype(numpy.float64)
        assert numpy.abs(values).max() <= bound
        n = values.size
        assert abs(values.mean()) < 5 * bound / math.sqrt(3 * n)
        # uniform: variance bound^2 / 3, the variance of the squares 4/45 bound^4
        assert abs((values**2).mean() - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45 / n)
    assert len(numpy.unique(layer.weight.numpy())) > 0.9 * layer.weight.data.size


def test_a_seed_gives_the_same_weights(backend):
    tinyconv.manual_seed(8)
    first = nn.Conv2d(3, 4, 3).state_dict()
    tinyconv.manual_seed(8)
    second = nn.Conv2d(3, 4, 3).state_dict()
    assert all(numpy.array_equal(first[key], second[key]) for key in first)
    assert not numpy.array_equal(first["weight"], nn.Conv2d(3, 4, 3).state_dict()["weight"])
    tinyconv.use_backend("numpy")
    tinyconv.manual_seed(8)
    assert numpy.array_equal(nn.Conv2d(3, 4, 3).state_dict()["weight"], first["weight"])


# Batch normalisation ------------------------------------------------------------------------------


def test_batch_norm_starts_as_it_should():
    layer = nn.BatchNorm2d(3)
    state = {key: array.tolist() for key, array in layer.state_dict().items()}
    assert state == {
        "weight": [1, 1, 1], "bias": [0, 0, 0], "running_mean": [0, 0, 0],
        "running_var": [1, 1, 1], "num_batches_tracked": 0,
    }  # fmt: skip
    assert repr(layer) == "BatchNorm2d(3, eps=1e-05, momentum=0.1)"


def test_batch_norm_moves_its_statistics_in_training_only(backend):
    layer = nn.BatchNorm2d(4)
    layer(X)
    state = layer.state_dict()
    assert state["num_batches_tracked"] == 1
    mean, var = X.mean(axis=(0, 2, 3)), X.var(axis=(0, 2, 3), ddof=1)
    assert numpy.allclose(state["running_mean"], 0.1 * mean, rtol=1e-5, atol=1e-7)
    assert numpy.allclose(state["running_var"], 0.9 + 0.1 * var, rtol=1e-6)
    layer.eval()
    y = layer(X).numpy()
    assert all(numpy.array_equal(layer.state_dict()[key], state[key]) for key in state)
    m, v = (state[k].reshape(1, 4, 1, 1) for k in ("running_mean", "running_var"))
    assert numpy.allclose(y, (X - m) / numpy.sqrt(v + 1e-5), rtol=1e-5, atol=1e-6)


def test_momentum_none_is_the_mean_of_all_batches():
    layer = nn.BatchNorm2d(4, momentum=None)
    means, variances = [], []
    for i in range(5):
        batch = X * i + i
        layer(batch)
        means.append(batch.mean(axis=(0, 2, 3)))
        variances.append(batch.var(axis=(0, 2, 3), ddof=1))
    assert numpy.allclose(layer.running_mean, numpy.mean(means, axis=0), rtol=1e-5)
    assert numpy.allclose(layer.running_var, numpy.mean(variances, axis=0), rtol=1e-5)


def test_batch_norm_without_statistics_always_uses_the_batch():
    layer = nn.BatchNorm2d(4, track_running_stats=False, affine=False).eval()
    assert layer.state_dict() == {}
    assert numpy.abs(layer(X).numpy().mean(axis=(0, 2, 3))).max() < 1e-6
    assert layer.num_batches_tracked is None


def test_batch_norm_of_rows_and_sequences():
    layer = nn.BatchNorm1d(4)
    assert (
        numpy.abs(layer(X[:, :, 0].transpose(0, 2, 1).reshape(10, 4)).numpy().mean(axis=0)).max()
        < 1e-6
    )
    assert layer(X[:, :, :, 0]).shape == (2, 4, 6)
    with pytest.raises(ValueError, match="one value per channel"):
        layer(ROWS[:1])


def test_a_class_weight_is_not_lost_in_the_state():
    loss = nn.CrossEntropyLoss(weight=[1.0, 2.0])
    assert loss.state_dict()["weight"].tolist() == [1, 2]
    assert list(loss.parameters()) == []
