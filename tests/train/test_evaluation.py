"""Evaluation: the figures against a network whose answers are known, and no side effects."""

import numpy as np
import pytest

import tinyconv
from tinyconv import nn
from tinyconv.data.dataset import ArrayDataset
from tinyconv.train import evaluate


class Brightness(nn.Module):
    """Logits (-x, x) of one-pixel images, and what it was run in."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        x = x.reshape(-1, 1)
        return tinyconv.functional.cat([-x, x], 1)


def test_figures_over_uneven_batches():
    values = np.array([0, 51, 102, 204, 255], np.uint8)
    dataset = ArrayDataset(values.reshape(5, 1, 1, 1), [0, 1, 0, 1, 1], ["dark", "bright"])
    model = Brightness()
    result = evaluate(model, dataset, [0.5], [0.25], batch_size=2)
    x = (values / 255 - 0.5) / 0.25
    bright = 1 / (1 + np.exp(-2 * x))
    np.testing.assert_allclose(result.probabilities[:, 1], bright, rtol=1e-6)
    losses = -np.log(np.where(dataset.labels == 1, bright, 1 - bright))
    assert result.loss == pytest.approx(losses.mean(), rel=1e-6)
    assert result.accuracy == pytest.approx(4 / 5)
    assert result.confusion.tolist() == [[2, 0], [1, 2]]
    assert set(model.modes) == {False}
    assert model.training


def test_nothing_in_the_network_changes(new_trainer, validation_set):
    model = new_trainer().model
    model.eval()
    before = model.state_dict()
    state = tinyconv.backend.random_state()
    evaluate(model, validation_set, [0.5] * 3, [0.5] * 3)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert tinyconv.backend.random_state() == state
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_empty_set(new_trainer, validation_set):
    with pytest.raises(ValueError, match="empty"):
        evaluate(new_trainer().model, validation_set.subset([]), [0.5] * 3, [0.5] * 3)
