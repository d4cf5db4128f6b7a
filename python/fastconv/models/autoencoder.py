"""A convolutional autoencoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from .._check import integer
from ._options import Options

__all__ = ["conv_autoencoder"]


def conv_autoencoder(
    in_channels: int = 1,
    latent: int = 32,
    image_size: int = 28,
    width: int = 16,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return an autoencoder: an image goes through a few numbers and comes back.

    The encoder is two convolutions with steps of 2 and one that covers what is left; the decoder is their mirror, of
    transposed convolutions (windows of 4 with steps of 2, which overlap evenly and so draw no chequers). Trained to
    give back its input, it must find a short description of the images.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    latent : int
        Numbers in the middle.
    image_size : int
        Height and width of the images, a multiple of 4.
    width : int
        Channels of the first convolution; the second has twice as many.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, image_size, image_size)`` to the same shape, with values between 0 and 1. Its layers
        ``model["encoder"]``, which gives ``(N, latent, 1, 1)``, and ``model["decoder"]`` can be used alone.

    Raises
    ------
    ValueError
        If the image size is no multiple of 4.
    """
    if integer(image_size, "image_size", 4) % 4:
        raise ValueError(f"image_size: expected a multiple of 4, got {image_size}")
    options = Options(data_format, dtype, rng)
    weighted, layout, quarter = options.weighted, options.layout, image_size // 4
    encoder = nn.Sequential(
        {
            "conv1": nn.Conv2d(in_channels, width, 4, stride=2, padding=1, **weighted),
            "relu1": nn.ReLU(**layout),
            "conv2": nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, **weighted),
            "relu2": nn.ReLU(**layout),
            "conv3": nn.Conv2d(2 * width, latent, quarter, **weighted),
        }
    )
    decoder = nn.Sequential(
        {
            "conv3": nn.ConvTranspose2d(latent, 2 * width, quarter, **weighted),
            "relu2": nn.ReLU(**layout),
            "conv2": nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, **weighted),
            "relu1": nn.ReLU(**layout),
            "conv1": nn.ConvTranspose2d(width, in_channels, 4, stride=2, padding=1, **weighted),
            "sigmoid": nn.Sigmoid(**layout),
        }
    )
    return nn.Sequential({"encoder": encoder, "decoder": decoder})
