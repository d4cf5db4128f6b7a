"""Which part of a picture an answer comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import functional as F
from .. import nn
from .._check import integer
from ..nn._layout import channel_axis
from ..nn._trace import observe
from ..train.predict import predict

__all__ = ["class_activation_map", "grad_cam", "occlusion_map", "overlay"]

Maps = NDArray[Any]


class _Call(NamedTuple):
    """One layer applied to an array."""

    layer: nn.Module
    x: NDArray[Any]
    y: NDArray[Any]


class _Calls:
    """Keeps the calls of the layers that have no layers in them, in order."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []

    def enter(self, module: nn.Module, x: NDArray[Any]) -> None:
        pass

    def leave(self, module: nn.Module, x: NDArray[Any], y: NDArray[Any]) -> None:
        if next(module.children(), None) is None:
            self.calls.append(_Call(module, x, y))


def _labels(label: ArrayLike, count: int, classes: int) -> NDArray[np.int64]:
    """Return a class for each picture."""
    labels = np.broadcast_to(np.asarray(label), (count,))
    if labels.dtype.kind not in "iu" or (count and not 0 <= labels.min() <= labels.max() < classes):
        raise ValueError(f"label: expected classes from 0 to {classes - 1}, one or one a picture, got {label!r}")
    return labels.astype(np.int64)


def _pictures(x: NDArray[Any]) -> None:
    if x.ndim != 4:
        raise ValueError(f"x: expected a batch of pictures with four axes, got shape {x.shape}")


def _channels_first(module: nn.Module, array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, channel_axis(getattr(module, "data_format", "channels_first")), 1)


def _resized(maps: Maps, module: nn.Module, x: NDArray[Any]) -> Maps:
    """Return maps in the size of the pictures, interpolated."""
    last = any(getattr(each, "data_format", None) == "channels_last" for each in module.modules())
    size = x.shape[1:3] if last else x.shape[2:]
    return nn.Upsample(size=size, mode="bilinear").eval()(np.ascontiguousarray(maps[:, None]))[:, 0]


def class_activation_map(module: nn.Module, x: NDArray[Any], label: ArrayLike, resize: bool = True) -> Maps:
    """Return where in a picture a class was seen, by the weights after global average pooling (Zhou and others, 2016).

    Such a network ends in a global average pool and at most one linear layer (dropout may lie between): ``resnet18``,
    ``xception``, ``mini_xception``. A logit is then the mean of a map, and that map is returned; for other networks
    there is `grad_cam`.

    Parameters
    ----------
    module : Module
        The network; left as it was.
    x : numpy.ndarray
        Pictures, as the network takes them.
    label : int or array_like of int
        The class, or one for each picture.
    resize : bool
        Whether to interpolate the maps to the size of the pictures. The mean of those that are not resized, plus the
        linear layer's bias, is the logit.

    Returns
    -------
    numpy.ndarray
        ``(N, H, W)``; positive where the picture speaks for the class.

    Raises
    ------
    ValueError
        If the network ends in another way.
    """
    _pictures(x)
    trace = _Calls()
    with module.evaluating(), observe(trace):
        outputs = module(x)
    pools = [i for i, call in enumerate(trace.calls) if isinstance(call.layer, nn.GlobalAvgPool)]
    rest = [
        call.layer
        for call in trace.calls[pools[-1] + 1 if pools else 0 :]
        if not isinstance(call.layer, (nn.Dropout, nn.Flatten, nn.Softmax))
    ]
    if not pools or len(rest) > 1 or not all(isinstance(layer, nn.Linear) for layer in rest):
        raise ValueError(
            "module: a class activation map needs a network that ends in GlobalAvgPool and at most one Linear; "
            "for others there is grad_cam"
        )
    pool = trace.calls[pools[-1]]
    labels = _labels(label, len(x), outputs.shape[1])
    features = _channels_first(pool.layer, pool.x)
    if rest:
        linear = rest[0]
        assert isinstance(linear, nn.Linear)
        maps = np.einsum("nchw,nc->nhw", features, linear.weight.data[labels])
    else:
        maps = features[np.arange(len(x)), labels]
    return _resized(maps, module, x) if resize else maps


def grad_cam(
    module: nn.Module, x: NDArray[Any], label: ArrayLike, layer: str | None = None, resize: bool = True
) -> Maps:
    """Return where in each picture a class was seen, by the gradient of its logit (Selvaraju and others, 2017).

    Each channel of a layer's output is weighed by the mean of the logit's gradient over it; what is positive of their
    sum is the map. After global average pooling this is the positive part of `class_activation_map`, divided by the
    number of positions.

    Parameters
    ----------
    module : Module
        Any network whose output is ``(N, classes)``; left as it was, gradients too.
    x : numpy.ndarray
        Pictures, as the network takes them.
    label : int or array_like of int
        The class, or one for each picture.
    layer : str, optional
        Dotted name of the layer; the last one whose output has two spatial axes larger than 1 unless given.
    resize : bool
        Whether to interpolate the maps to the size of the pictures.

    Returns
    -------
    numpy.ndarray
        ``(N, H, W)``, not negative.

    Raises
    ------
    ValueError
        If there is no such layer, or it gives no maps.
    """
    _pictures(x)
    names = dict(module.named_modules())
    if layer is not None and layer not in names:
        raise ValueError(f"layer: there is no {layer!r}; the network has {', '.join(map(repr, filter(None, names)))}")
    trace = _Calls()
    with module.evaluating(keep_for_backward=True):
        with observe(trace):
            outputs = module(x)
        target, y = _target(trace, None if layer is None else names[layer])
        direction = np.zeros_like(outputs)
        direction[np.arange(len(x)), _labels(label, len(x), outputs.shape[1])] = 1
        grad = _gradient_at(target, module, direction)
    weights = _channels_first(target, grad).mean((2, 3))
    maps = np.maximum(np.einsum("nchw,nc->nhw", _channels_first(target, y), weights), 0)
    return _resized(maps, module, x) if resize else maps


def _gradient_at(target: nn.Module, module: nn.Module, direction: NDArray[Any]) -> NDArray[Any]:
    """Go back through a network, and return the gradient of the output of one of its layers."""
    came: list[NDArray[Any]] = []
    backward = target.backward

    def listening(grad_output: NDArray[Any]) -> NDArray[Any]:
        came.append(grad_output)
        return backward(grad_output)

    parameters = list(module.parameters())
    gradients = [parameter.grad for parameter in parameters]
    target.backward = listening  # type: ignore[method-assign]
    try:
        module.backward(direction)
    finally:
        del target.backward  # the class has its own
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
    return came[0]


def _target(trace: _Calls, wanted: nn.Module | None) -> tuple[nn.Module, NDArray[Any]]:
    """Return the layer whose output is looked at, and its output."""
    for call in reversed(trace.calls):
        if call.layer is wanted or (wanted is None and _is_map(call)):
            if not _is_map(call):
                break
            return call.layer, call.y
    raise ValueError("layer: expected one that gives maps, with two spatial axes and no layers in it")


def _is_map(call: _Call) -> bool:
    return call.y.ndim == 4 and min(_channels_first(call.layer, call.y).shape[2:]) > 1


def occlusion_map(
    module: nn.Module, x: NDArray[Any], label: ArrayLike, size: int = 5, stride: int = 1, value: float = 0.0
) -> Maps:
    """Return how much of a class's probability is lost where the picture is covered (Zeiler and Fergus, 2014).

    A square slides over the picture; each pixel gets the mean loss of the squares that cover it. No gradient and
    nothing of the network's inside is used.

    Parameters
    ----------
    module : Module
        Any network whose output is ``(N, classes)`` logits; left as it was.
    x : numpy.ndarray
        Pictures ``(N, C, H, W)``, or ``(N, H, W, C)`` for a network with channels last.
    label : int or array_like of int
        The class, or one for each picture.
    size, stride : int
        Side of the square, and its steps.
    value : float
        What it covers the picture with.

    Returns
    -------
    numpy.ndarray
        ``(N, H, W)``, between -1 and 1; 0 where no square came.

    Raises
    ------
    ValueError
        If the square is larger than the pictures.
    """
    _pictures(x)
    integer(size, "size", 1)
    integer(stride, "stride", 1)
    last = any(getattr(each, "data_format", None) == "channels_last" for each in module.modules())
    height, width = x.shape[1:3] if last else x.shape[2:]
    if size > min(height, width):
        raise ValueError(f"size: {size} is larger than the pictures, {height} x {width}")
    logits = predict(module, x)
    labels = _labels(label, len(x), logits.shape[1])
    picked = np.arange(len(x)), labels
    whole = F.softmax(logits, 1)[picked]
    loss, count = np.zeros((len(x), height, width)), np.zeros((height, width))
    for top in range(0, height - size + 1, stride):
        for left in range(0, width - size + 1, stride):
            window = slice(top, top + size), slice(left, left + size)
            covered = x.copy()
            covered[(slice(None), *window) if last else (slice(None), slice(None), *window)] = value
            loss[(slice(None), *window)] += (whole - F.softmax(predict(module, covered), 1)[picked])[:, None, None]
            count[window] += 1
    return loss / np.maximum(count, 1)


_HEAT = np.array([[0.0, 0.0, 0.3], [0.4, 0.0, 0.5], [0.9, 0.2, 0.3], [1.0, 0.6, 0.1], [1.0, 1.0, 0.6]])
"""Colours of a heatmap from cold to hot."""


def overlay(image: ArrayLike, heatmap: ArrayLike, opacity: float = 0.7) -> NDArray[np.float64]:
    """Return a picture with a heatmap over it: the hotter, the less of the picture is seen.

    Parameters
    ----------
    image : array_like
        ``(H, W)`` or ``(H, W, 3)``: from 0 to 1, or of 8 bits.
    heatmap : array_like
        ``(H, W)``. Negative values are cold; the largest is the hottest.
    opacity : float
        Of the hottest colour.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 3)`` between 0 and 1.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    picture = np.asarray(image)
    picture = picture / 255 if picture.dtype == np.uint8 else picture.astype(np.float64)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, 2)
    heat = np.maximum(np.asarray(heatmap, np.float64), 0)
    if picture.ndim != 3 or picture.shape[2] != 3 or heat.shape != picture.shape[:2]:
        raise ValueError(f"heatmap: expected shape (H, W) of the image, {picture.shape[:2]}, got {heat.shape}")
    heat = heat / (heat.max() or 1.0)
    stops = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(heat, stops, channel) for channel in _HEAT.T], 2)
    share = opacity * heat[..., None]
    mixed: NDArray[np.float64] = (1 - share) * picture + share * colour
    return mixed.clip(0, 1)
