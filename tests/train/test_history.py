"""The history of a training as rows and as JSON."""

import json

import pytest

from tinyconv.train.history import Epoch, History


def epoch(number, val_loss=0.5, val_accuracy=0.5):
    return Epoch(number, 0.7, 0.6, val_loss, val_accuracy, 0.01, 1.5)


def test_json_and_back():
    for history in (History([epoch(1), epoch(2)]), History([epoch(1, None, None)]), History()):
        assert History.from_json(json.loads(json.dumps(history.to_json()))) == history
    history = History([epoch(1), epoch(2)])
    assert history.to_json()[1]["val_loss"] == 0.5
    assert history.column("epoch") == [1, 2]
    assert len(history) == 2
    assert history[-1].epoch == 2


def test_the_best_epoch_is_the_first_of_equals():
    history = History(
        [epoch(1, 0.9, 0.5), epoch(2, 0.4, 0.7), epoch(3, 0.4, 0.8), epoch(4, 0.6, 0.8)]
    )
    assert history.best("val_loss").epoch == 2
    assert history.best("val_accuracy").epoch == 3


ROW = epoch(1).__dict__


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {"epochs": []},
        [3],
        [{}],
        [{**ROW, "more": 1}],
        [{**ROW, "train_loss": None}],
        [{**ROW, "val_loss": "low"}],
        [{**ROW, "lr": float("nan")}],
        [{**ROW, "epoch": 7}],
        [{**ROW, "val_loss": None}],
        [ROW, {**ROW, "epoch": 2, "val_loss": None, "val_accuracy": None}],
    ],
)
def test_rows_of_another_kind_are_refused(rows):
    with pytest.raises(ValueError, match="history"):
        History.from_json(rows)
