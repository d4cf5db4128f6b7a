"""Pooling layers by powers; each works in 1, 2 and 3 dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from numpy.typing import NDArray

from .. import functional as F
from .pooling import Padding, Size, _Window

__all__ = [
    "LPPool",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "RMSPool",
    "RMSPool1d",
    "RMSPool2d",
    "RMSPool3d",
]


class RMSPool(_Window):
    """Root mean square of each window.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode, data_format
        As for `MaxPool`; padded positions count as zeros.
    """

    _forward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {1: F.rms_pool1d, 2: F.rms_pool2d, 3: F.rms_pool3d}
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.rms_pool1d_backward,
        2: F.rms_pool2d_backward,
        3: F.rms_pool3d_backward,
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        *,
        dilation: Size = 1,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, data_format)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Pool; input and output are kept for backward."""
        n = self._dimensions_of(x)
        y = self._forward[n](x, *self._arguments(), **self._keywords())
        self._remember(n, x, y)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: each position's is as large as its part in its windows' outputs."""
        n, x, y = self._recall()
        return self._backward[n](grad_output, x, y, *self._arguments(), **self._keywords())

    def _arguments(self) -> tuple[Any, ...]:
        return (self.kernel_size,)


class RMSPool1d(RMSPool):
    __doc__ = RMSPool.__doc__
    _ndim = 1


class RMSPool2d(RMSPool):
    __doc__ = RMSPool.__doc__
    _ndim = 2


class RMSPool3d(RMSPool):
    __doc__ = RMSPool.__doc__
    _ndim = 3


class LPPool(RMSPool):
    """p-norm of each window: the p-th root of the sum of its values' p-th powers.

    Parameters
    ----------
    norm_type : float
        The power p, as ``fastconv.functional.lp_pool2d`` takes it.
    kernel_size, stride, padding, dilation, ceil_mode, data_format
        As for `MaxPool`; padding adds zeros.
    """

    _forward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.lp_pool1d_backward,
        2: F.lp_pool2d_backward,
        3: F.lp_pool3d_backward,
    }

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        *,
        padding: Padding = 0,
        dilation: Size = 1,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, dilation=dilation, data_format=data_format)
        self.norm_type = norm_type

    def _arguments(self) -> tuple[Any, ...]:
        return (self.norm_type, self.kernel_size)

    def _options(self) -> str:
        return f"norm_type={self.norm_type}, {super()._options()}"


class LPPool1d(LPPool):
    __doc__ = LPPool.__doc__
    _ndim = 1


class LPPool2d(LPPool):
    __doc__ = LPPool.__doc__
    _ndim = 2


class LPPool3d(LPPool):
    __doc__ = LPPool.__doc__
    _ndim = 3
