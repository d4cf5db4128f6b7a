"""How a call is timed: the same way in ``fastconv bench`` and in the workers of the comparison.

This file imports nothing of fastconv, so that a process that measures another library can load it alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

SHORTEST = 2e-3
"""Seconds a sample lasts at least: quicker calls are timed several together."""


def seconds_per_call(call: Callable[[], object], budget: float) -> list[float]:
    """Return samples of a call's duration in seconds, taken for about ``budget`` seconds; at least three.

    The first two calls only warm caches and threads up, and say how many calls make a sample.
    """
    call()
    start = time.perf_counter()
    call()
    together = max(1, round(SHORTEST / max(time.perf_counter() - start, 1e-7)))
    samples: list[float] = []
    end = time.perf_counter() + budget
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(together):
            call()
        samples.append((time.perf_counter() - start) / together)
    return samples


def spread(samples: list[float]) -> float:
    """Return the distance between the quartiles over the median."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return (high - low) / middle
