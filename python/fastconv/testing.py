"""Help for tests of layers and of gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nn.module import Module

__all__ = ["gradcheck"]

Function = Callable[..., tuple[NDArray[Any], Callable[[NDArray[Any]], Any]]]


def gradcheck(
    fn_or_module: Function | Module,
    inputs: Any,
    eps: float = 1e-6,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    *,
    seed: int = 0,
) -> bool:
    """Check gradients against central differences, in float64.

    The output ``y`` is reduced to one number ``sum(v * y)`` with random weights ``v`` between 1 and 2 in size and of
    either sign. Each entry of each input (and of each parameter of a module) is then moved by ``±eps``, and the
    change of that number over ``2 * eps`` compared with the entry of ``backward(v)``.

    Parameters
    ----------
    fn_or_module : Module or callable
        A module: the gradient of its input and of every parameter is checked, in the mode (training or evaluation) it
        is in. It is copied, and the copy made float64, so neither its weights nor its running statistics nor its
        random generators change.

        A function: called with the inputs, it returns ``(output, backward)``, where ``backward(grad_output)`` returns
        the gradient of each input: one array for one input, otherwise a sequence (a named tuple, say) with one for
        each, ``None`` for those not to be checked.
    inputs : array_like or sequence of arrays
        One input (an array) or several (a tuple or list). Floating-point ones are copied as float64; others (class
        indices, masks) are passed as they are and not checked.
    eps : float
        Size of the movement.
    atol, rtol : float
        An entry is wrong if ``abs(analytic - numeric) > atol + rtol * abs(numeric)``, or if it is not finite.
    seed : int
        Seed of ``v``.

    Returns
    -------
    bool
        ``True``; a wrong gradient raises.

    Raises
    ------
    AssertionError
        If a gradient is wrong, naming the entry that is farthest off: input, index, analytic and numeric value. Also
        if a gradient's shape is not its input's, or the function gives two answers for the same inputs.
    ValueError
        If there is nothing to check.

    Notes
    -----
    A derivative that does not exist cannot be checked: keep inputs of a ReLU away from 0 by more than ``eps``, and
    those of a max pool away from ties.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import functional as F, nn
    >>> from fastconv.testing import gradcheck
    >>> x, w = np.random.rand(2, 3, 6, 6), np.random.rand(4, 3, 3, 3)
    >>> def conv(x, w):
    ...     return F.conv2d(x, w), lambda grad: F.conv2d_backward(grad, x, w)[:2]
    >>> gradcheck(conv, (x, w))
    True
    >>> gradcheck(nn.Conv2d(3, 4, 3, padding=1), x)
    True
    """
    arrays = [_float64(array) for array in (inputs if isinstance(inputs, (tuple, list)) else [inputs])]
    named = [(f"input {i}", array) for i, array in enumerate(arrays) if array.dtype == np.float64]
    if isinstance(fn_or_module, Module):
        if len(arrays) != 1:
            raise ValueError(f"inputs: a module takes one input, got {len(arrays)}")
        module = _float64_copy(fn_or_module)
        named += [(f"parameter {name!r}", parameter.data) for name, parameter in module.named_parameters()]
    if not named:
        raise ValueError("inputs: there is no floating-point array to check")

    def run() -> tuple[NDArray[Any], Callable[[NDArray[Any]], Sequence[Any]]]:
        """Apply fn_or_module to the arrays as they are now; backward's result has one entry for each of ``named``."""
        if isinstance(fn_or_module, Module):
            return _run_module(module, arrays[0])
        y, backward = fn_or_module(*arrays)
        return np.asarray(y), lambda grad: _gradients_of(backward(grad), arrays)

    y, backward = run()
    signs = np.random.default_rng(seed)
    v = np.asarray(signs.choice([-1.0, 1.0], y.shape) * signs.uniform(1.0, 2.0, y.shape))
    analytic = backward(v)
    again, _ = run()
    if not np.array_equal(y, again, equal_nan=True):
        raise AssertionError("gradcheck: the function gave two different outputs for the same inputs")

    # Read only once all analytic gradients exist: a layer's gradient may share memory with what is moved below.
    claims = [None if grad is None else np.array(grad, np.float64) for grad in analytic]
    return _compare(named, claims, lambda: float(np.sum(v * run()[0])), eps, atol, rtol)


def _compare(
    named: list[tuple[str, NDArray[Any]]],
    claims: list[NDArray[Any] | None],
    value: Callable[[], float],
    eps: float,
    atol: float,
    rtol: float,
) -> bool:
    """Move every entry of the arrays, which ``value`` reads, and compare with the claimed gradients."""
    wrong, checked = 0, 0
    worst: tuple[float, str] = (0.0, "")
    for (name, array), claim in zip(named, claims, strict=True):
        if claim is None:
            continue
        if claim.shape != array.shape:
            raise AssertionError(f"gradcheck: the gradient of {name} has shape {claim.shape}, expected {array.shape}")
        for index in np.ndindex(array.shape):
            numeric = _slope(array, index, value, eps)
            checked += 1
            error, bound = abs(claim[index] - numeric), atol + rtol * abs(numeric)
            if not error <= bound:
                wrong += 1
                excess = float(error / bound) if np.isfinite(error) and bound > 0 else np.inf
                if excess > worst[0]:
                    worst = excess, f"{name} at {index}: analytic {claim[index]!s}, numeric {numeric!s}"
    if wrong:
        raise AssertionError(
            f"gradcheck: {wrong} of {checked} entries are wrong (atol={atol}, rtol={rtol}); the worst is {worst[1]}"
        )
    if not checked:
        raise ValueError("inputs: no entry was checked (all arrays are empty or their gradients None)")
    return True


def _slope(array: NDArray[Any], index: tuple[int, ...], value: Callable[[], float], eps: float) -> float:
    """Return the central difference of ``value`` along one entry, which is put back."""
    centre = array[index]
    try:
        array[index] = centre + eps
        above = value()
        array[index] = centre - eps
        below = value()
    finally:
        array[index] = centre
    return (above - below) / (2.0 * eps)


def _float64(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    return array if array.dtype.kind in "iub" else np.array(array, np.float64, order="C")


def _float64_copy(module: Module) -> Module:
    """Return a copy of a module with float64 parameters and buffers."""
    module = copy.deepcopy(module)
    module.zero_grad()
    for parameter in module.parameters():
        parameter.data = np.array(parameter.data, np.float64, order="C")
    for each in module.modules():
        each._remembered = None
        for name in each._buffer_names:
            buffer = getattr(each, name)
            if buffer is not None and buffer.dtype.kind not in "iub":
                setattr(each, name, np.array(buffer, np.float64))
    return module


def _run_module(module: Module, x: NDArray[Any]) -> tuple[NDArray[Any], Callable[[NDArray[Any]], Sequence[Any]]]:
    """Apply a fresh copy, so that running statistics and random generators start from the same state each time."""
    current = copy.deepcopy(module)
    for each in current.modules():
        each._keeps_in_eval = True
    y = current(x)

    def backward(grad: NDArray[Any]) -> Sequence[Any]:
        grad_input = current.backward(grad)
        return [grad_input, *(_or_zeros(parameter) for parameter in current.parameters())]

    return y, backward


def _or_zeros(parameter: Any) -> NDArray[Any]:
    """Return a parameter's gradient; one that backward did not touch claims to be 0."""
    return np.zeros_like(parameter.data) if parameter.grad is None else parameter.grad


def _gradients_of(result: Any, arrays: list[NDArray[Any]]) -> list[Any]:
    """Return what a function's backward returned for the floating-point inputs."""
    grads = list(result) if isinstance(result, (tuple, list)) else [result]
    if len(grads) != len(arrays):
        raise AssertionError(f"gradcheck: backward returned {len(grads)} gradients for {len(arrays)} inputs")
    return [grad for grad, array in zip(grads, arrays, strict=True) if array.dtype == np.float64]
