"""Metrics against counts made by hand."""

import numpy as np
import pytest

from tinyconv.train.metrics import accuracy, confusion_matrix, per_class

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 1, 0, 1, 1, 0])


def test_accuracy():
    assert accuracy(PREDICTIONS, LABELS) == pytest.approx(4 / 6)


def test_confusion_matrix_has_the_truth_in_rows():
    expected = [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert confusion_matrix(PREDICTIONS, LABELS, 3).tolist() == expected
    wider = confusion_matrix(PREDICTIONS, LABELS, 4)
    assert wider.shape == (4, 4)
    assert wider[:3, :3].tolist() == expected


def test_per_class():
    figures = per_class(confusion_matrix(PREDICTIONS, LABELS, 4))
    np.testing.assert_allclose(figures.precision, [2 / 3, 2 / 3, np.nan, np.nan])
    np.testing.assert_allclose(figures.recall, [2 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(figures.f1, [2 / 3, 0.8, 0, np.nan])
