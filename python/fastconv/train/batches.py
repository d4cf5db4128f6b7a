"""The order in which samples come, and what is done to them on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import integer

__all__ = ["Augment", "Batches"]

Batch = tuple[NDArray[Any], NDArray[Any]]
Augment = Callable[[NDArray[Any], NDArray[Any], np.random.Generator], Batch]
"""``augment(x, y, rng)`` returns the samples and targets to train on in place of a batch."""

_ORDER, _AUGMENT = 0, 1


class Batches:
    """Batches of samples in an order that depends on the seed and the number of the epoch only.

    Each batch's augmentation has a generator of its own, made from seed, epoch and position: so any batch can be made
    without those before it, in any thread.

    Parameters
    ----------
    x, y : numpy.ndarray
        Samples and targets along the first axis.
    batch_size : int
        Samples in a batch; the last one of an epoch may have fewer.
    seed : int
        Of order and augmentation.
    shuffle : bool
        Whether each epoch has an order of its own, or all that of the arrays.
    augment : callable, optional
        See `Augment`. It must not change the arrays that it is given if it may be used again (they are copies), and
        must take all its chance from ``rng``.
    workers : int
        Threads that make batches ahead of their use; 0 makes each when it is asked for.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        batch_size: int = 32,
        seed: int = 0,
        *,
        shuffle: bool = True,
        augment: Augment | None = None,
        workers: int = 0,
    ) -> None:
        if len(x) != len(y) or not len(x):
            raise ValueError(f"y: expected a target for each of at least one sample, got {len(x)} and {len(y)}")
        self.x, self.y = x, y
        self.batch_size = integer(batch_size, "batch_size", 1)
        self.seed = integer(seed, "seed", 0)
        self.shuffle = shuffle
        self.augment = augment
        self.workers = integer(workers, "workers", 0)

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return -(-len(self.x) // self.batch_size)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the indices of the samples in the order in which an epoch takes them."""
        if not self.shuffle:
            return np.arange(len(self.x))
        return self._generator(_ORDER, epoch).permutation(len(self.x))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch, from the ``start``-th on."""
        order = self.order(epoch)

        def make(i: int) -> Batch:
            chosen = order[i * self.batch_size : (i + 1) * self.batch_size]
            x, y = self.x[chosen], self.y[chosen]
            return (x, y) if self.augment is None else self.augment(x, y, self._generator(_AUGMENT, epoch, i))

        if not self.workers:
            yield from map(make, range(start, len(self)))
            return
        with ThreadPoolExecutor(self.workers, "fastconv-batches") as pool:
            coming: deque[Future[Batch]] = deque()
            try:
                for i in range(start, len(self)):
                    coming.append(pool.submit(make, i))
                    if len(coming) > self.workers:
                        yield coming.popleft().result()
                while coming:
                    yield coming.popleft().result()
            finally:
                for future in coming:
                    future.cancel()
