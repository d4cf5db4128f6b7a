"""PyTorch's networks for the worker: the twins that the tests of our networks compare with, run eagerly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.protocol import Array
from bench.workers import ROOT

sys.path.append(str(ROOT.parent / "tests"))

import torch_models

RATE, MOMENTUM = 0.01, 0.9


def prepare(request: dict[str, Any]) -> tuple[Callable[[], Any], Array]:
    """Return the pass or the step as a function of nothing, and outputs or the first steps' losses.

    The task ``export`` writes the network as an ONNX model.
    """
    torch.set_num_threads(request["threads"])
    model = getattr(torch_models, request["network"])()
    with np.load(request["weights"]) as weights:
        own = {name: torch.from_numpy(value) for name, value in weights.items()}
    unknown = model.load_state_dict(own, strict=False)
    if unknown.unexpected_keys or any("num_batches_tracked" not in name for name in unknown.missing_keys):
        raise ValueError(f"weights: {unknown}")
    x, y = torch.from_numpy(np.load(request["x"])), torch.from_numpy(np.load(request["y"]))
    if request["task"] == "export":
        torch.onnx.export(model.eval(), (x,), request["model"], dynamo=False)
        return lambda: None, np.empty(0)
    if request["data_format"] == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if request["task"] == "forward":
        model.eval()

        def forward() -> Any:
            with torch.inference_mode():
                return model(x)

        return forward, forward().numpy()
    model.train()
    rule = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> float:
        rule.zero_grad()
        value = torch.nn.functional.cross_entropy(model(x), y)
        value.backward()  # type: ignore[no-untyped-call]
        rule.step()
        return float(value.item())

    return step, np.array([step() for _ in range(request["steps"])])
