"""Enlarging by interpolation, with nothing to learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._check import tuple_of_ints
from ._layout import Layer, check_array
from .receptive_field import Geometry

__all__ = ["Upsample"]

# For each linear mode, how many spatial axes it is for.
_LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}
_MODES = ("nearest", "nearest-exact", *_LINEAR)


class _Taps(NamedTuple):
    """Interpolation along one axis: each output is ``(1 - share) * x[first] + share * x[second]``."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: NDArray[np.float64] | None  # None where the second tap never counts


class Upsample(Layer):
    """Resize the spatial axes by interpolation, as ``torch.nn.Upsample``.

    Parameters
    ----------
    size : int or tuple of int, optional
        Spatial size of the output.
    scale_factor : float or tuple of float, optional
        Or how many times larger than the input's it is (rounded down). One of the two is needed.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "trilinear"}
        ``"nearest"`` takes the input position ``floor(i / scale)`` for output position ``i``, ``"nearest-exact"`` the
        one in which the centre of ``i`` lies, in any number of dimensions. The linear modes interpolate between
        neighbours along 1, 2 or 3 axes.
    align_corners : bool, optional
        For the linear modes. False (the default): positions are squares that fill both images, ``i`` lies at
        ``(i + 0.5) / scale - 0.5``, and beyond the border the border goes on. True: the first and last positions of
        both images coincide.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        *,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(data_format=data_format)
        if mode not in _MODES:
            raise ValueError(f"mode: expected one of {_MODES}, got {mode!r}")
        if (size is None) == (scale_factor is None):
            raise ValueError(f"size: expected either size or scale_factor, got {size!r} and {scale_factor!r}")
        if align_corners is not None and mode not in _LINEAR:
            raise ValueError(f"align_corners: expected None for mode={mode!r}, got {align_corners!r}")
        if size is not None:
            tuple_of_ints(size, len(size) if isinstance(size, Sequence) else 1, "size", 1)
        for factor in () if scale_factor is None else np.ravel(scale_factor):
            if not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"scale_factor: expected positive numbers, got {scale_factor!r}")
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners
        self._latest: Geometry | None = None

    def _sizes(self, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the output's spatial sizes, and for each axis the distance of its positions in the input."""
        n = len(spatial)
        if not 1 <= n <= 3 or _LINEAR.get(self.mode, n) != n:
            expected = _LINEAR.get(self.mode, "1, 2 or 3")
            raise ValueError(f"x: Upsample(mode={self.mode!r}) expects a batch with {expected} spatial axes, got {n}")
        if self.size is not None:
            sizes = tuple_of_ints(self.size, n, "size", 1)
            return sizes, tuple(before / after for before, after in zip(spatial, sizes, strict=True))
        given = np.asarray(self.scale_factor, np.float64)
        factors = np.tile(given, n) if given.ndim == 0 else given
        if factors.shape != (n,):
            raise ValueError(f"scale_factor: got {self.scale_factor!r}, expected a number or {n} of them")
        sizes = tuple(int(before * float(factor)) for before, factor in zip(spatial, factors, strict=True))
        if min(sizes) < 1:
            raise ValueError(f"scale_factor: {self.scale_factor!r} makes nothing of the spatial size {spatial}")
        return sizes, tuple(1.0 / float(factor) for factor in factors)

    def _taps(self, before: int, after: int, distance: float) -> _Taps:
        """Return the input positions, and the second one's share, of every output position of an axis."""
        i = np.arange(after, dtype=np.float64)
        at: NDArray[Any]
        if self.mode in _LINEAR:
            if before == after:  # also where a factor above 1 rounds down to no change, as in PyTorch
                at = i
            elif self.align_corners:
                at = i * ((before - 1) / (after - 1) if after > 1 else 0.0)
            else:
                at = np.maximum((i + 0.5) * distance - 0.5, 0.0)
            first = np.minimum(at.astype(np.int64), before - 1)
            share = np.clip(at - first, 0.0, 1.0)
            return _Taps(first, np.minimum(first + 1, before - 1), share if share.any() else None)
        half = 0.5 if self.mode == "nearest-exact" else 0.0
        first = np.minimum(((i + half) * distance).astype(np.int64), before - 1)
        return _Taps(first, first, None)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Resize."""
        start = 1 if self.data_format == "channels_last" else 2
        spatial = x.shape[start : start + x.ndim - 2]
        sizes, distances = self._sizes(spatial)
        axes = [
            (start + i, self._taps(before, after, distance))
            for i, (before, after, distance) in enumerate(zip(spatial, sizes, distances, strict=True))
        ]
        self._latest = self._reach(spatial, sizes, [taps for _, taps in axes])
        self._remember(x.shape, axes)
        y = _wide(x)
        for axis, taps in axes:
            y = _interpolate(y, axis, taps)
        return y.astype(x.dtype, copy=False)

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each output's is shared as its value was gathered."""
        shape, axes = self._recall()
        check_array(grad_output, "grad_output")
        grad = _wide(grad_output)
        for axis, taps in reversed(axes):
            grad = _share_out(grad, axis, taps, shape[axis])
        return grad.astype(grad_output.dtype, copy=False)

    @staticmethod
    def _reach(before: tuple[int, ...], after: tuple[int, ...], taps: list[_Taps]) -> Geometry:
        """Return the geometry of a transposed convolution whose outputs see as many positions: one or two."""
        scales = tuple(Fraction(large, small) for small, large in zip(before, after, strict=True))
        kernel = tuple(1 if each.share is None else 1 + scale for each, scale in zip(taps, scales, strict=True))
        return Geometry(kernel, scales, (1,) * len(scales), transposed=True)

    def geometry(self) -> Geometry | None:
        """Return how far an output of the latest forward sees; ``None`` before the first."""
        return self._latest

    def _options(self) -> str:
        target = f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}"
        return f"{target}, mode={self.mode!r}" + (", align_corners=True" if self.align_corners else "")


def _wide(x: NDArray[Any]) -> NDArray[Any]:
    """Return 16-bit numbers as float32."""
    return x.astype(np.result_type(x.dtype, np.float32), copy=False)


def _along(share: NDArray[np.float64], x: NDArray[Any], axis: int) -> NDArray[Any]:
    return share.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))


def _interpolate(x: NDArray[Any], axis: int, taps: _Taps) -> NDArray[Any]:
    first: NDArray[Any] = np.take(x, taps.first, axis)
    if taps.share is None:
        return first
    share = _along(taps.share, x, axis)
    # A tap with no share must not count: infinity times 0 is a NaN.
    second = np.where(share > 0, np.take(x, taps.second, axis), 0)
    return first * (1 - share) + second * share  # type: ignore[no-any-return]


def _share_out(grad: NDArray[Any], axis: int, taps: _Taps, size: int) -> NDArray[Any]:
    """Transpose of ``_interpolate``."""
    if taps.share is None:
        return _add_runs(grad, axis, taps.first, size)
    share = _along(taps.share, grad, axis)
    result = _add_runs(grad * (1 - share), axis, taps.first, size)
    result += _add_runs(grad * share, axis, taps.second, size)
    return result


def _add_runs(grad: NDArray[Any], axis: int, positions: NDArray[np.int64], size: int) -> NDArray[Any]:
    """Add up the slices with equal positions, which are ascending, and put each sum in its position."""
    result = np.zeros((*grad.shape[:axis], size, *grad.shape[axis + 1 :]), grad.dtype)
    places, starts = np.unique(positions, return_index=True)
    result[(slice(None),) * axis + (places,)] = np.add.reduceat(grad, starts, axis)
    return result
