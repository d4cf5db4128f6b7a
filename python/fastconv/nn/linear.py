"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional as F
from .._check import integer
from . import init
from ._layout import Layer, check_dtype
from .receptive_field import Geometry

__all__ = ["Linear"]


class Linear(Layer):
    """``x @ weight.T + bias`` over the last axis.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of input and output.
    bias : bool
        Whether a learned number per output is added.
    dtype, rng
        As for `Conv2d`.

    Attributes
    ----------
    weight : Parameter
        ``(out_features, in_features)``, at first uniform on ``±1/sqrt(in_features)``.
    bias : Parameter or None
        ``(out_features,)``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(data_format=data_format)
        self.in_features = integer(in_features, "in_features", 1)
        self.out_features = integer(out_features, "out_features", 1)
        self.weight, self.bias = init.new_weight_and_bias(
            (out_features, in_features), out_features if bias else None, check_dtype(dtype), rng
        )

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply to ``(..., in_features)``."""
        self._remember(x)
        y: NDArray[Any] = F.linear(x, self.weight.data, self.bias.data if self.bias is not None else None)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of weight and bias."""
        return self._propagate(grad_output, True)  # type: ignore[return-value]

    def backward_parameters(self, grad_output: NDArray[Any]) -> None:
        """Add to the gradients of weight and bias only."""
        self._propagate(grad_output, False)

    def _propagate(self, grad_output: NDArray[Any], input_too: bool) -> NDArray[Any] | None:
        (x,) = self._recall()
        mask = (input_too, True, self.bias is not None)
        grads = F.linear_backward(grad_output, x, self.weight.data, output_mask=mask)
        self.weight.accumulate(grads.weight)
        if self.bias is not None:
            self.bias.accumulate(grads.bias)
        grad_input: NDArray[Any] | None = grads.input
        return grad_input

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return output elements times inputs."""
        return math.prod(output_shape) * self.in_features

    def geometry(self) -> Geometry | None:
        """Every output sees all of its (flattened) input."""
        return Geometry.everything()

    def _options(self) -> str:
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if self.bias is None else "")
