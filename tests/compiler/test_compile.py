"""tinyconv.compile: the numbers of eager, whatever changes between calls, or a clear refusal."""

import threading

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import functional as F
from tinyconv import nn, optim
from tinyconv.compiler import CompileError
from tinyconv.kernels.cpu import threads


def small_network(dtype=np.float32):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(20),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(20 * 9, 12),
        nn.Tanh(),
        nn.Linear(12, 3),
    ).astype(dtype)


def sgd(parameters):
    return optim.SGD(parameters, lr=0.01, momentum=0.9)


def batches(count, size=6, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((size, 3, 12, 12)).astype(dtype), rng.integers(0, 3, size))
        for _ in range(count)
    ]


class Training:
    """A network, its optimiser and a step of both."""

    def __init__(self, make=sgd, dtype=np.float32, network=small_network):
        tc.manual_seed(1)
        self.model = network(dtype)
        self.optimizer = make(self.model.parameters())

    def step(self, images, labels):
        self.optimizer.zero_grad()
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        return loss, logits


def stream():
    """Dropout's random stream is global: each training starts it anew."""
    tc.manual_seed(7)


def run(training, step, data):
    stream()
    losses = [step(*batch)[0].item() for batch in data]
    return losses, training.model.state_dict()


OPTIMIZERS = {
    "sgd": sgd,
    "adam": lambda p: optim.Adam(p, lr=1e-3, eps=1e-4, l1=1e-4),
    "adamw": lambda p: optim.AdamW(p, lr=1e-3, eps=1e-4, amsgrad=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-3, eps=1e-3, centered=True, momentum=0.5),
    "groups": lambda p: optim.SGD([{"params": q, "lr": 0.01 / (i + 1)} for i, q in enumerate(p)]),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_float64_is_eager_to_the_last_digits(backend, make):
    data = batches(5, dtype=np.float64)
    eager, compiled = Training(make, np.float64), Training(make, np.float64)
    step = tc.compile(compiled.step)
    losses, weights = run(eager, eager.step, data)
    our_losses, our_weights = run(compiled, step, data)
    np.testing.assert_allclose(our_losses, losses, rtol=1e-12)
    for name, array in weights.items():
        np.testing.assert_allclose(our_weights[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_float32_kernels_follow_eager(backend, make):
    data = batches(5)
    eager, compiled = Training(make), Training(make)
    losses, weights = run(eager, eager.step, data)
    our_losses, our_weights = run(compiled, tc.compile(compiled.step), data)
    np.testing.assert_allclose(our_losses, losses, rtol=1e-3)
    for name, array in weights.items():
        np.testing.assert_allclose(our_weights[name], array, atol=2e-3, err_msg=name)


def test_gradients_of_the_first_step(backend):
    (batch,) = batches(1)
    eager, compiled = Training(), Training()
    stream()
    eager.step(*batch)
    stream()
    tc.compile(compiled.step)(*batch)
    for ours, theirs in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        scale = max(1e-2, np.abs(theirs.grad.numpy()).max())
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=2e-5 * scale)


def test_the_step_is_fused_and_says_so():
    training = Training()
    step = tc.compile(training.step)
    assert step.plan is None
    step(*batches(1)[0])
    text = str(step.plan)
    assert text.count("NormReLUPool ") == 2 * 2
    assert "BatchNorm" not in text
    assert "SGDUpdate x 12" in text
    assert "winograd" in text
    assert "GFLOP" in text


class Inverted(nn.Module):
    """An inverted residual block as in MobileNet and EfficientNet, with uneven "same" padding."""

    def __init__(self, stride=1, relu=F.relu6):
        super().__init__()
        self.stride, self.relu = stride, relu
        self.expand, self.norm1 = nn.Conv2d(3, 18, 1, bias=False), nn.BatchNorm2d(18)
        self.depth, self.norm2 = nn.Conv2d(18, 18, 3, stride, groups=18), nn.BatchNorm2d(18)
        self.project, self.norm3 = nn.Conv2d(18, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.relu(self.norm1(self.expand(x)))
        y = F.pad(y, (0, 1, 0, 1) if self.stride == 2 else (1, 1, 1, 1))
        y = self.relu(self.norm2(self.depth(y)))
        y = self.norm3(self.project(y))
        return x + y if self.stride == 1 else y


def inverted_network(dtype=np.float32, relu=F.relu6):
    blocks = [nn.Conv2d(3, 3, 2, padding="same"), Inverted(1, relu), Inverted(2, relu)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(3 * 36, 3)).astype(dtype)


@pytest.mark.parametrize("relu", [F.relu, F.relu6])
def test_inference_is_one_pass_for_each_convolution(relu):
    tc.manual_seed(3)
    model = inverted_network(relu=relu)
    for images, _ in batches(2):  # statistics that are not 0 and 1
        model(images)
    model.eval()
    with tc.no_grad():
        forward = tc.compile(lambda images: model(images))
        (first, _), (second, _) = batches(2, seed=5)
        expected = model(first).numpy()
        np.testing.assert_allclose(forward(first).numpy(), expected, rtol=1e-4, atol=1e-5)
        model[1].norm2.running_mean += 0.5  # in place: nothing is folded for good
        model[1].norm2.running_var *= 2
        expected = model(second).numpy()
        np.testing.assert_allclose(forward(second).numpy(), expected, rtol=1e-4, atol=1e-5)
    names = [type(call.op).__name__ for call in forward.plan.calls]
    assert names == ["PaddedConv2d", *["ConvNormReLU"] * 6, "Reshape", "Linear"]
    assert "reference" not in forward.plan.kernels


def test_what_is_read_elsewhere_is_not_fused_away(backend):
    tc.manual_seed(3)
    model = Inverted()
    model.eval()

    def forward(x):
        y = model.expand(x)
        z = model.norm1(y)
        return F.relu6(z), z, y, model.norm1(z) + model.norm1(z)

    images = batches(1)[0][0]
    with tc.no_grad():
        compiled = tc.compile(forward)
        for ours, theirs in zip(compiled(images), forward(images), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_training_with_relu6_uneven_padding_and_depthwise_convolutions(frozen):
    """frozen: the norms stay in evaluation, and are trained nevertheless."""
    data, results = batches(4), []
    for wrap in (lambda step: step, tc.compile):
        training = Training(network=inverted_network)
        if frozen:
            training.model.eval()
        step = wrap(training.step)
        results.append(run(training, step, data))
    (losses, weights), (our_losses, our_weights) = results
    np.testing.assert_allclose(our_losses, losses, rtol=1e-3)
    for name, array in weights.items():
        np.testing.assert_allclose(our_weights[name], array, atol=2e-3, err_msg=name)
    names = [(type(call.op).__name__, call.direction) for call in step.plan.calls]
    for direction in ("forward", "backward"):
        assert names.count(("PaddedConv2d", direction)) == 2  # the third one's zeros are even
        assert names.count(("NormReLUPool", direction)) == 4
    assert not {"Pad", "ReLU6", "ConvNormReLU"} & {name for name, _ in names}
    assert "reference" not in step.plan.kernels


# What changes between calls -----------------------------------------------------------------------


def test_a_short_last_batch_just_works(backend):
    data = [*batches(2), *batches(1, size=2), *batches(1), *batches(1, size=2, seed=3)]
    eager, compiled = Training(), Training()
    losses, _ = run(eager, eager.step, data)
    our_losses, _ = run(compiled, tc.compile(compiled.step), data)
    np.testing.assert_allclose(our_losses, losses, rtol=1e-3)


def change_rate(training):
    training.optimizer.param_groups[0]["lr"] = 0.002


def freeze(training):
    training.model[0].requires_grad_(False)


def change_momentum(training):
    training.optimizer.param_groups[0]["momentum"] = 0.5


def load_weights(training):
    state = training.model.state_dict()
    training.model.load_state_dict({name: array * 0.9 for name, array in state.items()})


def replace_weights(training):
    for parameter in training.model.parameters():
        parameter.data = parameter.data * np.float32(0.9)


def load_moments(training):
    state = training.optimizer.state_dict()
    for slots in state["state"].values():
        slots["momentum_buffer"] *= 0.5
    training.optimizer.load_state_dict(state)


def evaluate_from_now_on(training):
    training.model.eval()


def new_random_numbers(training):
    tc.manual_seed(99)


def replace_statistics(training):
    training.model[1].running_mean = np.ones(16, np.float32)


CHANGES = [
    change_rate, freeze, change_momentum, load_weights, replace_weights, load_moments,
    evaluate_from_now_on, new_random_numbers, replace_statistics,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_changes_between_calls_are_noticed(backend, change):
    data = batches(6, dtype=np.float64)
    results = []
    for wrap in (lambda step: step, tc.compile):
        training = Training(dtype=np.float64)
        step = wrap(training.step)
        losses, _ = run(training, step, data[:3])
        change(training)
        losses += [step(*batch)[0].item() for batch in data[3:]]
        results.append((losses, training.model.state_dict()))
    (losses, weights), (our_losses, our_weights) = results
    np.testing.assert_allclose(our_losses, losses, rtol=1e-10)
    for name, array in weights.items():
        np.testing.assert_allclose(our_weights[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


def test_arguments_of_any_kind(backend):
    seen = []

    @tc.compile
    def scaled(x, factor, name):
        seen.append(name)
        return {"y": F.relu(x) * factor, "name": name, "all": [F.relu(x), None]}

    x = np.array([[-1.0, 2.0]], np.float32)
    for argument in (x, tc.Tensor(x), np.asfortranarray(x), x[:, ::-1][:, ::-1]):
        result = scaled(argument, 3.0, "a")
        np.testing.assert_array_equal(result["y"].numpy(), [[0, 6]])
        assert result["name"] == "a"
        assert result["all"][1] is None
    assert len(seen) == 2
    np.testing.assert_array_equal(scaled(x, 4.0, "a")["y"].numpy(), [[0, 8]])
    with pytest.raises(TypeError, match="argument 0 is list"):
        scaled([1.0], 3.0, "a")


def test_results_are_the_callers_own(backend):
    double = tc.compile(lambda x: tc.Tensor(x) * 2.0)
    one, two = (double(np.full(3, value, np.float32)) for value in (1, 2))
    np.testing.assert_array_equal(one.numpy(), 2)
    np.testing.assert_array_equal(two.numpy(), 4)


def test_a_forward_pass_alone(backend):
    training = Training()
    training.model.eval()

    @tc.compile
    def forward(images):
        with tc.no_grad():
            return training.model(images)

    for images, _ in batches(3):
        expected = training.model(images).numpy()
        np.testing.assert_allclose(forward(images).numpy(), expected, atol=1e-5)


def test_weights_that_are_used_four_times(backend):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(
                nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(3), nn.MaxPool2d(2)
            )
            self.last = nn.Linear(27, 3)

        def forward(self, x):
            return self.last(self.block(self.block(x)).flatten(1))

    data = batches(4, dtype=np.float64)
    results = []
    for wrap in (lambda step: step, tc.compile):
        training = Training(dtype=np.float64, network=lambda dtype: Shared().astype(dtype))
        results.append(run(training, wrap(training.step), data)[0])
    np.testing.assert_allclose(*results, rtol=1e-12)


def test_a_step_without_an_optimizer_leaves_its_gradients(backend):
    weight = tc.Tensor(np.ones((2, 3), np.float32), requires_grad=True)

    @tc.compile
    def backward(x):
        weight.grad = None
        (x @ weight.permute(1, 0)).sum().backward()

    for value in (1.0, 2.0):
        assert backward(np.full((4, 3), value, np.float32)) is None
        np.testing.assert_array_equal(weight.grad.numpy(), 4 * value)


# What cannot be recorded --------------------------------------------------------------------------


def reads_a_value(model, x):
    return model(x) * model(x).sum().item()


def branches(model, x):
    y = model(x).sum()
    return y * 2 if y > 0 else y  # no comparison of tensors: by identity


def branches_on_a_value(model, x):
    return model(x) if bool(model(x).sum()) else None


def makes_an_array(model, x):
    return model(x) * np.random.default_rng().random((6, 3)).astype(np.float32)


def clips_its_gradients(model, x):
    model.zero_grad()
    loss = model(x).sum()
    loss.backward()
    for p in model.parameters():
        p.grad.data *= np.float32(0.5)
    return loss


def accumulates(model, x):
    loss = model(x).sum()
    loss.backward()
    return loss


def returns_an_array(model, x):
    return model(x).data


def returns_another_tensor(model, x):
    model(x)
    return tc.Tensor(np.zeros(3, np.float32))


_calls = [0]


def does_more_every_time(model, x):
    _calls[0] += 1
    for _ in range(_calls[0]):
        x = F.relu(x)
    return model(x)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (reads_a_value, r"item\(\)"),
        (branches_on_a_value, r"item\(\)"),
        (makes_an_array, "an array of shape"),
        (clips_its_gradients, "in place outside of any op"),
        (returns_an_array, "returns an array"),
        (returns_another_tensor, "no op of the step computed"),
        (does_more_every_time, "ran .* ops the first time"),
    ],
)
def test_refusals(backend, step, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    before = model.state_dict()
    compiled = tc.compile(lambda x: step(model, x))
    images = batches(1)[0][0]
    with pytest.raises(CompileError, match=message):
        compiled(images)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert all(p.grad is None for p in model.parameters())
    forgiving = tc.compile(lambda x: step(model, x), strict=False)
    forgiving(images)
    assert forgiving.refusal is not None


def test_gradients_that_add_up_over_calls_are_refused(backend):
    model = nn.Linear(3, 2)
    compiled = tc.compile(lambda x: accumulates(model, x))
    with pytest.raises(CompileError, match="zero_grad"):
        compiled(np.ones((1, 3), np.float32))
    assert model.weight.grad is None


def test_gradients_from_before_stay(backend):
    model = nn.Linear(3, 2)
    x = np.ones((1, 3), np.float32)
    model(x).sum().backward()
    tc.compile(lambda x: model(x))(x)
    np.testing.assert_array_equal(model.weight.grad.numpy(), 1)


def test_a_sum_of_two_losses(backend):
    p = tc.Tensor(np.full(3, 2, np.float32), requires_grad=True)

    @tc.compile
    def step(x):
        p.grad = None
        loss = (p * x).sum() + (p * p).sum()
        loss.backward()
        return loss

    assert step(np.ones(3, np.float32)).item() == 18
    np.testing.assert_array_equal(p.grad.numpy(), 5)


def test_the_same_array_twice_is_two_arguments(backend):
    difference = tc.compile(lambda a, b: tc.Tensor(a) - tc.Tensor(b))
    x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
    np.testing.assert_array_equal(difference(x, x).numpy(), 0)
    np.testing.assert_array_equal(difference(x, y).numpy(), 1)


def test_values_read_past_the_tensor_are_refused(backend):
    weight = tc.Tensor(np.ones(3, np.float32), requires_grad=True)
    step = tc.compile(lambda x: (weight * x).sum() * float((weight * x).data.sum() + 1))
    with pytest.raises(CompileError):
        step(np.ones(3, np.float32))


def test_one_step_in_many_threads():
    double = tc.compile(lambda x: F.relu(x) * 2.0)
    wrong = []

    def work(value):
        for _ in range(200):
            y = double(np.full(50, value, np.float32)).numpy()
            if not (y == 2 * value).all():
                wrong.append(value)

    workers = [threading.Thread(target=work, args=(value,)) for value in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_setting_of_a_layer_is_noticed(backend):
    model = nn.Sequential(nn.Dropout(0.5))
    step = tc.compile(lambda x: model(x))
    x = np.ones(1000, np.float32)
    step(x)
    model[0].p = 0.0
    np.testing.assert_array_equal(step(x).numpy(), 1)


def test_a_graph_from_before_the_step_is_refused(backend):
    weight = tc.Tensor(np.ones(3, np.float32), requires_grad=True)
    y = weight * 2.0

    @tc.compile
    def step(x):
        (y * x).sum().backward()

    with pytest.raises(CompileError, match="before"):
        step(np.ones(3, np.float32))


def test_a_mean_over_all_batches_changes_its_momentum_and_is_refused(backend):
    norm = nn.BatchNorm2d(3, momentum=None)
    with pytest.raises(CompileError, match="momentum=None"):
        tc.compile(norm)(np.ones((2, 3, 4, 4), np.float32))


def test_errors_of_the_step_come_through_and_change_nothing(backend):
    training = Training()
    step = tc.compile(training.step)
    data = batches(2)
    step(*data[0])
    before = training.model.state_dict()
    with pytest.raises(tc.ShapeError, match="expects 3"):
        step(np.zeros((6, 2, 12, 12), np.float32), data[0][1])
    for name, array in training.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    step(*data[1])


def test_a_wrong_class_makes_the_loss_nan(backend):
    training = Training()
    step = tc.compile(training.step)
    images, labels = batches(1)[0]
    step(images, labels)
    loss, _ = step(images, labels + 100)
    assert np.isnan(loss.item())


# Threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_threads(number):
    before = threads.num_threads()
    try:
        threads.set_num_threads(number)
        training = Training()
        losses, _ = run(training, tc.compile(training.step), batches(4))
    finally:
        threads.set_num_threads(before)
    training = Training()
    expected, _ = run(training, training.step, batches(4))
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


def test_two_steps_in_two_threads():
    def network(dtype):
        return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1600, 3))

    data = batches(10)
    expected = None
    trainings = [Training(network=network) for _ in range(2)]
    found = [None, None]

    def work(i):
        step = tc.compile(trainings[i].step)
        found[i] = [step(*batch)[0].item() for batch in data]

    alone = Training(network=network)
    step = tc.compile(alone.step)
    expected = [step(*batch)[0].item() for batch in data]
    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [expected, expected]


def test_the_setting_is_checked(monkeypatch):
    monkeypatch.setattr(threads, "_threads", 0)
    monkeypatch.setenv("TINYCONV_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="'many' found"):
        threads.num_threads()
    monkeypatch.setenv("TINYCONV_NUM_THREADS", "3")
    assert threads.num_threads() == 3
    with pytest.raises(ValueError, match="0 found"):
        threads.set_num_threads(0)


@pytest.mark.parametrize("relu", [False, True])
def test_a_norm_beside_its_own_convolution_is_not_taken_into_it(backend, relu):
    """norm(c) + c: the residual is made inside of what would be fused."""
    tc.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16).eval()

    def step(x):
        c = convolution(x)
        y = norm(c) + c
        return F.relu(y) if relu else y

    x = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    with tc.no_grad():
        np.testing.assert_allclose(tc.compile(step)(x).numpy(), step(x).numpy(), atol=1e-5)
