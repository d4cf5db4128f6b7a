"""The layer that undoes a maximum pooling; it works in 1, 2 and 3 dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from .. import functional as F
from ._layout import check_array
from ._trace import active_observer
from .pooling import Padding, Size, _Window
from .receptive_field import Geometry

__all__ = ["MaxUnpool", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]


class MaxUnpool(_Window):
    """Values back to the places that a `MaxPool` took them from; all other places are zero.

    Call it with the values and the indices that a pool with ``return_indices=True`` gave::

        y, indices = pool(x)
        back = unpool(y, indices)

    Parameters
    ----------
    kernel_size, stride, padding, data_format
        As the pool was given them.
    """

    _forward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.max_unpool1d,
        2: F.max_unpool2d,
        3: F.max_unpool3d,
    }
    _backward: ClassVar[dict[int, Callable[..., NDArray[Any]]]] = {
        1: F.max_unpool1d_backward,
        2: F.max_unpool2d_backward,
        3: F.max_unpool3d_backward,
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        *,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, False, data_format)

    def __call__(
        self, x: NDArray[Any], indices: NDArray[Any] | None = None, output_size: Sequence[int] | None = None
    ) -> NDArray[Any]:
        check_array(x)
        observer = active_observer()
        if observer is None:
            return self.forward(x, indices, output_size)
        observer.enter(self, x)
        y = self.forward(x, indices, output_size)
        observer.leave(self, x, y)
        return y

    def forward(
        self, x: NDArray[Any], indices: NDArray[Any] | None = None, output_size: Sequence[int] | None = None
    ) -> NDArray[Any]:
        """Unpool to ``output_size``, where given, which `MaxPool` may have pooled to the size of ``x``."""
        if indices is None:
            raise TypeError(
                "indices: MaxUnpool is called with the values and the indices that a pool with return_indices=True gave"
            )
        n = self._dimensions_of(x)
        y = self._forward[n](
            x, indices, self.kernel_size, self.stride, self.padding, output_size, data_format=self.data_format
        )
        self._remember(n, indices)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient of the values: what lies where each of them went."""
        n, indices = self._recall()
        return self._backward[n](grad_output, indices, data_format=self.data_format)

    def geometry(self) -> Geometry | None:
        """Return the window and the stride with which a transposed convolution would spread values as far."""
        geometry = super().geometry()
        return None if geometry is None else geometry._replace(transposed=True)


class MaxUnpool1d(MaxUnpool):
    __doc__ = MaxUnpool.__doc__
    _ndim = 1


class MaxUnpool2d(MaxUnpool):
    __doc__ = MaxUnpool.__doc__
    _ndim = 2


class MaxUnpool3d(MaxUnpool):
    __doc__ = MaxUnpool.__doc__
    _ndim = 3
