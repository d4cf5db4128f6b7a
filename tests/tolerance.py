"""Error bounds computed from the dtype, the length of the reduction and the magnitude of its terms.

With the unit roundoff ``u`` (half the dtype's eps), adding ``L`` products in any order, each rounded at worst twice,
errs by at most about ``(L + 1) * u * sum(|a| |b|)``.  Rounding errors are not all of one sign: in random data the
error of a long sum exceeds ``8 * sqrt(L) * u * sum(|a| |b|)`` only with probability below 1e-13 (N. Higham and T. Mary,
"A new approach to probabilistic rounding error analysis", 2019).  The bound of a sum is the smaller of the two, and the
tests never carry a tolerance that was guessed.
"""

from __future__ import annotations

import math

import numpy as np


def unit_roundoff(dtype):
    """The largest relative error of rounding to nearest: half of eps."""
    return float(np.finfo(dtype).eps) / 2


def growth(length):
    """How many unit roundoffs of its magnitude a sum of ``length`` products may be wrong by."""
    return min(length + 1.0, 8.0 * math.sqrt(length)) + 1.0


def sum_bound(dtype, length, magnitude):
    """Elementwise bound of a sum of ``length`` products whose absolute values add up to ``magnitude``.

    Kernels may flush subnormal numbers to zero, so each product may also lose the smallest normal number.
    """
    return growth(length) * unit_roundoff(dtype) * np.asarray(magnitude) + length * float(np.finfo(dtype).tiny)


def ulp_bound(dtype, expected, ulps, floor=0.0):
    """Elementwise bound of a function evaluated to within ``ulps`` unit roundoffs of its own value.

    ``floor`` adds an absolute term in unit roundoffs, for functions whose argument reduction is relative to another
    magnitude than the value's (``log_softmax`` near 0, for instance).
    """
    u = unit_roundoff(dtype)
    return u * (ulps * np.abs(np.asarray(expected)) + floor) + float(np.finfo(dtype).tiny)


def magnitude(definition, *arrays, **geometry):
    """``sum(|a| |b|)`` of a definition that sums products: the same function of the absolute values."""
    absolute = (np.abs(a) if isinstance(a, np.ndarray) else a for a in arrays)
    return definition(*absolute, **geometry)


def error_ratio(actual, expected, bound):
    """Each error in units of its bound, 0 where both are the same (also the same infinity or NaN)."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        ratio = np.where(same, 0.0, error / np.broadcast_to(bound, error.shape))
    return np.where(np.isnan(ratio), np.inf, ratio)


def assert_close(actual, expected, bound, what="result"):
    """``actual`` has ``expected``'s shape, NaNs and infinities, and lies within ``bound`` of it everywhere else."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if actual.size == 0:
        return
    ratio = error_ratio(actual, expected, bound)
    if ratio.max() > 1:
        at = tuple(int(i) for i in np.unravel_index(np.argmax(ratio), ratio.shape))
        limit = np.broadcast_to(bound, actual.shape)[at]
        raise AssertionError(
            f"{what}: {int((ratio > 1).sum())} of {ratio.size} entries out of bound; worst at {at}: "
            f"got {actual[at]!r}, expected {expected[at]!r}, bound {limit:.3g}"
        )


def assert_same_bits(actual, expected, what="result"):
    """Both arrays hold the same bits: also the sign of zeros and the place of NaNs."""
    actual, expected = np.ascontiguousarray(actual), np.ascontiguousarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    if actual.tobytes() != expected.tobytes():
        differing = int((actual.view(np.uint8) != expected.view(np.uint8)).sum()) if actual.ndim else 1
        raise AssertionError(f"{what}: the bits differ ({differing} bytes of {actual.nbytes})")
