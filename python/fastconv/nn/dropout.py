"""Dropout layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from . import init
from ._layout import Layer

__all__ = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d"]


class Dropout(Layer):
    """Set entries to zero at random in training; do nothing in evaluation (Srivastava and others, 2014).

    Parameters
    ----------
    p : float
        Probability of zero; what is kept is scaled by ``1/(1-p)``.
    data_format : {"channels_first", "channels_last"}
        Where the channels are, for the channel-wise forms.
    rng : numpy.random.Generator, optional
        Source of the masks. Unless given, the layer has a generator of its own, started from the one that
        `fastconv.nn.init.seed` restarts.
    """

    _forward: ClassVar[Callable[..., Any]] = F.dropout
    _backward: ClassVar[Callable[..., NDArray[Any]]] = F.dropout_backward

    def __init__(
        self, p: float = 0.5, *, data_format: str = "channels_first", rng: np.random.Generator | None = None
    ) -> None:
        super().__init__(data_format=data_format)
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p: expected a probability between 0 and 1, got {p!r}")
        self.p = p
        self.rng = (
            init.source_of(rng) if rng is not None else np.random.default_rng(init.default_generator().integers(2**63))
        )

    def _keywords(self) -> dict[str, Any]:
        return {}

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Drop."""
        if not self.training:
            self._remember(None)
            return x
        y, mask = type(self)._forward(x, self.p, True, seed=int(self.rng.integers(2**63)), **self._keywords())
        self._remember(mask)
        return y  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: zero where the forward dropped."""
        (mask,) = self._recall()
        return grad_output if mask is None else type(self)._backward(grad_output, mask, self.p)

    def _options(self) -> str:
        return f"p={self.p}"


class _ChannelDropout(Dropout):
    """Set whole channels to zero at random in training (Tompson and others, 2015).

    Parameters are those of `Dropout`. Neighbouring positions of a feature map are alike, so dropping single ones
    takes nothing away; dropping channels does.
    """

    def _keywords(self) -> dict[str, Any]:
        return {"data_format": self.data_format}


class Dropout1d(_ChannelDropout):
    __doc__ = _ChannelDropout.__doc__
    _forward = F.dropout1d
    _backward = F.dropout1d_backward


class Dropout2d(_ChannelDropout):
    __doc__ = _ChannelDropout.__doc__
    _forward = F.dropout2d
    _backward = F.dropout2d_backward


class Dropout3d(_ChannelDropout):
    __doc__ = _ChannelDropout.__doc__
    _forward = F.dropout3d
    _backward = F.dropout3d_backward
