"""What every layer is: parameters, buffers, a forward and the backward that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ._trace import active_observer
from .parameter import Parameter

if TYPE_CHECKING:
    from .receptive_field import Geometry
    from .summary import Summary

__all__ = ["IncompatibleKeys", "Module", "as_array"]


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of all layers and networks.

    A subclass puts its `Parameter` objects and child modules on itself as attributes and defines

    - ``forward(x)``, which returns the output and hands to ``_remember`` whatever the backward needs, and
    - ``backward(grad_output)``, which takes that back with ``_recall``, adds to each parameter's gradient and
      returns the gradient of the input.

    Calling the module calls ``forward``. ``backward`` belongs to the latest forward and may be called more than once
    for it; each call adds to the gradients again. Layers remember their arrays without copying them, so do not write
    into an input or output between a forward and its backward.

    In training mode (the initial state) a forward remembers; in evaluation mode it remembers nothing and so holds no
    memory, unless ``eval(keep_for_backward=True)`` asks for it.

    Layers take and return NumPy arrays; a module is not safe to call from two threads at once, as both would be "the
    latest forward".
    """

    # Class attributes, so that a subclass need not call super().__init__().
    training: bool = True
    _keeps_in_eval: bool = False
    _remembered: tuple[Any, ...] | None = None
    _buffer_names: tuple[str, ...] = ()
    _derived_names: tuple[str, ...] = ()  # attributes that are computed before each forward (`fastconv.nn.utils`)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Compute the output. Every subclass defines this."""
        raise TypeError(f"{type(self).__name__} does not define forward(x)")

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Propagate a gradient through the latest forward.

        Parameters
        ----------
        grad_output : numpy.ndarray
            Gradient of the loss with respect to the latest output; has its shape.

        Returns
        -------
        numpy.ndarray
            Gradient with respect to the latest input; has its shape.

        Raises
        ------
        RuntimeError
            If no forward that remembers came before.
        """
        raise TypeError(f"{type(self).__name__} does not define backward(grad_output)")

    def backward_parameters(self, grad_output: NDArray[Any]) -> None:
        """Add to the parameters' gradients as ``backward`` does, but leave out the input's gradient where that saves
        time.

        For training, which has no use for the gradient of the images.

        Parameters
        ----------
        grad_output : numpy.ndarray
            As for `backward`.

        Raises
        ------
        RuntimeError
            As for `backward`.
        """
        self.backward(grad_output)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        self._refresh()
        observer = active_observer()
        if observer is None:
            return self.forward(x)
        observer.enter(self, x)
        y = self.forward(x)
        observer.leave(self, x, y)
        return y

    def _refresh(self) -> None:
        """Compute what is to be computed before a forward."""
        for name in self._derived_names:
            getattr(self, name).refresh(self)

    # ---- what backward needs -------------------------------------------------------------------------------------

    @property
    def remembers(self) -> bool:
        """Whether a forward made now keeps what its backward needs."""
        return self.training or self._keeps_in_eval

    def _remember(self, *values: Any) -> None:
        """Keep ``values`` for the backward of this forward, or forget the last ones when nothing is to be kept."""
        self._remembered = values if self.remembers else None

    def _recall(self) -> tuple[Any, ...]:
        if self._remembered is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: there is no forward to go back through; call the module in training "
                "mode (or after eval(keep_for_backward=True)) first"
            )
        return self._remembered

    # ---- the tree of modules -------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over ``(name, module)`` of the direct children, in the order in which they were attached."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """Iterate over the direct children."""
        for _, child in self.named_children():
            yield child

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Iterate over ``(dotted name, module)`` of this module (named ``prefix``) and all below it, parents first."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all below it."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Iterate over ``(dotted name, parameter)``; a parameter that several modules share comes once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def parameters(self) -> Iterator[Parameter]:
        """Iterate over the parameters of this module and all below it."""
        for _, parameter in self.named_parameters():
            yield parameter

    def zero_grad(self) -> None:
        """Set every parameter's ``grad`` to ``None``."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it in training mode (or evaluation mode) and return it."""
        for module in self.modules():
            module.training = mode
            module._keeps_in_eval = False
        return self

    def eval(self, *, keep_for_backward: bool = False) -> Self:
        """Put this module and all below it in evaluation mode and return it.

        Parameters
        ----------
        keep_for_backward : bool
            Let forwards remember what ``backward`` needs even so: for a frozen batch norm while the rest of a network
            is trained, or for the gradient of a class score with respect to an image.
        """
        self.train(False)
        for module in self.modules():
            module._keeps_in_eval = keep_for_backward
        return self

    @contextmanager
    def evaluating(self, *, keep_for_backward: bool = False) -> Iterator[Self]:
        """Put this module and all below it in evaluation mode for a ``with`` block.

        Afterwards each is in the mode in which it was, and ``backward`` belongs to the forward that was the latest
        before.

        Parameters
        ----------
        keep_for_backward : bool
            As for `eval`.
        """
        modes = [(each, each.training, each._keeps_in_eval, each._remembered) for each in self.modules()]
        try:
            yield self.eval(keep_for_backward=keep_for_backward)
        finally:
            for each, training, keeps, remembered in modes:
                each.training, each._keeps_in_eval, each._remembered = training, keeps, remembered

    # ---- state ---------------------------------------------------------------------------------------------------

    def register_buffer(self, name: str, value: NDArray[Any] | None) -> None:
        """Set attribute ``name`` to an array that is part of the state but not trained (running statistics)."""
        setattr(self, name, value)
        if name not in self._buffer_names:
            self._buffer_names = (*self._buffer_names, name)

    def named_buffers(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Iterate over ``(dotted name, array)`` of the buffers that are not ``None``."""
        for prefix, module in self.named_modules():
            for name in module._buffer_names:
                value = getattr(module, name)
                if value is not None:
                    yield f"{prefix}.{name}" if prefix else name, value

    def _state(self) -> dict[str, NDArray[Any]]:
        """Return the live arrays under their names: for each module its parameters, then its buffers."""
        state: dict[str, NDArray[Any]] = {}
        for prefix, module in self.named_modules():
            dot = f"{prefix}." if prefix else ""
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    state[dot + name] = value.data
            for name in module._buffer_names:
                buffer = getattr(module, name)
                if buffer is not None:
                    state[dot + name] = buffer
        return state

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all parameters and buffers, with the names and layouts that PyTorch gives them."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state_dict(self, mapping: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers.

        Parameters
        ----------
        mapping : mapping of str to array_like
            As `state_dict` returns it; NumPy arrays or PyTorch tensors. Values are cast to this module's dtypes.
        strict : bool
            Refuse missing and unexpected names. If false they are ignored and returned.

        Returns
        -------
        IncompatibleKeys
            Named tuple ``(missing_keys, unexpected_keys)``.

        Raises
        ------
        ValueError
            If a shape differs, or with ``strict`` if names do. Nothing has been changed then.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}")
        state = self._state()
        result = IncompatibleKeys(
            [name for name in state if name not in mapping], [name for name in mapping if name not in state]
        )
        problems: list[str] = []
        if strict and result.missing_keys:
            problems.append(f"missing names {result.missing_keys}")
        if strict and result.unexpected_keys:
            problems.append(f"unexpected names {result.unexpected_keys}")
        values: dict[str, NDArray[Any]] = {}
        for name, target in state.items():
            if name not in mapping:
                continue
            values[name] = as_array(mapping[name])
            if values[name].shape != target.shape:
                problems.append(f"{name} has shape {values[name].shape}, expected {target.shape}")
            elif not np.can_cast(values[name].dtype, target.dtype, "same_kind"):
                problems.append(f"{name} has dtype {values[name].dtype}, expected {target.dtype}")
        if problems:
            raise ValueError(f"mapping: does not fit {type(self).__name__}: " + "; ".join(problems))
        for name, value in values.items():
            np.copyto(state[name], value, casting="same_kind")
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: all but what the latest forward left for its backward."""
        return {name: value for name, value in vars(self).items() if name != "_remembered"}

    # ---- descriptions --------------------------------------------------------------------------------------------

    def summary(self, input_shape: Sequence[int]) -> Summary:
        """Describe every layer for an input of a given shape.

        Parameters
        ----------
        input_shape : sequence of int
            Shape of the whole input, batch axis first, for example ``(1, 3, 224, 224)``.

        Returns
        -------
        Summary
            A table that prints itself: layer, output shape, parameters, multiply-adds, receptive field.
        """
        from .summary import summarize

        return summarize(self, input_shape)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return the multiply-adds of one forward, children left out; 0 where a layer has no matrix of weights."""
        return 0

    def geometry(self) -> Geometry | None:
        """Return how the layer slides over its input, or ``None`` if each output sees one input position only."""
        return None

    def _options(self) -> str:
        """Return the constructor's arguments for ``repr``."""
        return ""

    def __repr__(self) -> str:
        children = list(self.named_children())
        if not children:
            return f"{type(self).__name__}({self._options()})"
        lines = [f"  ({name}): {child!r}".replace("\n", "\n  ") for name, child in children]
        return "\n".join([f"{type(self).__name__}({self._options()}", *lines, ")"])


def as_array(value: Any) -> NDArray[Any]:
    """Return a NumPy array of an array, a nested list or a PyTorch tensor (on any device, also one with gradients)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy does not have; float32 holds all of its values
            value = value.float()
    return np.asarray(value)
