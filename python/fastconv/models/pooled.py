"""A small network that can say where it saw what."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ._options import Options

__all__ = ["pooled_net"]


def pooled_net(
    num_classes: int = 10,
    in_channels: int = 1,
    width: int = 16,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return a small network that ends in global average pooling and one linear layer.

    Four convolutions of 3 x 3, each with batch norm and ReLU, and a pool after the second. Every logit is the mean of a
    map over the image, so `fastconv.visualize.class_activation_map` can show where a class was seen (Zhou and others,
    2016).

    Parameters
    ----------
    num_classes : int
        Number of outputs (logits).
    in_channels : int
        Channels of the images.
    width : int
        Channels of the first two convolutions; the others have twice as many.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, H, W)`` to ``(N, num_classes)``, for images of any size. 16,794 parameters with the
        default arguments.
    """
    options = Options(data_format, dtype, rng)
    layers: dict[str, nn.Module] = {}
    channels = in_channels
    for i, out in enumerate((width, width, 2 * width, 2 * width), 1):
        layers[f"conv{i}"] = nn.Conv2d(channels, out, 3, padding=1, bias=False, **options.weighted)
        layers[f"bn{i}"] = nn.BatchNorm2d(out, **options.normed)
        layers[f"relu{i}"] = nn.ReLU(**options.layout)
        if i == 2:
            layers["pool"] = nn.MaxPool2d(2, **options.layout)
        channels = out
    layers["average"] = nn.GlobalAvgPool(**options.layout)
    layers["fc"] = nn.Linear(channels, num_classes, **options.weighted)
    return nn.Sequential(layers)
