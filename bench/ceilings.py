"""What this machine can do at most, measured beside the rows that are held against it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

LEAST = 0.02
"""Seconds one figure of arithmetic takes at least: a scheduler's slice must not decide it."""

COPY_BYTES = 64 * 2**20
"""The size of the copied array: beyond the last-level cache."""


def peak(dtype: str, tries: int = 5) -> float:
    """Return the most operations a second, multiply and add, in registers on the threads in use.

    16-bit numbers are computed in float32.
    """
    from fastconv import _core

    def once() -> tuple[float, float]:
        began = time.perf_counter()
        operations = _core.multiply_adds(dtype == "float64", steps)
        return operations, time.perf_counter() - began

    steps = 100_000
    while once()[1] < LEAST:
        steps *= 2
    return max(operations / seconds for operations, seconds in (once() for _ in range(tries)))


def copy_bandwidth(threads: int, tries: int = 5) -> float:
    """Return the most bytes a second, read and written, that NumPy copies between large arrays on so many threads."""
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(tries):
            began = time.perf_counter()
            list(pool.map(lambda part: np.copyto(*part), parts))
            best = max(best, 2 * source.nbytes / (time.perf_counter() - began))
    return best


def measure(request: dict[str, Any]) -> dict[str, float]:
    """Answer the worker's request: operations and bytes a second."""
    import fastconv

    if request["threads"]:
        fastconv.set_num_threads(request["threads"])
    return {
        "threads": fastconv.get_num_threads(),
        "operations": peak(request["dtype"]),
        "bytes": copy_bandwidth(fastconv.get_num_threads()),
    }
