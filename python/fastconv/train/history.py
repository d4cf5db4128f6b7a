"""What a training gave, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["History"]


class History(Sequence[Mapping[str, float]]):
    """A list of epochs, each a mapping of names to numbers.

    ``history[-1]["loss"]`` is the last epoch's loss and ``history.column("loss")`` that of all.

    Parameters
    ----------
    epochs : sequence of mapping
        The epochs.
    """

    def __init__(self, epochs: Sequence[Mapping[str, float]] = ()) -> None:
        self._epochs = [dict(epoch) for epoch in epochs]

    def append(self, epoch: Mapping[str, float]) -> None:
        """Add an epoch."""
        self._epochs.append(dict(epoch))

    def __len__(self) -> int:
        return len(self._epochs)

    def __getitem__(self, index: int) -> dict[str, float]:  # type: ignore[override]
        return self._epochs[index]

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self._epochs)

    def column(self, name: str) -> list[float]:
        """Return one number of every epoch.

        Raises
        ------
        ValueError
            If the epochs have no such number.
        """
        if self._epochs and name not in self._epochs[0]:
            raise ValueError(f"name: there is no {name!r}; an epoch has {', '.join(map(repr, self._epochs[0]))}")
        return [epoch[name] for epoch in self._epochs]

    def best(self, monitor: str, mode: str | None = None, min_delta: float = 0.0) -> int | None:
        """Return the index of the best epoch, the first of equals; ``None`` if none has a number that can be compared.

        Parameters
        ----------
        monitor : str
            Which number tells.
        mode : {"min", "max"}, optional
            Whether smaller or larger is better. Unless given, smaller for names that end in "loss" or "error".
        min_delta : float
            An epoch must be better than the best before it by more than this.
        """
        sign = -1.0 if is_better_small(monitor, mode) else 1.0
        best, record = None, -math.inf
        for i, value in enumerate(self.column(monitor)):
            if sign * value > record + (min_delta if best is not None else 0.0):
                best, record = i, sign * value
        return best

    def __repr__(self) -> str:
        return f"History({self._epochs!r})"


def is_better_small(monitor: str, mode: str | None) -> bool:
    """Return whether smaller is better.

    Raises
    ------
    ValueError
        If the mode is none.
    """
    if mode not in (None, "min", "max"):
        raise ValueError(f"mode: expected 'min', 'max' or None, got {mode!r}")
    return monitor.endswith(("loss", "error")) if mode is None else mode == "min"
