"""Learning-rate schedules: how an optimizer's ``lr`` changes while it trains.

A schedule is made on an optimizer, whose ``lr`` at that moment is the base rate, and ``step()`` is called after each
epoch (or after each batch: whatever the schedule is to count). Names, arguments and rates are PyTorch's. The rate is
computed from the count alone, so a change of ``lr`` by hand lasts until the next step.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from .._check import integer
from .optimizer import Optimizer, not_negative

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


class LRScheduler:
    """What the schedules share: the count, the base rate and their saving.

    A subclass defines ``rate(epoch)``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set, at once and by each `step`. Its rate when its first schedule was made is the base rate.

    Attributes
    ----------
    last_epoch : int
        How many steps there were.
    base_lr : float
        The base rate.
    """

    _state: ClassVar[tuple[str, ...]] = ("last_epoch",)
    """Names of the attributes that change as the schedule goes on."""

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected a fastconv.optim.Optimizer, got {type(optimizer).__name__}")
        if optimizer.initial_lr is None:
            optimizer.initial_lr = optimizer.lr
        self.optimizer = optimizer
        self.base_lr = optimizer.initial_lr
        self.last_epoch = 0
        self.optimizer.lr = self.rate(0)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        raise TypeError(f"{type(self).__name__} does not define rate(epoch)")

    def step(self) -> None:
        """Count one more and set the optimizer's learning rate."""
        self.last_epoch += 1
        self.optimizer.lr = self.rate(self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return what changes as the schedule goes on: plain numbers."""
        return {name: getattr(self, name) for name in self._state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another schedule, made with the same arguments, was.

        The optimizer's ``lr`` is part of the optimizer's own state and not touched.

        Raises
        ------
        ValueError
            If a name is missing.
        """
        missing = [name for name in self._state if name not in state_dict]
        if missing:
            raise ValueError(f"state_dict: lacks {missing}")
        for name in self._state:
            setattr(self, name, state_dict[name])


class LambdaLR(LRScheduler):
    """The base rate times a function of the count.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    lr_lambda : callable
        ``lr_lambda(epoch)`` returns the factor.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        return self.base_lr * self.lr_lambda(epoch)


class StepLR(LRScheduler):
    """The base rate times ``gamma`` for each ``step_size`` epochs that have passed.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    step_size : int
        Epochs between changes.
    gamma : float
        Factor of each change.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer(step_size, "step_size", 1)
        self.gamma = not_negative("gamma", gamma)
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        return self.base_lr * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """The base rate times ``gamma`` for each milestone that has been reached.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    milestones : sequence of int
        Epochs after which the rate changes.
    gamma : float
        Factor of each change.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(integer(each, "milestones", 0) for each in milestones)
        self.gamma = not_negative("gamma", gamma)
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        return self.base_lr * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """The base rate times ``gamma ** epoch``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    gamma : float
        Factor of each epoch.
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = not_negative("gamma", gamma)
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        return float(self.base_lr * self.gamma**epoch)


class CosineAnnealingLR(LRScheduler):
    """From the base rate down to ``eta_min`` along half a cosine (Loshchilov and Hutter, 2017), and up again.

    ``eta_min + (base - eta_min) * (1 + cos(pi * epoch / T_max)) / 2``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    T_max : int
        Epochs from the highest to the lowest rate.
    eta_min : float
        The lowest rate.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = integer(T_max, "T_max", 1)
        self.eta_min = not_negative("eta_min", eta_min)
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        return self.eta_min + (self.base_lr - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class LinearLR(LRScheduler):
    """The base rate times a factor that moves along a line and then stays: a warm-up.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    start_factor, end_factor : float
        The factor at first and at last.
    total_iters : int
        Epochs from the one to the other.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        self.start_factor = not_negative("start_factor", start_factor)
        self.end_factor = not_negative("end_factor", end_factor)
        self.total_iters = integer(total_iters, "total_iters", 1)
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        done = min(epoch, self.total_iters) / self.total_iters
        return self.base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class SequentialLR(LRScheduler):
    """One schedule after another, each counting from its own beginning.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    schedulers : sequence of LRScheduler
        Made on that optimizer; one more than there are milestones.
    milestones : sequence of int
        Epochs at which the next one takes over, increasing.

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> adam = optim.Adam(nn.Linear(1, 1).parameters(), lr=0.1)
    >>> rise, fall = optim.LinearLR(adam, 0.1, total_iters=5), optim.CosineAnnealingLR(adam, 20)
    >>> schedule = optim.SequentialLR(adam, [rise, fall], [5])
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        self.schedulers = list(schedulers)
        self.milestones = [integer(each, "milestones", 1) for each in milestones]
        if len(self.schedulers) != len(self.milestones) + 1:
            raise ValueError(
                f"milestones: expected one fewer than the {len(self.schedulers)} schedulers, got {self.milestones}"
            )
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones: expected increasing numbers, got {self.milestones}")
        for each in self.schedulers:
            if isinstance(each, ReduceLROnPlateau) or each.optimizer is not optimizer:
                raise ValueError(
                    "schedulers: expected schedules by count, made on this optimizer, got "
                    f"{'one on another optimizer' if each.optimizer is not optimizer else 'ReduceLROnPlateau'}"
                )
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the learning rate after so many steps."""
        i = bisect_right(self.milestones, epoch)
        return self.schedulers[i].rate(epoch - (self.milestones[i - 1] if i else 0))


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by ``factor`` when a number has not become better for more than ``patience`` epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Whose ``lr`` is set.
    mode : {"min", "max"}
        Whether smaller or larger is better.
    factor : float
        Factor of each change, below 1.
    patience : int
        Epochs without improvement that are put up with.
    threshold : float
        How much better counts: a part of the best so far, or with ``threshold_mode="abs"`` a difference.
    threshold_mode : {"rel", "abs"}
        Which of the two.
    cooldown : int
        Epochs after a change in which none are counted.
    min_lr : float
        The rate does not fall below it.
    eps : float
        Smaller changes of the rate are not made.
    """

    _state = ("last_epoch", "best", "num_bad_epochs", "cooldown_counter")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode: expected 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode: expected 'rel' or 'abs', got {threshold_mode!r}")
        if not 0 <= factor < 1:
            raise ValueError(f"factor: expected a number below 1, got {factor!r}")
        self.mode = mode
        self.factor = factor
        self.patience = integer(patience, "patience", 0)
        self.threshold = not_negative("threshold", threshold)
        self.threshold_mode = threshold_mode
        self.cooldown = integer(cooldown, "cooldown", 0)
        self.min_lr = not_negative("min_lr", min_lr)
        self.eps = not_negative("eps", eps)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        """Return the present rate: the next one depends on what `step` will be told."""
        return self.optimizer.lr

    def _is_better(self, metrics: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        margin = self.threshold * (1.0 if self.threshold_mode == "abs" else self.best)
        # A part of minus infinity, the best at first, is no number that one could add.
        bound = self.best + sign * margin if math.isfinite(self.best) else self.best
        return metrics > bound if self.mode == "max" else metrics < bound

    def step(self, metrics: float = math.nan) -> None:
        """Tell the number of one more epoch, and lower the learning rate if it is time to.

        Parameters
        ----------
        metrics : float
            The number, for example a validation loss. NaN is never better.
        """
        self.last_epoch += 1
        if self._is_better(metrics):
            self.best, self.num_bad_epochs = float(metrics), 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            lr = max(self.optimizer.lr * self.factor, self.min_lr)
            if self.optimizer.lr - lr > self.eps:
                self.optimizer.lr = lr
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
