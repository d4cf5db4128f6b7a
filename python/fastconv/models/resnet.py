"""Residual networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import nn
from ..nn._fusion import rectified_sum
from ._options import Options

__all__ = ["resnet18", "resnet50"]


class _Block(nn.Module):
    """``relu(branch(x) + shortcut(x))``, with torchvision's names: the branch's layers stand on the block itself.

    Parameters
    ----------
    branch : mapping of str to Module
        Layers applied one after another.
    downsample : Module or None
        The shortcut; ``None`` for the identity.
    """

    def __init__(self, branch: Mapping[str, nn.Module], downsample: nn.Module | None, options: Options) -> None:
        self._sum = nn.Residual(nn.Sequential(branch), downsample)
        self._relu = nn.ReLU(**options.layout)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Iterate over ``(name, module)`` of the layers, in order."""
        yield from self._sum.branch.named_children()
        if self._sum.shortcut is not None:
            yield "downsample", self._sum.shortcut
        yield "relu", self._relu

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Add the branch's output to the shortcut's, and keep what is positive."""
        return rectified_sum(self._sum, self._relu, x)

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of both ways' gradients."""
        return self._sum.backward(self._relu.backward(grad_output))


def _basic(channels: int, width: int, stride: int, options: Options) -> dict[str, nn.Module]:
    """Return the branch of ResNet-18's blocks: two convolutions of 3 x 3."""
    return {
        "conv1": nn.Conv2d(channels, width, 3, stride, padding=1, bias=False, **options.weighted),
        "bn1": nn.BatchNorm2d(width, **options.normed),
        "relu1": nn.ReLU(**options.layout),
        "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False, **options.weighted),
        "bn2": nn.BatchNorm2d(width, **options.normed),
    }


def _bottleneck(channels: int, width: int, stride: int, options: Options) -> dict[str, nn.Module]:
    """Return the branch of ResNet-50's blocks: 1 x 1 to fewer channels, 3 x 3 among these, 1 x 1 to four times as many.

    The 3 x 3 convolution takes the stride, as in torchvision; in the paper the first one does.
    """
    return {
        "conv1": nn.Conv2d(channels, width, 1, bias=False, **options.weighted),
        "bn1": nn.BatchNorm2d(width, **options.normed),
        "relu1": nn.ReLU(**options.layout),
        "conv2": nn.Conv2d(width, width, 3, stride, padding=1, bias=False, **options.weighted),
        "bn2": nn.BatchNorm2d(width, **options.normed),
        "relu2": nn.ReLU(**options.layout),
        "conv3": nn.Conv2d(width, 4 * width, 1, bias=False, **options.weighted),
        "bn3": nn.BatchNorm2d(4 * width, **options.normed),
    }


def _stage(
    channels: int, width: int, blocks: int, stride: int, bottleneck: bool, options: Options
) -> tuple[nn.Sequential, int]:
    """Return blocks of one width, of which the first takes the stride, and the channels that come out of them."""
    make, out = (_bottleneck, 4 * width) if bottleneck else (_basic, width)
    stage = nn.Sequential()
    for _ in range(blocks):
        downsample = None
        if stride != 1 or channels != out:
            downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False, **options.weighted),
                nn.BatchNorm2d(out, **options.normed),
            )
        stage.append(_Block(make(channels, width, stride, options), downsample, options))
        channels, stride = out, 1
    return stage, channels


def _resnet(
    depths: Sequence[int], bottleneck: bool, num_classes: int, in_channels: int, form: str, width: int, options: Options
) -> nn.Sequential:
    if form not in ("imagenet", "small"):
        raise ValueError(f"form: expected 'imagenet' or 'small', got {form!r}")
    kernel, stride, padding = (7, 2, 3) if form == "imagenet" else (3, 1, 1)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, width, kernel, stride, padding, bias=False, **options.weighted),
        "bn1": nn.BatchNorm2d(width, **options.normed),
        "relu": nn.ReLU(**options.layout),
    }
    if form == "imagenet":
        layers["maxpool"] = nn.MaxPool2d(3, 2, padding=1, **options.layout)
    channels = width
    for i, blocks in enumerate(depths):
        layers[f"layer{i + 1}"], channels = _stage(
            channels, width * 2**i, blocks, 1 if i == 0 else 2, bottleneck, options
        )
    layers["avgpool"] = nn.GlobalAvgPool(**options.layout)
    layers["fc"] = nn.Linear(channels, num_classes, **options.weighted)
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", rng=options.rng)
    return model


def resnet18(
    num_classes: int = 1000,
    in_channels: int = 3,
    form: str = "imagenet",
    width: int = 64,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return ResNet-18 (He, Zhang, Ren and Sun, 2016): eight blocks of two 3 x 3 convolutions.

    Parameters
    ----------
    num_classes : int
        Number of outputs (logits).
    in_channels : int
        Channels of the images.
    form : {"imagenet", "small"}
        ``"imagenet"``: for 224 x 224 images, which a convolution of 7 x 7 and a pool make four times smaller at the
        start. ``"small"``: for images of about 32 x 32, with a first convolution of 3 x 3 that keeps their size.
    width : int
        Channels of the first blocks; each of the three next stages has twice those of the one before. Multiply-adds and
        parameters grow with its square.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, H, W)`` to ``(N, num_classes)``, for images of any size. 11,689,512 parameters with the
        default arguments; torchvision's weights load as they are.

    Raises
    ------
    ValueError
        If the form is neither of the two.
    """
    options = Options(data_format, dtype, rng)
    return _resnet((2, 2, 2, 2), False, num_classes, in_channels, form, width, options)


def resnet50(
    num_classes: int = 1000,
    in_channels: int = 3,
    form: str = "imagenet",
    width: int = 64,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return ResNet-50 (He, Zhang, Ren and Sun, 2016): 16 blocks, each of a 1 x 1, a 3 x 3 and a 1 x 1 convolution.

    Parameters
    ----------
    num_classes, in_channels, form, width, data_format, dtype, rng
        As for `resnet18`; ``width`` is that of the first blocks' 3 x 3 convolutions.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, H, W)`` to ``(N, num_classes)``, for images of any size. 25,557,032 parameters with the
        default arguments; torchvision's weights load as they are.

    Raises
    ------
    ValueError
        If the form is neither of the two.
    """
    options = Options(data_format, dtype, rng)
    return _resnet((3, 4, 6, 3), True, num_classes, in_channels, form, width, options)
