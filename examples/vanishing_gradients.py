"""How much of the gradient reaches the first layers of a deep network, and what helps."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv import nn
from matplotlib.figure import Figure

output, small = options(__doc__)
DEPTH, CHANNELS = (10 if small else 20), 8


def block(kind, rng):
    """One layer of the deep network."""
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, rng=rng)
    if kind == "sigmoid":
        return nn.Sequential(convolution, nn.Sigmoid())
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", rng=rng)
    if kind == "ReLU":
        return nn.Sequential(convolution, nn.ReLU())
    if kind == "sigmoid with batch norm":
        return nn.Sequential(convolution, nn.BatchNorm2d(CHANNELS), nn.Sigmoid())
    return nn.Residual(nn.Sequential(convolution, nn.BatchNorm2d(CHANNELS), nn.ReLU()))


def sizes_of_gradients(kind):
    """Go forward and back once, and return the size of each layer's gradient next to that of its weights."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(*(block(kind, rng) for _ in range(DEPTH)))
    y = net(rng.standard_normal((4, CHANNELS, 12, 12), dtype=np.float32))
    net.backward(rng.standard_normal(y.shape, dtype=np.float32))
    weights = [parameter for name, parameter in net.named_parameters() if parameter.data.ndim == 4]
    return np.array([np.linalg.norm(weight.grad) / np.linalg.norm(weight.data) for weight in weights])


figure = Figure(figsize=(7, 4.2), layout="constrained")
axes = figure.subplots()
for kind in ("sigmoid", "sigmoid with batch norm", "ReLU", "residual"):
    gradients = sizes_of_gradients(kind)
    print(f"{kind:24} gradient of the first layer / of the last: {gradients[0] / gradients[-1]:.1e}")
    axes.semilogy(range(1, DEPTH + 1), gradients / gradients[-1], marker=".", label=kind)
axes.set_xlabel("layer")
axes.set_ylabel("gradient, next to the last layer's")
axes.legend()
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(output / "vanishing-gradients.png", dpi=60 if small else 110)
