"""Optimizers: rules that change parameters by their gradients.

The rules are PyTorch's, operation for operation, so that training runs can be compared. Parameters without a gradient
are left alone, and everything is computed in the parameter's own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nn.parameter import Parameter

__all__ = ["SGD", "Adam", "Optimizer"]


class Optimizer:
    """What the optimizers share.

    Parameters
    ----------
    params : iterable of Parameter
        For example ``module.parameters()``.
    lr : float
        Learning rate. The attribute ``lr`` may be changed at any time, for a schedule.
    """

    def __init__(self, params: Iterable[Parameter], lr: float) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError("params: there is nothing to optimize (an iterator can be gone through only once)")
        for parameter in self.params:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"params: expected fastconv.nn.Parameter objects, got {type(parameter).__name__}")
        if len({id(parameter) for parameter in self.params}) != len(self.params):
            raise ValueError("params: a parameter is there more than once")
        self.lr = _not_negative("lr", lr)
        self._state: list[dict[str, NDArray[Any]]] = [{} for _ in self.params]
        self._steps = [0] * len(self.params)

    def zero_grad(self) -> None:
        """Set every parameter's ``grad`` to ``None``."""
        for parameter in self.params:
            parameter.zero_grad()

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        for i, parameter in enumerate(self.params):
            if parameter.grad is not None:
                self._steps[i] += 1
                self._update(
                    parameter.data, self._penalised(parameter.data, parameter.grad), self._steps[i], self._state[i]
                )

    def _penalised(self, data: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient with that of the penalties on large weights added."""
        return grad

    def _update(self, data: NDArray[Any], grad: NDArray[Any], step: int, state: dict[str, NDArray[Any]]) -> None:
        """Change ``data`` in place; ``step`` counts from 1."""
        raise TypeError(f"{type(self).__name__} does not define its rule")


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

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        l1: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.momentum = _not_negative("momentum", momentum)
        if nesterov and momentum == 0:
            raise ValueError("nesterov: needs a momentum greater than 0")
        self.nesterov = nesterov
        self.weight_decay = _not_negative("weight_decay", weight_decay)
        self.l1 = _not_negative("l1", l1)

    def _penalised(self, data: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        if self.weight_decay:
            grad = grad + self.weight_decay * data
        if self.l1:
            grad = grad + self.l1 * np.sign(data)
        return grad

    def _update(self, data: NDArray[Any], grad: NDArray[Any], step: int, state: dict[str, NDArray[Any]]) -> None:
        if self.momentum:
            if "velocity" in state:
                velocity = state["velocity"]
                velocity *= self.momentum
                velocity += grad
            else:
                velocity = state["velocity"] = np.array(grad)
            grad = grad + self.momentum * velocity if self.nesterov else velocity
        data -= self.lr * grad


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015).

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
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        for beta in betas:
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        self.betas = (betas[0], betas[1])
        self.eps = _not_negative("eps", eps)
        self.weight_decay = _not_negative("weight_decay", weight_decay)

    def _penalised(self, data: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        return grad + self.weight_decay * data if self.weight_decay else grad

    def _update(self, data: NDArray[Any], grad: NDArray[Any], step: int, state: dict[str, NDArray[Any]]) -> None:
        if not state:
            state["mean"] = np.zeros_like(data)
            state["square"] = np.zeros_like(data)
        beta1, beta2 = self.betas
        mean, square = state["mean"], state["square"]
        mean += (grad - mean) * (1.0 - beta1)
        square *= beta2
        square += (1.0 - beta2) * grad * grad
        denominator = np.sqrt(square, out=np.empty_like(square))
        denominator /= math.sqrt(1.0 - beta2**step)
        denominator += self.eps
        np.divide(mean, denominator, out=denominator)
        denominator *= self.lr / (1.0 - beta1**step)
        data -= denominator


def _not_negative(name: str, value: float) -> float:
    """Return a finite number that is not negative.

    Raises
    ------
    ValueError
        If it is not one.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number that is not negative, got {value!r}")
    return float(value)
