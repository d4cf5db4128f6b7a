"""Xception, as it is taught, and the small one for faces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ._options import Options

__all__ = ["mini_xception", "xception"]

_KERAS: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}
"""Keras's defaults of batch norm, whose momentum 0.99 is the share of the old statistics."""


def _separable(channels: int, out: int, bias: bool, options: Options) -> tuple[nn.Module, nn.Module]:
    return (
        nn.SeparableConv2d(channels, out, 3, padding="same", bias=bias, **options.weighted),
        nn.BatchNorm2d(out, **_KERAS, **options.normed),
    )


def xception(
    num_classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.5,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return the small Xception that Keras's "Image classification from scratch" teaches.

    Two convolutions, four residual blocks of 128, 256, 512 and 728 channels, each of two depthwise-separable
    convolutions and a pool beside a 1 x 1 convolution with steps of 2, one separable convolution more to 1,024
    channels, and global average pooling. It is the entry and the exit of Xception (Chollet, 2017) without its middle.

    Parameters
    ----------
    num_classes : int
        Number of outputs (logits); 1 for two classes, as in Keras.
    in_channels : int
        Channels of the images.
    dropout : float
        Probability of zero before the last layer.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps images ``(N, in_channels, H, W)`` with values from 0 to 255 (of 8 bits, too: the first layer rescales) to
        ``(N, num_classes)``. With one output 2,782,649 numbers, of which 2,773,913 are trained and 8,736 are running
        statistics.
    """
    options = Options(data_format, dtype, rng)

    def block(channels: int, out: int) -> nn.Module:
        branch = nn.Sequential(
            nn.ReLU(**options.layout),
            *_separable(channels, out, True, options),
            nn.ReLU(**options.layout),
            *_separable(out, out, True, options),
            nn.MaxPool2d(3, 2, padding="same", **options.layout),
        )
        return nn.Residual(branch, nn.Conv2d(channels, out, 1, 2, padding="same", **options.weighted))

    layers: dict[str, nn.Module] = {
        "rescaling": nn.Rescaling(1 / 255, dtype=dtype, **options.layout),
        "conv1": nn.Conv2d(in_channels, 32, 3, 2, padding="same", **options.weighted),
        "bn1": nn.BatchNorm2d(32, **_KERAS, **options.normed),
        "relu1": nn.ReLU(**options.layout),
        "conv2": nn.Conv2d(32, 64, 3, padding="same", **options.weighted),
        "bn2": nn.BatchNorm2d(64, **_KERAS, **options.normed),
        "relu2": nn.ReLU(**options.layout),
    }
    channels = 64
    for i, out in enumerate((128, 256, 512, 728)):
        layers[f"block{i + 1}"] = block(channels, out)
        channels = out
    layers["conv3"], layers["bn3"] = _separable(channels, 1024, True, options)
    layers["relu3"] = nn.ReLU(**options.layout)
    layers["avgpool"] = nn.GlobalAvgPool(**options.layout)
    layers["dropout"] = nn.Dropout(dropout, **options.dropping)
    layers["fc"] = nn.Linear(1024, num_classes, **options.weighted)
    return nn.Sequential(layers)


def mini_xception(
    num_classes: int = 7,
    in_channels: int = 1,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return mini-Xception (Arriaga, Valdenegro-Toro and Plöger, 2017), made to read faces in real time.

    Two convolutions of 3 x 3, four residual blocks of 16, 32, 64 and 128 channels, and a convolution that gives a map
    for each class, whose means are the logits: the maps are the network's class activation maps.

    Parameters
    ----------
    num_classes : int
        Number of outputs (logits); the paper's seven are emotions.
    in_channels : int
        Channels of the images.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, H, W)``, in the paper 64 x 64 and from -1 to 1, to ``(N, num_classes)``. 58,423 numbers
        with the default arguments, of which 56,951 are trained and 1,472 are running statistics.
    """
    options = Options(data_format, dtype, rng)

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, **_KERAS, **options.normed)

    def block(channels: int, out: int) -> nn.Module:
        branch = nn.Sequential(
            *_separable(channels, out, False, options),
            nn.ReLU(**options.layout),
            *_separable(out, out, False, options),
            nn.MaxPool2d(3, 2, padding="same", **options.layout),
        )
        shortcut = nn.Conv2d(channels, out, 1, 2, padding="same", bias=False, **options.weighted)
        return nn.Residual(branch, nn.Sequential(shortcut, norm(out)))

    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, 8, 3, bias=False, **options.weighted),
        "bn1": norm(8),
        "relu1": nn.ReLU(**options.layout),
        "conv2": nn.Conv2d(8, 8, 3, bias=False, **options.weighted),
        "bn2": norm(8),
        "relu2": nn.ReLU(**options.layout),
    }
    channels = 8
    for i, out in enumerate((16, 32, 64, 128)):
        layers[f"block{i + 1}"] = block(channels, out)
        channels = out
    layers["classes"] = nn.Conv2d(channels, num_classes, 3, padding="same", **options.weighted)
    layers["avgpool"] = nn.GlobalAvgPool(**options.layout)
    return nn.Sequential(layers)
