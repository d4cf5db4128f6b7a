"""Learning-rate schedules against PyTorch's, rate by rate."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from fastconv import nn, optim

LR = 0.37
SCHEDULES = {
    "step": lambda o, s: s.StepLR(o, 7),
    "step gamma": lambda o, s: s.StepLR(o, 1, gamma=0.9),
    "milestones": lambda o, s: s.MultiStepLR(o, [30, 3, 12], 0.5),
    "exponential": lambda o, s: s.ExponentialLR(o, 0.93),
    "cosine": lambda o, s: s.CosineAnnealingLR(o, 50),
    "cosine up again": lambda o, s: s.CosineAnnealingLR(o, 15, eta_min=0.01),
    "linear": lambda o, s: s.LinearLR(o),
    "linear down": lambda o, s: s.LinearLR(o, 1.0, 0.1, 30),
    "lambda": lambda o, s: s.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "warm-up": lambda o, s: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=6), s.CosineAnnealingLR(o, 20)], [6]),
    "three": lambda o, s: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=9), s.StepLR(o, 4, 0.5), s.ExponentialLR(o, 0.9)], [5, 18]
    ),
}
PLATEAUS = {
    "min": {"patience": 3},
    "max": {"mode": "max", "patience": 0, "factor": 0.5},
    "absolute": {"threshold_mode": "abs", "threshold": 0.05, "patience": 1, "factor": 0.7},
    "max absolute": {"mode": "max", "threshold_mode": "abs", "threshold": 0.1, "patience": 2, "factor": 0.7},
    "cooldown": {"patience": 1, "cooldown": 4, "factor": 0.3, "min_lr": 0.02},
    "eps": {"patience": 0, "eps": 0.05},
}


def _optimizers():
    ours = optim.SGD([nn.Parameter(np.ones(1))], lr=LR)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=LR)
    return ours, theirs


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_rates_are_pytorchs(make):
    ours, theirs = _optimizers()
    schedule, reference = make(ours, optim), make(theirs, torch.optim.lr_scheduler)
    for epoch in range(50):
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-10, abs=1e-14), epoch
        assert schedule.last_epoch == epoch
        theirs.step()
        schedule.step()
        reference.step()


@pytest.mark.parametrize("keywords", PLATEAUS.values(), ids=PLATEAUS)
def test_plateaus_are_pytorchs(keywords):
    ours, theirs = _optimizers()
    schedule = optim.ReduceLROnPlateau(ours, **keywords)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **keywords)
    rng, rates = np.random.default_rng(0), set()
    for epoch in range(50):
        number = math.nan if epoch == 20 else 1 / (1 + epoch) + 0.1 * rng.standard_normal()
        schedule.step(number)
        reference.step(number)
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12), epoch
        rates.add(ours.lr)
    assert len(rates) > 1, "the rate changed"


@pytest.mark.parametrize(
    "make", [*SCHEDULES.values(), lambda o, s: s.ReduceLROnPlateau(o, patience=1)], ids=[*SCHEDULES, "plateau"]
)
def test_a_loaded_state_continues(make):
    """As after an interruption: a new optimizer and a new schedule, made as the first ones were."""
    first, second = _optimizers()[0], _optimizers()[0]
    one, other = make(first, optim), make(second, optim)
    numbers = iter(np.random.default_rng(1).random(40))

    def step(schedule, number):
        schedule.step(*([number] if isinstance(schedule, optim.ReduceLROnPlateau) else []))

    for _ in range(11):
        step(one, next(numbers))
    other.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    for number in numbers:
        assert second.lr == first.lr
        step(one, number)
        step(other, number)
    assert second.lr == first.lr
    assert other.last_epoch == one.last_epoch == 40


@pytest.mark.parametrize(
    "name",
    ["StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "LinearLR", "SequentialLR", "ReduceLROnPlateau"],
)
def test_schedules_take_pytorchs_arguments(name):
    """In its order and with its defaults, but for the count to start from, which the state has."""
    ours = [(p.name, p.default) for p in inspect.signature(getattr(optim, name)).parameters.values()]
    theirs = inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters.values()
    assert ours == [(p.name, p.default) for p in theirs if p.name != "last_epoch"]


def test_bad_arguments():
    optimizer, another = _optimizers()[0], _optimizers()[0]
    for error, message, make in (
        (
            TypeError,
            "optimizer: expected a fastconv.optim.Optimizer, got Linear",
            lambda: optim.StepLR(nn.Linear(1, 1), 1),
        ),
        (ValueError, "step_size: got 0, expected at least 1", lambda: optim.StepLR(optimizer, 0)),
        (
            ValueError,
            "gamma: expected a number that is not negative, got -1",
            lambda: optim.ExponentialLR(optimizer, -1),
        ),
        (ValueError, "mode: expected 'min' or 'max', got 'up'", lambda: optim.ReduceLROnPlateau(optimizer, "up")),
        (ValueError, "factor: expected a number below 1, got 2", lambda: optim.ReduceLROnPlateau(optimizer, factor=2)),
        (ValueError, "threshold_mode: expected", lambda: optim.ReduceLROnPlateau(optimizer, threshold_mode="x")),
        (
            ValueError,
            "milestones: expected one fewer than the 1 schedulers",
            lambda: optim.SequentialLR(optimizer, [optim.StepLR(optimizer, 1)], [3]),
        ),
        (
            ValueError,
            "milestones: expected increasing numbers",
            lambda: optim.SequentialLR(optimizer, [optim.StepLR(optimizer, 1)] * 3, [3, 2]),
        ),
        (
            ValueError,
            "got one on another optimizer",
            lambda: optim.SequentialLR(optimizer, [optim.StepLR(another, 1)], []),
        ),
        (
            ValueError,
            "got ReduceLROnPlateau",
            lambda: optim.SequentialLR(optimizer, [optim.ReduceLROnPlateau(optimizer)], []),
        ),
        (
            ValueError,
            r"state_dict: lacks \['best', 'num_bad_epochs', 'cooldown_counter'\]",
            lambda: optim.ReduceLROnPlateau(optimizer).load_state_dict({"last_epoch": 1}),
        ),
    ):
        with pytest.raises(error, match=message):
            make()
