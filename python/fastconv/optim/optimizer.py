"""What the optimizers share: the list of parameters, what is remembered for each, and its saving."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..nn.module import as_array
from ..nn.parameter import Parameter

__all__ = ["Optimizer", "buffer", "not_negative", "pair"]

State = dict[str, Any]

# How PyTorch is to compute a rule, not which: nothing to compare with.
_EXECUTION = {"params", "param_names", "initial_lr", "foreach", "fused", "capturable", "differentiable"}


class Optimizer:
    """What the optimizers share.

    A subclass names its hyper-parameters and buffers and defines ``_update``.

    Parameters
    ----------
    params : iterable of Parameter
        For example ``module.parameters()``.
    lr : float
        Learning rate. The attribute ``lr`` may be changed at any time; the schedules of this module do so.
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr",)
    """Names of the constructor's arguments, which are attributes too."""
    _buffers: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays kept for each parameter, PyTorch's."""
    _counts_steps: ClassVar[bool] = True
    """Whether the number of a parameter's updates is part of the state."""
    _update_penalises: ClassVar[bool] = False
    """Whether ``_update`` adds the gradient of the penalties on its way."""
    _fixed: ClassVar[dict[str, Any]] = {}
    """What PyTorch's options that are none of ours must be; all others must be off."""

    def __init__(self, params: Iterable[Parameter], lr: float) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError("params: there is nothing to optimize (an iterator can be gone through only once)")
        for parameter in self.params:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"params: expected fastconv.nn.Parameter objects, got {type(parameter).__name__}")
        if len({id(parameter) for parameter in self.params}) != len(self.params):
            raise ValueError("params: a parameter is there more than once")
        self.lr = not_negative("lr", lr)
        self.initial_lr: float | None = None  # the base rate of schedules, noted by the first of them
        self._state: list[State] = [{} for _ in self.params]

    def zero_grad(self) -> None:
        """Set every parameter's ``grad`` to ``None``."""
        for parameter in self.params:
            parameter.zero_grad()

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        for parameter, state in zip(self.params, self._state, strict=True):
            if parameter.grad is not None:
                if self._counts_steps:
                    state["step"] = state.get("step", 0) + 1
                # 16-bit parameters are worked on, and what is remembered kept, in float32: squares underflow in 16.
                data = _dense(parameter.data, _wide(parameter.dtype))
                grad = _dense(parameter.grad, data.dtype)
                if grad.shape != data.shape:
                    raise ValueError(f"grad: got shape {grad.shape} for a parameter of shape {data.shape}")
                self._update(data, grad if self._update_penalises else self._penalised(data, grad), state)
                if data is not parameter.data:
                    parameter.data[...] = data

    def _penalised(self, data: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient with that of the penalty on large weights added."""
        decay = getattr(self, "weight_decay", 0.0)
        return grad + decay * data if decay else grad

    def _update(self, data: NDArray[Any], grad: NDArray[Any], state: State) -> None:
        """Change ``data`` in place; ``state["step"]`` counts from 1."""
        raise TypeError(f"{type(self).__name__} does not define its rule")

    # ---- saving --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the hyper-parameters and copies of what is remembered, laid out as PyTorch's.

        Returns
        -------
        dict
            ``"state"``: for the index of each parameter that was ever updated, a dictionary with the number of its
            updates (``"step"``, if the rule counts them) and arrays by PyTorch's names. ``"param_groups"``: a list
            with one dictionary of the hyper-parameters, and under ``"params"`` all indices.
        """
        state = {
            i: {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in kept.items()}
            for i, kept in enumerate(self._state)
            if kept
        }
        group: dict[str, Any] = {name: getattr(self, name) for name in self._hyper}
        return {"state": state, "param_groups": [group | {"params": list(range(len(self.params)))}]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another optimizer with the same rule and parameters was.

        Parameters
        ----------
        state_dict : mapping
            From `state_dict`, or from PyTorch's optimizer of the same name with one group of parameters. Arrays are
            copied and cast to the parameters' dtypes, to float32 where those have 16 bits.

        Raises
        ------
        ValueError
            If it does not fit, naming everything that does not. Nothing has been changed then.
        """
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise TypeError('state_dict: expected a mapping with "state" and "param_groups", as state_dict() gives it')
        problems: list[str] = []
        hyper = self._load_group(state_dict["param_groups"], problems)
        states = self._load_states(state_dict["state"], problems)
        if problems:
            raise ValueError(f"state_dict: does not fit this {type(self).__name__}: " + "; ".join(problems))
        for name, value in hyper.items():
            setattr(self, name, value)
        self._state = states

    def _load_group(self, groups: Sequence[Mapping[str, Any]], problems: list[str]) -> dict[str, Any]:
        """Return the hyper-parameters, checked by the constructor."""
        if len(groups) != 1:
            problems.append(f"it has {len(groups)} groups of parameters, expected 1")
            return {}
        (group,) = groups
        if len(group["params"]) != len(self.params):
            problems.append(f"it is of {len(group['params'])} parameters, expected {len(self.params)}")
        for name, value in group.items():
            if name in self._hyper or name in _EXECUTION:
                continue
            if value != self._fixed[name] if name in self._fixed else value:
                problems.append(f"{name}={value!r} is not what this rule does")
        values = {name: group.get(name, getattr(self, name)) for name in self._hyper}
        try:
            checked = type(self)(self.params, **values)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
            return {}
        return {name: getattr(checked, name) for name in self._hyper}

    def _load_states(self, states: Mapping[int, Mapping[str, Any]], problems: list[str]) -> list[State]:
        """Return what is remembered for each parameter."""
        result: list[State] = [{} for _ in self.params]
        for i, kept in states.items():
            if i not in range(len(self.params)):
                problems.append(f"state {i} belongs to no parameter")
                continue
            parameter = self.params[i]
            for name, value in kept.items():
                if name == "step" and self._counts_steps:
                    result[i]["step"] = int(value)
                elif name not in self._buffers:
                    problems.append(f"state {i} has {name!r}, which this rule does not know")
                elif value is not None:
                    array = as_array(value)
                    if array.shape != parameter.shape:
                        problems.append(f"{name} of state {i} has shape {array.shape}, expected {parameter.shape}")
                    result[i][name] = np.array(array, _wide(parameter.dtype), order="C")
            if self._counts_steps and kept and "step" not in kept:
                problems.append(f"state {i} lacks 'step'")
        return result


@functools.cache
def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a parameter of ``dtype`` is changed."""
    return np.result_type(dtype, np.float32)


def _dense(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the array itself, or a copy if it is not C-contiguous, aligned and of the dtype."""
    dense = np.asarray(array, dtype, order="C")
    return dense if dense.flags.aligned else dense.copy()


def buffer(state: State, name: str, like: NDArray[Any]) -> NDArray[Any]:
    """Return a parameter's array of this name; zeros at first."""
    if name not in state:
        state[name] = np.zeros(like.shape, like.dtype)
    array: NDArray[Any] = state[name]
    return array


def not_negative(name: str, value: float) -> float:
    """Return a finite number that is not negative.

    Raises
    ------
    ValueError
        If it is not one.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number that is not negative, got {value!r}")
    return float(value)


def pair(name: str, value: Sequence[float]) -> tuple[float, float]:
    """Return two numbers as floats.

    Raises
    ------
    ValueError
        If there are not two of them.
    """
    if len(value) != 2:
        raise ValueError(f"{name}: expected two numbers, got {value!r}")
    return float(value[0]), float(value[1])
