"""The training loop."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import nn
from .._check import integer
from .._extras import MissingExtraError, require
from ..nn.loss import Loss
from ..optim.optimizer import Optimizer
from ..optim.schedule import LRScheduler, ReduceLROnPlateau
from . import checkpoint
from .batches import Augment, Batches
from .history import History, is_better_small
from .predict import predict

__all__ = ["BEST", "LAST", "fit"]

LAST, BEST = "last.npz", "best.npz"
"""Files of a run's folder: the state to go on from, and the weights of the best epoch."""

Metric = Callable[[NDArray[Any], NDArray[Any]], float]


def fit(
    model: nn.Module,
    x: NDArray[Any],
    y: NDArray[Any],
    loss: Loss,
    optimizer: Optimizer,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    seed: int = 0,
    shuffle: bool = True,
    augment: Augment | None = None,
    workers: int = 1,
    schedule: LRScheduler | None = None,
    schedule_each: str = "epoch",
    validation: tuple[NDArray[Any], NDArray[Any]] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    restore_best: bool = False,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    save_seconds: float = 30.0,
    progress: bool | None = None,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
) -> History:
    """Train a network: batches, losses, gradients, steps.

    Parameters
    ----------
    model : Module
        What to train; in evaluation mode afterwards.
    x, y : numpy.ndarray
        Samples and targets along the first axis, as the model and the loss take them.
    loss : Loss
        With ``reduction="mean"``.
    optimizer : Optimizer
        Of the model's parameters.
    epochs : int
        How often to go through the samples.
    batch_size, seed, shuffle, augment
        As for `Batches`. One seed gives one training, whatever the number of threads and workers, as far as the model's
        first weights and its dropout's generators are the same.
    workers : int
        Threads that augment batches ahead of the training step (none are needed without ``augment``).
    schedule : LRScheduler, optional
        Of the optimizer's learning rate. `ReduceLROnPlateau` is told what ``monitor`` names.
    schedule_each : {"epoch", "batch"}
        After what the schedule steps.
    validation : tuple of numpy.ndarray, optional
        Samples and targets that are not trained on: after each epoch their loss and metrics are computed.
    metrics : mapping of str to callable, optional
        ``metric(outputs, targets)`` of the whole validation set, for example
        ``{"accuracy": fastconv.train.accuracy}``.
    monitor : str, optional
        Which number tells how good an epoch was: ``"val_loss"`` unless given, or ``"loss"`` without validation.
    mode : {"min", "max"}, optional
        Whether smaller or larger is better; known by the name unless given: smaller for "loss" and "error".
    patience : int, optional
        Stop early after so many epochs without a better one.
    min_delta : float
        By how much an epoch must be better to count.
    restore_best : bool
        Put the best epoch's weights into the model at the end.
    run : path, optional
        A folder in which to keep ``last.npz``, from which the training can go on, and ``best.npz``, the best weights,
        for `fastconv.nn.load`. Both are whole files of some moment whenever the process or the machine stops.
    resume : bool
        Go on with what ``run`` holds; begin if it holds nothing. Weights are bit for bit those of a training that was
        never interrupted, if all other arguments are the same (more epochs are fine).
    save_seconds : float
        Within an epoch, the state is saved when so much time has passed since the last time.
    progress : bool, optional
        Whether to show a progress bar; unless given, if tqdm is installed and standard error is a terminal.
    on_epoch : callable, optional
        Called after each epoch with its numbers.

    Returns
    -------
    History
        Of each epoch: ``epoch`` (from 1), ``loss`` (mean over the samples as they were trained on), ``lr`` (at the
        epoch's start), ``seconds`` (of training, without validation), and with validation ``val_loss`` and
        ``val_METRIC``.

    Raises
    ------
    ValueError
        If an argument is not as described, or ``run`` belongs to a training with other settings.
    FileExistsError
        If ``run`` holds a training and ``resume`` is false.
    fastconv._extras.MissingExtraError
        If a progress bar is asked for and tqdm is not installed (an ``ImportError``).

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models, nn, optim, train
    >>> images, labels = np.zeros((64, 1, 28, 28), np.float32), np.arange(64) % 10
    >>> model = models.lenet5()
    >>> adam = optim.Adam(model.parameters(), lr=1e-3)
    >>> history = train.fit(model, images, labels, nn.CrossEntropyLoss(), adam, epochs=2)
    >>> len(history.column("loss"))
    2
    """
    if getattr(loss, "reduction", "mean") != "mean":
        raise ValueError(f"loss: expected one with reduction='mean', got {loss.reduction!r}")
    if schedule_each not in ("epoch", "batch"):
        raise ValueError(f"schedule_each: expected 'epoch' or 'batch', got {schedule_each!r}")
    if schedule is not None and schedule.optimizer is not optimizer:
        raise ValueError("schedule: expected one on the optimizer that trains")
    if isinstance(schedule, ReduceLROnPlateau) and schedule_each != "epoch":
        raise ValueError("schedule_each: ReduceLROnPlateau looks at epochs, got 'batch'")
    monitor = monitor or ("loss" if validation is None else "val_loss")
    is_better_small(monitor, mode)
    names = ["loss", "lr", "seconds"]
    if validation is not None:
        names += ["val_loss", *(f"val_{name}" for name in metrics or {})]
    if monitor not in names:
        raise ValueError(f"monitor: expected one of {', '.join(map(repr, names))}, got {monitor!r}")
    training = _Training(
        model,
        Batches(x, y, batch_size, seed, shuffle=shuffle, augment=augment, workers=workers if augment else 0),
        loss,
        optimizer,
        schedule,
        schedule_each,
        validation,
        dict(metrics or {}),
        (monitor, mode, min_delta),
        None if patience is None else integer(patience, "patience", 0),
        None if run is None else Path(run),
        save_seconds,
        _bars(progress),
    )
    if training.folder is not None:
        training.open(resume)
    for record in training.epochs(integer(epochs, "epochs", 1)):
        if on_epoch is not None:
            on_epoch(dict(record))
    if restore_best:
        training.restore()
    model.eval()
    return training.history


@dataclass
class _Training:
    """A training in progress."""

    model: nn.Module
    batches: Batches
    loss: Loss
    optimizer: Optimizer
    schedule: LRScheduler | None
    schedule_each: str
    validation: tuple[NDArray[Any], NDArray[Any]] | None
    metrics: dict[str, Metric]
    goal: tuple[str, str | None, float]
    patience: int | None
    folder: Path | None
    save_seconds: float
    bars: Callable[[Iterable[Any], int, int, str], Any]

    history: History = field(default_factory=History)
    batch: int = 0
    """How many batches of the present epoch are done; the sums below are over these."""
    total: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    lr: float | None = None
    best_state: dict[str, NDArray[Any]] | None = None
    saved_at: float = field(default_factory=time.monotonic)

    # ---- the loop ------------------------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[dict[str, float]]:
        """Train, and yield what each epoch gave."""
        while len(self.history) < count and not self._is_enough():
            self._train(f"epoch {len(self.history) + 1}/{count}")
            record = self._finish()
            if self.history.best(*self.goal) == len(self.history) - 1:
                self._keep_best()
            self.save()
            yield record

    def _is_enough(self) -> bool:
        if self.patience is None or not len(self.history):
            return False
        best = self.history.best(*self.goal)
        return len(self.history) - (0 if best is None else best + 1) > self.patience

    def _train(self, title: str) -> None:
        """Do what is left of an epoch."""
        self.model.train()
        if self.lr is None:
            self.lr = self.optimizer.lr
        began, before = time.perf_counter(), self.seconds
        with closing(self.batches.epoch(len(self.history), self.batch)) as batches:  # type: ignore[type-var]
            for x, y in self.bars(batches, self.batch, len(self.batches), title):
                self.optimizer.zero_grad()
                value = self.loss(self.model(x), y)
                self.model.backward_parameters(self.loss.backward())
                self.optimizer.step()
                if self.schedule is not None and self.schedule_each == "batch":
                    self.schedule.step()
                self.total += value * len(x)
                self.seen += len(x)
                self.batch += 1
                self.seconds = before + time.perf_counter() - began
                if self.batch < len(self.batches) and time.monotonic() - self.saved_at >= self.save_seconds:
                    self.save()

    def _finish(self) -> dict[str, float]:
        """Validate, note the epoch and get ready for the next."""
        record: dict[str, float] = {
            "epoch": len(self.history) + 1,
            "loss": self.total / self.seen,
            "lr": self.optimizer.lr if self.lr is None else self.lr,
            "seconds": self.seconds,
        }
        if self.validation is not None:
            x, y = self.validation
            outputs = predict(self.model, x, max(self.batches.batch_size, 256))
            record["val_loss"] = float(self.loss(outputs, y))
            record |= {f"val_{name}": float(metric(outputs, y)) for name, metric in self.metrics.items()}
        self.history.append(record)
        self.batch, self.total, self.seen, self.seconds, self.lr = 0, 0.0, 0, 0.0, None
        if self.schedule is not None and self.schedule_each == "epoch":
            if isinstance(self.schedule, ReduceLROnPlateau):
                self.schedule.step(self.history.column(self.goal[0])[-1])
            else:
                self.schedule.step()
        return record

    # ---- what is kept ----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """What has to be the same for a training to go on."""
        return {
            "samples": list(self.batches.x.shape),
            "batch_size": self.batches.batch_size,
            "seed": self.batches.seed,
            "shuffle": self.batches.shuffle,
            "optimizer": type(self.optimizer).__name__,
            "schedule": None if self.schedule is None else type(self.schedule).__name__,
            "schedule_each": self.schedule_each,
        }

    def open(self, resume: bool) -> None:
        """Make the run's folder, or go on with what it holds."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / LAST).exists():
            return
        if not resume:
            raise FileExistsError(
                f"run: {self.folder} holds a training; go on with it by resume=True, or name another folder"
            )
        kept = checkpoint.read(self.folder / LAST, self.model, self.optimizer, self.schedule, self.settings)
        self.history = History(kept["history"])
        self.batch, self.total, self.seen = kept["batch"], kept["total"], kept["seen"]
        self.seconds, self.lr = kept["seconds"], kept["lr"]

    def save(self) -> None:
        """Save the state, if there is a place for it."""
        if self.folder is None:
            return
        progress = {
            "settings": self.settings,
            "history": list(self.history),
            "batch": self.batch,
            "total": self.total,
            "seen": self.seen,
            "seconds": self.seconds,
            "lr": self.lr,
        }
        checkpoint.write(self.folder / LAST, self.model, self.optimizer, self.schedule, progress)
        self.saved_at = time.monotonic()

    def _keep_best(self) -> None:
        # Before the state: a stop between the two repeats the epoch, with the same end.
        if self.folder is not None:
            nn.save(self.model, self.folder / BEST)
        else:
            self.best_state = self.model.state_dict()

    def restore(self) -> None:
        """Put the best weights into the model."""
        if self.folder is not None and (self.folder / BEST).exists():
            nn.load(self.model, self.folder / BEST)
        elif self.best_state is not None:
            self.model.load_state_dict(self.best_state)


def _bars(progress: bool | None) -> Callable[[Iterable[Any], int, int, str], Any]:
    """Return a function that puts a progress bar around an epoch's batches, or nothing."""
    try:
        tqdm = None if progress is False else require("tqdm", purpose="a progress bar", extra="train").tqdm
    except MissingExtraError:
        if progress:
            raise
        tqdm = None
    if tqdm is None:
        return lambda batches, start, count, title: batches
    # disable=None: quiet unless the stream is a terminal.
    quiet = False if progress else None
    return lambda batches, start, count, title: tqdm(
        batches, desc=title, initial=start, total=count, unit="batch", leave=False, disable=quiet, file=sys.stderr
    )
