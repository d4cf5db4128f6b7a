"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from numpy.typing import NDArray

from .. import _core
from ..nn.parameter import Parameter
from .optimizer import Optimizer, State, buffer, not_negative, pair

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015).

    With ``g`` the gradient plus ``weight_decay * w``, and ``m`` and ``s`` the running means of ``g`` and ``g**2``, each
    divided by ``1 - beta**step`` because it started from 0: ``w -= lr * m / (sqrt(s) + eps)``.

    Parameters
    ----------
    params : iterable of Parameter
        What to train.
    lr : float
        Learning rate.
    betas : tuple of two floats
        Decay of the running means of the gradient and of its square.
    eps : float
        Added to the denominator.
    weight_decay : float
        Strength of the penalty ``weight_decay/2 * sum(w**2)``, which goes into the gradient.
    amsgrad : bool
        Whether the largest ``s`` so far is taken for ``s`` (Reddi and others, 2018).
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr", "betas", "eps", "weight_decay", "amsgrad")
    _update_penalises: ClassVar[bool] = True
    _buffers: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _fixed: ClassVar[dict[str, Any]] = {"decoupled_weight_decay": False}

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.betas = pair("betas", betas)
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        self.eps = not_negative("eps", eps)
        self.weight_decay = not_negative("weight_decay", weight_decay)
        self.amsgrad = amsgrad

    def _update(self, data: NDArray[Any], grad: NDArray[Any], state: State) -> None:
        mean, square = buffer(state, "exp_avg", data), buffer(state, "exp_avg_sq", data)
        largest = buffer(state, "max_exp_avg_sq", data) if self.amsgrad else None
        beta1, beta2 = self.betas
        rate = self.lr / (1.0 - beta1 ** state["step"])
        correction = math.sqrt(1.0 - beta2 ** state["step"])
        decay, shrink = self._decay()
        _core.adam(data, grad, mean, square, largest, rate, beta1, beta2, correction, self.eps, decay, shrink)

    def _decay(self) -> tuple[float, float]:
        """Return the decay that is part of the gradient, and what the weights are multiplied with before the step."""
        return self.weight_decay, 1.0


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Before each update ``w -= lr * weight_decay * w``; the decay is no part of the gradient, so that Adam's denominator
    does not undo it.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad
        As for `Adam`.
    weight_decay : float
        Share of each weight, times ``lr``, that an update takes away.
    """

    _fixed: ClassVar[dict[str, Any]] = {"decoupled_weight_decay": True}

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    def _decay(self) -> tuple[float, float]:
        return 0.0, 1.0 - self.lr * self.weight_decay
