"""Pooling layers; each works in 1, 2 and 3 dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from .._check import tuple_of_ints
from ._layout import Layer
from .receptive_field import Geometry

__all__ = [
    "AvgPool",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "MaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MinPool",
    "MinPool1d",
    "MinPool2d",
    "MinPool3d",
]

Size = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


class _Window(Layer):
    """What the pools with a sliding window share."""

    # Set by the names with a number, MaxPool2d and so on; found from the arguments or the input otherwise.
    _ndim: ClassVar[int | None] = None

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        dilation: Size,
        ceil_mode: bool,
        data_format: str,
    ) -> None:
        super().__init__(data_format=data_format)
        sizes = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        self._dimensions = self._ndim
        for value in sizes.values():
            if self._dimensions is None and isinstance(value, (tuple, list)):
                self._dimensions = len(value)
        for name, value in sizes.items():
            if value is not None:
                tuple_of_ints(value, self._dimensions or 1, name, 1)
        if self._dimensions not in (None, 1, 2, 3):
            raise ValueError(f"kernel_size: expected an int or a tuple of 1, 2 or 3 ints, got {kernel_size!r}")
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode
        self._seen_dimensions = self._dimensions

    def _dimensions_of(self, x: NDArray[Any]) -> int:
        """Return how many spatial axes an input has; one that is not batched needs a layer that says so itself."""
        n = self._dimensions if self._dimensions is not None else np.ndim(x) - 2
        if n not in (1, 2, 3):
            raise ValueError(
                f"x: {type(self).__name__} expects a batch with 1, 2 or 3 spatial axes, got shape {np.shape(x)}"
            )
        self._seen_dimensions = n
        return n

    def _keywords(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "ceil_mode": self.ceil_mode,
            "data_format": self.data_format,
        }

    def geometry(self) -> Geometry | None:
        """Return window, stride and dilation of each spatial axis (of the latest input, where only it tells)."""
        n = self._seen_dimensions
        if n is None:
            return None
        kernel, stride, dilation = (
            tuple_of_ints(getattr(self, name), n, name, 1) for name in ("kernel_size", "stride", "dilation")
        )
        return Geometry(kernel, stride, dilation)

    def _options(self) -> str:
        options = f"kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != 0:
            options += f", padding={self.padding!r}"
        return options + (", ceil_mode=True" if self.ceil_mode else "")


class _Extremum(_Window):
    """Maximum or minimum of each window.

    Parameters
    ----------
    kernel_size : int or tuple of int
        Size of the window. With an int the number of spatial axes is the input's: ``(N, C, *spatial)``. A tuple, or a
        name such as ``MaxPool2d``, fixes it, and then an unbatched ``(C, *spatial)`` is accepted too.
    stride : int or tuple of int, optional
        Distance between windows; the window's size unless given.
    padding : int, tuple of int, pairs of int or str
        As ``fastconv.functional.max_pool2d`` takes it; padded positions are never chosen.
    dilation : int or tuple of int
        Distance between the positions of a window.
    ceil_mode : bool
        Whether a last window that is not filled counts.
    return_indices : bool
        Whether a forward returns ``(y, indices)``, where the extremes were, for `MaxUnpool`.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``.
    """

    _forward: ClassVar[dict[int, Callable[..., Any]]]
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        return_indices: bool = False,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, data_format)
        self.return_indices = return_indices

    def forward(self, x: NDArray[Any]) -> Any:
        """Pool; where the extremes were is noted for backward."""
        n = self._dimensions_of(x)
        indexed = self.remembers or self.return_indices
        result = self._forward[n](x, self.kernel_size, return_indices=indexed, **self._keywords())
        y, indices = result if indexed else (result, None)
        self._remember(n, indices, x.shape)
        return (y, indices) if self.return_indices else y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each window's goes to the position that was chosen."""
        n, indices, shape = self._recall()
        return self._backward[n](grad_output, indices, shape, data_format=self.data_format)


class MaxPool(_Extremum):
    __doc__ = _Extremum.__doc__
    _forward: ClassVar[dict[int, Callable[..., Any]]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.max_pool1d_backward,
        2: F.max_pool2d_backward,
        3: F.max_pool3d_backward,
    }


class MaxPool1d(MaxPool):
    __doc__ = _Extremum.__doc__
    _ndim = 1


class MaxPool2d(MaxPool):
    __doc__ = _Extremum.__doc__
    _ndim = 2


class MaxPool3d(MaxPool):
    __doc__ = _Extremum.__doc__
    _ndim = 3


class MinPool(_Extremum):
    __doc__ = _Extremum.__doc__
    _forward: ClassVar[dict[int, Callable[..., Any]]] = {1: F.min_pool1d, 2: F.min_pool2d, 3: F.min_pool3d}
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.min_pool1d_backward,
        2: F.min_pool2d_backward,
        3: F.min_pool3d_backward,
    }


class MinPool1d(MinPool):
    __doc__ = _Extremum.__doc__
    _ndim = 1


class MinPool2d(MinPool):
    __doc__ = _Extremum.__doc__
    _ndim = 2


class MinPool3d(MinPool):
    __doc__ = _Extremum.__doc__
    _ndim = 3


class AvgPool(_Window):
    """Mean of each window.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode, data_format
        As for `MaxPool`.
    count_include_pad : bool
        Whether padded positions count as zeros in the mean, or not at all.
    divisor_override : int, optional
        Divide every window's sum by this instead.
    """

    _forward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.avg_pool1d,
        2: F.avg_pool2d,
        3: F.avg_pool3d,
    }
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.avg_pool1d_backward,
        2: F.avg_pool2d_backward,
        3: F.avg_pool3d_backward,
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        dilation: Size = 1,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, data_format)
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def _keywords(self) -> dict[str, Any]:
        return super()._keywords() | {
            "count_include_pad": self.count_include_pad,
            "divisor_override": self.divisor_override,
        }

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Pool."""
        n = self._dimensions_of(x)
        self._remember(n, x.shape)
        return self._forward[n](x, self.kernel_size, **self._keywords())

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each window's is shared among its positions."""
        n, shape = self._recall()
        return self._backward[n](grad_output, shape, self.kernel_size, **self._keywords())


class AvgPool1d(AvgPool):
    __doc__ = AvgPool.__doc__
    _ndim = 1


class AvgPool2d(AvgPool):
    __doc__ = AvgPool.__doc__
    _ndim = 2


class AvgPool3d(AvgPool):
    __doc__ = AvgPool.__doc__
    _ndim = 3


class GlobalAvgPool(Layer):
    """Mean over all spatial positions: ``(N, C, *spatial)`` to ``(N, C)``."""

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Pool."""
        self._remember(x.shape)
        y: NDArray[Any] = F.global_avg_pool(x, data_format=self.data_format)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each channel's is shared among its positions."""
        (shape,) = self._recall()
        grad: NDArray[Any] = F.global_avg_pool_backward(grad_output, shape, data_format=self.data_format)
        return grad

    def geometry(self) -> Geometry | None:
        """Every output sees everything."""
        return Geometry.everything()


class GlobalMaxPool(Layer):
    """Maximum over all spatial positions: ``(N, C, *spatial)`` to ``(N, C)``."""

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Pool; where the maxima were is noted for backward."""
        result = F.global_max_pool(x, return_indices=self.remembers, data_format=self.data_format)
        y, indices = result if self.remembers else (result, None)
        self._remember(indices, x.shape)
        return y  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each channel's goes to the position of its maximum."""
        indices, shape = self._recall()
        grad: NDArray[Any] = F.global_max_pool_backward(grad_output, indices, shape, data_format=self.data_format)
        return grad

    def geometry(self) -> Geometry | None:
        """Every output sees everything."""
        return Geometry.everything()
