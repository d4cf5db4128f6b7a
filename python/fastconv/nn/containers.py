"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..functional._sums import add
from ._fusion import apply_in_order, backward_in_order
from ._layout import channel_axis, check_data_format
from .module import Module

__all__ = ["Concat", "Residual", "Sequential"]


class _Container(Module):
    """Holds named children in a dictionary and sees to it that each is there once."""

    def __init__(self) -> None:
        self._layers: dict[str, Module] = {}

    def _attach(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"layer {name!r}: expected a Module, got {type(module).__name__}")
        if not name or "." in name or name in self._layers:
            raise ValueError(f"layer name: expected a new, non-empty name without dots, got {name!r}")
        present = {id(inner) for inner in self.modules()}
        if any(id(inner) in present for inner in module.modules()):
            raise ValueError(
                f"layer {name!r}: this {type(module).__name__} (or a layer in it) is in the container already; a layer "
                "remembers only its latest forward, so each place needs a layer of its own"
            )
        self._layers[name] = module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over ``(name, module)`` of the layers, in order."""
        yield from self._layers.items()

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers.values())

    def __getitem__(self, key: int | str) -> Module:
        return self._layers[key] if isinstance(key, str) else list(self._layers.values())[key]


class Sequential(_Container):
    """Layers applied one after another.

    Parameters
    ----------
    *layers : Module, or one mapping of str to Module
        Their names are ``"0"``, ``"1"`` and so on, or those of the mapping.

    Examples
    --------
    >>> from fastconv import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.GlobalAvgPool(), nn.Linear(8, 10))
    >>> named = nn.Sequential({"conv": nn.Conv2d(1, 8, 3), "relu": nn.ReLU()})
    >>> list(named.state_dict())
    ['conv.weight', 'conv.bias']
    """

    def __init__(self, *layers: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            for name, layer in layers[0].items():
                self._attach(name, layer)
        else:
            for each in layers:
                self.append(each)

    def append(self, layer: Module | Mapping[str, Module]) -> Sequential:
        """Put one more layer at the end, named by its number, and return the container."""
        self._attach(str(len(self)), layer)  # type: ignore[arg-type]
        return self

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply the layers in order.

        In evaluation a convolution takes the batch norm and the activation behind it along, with the same bits.
        """
        return apply_in_order(list(self), x)

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Apply their backwards in reverse order."""
        return backward_in_order(list(self), grad_output)

    def backward_parameters(self, grad_output: NDArray[Any]) -> None:
        """Do the same but for the gradient of the first layer's input."""
        if len(self):
            first, *others = self
            first.backward_parameters(backward_in_order(others, grad_output))


class Residual(_Container):
    """``branch(x) + shortcut(x)`` (He and others, 2016).

    Parameters
    ----------
    branch : Module
        What is learned on top of the shortcut.
    shortcut : Module, optional
        The identity unless given; needed where the branch changes the shape.
    """

    def __init__(self, branch: Module, shortcut: Module | None = None) -> None:
        super().__init__()
        self._attach("branch", branch)
        if shortcut is not None:
            self._attach("shortcut", shortcut)

    @property
    def branch(self) -> Module:
        """The branch."""
        return self._layers["branch"]

    @property
    def shortcut(self) -> Module | None:
        """The shortcut; ``None`` for the identity."""
        return self._layers.get("shortcut")

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Add the branch's output to the shortcut's."""
        return add(*self.terms(x))

    def terms(self, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the outputs of branch and shortcut, which `forward` adds.

        Raises
        ------
        ValueError
            If their shapes differ.
        """
        y = self.branch(x)
        rest = x if self.shortcut is None else self.shortcut(x)
        if y.shape != rest.shape:
            raise ValueError(
                f"x: for shape {x.shape} the branch gives {y.shape} and the shortcut {rest.shape}; they must be equal"
            )
        return y, rest

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of both ways' gradients."""
        grad = self.branch.backward(grad_output)
        rest = grad_output if self.shortcut is None else self.shortcut.backward(grad_output)
        return add(grad, rest)


class Concat(_Container):
    """Outputs of several branches side by side, joined along the channels.

    Parameters
    ----------
    *branches : Module
        At least one. All get the same input; their outputs must agree in all axes but the channels.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.
    """

    def __init__(self, *branches: Module, data_format: str = "channels_first") -> None:
        super().__init__()
        if not branches:
            raise ValueError("branches: expected at least one")
        self.data_format = check_data_format(data_format)
        for i, branch in enumerate(branches):
            self._attach(str(i), branch)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply every branch and join."""
        axis = channel_axis(self.data_format)
        outputs = [branch(x) for branch in self]
        try:
            y = np.concatenate(outputs, axis)
        except ValueError as error:
            shapes = ", ".join(str(output.shape) for output in outputs)
            raise ValueError(f"x: for shape {x.shape} the branches give {shapes}: {error}") from None
        self._remember([output.shape[axis] for output in outputs])
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Split the gradient among the branches and return the sum of theirs."""
        (sizes,) = self._recall()
        parts = np.split(grad_output, np.cumsum(sizes)[:-1], channel_axis(self.data_format))
        first, *others = [branch.backward(part) for branch, part in zip(self, parts, strict=True)]
        for other in others:
            first = add(first, other)
        return first
