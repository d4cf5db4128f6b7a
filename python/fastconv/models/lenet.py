"""LeNet-5."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ._options import Options

__all__ = ["lenet5"]


def lenet5(
    num_classes: int = 10,
    in_channels: int = 1,
    form: str = "modern",
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return LeNet-5 (LeCun and others, 1998) for 28 x 28 images.

    Two convolutions of 5 x 5, each followed by an activation and a pool that halves the size, then three fully
    connected layers (the first of them, in the paper, a convolution that covers its whole 5 x 5 input). The first
    convolution pads the images to the paper's 32 x 32.

    Parameters
    ----------
    num_classes : int
        Number of outputs (logits).
    in_channels : int
        Channels of the images.
    form : {"modern", "1998"}
        ``"modern"``: ReLU and max pooling. ``"1998"``: tanh and average pooling; what the paper has beyond that
        (trained pools, a partly connected second convolution, a radial-basis output) is left out, as usual.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, 28, 28)`` to ``(N, num_classes)``. 61,706 parameters with the default arguments.

    Raises
    ------
    ValueError
        If the form is neither of the two.
    """
    if form not in ("modern", "1998"):
        raise ValueError(f"form: expected 'modern' or '1998', got {form!r}")
    activation, pool = (nn.ReLU, nn.MaxPool2d) if form == "modern" else (nn.Tanh, nn.AvgPool2d)
    name = activation.__name__.lower()
    options = Options(data_format, dtype, rng)
    weighted, layout = options.weighted, options.layout
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(in_channels, 6, 5, padding=2, **weighted),
            f"{name}1": activation(**layout),
            "pool1": pool(2, **layout),
            "conv2": nn.Conv2d(6, 16, 5, **weighted),
            f"{name}2": activation(**layout),
            "pool2": pool(2, **layout),
            "flatten": nn.Flatten(**layout),
            "fc1": nn.Linear(400, 120, **weighted),
            f"{name}3": activation(**layout),
            "fc2": nn.Linear(120, 84, **weighted),
            f"{name}4": activation(**layout),
            "fc3": nn.Linear(84, num_classes, **weighted),
        }
    )
