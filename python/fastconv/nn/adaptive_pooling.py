"""Pooling layers with an output of a given size; each works in 1, 2 and 3 dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from .._check import integer
from ._layout import Layer
from .receptive_field import Geometry

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
]

OutputSize = int | Sequence[int | None]


class _Adaptive(Layer):
    """What the two pools share: the output's size, and the number of axes."""

    # Set by the names with a number, AdaptiveAvgPool2d and so on; found from the size or the input otherwise.
    _ndim: ClassVar[int | None] = None
    _forward: ClassVar[dict[int, Callable[..., Any]]]
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]]

    def __init__(self, output_size: OutputSize, *, data_format: str = "channels_first") -> None:
        super().__init__(data_format=data_format)
        sizes = list(output_size) if isinstance(output_size, (tuple, list)) else [output_size]
        for size in sizes:
            if size is not None or len(sizes) > 1:
                integer(1 if size is None else size, "output_size", 1)
        self._dimensions = self._ndim
        if self._dimensions is None and isinstance(output_size, (tuple, list)):
            self._dimensions = len(sizes)
        expected = "1, 2 or 3" if self._dimensions is None or self._ndim is None else str(self._ndim)
        fits = self._dimensions in (None, 1, 2, 3) and (
            not isinstance(output_size, (tuple, list)) or len(sizes) == self._dimensions
        )
        if not fits:
            raise ValueError(f"output_size: expected an int or a tuple of {expected} ints, got {output_size!r}")
        self.output_size = output_size
        self._seen_sizes: tuple[int, ...] | None = None

    def _dimensions_of(self, x: NDArray[Any]) -> int:
        """Return how many spatial axes an input has; one that is not batched needs a layer that says so itself."""
        n = self._dimensions if self._dimensions is not None else np.ndim(x) - 2
        if n not in (1, 2, 3):
            raise ValueError(
                f"x: {type(self).__name__} expects a batch with 1, 2 or 3 spatial axes, got shape {np.shape(x)}"
            )
        shape = np.shape(x)
        self._seen_sizes = tuple(shape[-n - 1 : -1] if self.data_format == "channels_last" else shape[-n:])
        return n

    def geometry(self) -> Geometry | None:
        """Return the largest bin and the mean distance of bins, along each axis of the latest input."""
        sizes = self._seen_sizes
        if sizes is None:
            return None
        asked = self.output_size if isinstance(self.output_size, (tuple, list)) else (self.output_size,) * len(sizes)
        bins = [size if out is None else out for size, out in zip(sizes, asked, strict=True)]
        if all(out == 1 for out in bins):
            return Geometry.everything()
        kernel = tuple(
            max(-(-(o + 1) * size // out) - o * size // out for o in range(out))
            for size, out in zip(sizes, bins, strict=True)
        )
        stride = tuple(max(size // out, 1) for size, out in zip(sizes, bins, strict=True))
        return Geometry(kernel, stride, (1,) * len(sizes))

    def _options(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool(_Adaptive):
    """Mean of each bin, of as many bins as the output has positions.

    Parameters
    ----------
    output_size : int or tuple of int or None
        The output's spatial size; one int serves all axes, ``None`` keeps an axis's size. A tuple, or a name such as
        ``AdaptiveAvgPool2d``, fixes the number of spatial axes; an unbatched ``(C, *spatial)`` is then accepted too.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``.
    """

    _forward: ClassVar[dict[int, Callable[..., Any]]] = {
        1: F.adaptive_avg_pool1d,
        2: F.adaptive_avg_pool2d,
        3: F.adaptive_avg_pool3d,
    }
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.adaptive_avg_pool1d_backward,
        2: F.adaptive_avg_pool2d_backward,
        3: F.adaptive_avg_pool3d_backward,
    }

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Pool."""
        n = self._dimensions_of(x)
        self._remember(n, x.shape)
        return self._forward[n](x, self.output_size, data_format=self.data_format)  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each bin's is shared among its positions."""
        n, shape = self._recall()
        return self._backward[n](grad_output, shape, data_format=self.data_format)


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    __doc__ = AdaptiveAvgPool.__doc__
    _ndim = 1


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    __doc__ = AdaptiveAvgPool.__doc__
    _ndim = 2


class AdaptiveAvgPool3d(AdaptiveAvgPool):
    __doc__ = AdaptiveAvgPool.__doc__
    _ndim = 3


class AdaptiveMaxPool(_Adaptive):
    """Maximum of each bin, of as many bins as the output has positions.

    Parameters
    ----------
    output_size, data_format
        As for `AdaptiveAvgPool`.
    return_indices : bool
        Whether a forward returns ``(y, indices)``, where the maxima were, for `MaxUnpool`.
    """

    _forward: ClassVar[dict[int, Callable[..., Any]]] = {
        1: F.adaptive_max_pool1d,
        2: F.adaptive_max_pool2d,
        3: F.adaptive_max_pool3d,
    }
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.adaptive_max_pool1d_backward,
        2: F.adaptive_max_pool2d_backward,
        3: F.adaptive_max_pool3d_backward,
    }

    def __init__(
        self, output_size: OutputSize, return_indices: bool = False, *, data_format: str = "channels_first"
    ) -> None:
        super().__init__(output_size, data_format=data_format)
        self.return_indices = return_indices

    def forward(self, x: NDArray[Any]) -> Any:
        """Pool; where the maxima were is noted for backward."""
        n = self._dimensions_of(x)
        indexed = self.remembers or self.return_indices
        result = self._forward[n](x, self.output_size, indexed, data_format=self.data_format)
        y, indices = result if indexed else (result, None)
        self._remember(n, indices, x.shape)
        return (y, indices) if self.return_indices else y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each bin's goes to the position of its maximum."""
        n, indices, shape = self._recall()
        return self._backward[n](grad_output, indices, shape, data_format=self.data_format)


class AdaptiveMaxPool1d(AdaptiveMaxPool):
    __doc__ = AdaptiveMaxPool.__doc__
    _ndim = 1


class AdaptiveMaxPool2d(AdaptiveMaxPool):
    __doc__ = AdaptiveMaxPool.__doc__
    _ndim = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool):
    __doc__ = AdaptiveMaxPool.__doc__
    _ndim = 3
