"""AlexNet."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ._options import Options

__all__ = ["alexnet"]


def alexnet(
    num_classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.5,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return AlexNet (Krizhevsky, Sutskever and Hinton, 2012) for 224 x 224 images.

    In the form of Krizhevsky (2014), "One weird trick", which fits one device and which torchvision has: five
    convolutions, of which the first takes steps of 4, three overlapping max pools, and three fully connected layers
    with dropout, which hold most of the parameters.

    Parameters
    ----------
    num_classes : int
        Number of outputs (logits).
    in_channels : int
        Channels of the images.
    dropout : float
        Probability of zero before the first two fully connected layers.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, H, W)``, at least 63 x 63 large, to ``(N, num_classes)``. 61,100,840 parameters with the
        default arguments; torchvision's weights load as they are.
    """
    options = Options(data_format, dtype, rng)
    weighted, layout = options.weighted, options.layout
    features = nn.Sequential(
        nn.Conv2d(in_channels, 64, 11, stride=4, padding=2, **weighted),
        nn.ReLU(**layout),
        nn.MaxPool2d(3, 2, **layout),
        nn.Conv2d(64, 192, 5, padding=2, **weighted),
        nn.ReLU(**layout),
        nn.MaxPool2d(3, 2, **layout),
        nn.Conv2d(192, 384, 3, padding=1, **weighted),
        nn.ReLU(**layout),
        nn.Conv2d(384, 256, 3, padding=1, **weighted),
        nn.ReLU(**layout),
        nn.Conv2d(256, 256, 3, padding=1, **weighted),
        nn.ReLU(**layout),
        nn.MaxPool2d(3, 2, **layout),
    )
    classifier = nn.Sequential(
        nn.Dropout(dropout, **options.dropping),
        nn.Linear(256 * 6 * 6, 4096, **weighted),
        nn.ReLU(**layout),
        nn.Dropout(dropout, **options.dropping),
        nn.Linear(4096, 4096, **weighted),
        nn.ReLU(**layout),
        nn.Linear(4096, num_classes, **weighted),
    )
    return nn.Sequential(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d(6, **layout),
            "flatten": nn.Flatten(**layout),
            "classifier": classifier,
        }
    )
