"""Layers and networks: outputs, gradients, statistics, initial weights, state dictionaries."""

import collections

import numpy as np
import pytest

import tinyconv
import tinyconv.functional as F
from tinyconv import Tensor, nn

torch = pytest.importorskip("torch")

from .compare import drawn, torch_tensor  # noqa: E402

# Each is made of tinyconv.nn and of torch.nn.
LAYERS = {
    "Conv2d": (lambda nn: nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    "Conv2d all": (
        lambda nn: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2, False), (2, 4, 9, 8)),
    "Conv2d same": (lambda nn: nn.Conv2d(2, 3, 3, padding="same"), (2, 2, 5, 5)),
    "Linear": (lambda nn: nn.Linear(5, 3), (4, 5)),
    "Linear no bias": (lambda nn: nn.Linear(5, 3, bias=False), (2, 4, 5)),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(3), (4, 3, 5, 5)),
    "BatchNorm2d momentum": (lambda nn: nn.BatchNorm2d(3, 1e-3, 0.3), (4, 3, 5, 5)),
    "BatchNorm2d cumulative": (lambda nn: nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 5)),
    "BatchNorm2d not affine": (lambda nn: nn.BatchNorm2d(3, affine=False), (4, 3, 5, 5)),
    "BatchNorm2d not tracked": (
        lambda nn: nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 5, 5)),
    "BatchNorm1d": (lambda nn: nn.BatchNorm1d(3), (6, 3)),
    "BatchNorm1d of sequences": (lambda nn: nn.BatchNorm1d(3), (6, 3, 4)),
    "MaxPool2d": (lambda nn: nn.MaxPool2d(2), (2, 3, 7, 6)),
    "MaxPool2d all": (lambda nn: nn.MaxPool2d((3, 2), 2, 1, (1, 2), ceil_mode=True), (2, 3, 7, 6)),
    "AvgPool2d": (lambda nn: nn.AvgPool2d(2), (2, 3, 7, 6)),
    "AvgPool2d all": (lambda nn: nn.AvgPool2d(3, 2, 1, True, False), (2, 3, 7, 6)),
    "AvgPool2d divisor": (lambda nn: nn.AvgPool2d(3, divisor_override=2), (2, 3, 7, 6)),
    "AdaptiveAvgPool2d": (lambda nn: nn.AdaptiveAvgPool2d((3, 2)), (2, 3, 7, 6)),
    "ReLU": (lambda nn: nn.ReLU(), (4, 5)),
    "ReLU6": (lambda nn: nn.ReLU6(), (4, 5)),
    "LeakyReLU": (lambda nn: nn.LeakyReLU(), (4, 5)),
    "LeakyReLU slope": (lambda nn: nn.LeakyReLU(0.2), (4, 5)),
    "Tanh": (lambda nn: nn.Tanh(), (4, 5)),
    "Sigmoid": (lambda nn: nn.Sigmoid(), (4, 5)),
    "Softmax": (lambda nn: nn.Softmax(1), (4, 5)),
    "LogSoftmax": (lambda nn: nn.LogSoftmax(dim=0), (4, 5)),
    "Flatten": (lambda nn: nn.Flatten(), (2, 3, 4, 5)),
    "Flatten some": (lambda nn: nn.Flatten(2, 3), (2, 3, 4, 5)),
    "Identity": (lambda nn: nn.Identity(), (2, 3)),
    "Unfold": (lambda nn: nn.Unfold(2, 1, 1, 2), (2, 3, 5, 6)),
    "Fold": (lambda nn: nn.Fold((5, 6), 2, 1, 1, 2), (2, 12, 12)),
    "Dropout 0": (lambda nn: nn.Dropout(0.0), (2, 3)),
}  # fmt: skip


def pair_of(make, dtype):
    """The same network twice, with PyTorch's weights."""
    theirs = make(torch.nn).to(getattr(torch, dtype))
    ours = make(nn).astype(dtype)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def check_state(parity, ours, theirs):
    expected = theirs.state_dict()
    found = ours.state_dict()
    assert list(found) == list(expected)
    for key, value in expected.items():
        parity.equal(found[key], value, key.rpartition(".")[2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(parity, name, dtype):
    make, shape = LAYERS[name]
    ours, theirs = pair_of(make, dtype)
    rng = np.random.default_rng(0)
    for training in (True, True, True, False):  # three batches move the running statistics
        x, weights = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        tensor, reference = Tensor(x, requires_grad=True), torch_tensor(x, requires_grad=True)
        ours.train(training), theirs.train(training)
        y, expected = ours(tensor), theirs(reference)
        parity.equal(y, expected, "output")
        gy = np.resize(weights, y.shape)
        ours.zero_grad(), theirs.zero_grad()
        y.backward(gy)
        expected.backward(torch.from_numpy(gy))
        parity.equal(tensor.grad, reference.grad, "gradient")
        for (key, p), (expected_key, q) in zip(
            ours.named_parameters(), theirs.named_parameters(), strict=True
        ):
            assert key == expected_key
            parity.equal(p.grad, q.grad, "gradient")
        check_state(parity, ours, theirs)


def drawn_network(draw):
    """Up to 4 blocks of convolution, batch norm, activation and pooling, then a linear layer."""
    C, side, calls = 3, 16, []
    for _ in range(draw.integer(1, 4)):
        O, k, stride = 2 * draw.integer(1, 3), draw.integer(1, 3), draw.integer(1, 2)
        block = [
            ("Conv2d", (C, O, k, stride, k // 2, 1, 1, draw.chance(0.5))),
            ("BatchNorm2d", (O,)),
            (draw.one_of("ReLU", "ReLU6", "Tanh", "Sigmoid", "LeakyReLU"), ()),
        ]
        side = (side + 2 * (k // 2) - k) // stride + 1
        if side >= 2 and draw.chance(0.5):
            block.append((draw.one_of("MaxPool2d", "AvgPool2d"), (2, 1)))
            side -= 1
        order = draw.rng.permutation(len(block) - 1) + 1  # what follows the convolution, shuffled
        calls += [block[0], *(block[i] for i in order)]
        C = O
    head = [("AdaptiveAvgPool2d", (2,)), ("Flatten", ()), ("Linear", (4 * C, 3))]
    return lambda nn: nn.Sequential(*(getattr(nn, name)(*a) for name, a in (*calls, *head)))


@drawn(40)
def test_drawn_networks(parity, draw):
    """A loss, the gradients of all weights and of the images, and the running statistics."""
    ours, theirs = pair_of(drawn_network(draw), "float64")
    images, labels = draw.normal(4, 3, 16, 16), draw.rng.integers(0, 3, 4)
    parity.check(
        lambda x: F.cross_entropy(ours(x), labels),
        lambda x: torch.nn.functional.cross_entropy(theirs(x), torch.from_numpy(labels)),
        images,
        dtypes=["float64"],
    )
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        parity.equal(p.grad, q.grad, "weight's gradient")
    check_state(parity, ours, theirs)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dropout_in_evaluation(parity, dtype):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)
    ours, theirs = pair_of(lambda nn: nn.Dropout(0.7), dtype)
    parity.equal(ours.eval()(x), theirs.eval()(torch.from_numpy(x)))


LOSSES = {
    "CrossEntropyLoss": lambda nn, a: nn.CrossEntropyLoss(
        a, ignore_index=1, reduction="sum", label_smoothing=0.2
    ),
    "CrossEntropyLoss plain": lambda nn, a: nn.CrossEntropyLoss(),
    "NLLLoss": lambda nn, a: nn.NLLLoss(a, ignore_index=1, reduction="none"),
    "NLLLoss plain": lambda nn, a: nn.NLLLoss(),
    "BCEWithLogitsLoss": lambda nn, a: nn.BCEWithLogitsLoss(a, pos_weight=a, reduction="sum"),
    "BCEWithLogitsLoss plain": lambda nn, a: nn.BCEWithLogitsLoss(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss(parity, name):
    weight = np.array([0.5, 1.0, 2.0])
    ours, reference = LOSSES[name](nn, weight), LOSSES[name](torch.nn, torch.from_numpy(weight))
    target = np.array([0, 1, 2, 2])
    if name.startswith("BCE"):
        target = np.random.default_rng(1).random((4, 3))
    x = np.random.default_rng(0).standard_normal((4, 3))
    parity.check(
        lambda x: ours(x, target),
        lambda x: reference(x, torch.from_numpy(target)),
        x,
        dtypes=["float64"],
    )
    check_state(parity, ours, reference)


# State dictionaries -------------------------------------------------------------------------------


def shared(nn):
    """One layer under two names, one inside of another module, and one without a bias."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU())
            self.again = self.first[1]
            self.head = nn.Sequential(
                collections.OrderedDict(flat=nn.Flatten(), out=nn.Linear(18, 2), act=nn.Tanh())
            )
            self.scale = nn.Parameter(torch.ones(3) if nn is torch.nn else np.ones(3, np.float32))

        def forward(self, x):
            return self.head(self.again(self.first(x)))

    return Network()


NETWORKS = {
    "shared": shared,
    "nested": lambda nn: nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(nn.BatchNorm2d(3, momentum=None))),
        nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, track_running_stats=False),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.1),
        nn.Linear(4, 2, bias=False),
    ),
    "loss inside": lambda nn: nn.Sequential(nn.Linear(25, 2), nn.CrossEntropyLoss()),
}  # fmt: skip


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_state_dicts_are_exchangeable(parity, make):
    theirs, ours = make(torch.nn), make(nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    # Theirs into ours, as NumPy arrays and as they are.
    rng = np.random.default_rng(0)
    for convert in (lambda value: value.numpy(), lambda value: value):
        for value in theirs.state_dict().values():
            value.copy_(torch.from_numpy(np.asarray(rng.random(value.shape) * 9)))
        ours.load_state_dict({key: convert(value) for key, value in theirs.state_dict().items()})
        check_state(parity, ours, theirs)
    # Ours into theirs.
    for value in ours.state_dict().values():
        value[...] = rng.random(value.shape)
    ours = make(nn)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    check_state(parity, ours, theirs)


def test_after_the_exchange_the_outputs_agree(parity):
    ours, theirs = pair_of(shared, "float64")
    x = np.random.default_rng(0).standard_normal((4, 1, 5, 5))
    parity.equal(ours(x), theirs(torch.from_numpy(x)))
    check_state(parity, ours, theirs)
    parity.equal(ours.eval()(x), theirs.eval()(torch.from_numpy(x)))


# Initial weights ----------------------------------------------------------------------------------

INITIAL = {
    "Linear": (lambda nn: nn.Linear(400, 300), 400),
    "Conv2d": (lambda nn: nn.Conv2d(32, 64, 5), 32 * 25),
    "Conv2d in groups": (lambda nn: nn.Conv2d(64, 256, (3, 5), groups=4), 16 * 15),
}


@pytest.mark.parametrize("name", INITIAL)
def test_initial_weights(name):
    """Uniform in +-1 / sqrt(fan_in), weights and biases, in both libraries."""
    make, fan_in = INITIAL[name]
    tinyconv.manual_seed(1)
    torch.manual_seed(1)
    bound = 1 / np.sqrt(fan_in)
    for state in (make(nn).state_dict(), make(torch.nn).state_dict()):
        for values in state.values():
            values = np.asarray(values)
            assert values.dtype == np.float32
            values, n = np.sort(values.ravel()) / bound, values.size
            assert np.abs(values).max() <= 1 + 1e-6
            assert abs(values.var() - 1 / 3) < 5 * np.sqrt(4 / 45 / n)
            # Kolmogorov and Smirnov's distance from the uniform distribution.
            assert np.abs((values + 1) / 2 - (np.arange(n) + 0.5) / n).max() < 2 / np.sqrt(n)


def test_initial_batch_norm(parity):
    for make in (lambda nn: nn.BatchNorm2d(7), lambda nn: nn.BatchNorm1d(7)):
        check_state(parity, make(nn), make(torch.nn))
