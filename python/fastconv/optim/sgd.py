"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..nn.parameter import Parameter
from .optimizer import Optimizer, State, not_negative

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent.

    With ``g`` the gradient plus ``weight_decay * w + l1 * sign(w)``: ``v = momentum * v + g`` (``v = g`` at first) and
    ``w -= lr * v``; Nesterov's form takes ``g + momentum * v`` for ``v`` in the last step (Sutskever and others, 2013,
    as PyTorch writes it).

    Parameters
    ----------
    params : iterable of Parameter
        What to train.
    lr : float
        Learning rate.
    momentum : float
        Share of the last step that is kept.
    nesterov : bool
        Whether to look ahead along the momentum.
    weight_decay, l1 : float
        Strength of the penalties ``weight_decay/2 * sum(w**2)`` and ``l1 * sum(abs(w))``.
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr", "momentum", "nesterov", "weight_decay", "l1")
    _buffers: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    _counts_steps: ClassVar[bool] = False
    _update_penalises: ClassVar[bool] = True

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float,
        momentum: float = 0,
        nesterov: bool = False,
        weight_decay: float = 0,
        l1: float = 0,
    ) -> None:
        super().__init__(params, lr)
        self.momentum = not_negative("momentum", momentum)
        if nesterov and momentum == 0:
            raise ValueError("nesterov: needs a momentum greater than 0")
        self.nesterov = nesterov
        self.weight_decay = not_negative("weight_decay", weight_decay)
        self.l1 = not_negative("l1", l1)

    def _update(self, data: NDArray[Any], grad: NDArray[Any], state: State) -> None:
        velocity = state.get("momentum_buffer") if self.momentum else None
        first = velocity is None
        if self.momentum and first:
            velocity = np.empty_like(data)
        penalties = self.weight_decay, self.l1
        _core.sgd(data, grad, velocity, first, self.lr, self.momentum, self.nesterov, *penalties)
        if velocity is not None:
            state["momentum_buffer"] = velocity
