"""Learning-rate schedules, epoch by epoch."""

import math

import numpy as np
import pytest

from tinyconv import optim
from tinyconv.nn import Parameter

torch = pytest.importorskip("torch")

from .compare import drawn  # noqa: E402

EPOCHS = 60


def optimizers():
    """Two groups, with rates of 0.3 and 0.001."""
    ours, theirs = Parameter(np.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    rates = ({"lr": 0.3}, {"lr": 0.001})
    spare, their_spare = Parameter(np.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    return (
        optim.SGD([{"params": [p], **r} for p, r in zip((ours, spare), rates, strict=True)]),
        torch.optim.SGD(
            [{"params": [p], **r} for p, r in zip((theirs, their_spare), rates, strict=True)]
        ),
    )


def check_rates(parity, optimizer, reference):
    found = [group["lr"] for group in optimizer.param_groups]
    expected = [float(group["lr"]) for group in reference.param_groups]
    for (a, b), start in zip(zip(found, expected, strict=True), (0.3, 0.001), strict=True):
        assert abs(a - b) <= 1e-12 * start
        parity.note("float64", abs(a - b) / start)


SCHEDULES = {
    "StepLR": ("StepLR", {"step_size": 7}),
    "StepLR gamma": ("StepLR", {"step_size": 1, "gamma": 0.93}),
    "MultiStepLR": ("MultiStepLR", {"milestones": [5, 20, 21, 50]}),
    "MultiStepLR repeated": ("MultiStepLR", {"milestones": [9, 3, 9], "gamma": 0.5}),
    "CosineAnnealingLR": ("CosineAnnealingLR", {"T_max": EPOCHS}),
    "CosineAnnealingLR eta_min": ("CosineAnnealingLR", {"T_max": 45, "eta_min": 1e-4}),
    "CosineAnnealingLR and back": ("CosineAnnealingLR", {"T_max": 13, "eta_min": 1e-5}),
    "CosineAnnealingLR at once": ("CosineAnnealingLR", {"T_max": 1}),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedule(parity, case):
    name, settings = SCHEDULES[case]
    optimizer, reference = optimizers()
    schedule = getattr(optim.lr_scheduler, name)(optimizer, **settings)
    expected = getattr(torch.optim.lr_scheduler, name)(reference, **settings)
    for _ in range(EPOCHS):
        check_rates(parity, optimizer, reference)
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        reference.step()
        schedule.step()
        expected.step()


@pytest.mark.parametrize("T_max", [1, 10, EPOCHS])
def test_cosine_formula(T_max):
    optimizer, _ = optimizers()
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max, eta_min=0.0005)
    for t in range(EPOCHS):
        for group, start in zip(optimizer.param_groups, (0.3, 0.001), strict=True):
            exact = 0.0005 + (start - 0.0005) * (1 + math.cos(math.pi * t / T_max)) / 2
            assert group["lr"] == pytest.approx(exact, rel=1e-14)
        schedule.step()


@drawn(60)
def test_reduce_on_plateau(parity, draw):
    """Metrics that fall or rise, with noise, rests, now and then nan and inf."""
    mode = draw.one_of("min", "max")
    settings = {
        "mode": mode, "factor": draw.one_of(0.1, 0.5, 0.9), "patience": draw.integer(0, 4),
        "threshold": draw.one_of(0.0, 1e-4, 0.05), "threshold_mode": draw.one_of("rel", "abs"),
        "cooldown": draw.integer(0, 4), "min_lr": draw.one_of(0.0, 1e-4, 0.01),
        "eps": draw.one_of(1e-8, 1e-3),
    }  # fmt: skip
    optimizer, reference = optimizers()
    schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, **settings)
    slope = draw.one_of(0.0, 0.02, 0.1) * (-1 if mode == "min" else 1)
    noise = draw.one_of(0.01, 0.3)
    for t in range(EPOCHS):
        metric = draw.one_of(1.0, -1.0) + slope * t + noise * float(draw.normal())
        if draw.chance(0.2):
            metric = round(metric, 1)
        if draw.chance(0.03):
            metric = draw.one_of(math.nan, math.inf, -math.inf)
        schedule.step(metric)
        expected.step(metric)
        check_rates(parity, optimizer, reference)
        assert schedule.best == expected.best
        assert schedule.num_bad_epochs == expected.num_bad_epochs


def test_a_training_with_a_schedule(parity):
    """The rate that the optimiser uses is the one that the schedule has set."""
    start = np.random.default_rng(0).standard_normal(5)
    ours, theirs = Parameter(start.copy()), torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, reference = optim.Adam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 20)
    for _ in range(30):
        ours.grad = Parameter(np.cos(ours.numpy()), requires_grad=False)
        theirs.grad = torch.cos(theirs.detach())
        for part in (optimizer, reference, schedule, expected):
            part.step()
    parity.equal(ours, theirs, "parameter", 1e-12)
