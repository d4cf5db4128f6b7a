"""fastconv's networks for the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fastconv import models, nn, optim, set_num_threads

from bench.protocol import Array

NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], int]] = {
    "lenet5": (models.lenet5, (1, 28, 28), 10),
    "resnet50": (models.resnet50, (3, 224, 224), 1000),
    "xception": (models.xception, (3, 299, 299), 1000),
}
"""How each network is built, the shape of a sample, channels first, and its number of classes."""

RATE, MOMENTUM = 0.01, 0.9


def build(network: str, data_format: str = "channels_first") -> nn.Module:
    """Return a network with the weights that it starts with."""
    return NETWORKS[network][0](rng=np.random.default_rng(1), data_format=data_format)


def prepare(request: dict[str, Any]) -> tuple[Callable[[], Any], Array]:
    """Return the pass or the step as a function of nothing, and outputs or the first steps' losses."""
    set_num_threads(request["threads"])
    model = build(request["network"], request["data_format"])
    with np.load(request["weights"]) as weights:
        model.load_state_dict(dict(weights))
    x, y = np.load(request["x"]), np.load(request["y"])
    if request["data_format"] == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    if request["task"] == "forward":
        model.eval()
        return lambda: model(x), model(x)
    model.train()
    loss, rule = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> float:
        rule.zero_grad()
        value = loss(model(x), y)
        model.backward_parameters(loss.backward())
        rule.step()
        return float(value)

    return step, np.array([step() for _ in range(request["steps"])])
