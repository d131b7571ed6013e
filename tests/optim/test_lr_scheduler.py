"""Learning-rate schedules by hand, and their state."""

import json
import math

import numpy
import pytest

from tinyconv import nn, optim
from tinyconv.optim import lr_scheduler


def optimizer(*rates):
    groups = [{"params": [nn.Parameter(numpy.ones(1))], "lr": lr} for lr in rates or (1.0,)]
    return optim.SGD(groups)


def follow(schedule, steps):
    rates = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    return rates


def test_step():
    schedule = lr_scheduler.StepLR(optimizer(), 2, gamma=0.5)
    assert follow(schedule, 5) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_multi_step():
    schedule = lr_scheduler.MultiStepLR(optimizer(), [1, 4], gamma=0.5)
    assert follow(schedule, 5) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_cosine():
    schedule = lr_scheduler.CosineAnnealingLR(optimizer(), 4, eta_min=0.2)
    half = math.sqrt(0.5)
    expected = [1, 0.2 + 0.4 * (1 + half), 0.6, 0.2 + 0.4 * (1 - half), 0.2]
    assert follow(schedule, 4) == pytest.approx(expected, rel=1e-12)


def test_every_group_keeps_its_own_rate():
    one = optimizer(1.0, 0.1)
    schedule = lr_scheduler.StepLR(one, 1, gamma=0.5)
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 0.05]
    assert [g["lr"] for g in one.param_groups] == [0.5, 0.05]


PLATEAU = [
    ({}, [5, 4, 4, 4, 4, 4], [1, 1, 1, 1, 0.1, 0.1]),
    ({"mode": "max"}, [1, 2, 2, 2, 2, 3], [1, 1, 1, 1, 0.1, 0.1]),
    # 1 % better is not enough where 10 % are asked for
    ({"threshold": 0.1}, [100, 99, 98, 97, 96, 95], [1, 1, 1, 0.1, 0.1, 0.1]),
    ({"threshold": 2, "threshold_mode": "abs"}, [9, 8, 7.5, 7.2, 7], [1, 1, 1, 0.1, 0.1]),
    (
        {"mode": "max", "threshold": 2, "threshold_mode": "abs"},
        [1, 2, 2.5, 3, 3], [1, 1, 1, 0.1, 0.1],
    ),
    ({"cooldown": 2}, [1] * 10, [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
    ({"min_lr": 0.5}, [1] * 8, [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5]),
    ({"factor": 0.5}, [1] * 7, [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    ({}, [math.nan] * 4, [1, 1, 0.1, 0.1]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "metrics", "rates"), PLATEAU)
def test_plateau(settings, metrics, rates):
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer(), patience=2, **settings)
    found = []
    for metric in metrics:
        schedule.step(metric)
        found += schedule.get_last_lr()
    assert found == pytest.approx(rates)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.StepLR(o, 2),
        lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 9),
    ],
)
def test_the_state_goes_on(make):
    first, second = make(optimizer(0.3)), make(optimizer(0.3))
    follow(first, 4)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.get_last_lr() == first.get_last_lr()
    assert follow(second, 4) == follow(first, 4)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_state_of_a_plateau_goes_on(steps):
    metrics = [3, 2, 2, 2, 2, 2, 2, 2]
    first = lr_scheduler.ReduceLROnPlateau(optimizer(), patience=1, cooldown=1)
    for metric in metrics[:steps]:
        first.step(metric)
    second = lr_scheduler.ReduceLROnPlateau(optimizer(*first.get_last_lr()), patience=1, cooldown=1)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for metric in metrics[steps:]:
        first.step(metric)
        second.step(metric)
        assert second.get_last_lr() == first.get_last_lr()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: lr_scheduler.StepLR(o, 0), "step_size: 0 found"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 0), "T_max: 0 found"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="least"), "mode: 'least' found"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode: 'x'"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), "factor: 1.0 found"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(optimizer())
