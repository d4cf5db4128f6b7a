"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..nn.parameter import Parameter
from .optimizer import Optimizer, State, buffer, not_negative

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture of 2012, as PyTorch writes it).

    With ``g`` the gradient plus ``weight_decay * w``: ``s = alpha * s + (1 - alpha) * g**2`` and
    ``w -= lr * g / (sqrt(s) + eps)``.

    Parameters
    ----------
    params : iterable of Parameter
        What to train.
    lr : float
        Learning rate.
    alpha : float
        Decay of the running mean of the gradient's square.
    eps : float
        Added to the denominator.
    weight_decay : float
        Strength of the penalty ``weight_decay/2 * sum(w**2)``, which goes into the gradient.
    momentum : float
        Share of the last step that is kept.
    centered : bool
        Whether the square of the gradient's running mean is taken off ``s`` in the denominator, which makes it an
        estimate of the variance (Graves, 2013).
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")
    _buffers: ClassVar[tuple[str, ...]] = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.alpha = not_negative("alpha", alpha)
        self.eps = not_negative("eps", eps)
        self.weight_decay = not_negative("weight_decay", weight_decay)
        self.momentum = not_negative("momentum", momentum)
        self.centered = centered

    def _update(self, data: NDArray[Any], grad: NDArray[Any], state: State) -> None:
        square = buffer(state, "square_avg", data)
        square *= self.alpha
        square += (1.0 - self.alpha) * grad * grad
        if self.centered:
            mean = buffer(state, "grad_avg", data)
            mean += (1.0 - self.alpha) * (grad - mean)
            denominator = np.asarray(np.sqrt(square - mean * mean))
        else:
            denominator = np.asarray(np.sqrt(square))
        denominator += self.eps
        step = grad / denominator
        if self.momentum:
            velocity = buffer(state, "momentum_buffer", data)
            velocity *= self.momentum
            velocity += step
            step = velocity
        data -= self.lr * step
