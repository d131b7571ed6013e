"""freeze and unfreeze: which weights, which modes, what happens to running statistics."""

import numpy
import pytest

import tinyconv
from tinyconv import functional as F
from tinyconv import nn, optim


def network():
    return nn.Sequential(
        {
            "features": nn.Sequential(
                nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
            ),
            "head": nn.Linear(8, 2),
        }
    )


def trained(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def modes(model):
    return {path for path, module in model.named_modules() if module.training}


HEAD = ["head.weight", "head.bias"]
CONVOLUTION = ["features.0.weight", "features.0.bias"]
NORM = ["features.1.weight", "features.1.bias"]


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["features"], HEAD),
        (["feat*"], HEAD),
        (["features.0", "head"], NORM),
        (["features.?"], HEAD),
        (["*.bias"], ["features.0.weight", "features.1.weight", "head.weight"]),
        (["features.0.weight"], [CONVOLUTION[1], *NORM, *HEAD]),
        ([], []),
    ],
)
def test_names(names, left):
    model = network()
    keys = list(model.state_dict())
    assert model.freeze(*names) is model
    assert trained(model) == left
    assert list(model.state_dict()) == keys
    model.unfreeze(*names)
    assert trained(model) == [*CONVOLUTION, *NORM, *HEAD]
    assert modes(model.train()) == modes(network())


def test_frozen_modules_stay_in_evaluation_mode():
    model = network().freeze("features")
    assert modes(model) == {"", "head"}
    model.eval()
    assert modes(model) == set()
    model.train()
    assert modes(model) == {"", "head"}
    model.eval().unfreeze("features")  # comes to the mode that the model is in
    assert modes(model) == set()
    assert modes(model.train()) == modes(network())


def test_a_single_weight_changes_no_mode():
    assert modes(network().freeze("features.1.weight")) == modes(network())


def test_statistics_false_leaves_the_mode_alone():
    model = network().freeze("features", statistics=False)
    assert trained(model) == HEAD
    assert modes(model) == modes(network())


def train_once(model):
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)

    def step(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    rng = numpy.random.default_rng(0)
    batch = rng.random((4, 1, 4, 4), numpy.float32) + 3, numpy.array([0, 1, 1, 0])
    return step, batch


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("statistics", [False, True])
def test_what_a_step_changes(compiled, statistics):
    model = network()
    step, batch = train_once(model)
    step = tinyconv.compile(step) if compiled else step
    step(*batch)
    model.freeze("features", statistics=statistics)  # a compiled step notices it
    model.train()
    before = model.state_dict()
    step(*batch)
    changed = {k for k, v in model.state_dict().items() if not numpy.array_equal(v, before[k])}
    moved = {f"features.1.{name}" for name in ("running_mean", "running_var")}
    moved |= {"features.1.num_batches_tracked"}
    assert changed == {*HEAD} | (set() if statistics else moved)
    model.unfreeze()
    before = model.state_dict()
    step(*batch)
    changed = {k for k, v in model.state_dict().items() if not numpy.array_equal(v, before[k])}
    assert {*HEAD, *NORM, *moved, "features.0.weight"} <= changed


def test_a_shared_module_is_found_under_every_name():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared).freeze("2")
    assert trained(model) == []


@pytest.mark.parametrize("act", ["freeze", "unfreeze"])
@pytest.mark.parametrize("names", [(["0"],), (0,), ("head", None)])
def test_names_are_texts(act, names):
    model = network()
    with pytest.raises(TypeError, match=r"found, expected names .* as texts, one after another"):
        getattr(model, act)(*names)
    assert len(trained(model)) == 6


@pytest.mark.parametrize("act", ["freeze", "unfreeze"])
def test_unknown_names_change_nothing(act):
    model = network()
    with pytest.raises(ValueError, match=r"'featurs\*' names no .* of Sequential; there are feat"):
        getattr(model, act)("head", "featurs*")
    assert len(trained(model)) == 6
    with pytest.raises(
        ValueError, match=r"'x' names .*are features, features\.features, .* and 16 more$"
    ):
        nn.Sequential({"features": network(), "more": network()}).freeze("x")
