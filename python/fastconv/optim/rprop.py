"""Resilient backpropagation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..nn.parameter import Parameter
from .optimizer import Optimizer, State, buffer, not_negative, pair

__all__ = ["Rprop"]


class Rprop(Optimizer):
    """Rprop (Riedmiller and Braun, 1993, as PyTorch writes it): for gradients of the whole data set.

    Only the gradient's sign is used. Each weight has a step size of its own, which grows while the sign stays and
    shrinks when it turns; a weight whose sign turned is left where it is once.

    Parameters
    ----------
    params : iterable of Parameter
        What to train.
    lr : float
        The first step size; later changes have no effect on weights that were updated before.
    etas : tuple of two floats
        Factors by which a step size shrinks (between 0 and 1) and grows (above 1).
    step_sizes : tuple of two floats
        The smallest and the largest step size.
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr", "etas", "step_sizes")
    _buffers: ClassVar[tuple[str, ...]] = ("prev", "step_size")

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
    ) -> None:
        super().__init__(params, lr)
        self.etas = pair("etas", etas)
        if not 0.0 < self.etas[0] < 1.0 < self.etas[1]:
            raise ValueError(f"etas: expected a number between 0 and 1 and one above 1, got {etas!r}")
        self.step_sizes = pair("step_sizes", step_sizes)
        if not_negative("step_sizes", self.step_sizes[0]) > self.step_sizes[1]:
            raise ValueError(f"step_sizes: expected the smallest and the largest, got {step_sizes!r}")

    def _update(self, data: NDArray[Any], grad: NDArray[Any], state: State) -> None:
        previous = buffer(state, "prev", data)
        if "step_size" not in state:
            state["step_size"] = np.full_like(data, self.lr)
        sizes = state["step_size"]
        agreement = np.asarray(grad * previous)
        turned = agreement < 0
        sizes[turned] *= self.etas[0]
        sizes[agreement > 0] *= self.etas[1]
        np.clip(sizes, *self.step_sizes, out=sizes)
        np.copyto(previous, grad)
        previous[turned] = 0
        data -= np.sign(previous) * sizes
