"""Whether an answer is right: no row with a wrong one is timed."""

from __future__ import annotations

import numpy as np

from bench.protocol import Array

RELATIVE_ERROR = {"float32": 1e-5, "float64": 1e-13, "float16": 4e-3, "bfloat16": 3e-2}
"""How far an answer may be from the one in float64, in the relative Euclidean norm, before its row is refused."""

PRECISION_ERROR = {"highest": 0.0, "high": 1e-4, "medium": 3e-2}
"""The same for float32 arrays at the levels of precision that compute with fewer bits."""


def allowed_error(dtype: str, precision: str = "highest") -> float:
    """Return the largest relative error of a right answer."""
    return max(RELATIVE_ERROR[dtype], PRECISION_ERROR[precision] if dtype == "float32" else 0.0)


def relative_error(answer: Array, truth: Array) -> float:
    """Return the Euclidean norm of the difference over that of the truth."""
    return euclidean_norm(answer - truth) / max(euclidean_norm(truth), 1e-300)


def euclidean_norm(values: Array) -> float:
    """Return the norm without BLAS, whose threads spin for 60 ms after `numpy.linalg.norm`, beside the first call."""
    return float(np.sqrt(np.sum(np.square(values))))


def checked_error(answer: Array, truth: Array, op: str, allowed: float, what: str) -> float | None:
    """Return the answer's error, or refuse it with ``RuntimeError``; a random answer has no error."""
    if op == "dropout":
        kept = float(np.count_nonzero(answer)) / answer.size
        if abs(kept - 0.5) > 4 / np.sqrt(answer.size):
            raise RuntimeError(f"{what}: kept {kept:.3f} of the values, expected 0.5")
        return None
    if answer.shape != truth.shape:
        raise RuntimeError(f"{what}: shape {answer.shape}, expected {truth.shape}")
    error = relative_error(answer, truth)
    if not error <= allowed:
        raise RuntimeError(f"{what}: relative error {error:.2e}, at most {allowed:.0e} allowed")
    return error
