"""PyTorch's own sample inputs, forward and every gradient, in float32 and float64; and the samples that it refuses."""

from __future__ import annotations

import inspect

import fastconv.functional as F
import numpy as np
import pytest
import torch
import torch_modules
import torch_samples
from fastconv import nn
from torch_samples import ADAPTERS, OPERATORS

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # PyTorch's, of its own slow path

ROWS = [
    pytest.param(key, id=f"{key[0].removeprefix('nn.functional.')}{'-' if key[1] else ''}{key[1]}") for key in ADAPTERS
]
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

OTHERS = {
    "dropout": "random: its samples are below",
    "lp_pool": "PyTorch has samples of the layer alone",
    "min_pool": "PyTorch has none",
    "rms_pool": "PyTorch has none",
    "separable_conv": "PyTorch has none",
    "switch_norm": "PyTorch has none",
    "global_avg_pool": "PyTorch has none",
    "global_max_pool": "PyTorch has none",
    "step": "torch.heaviside has another second argument; tests/test_activation.py",
}
"""Our ops without a row in `ADAPTERS`, and why."""

ACCEPTED = {
    ("nn.functional.conv3d", "padding='same' is not supported for strided convolutions"): "it is Keras's here",
}
"""What PyTorch refuses and we take on purpose, and why."""


def refused(call, *arguments, **keywords):
    """Whether the call raises ``ValueError`` or ``TypeError``; any other exception is a failure."""
    try:
        call(*arguments, **keywords)
    except (ValueError, TypeError):
        return True
    return False


def test_every_op_has_samples():
    """Every op is one of PyTorch's with samples, or named in `OTHERS`."""
    adapted = {name.removeprefix("nn.functional.").rstrip("d123") for name, _ in ADAPTERS}
    functions = inspect.getmembers(F, inspect.isfunction)
    ours = {name.rstrip("d123") for name, _ in functions if not name.endswith("_backward")}
    assert ours - adapted - set(OTHERS) == set()
    assert not ours & adapted & set(OTHERS)


@each_dtype
@pytest.mark.parametrize("key", ROWS)
def test_op(key, dtype, problem_count):
    """Outputs and gradients of all samples agree."""
    samples = torch_samples.samples_of(OPERATORS[key], dtype, problem_count(200))
    assert len(samples) >= 5
    arrays = sum(torch_samples.compare(OPERATORS[key], ADAPTERS[key], sample) for sample in samples)
    assert arrays > len(samples)  # gradients, too


@pytest.mark.parametrize("key", [row for row in ROWS if OPERATORS[row.values[0]].error_inputs_func])
def test_op_refuses(key):
    """What PyTorch refuses is a ``ValueError`` or ``TypeError``."""
    torch.manual_seed(0)
    errors = list(OPERATORS[key].error_inputs("cpu"))
    assert errors
    for error in errors:
        bound = ADAPTERS[key].bind(error.sample_input)
        if (key[0], error.error_regex) in ACCEPTED:
            ADAPTERS[key].call(**bound)
            continue
        assert refused(ADAPTERS[key].call, **bound), torch_samples.describe(bound)


@each_dtype
@pytest.mark.parametrize("name", torch_modules.LAYERS)
def test_layer(name, dtype):
    """Outputs, gradients of input and parameters, and buffers of all samples of a layer agree."""
    samples = torch_modules.inputs_of(name, dtype)
    assert len(samples) >= 4
    for training, sample in samples:
        assert torch_modules.compare_layer(name, training, sample) >= 2


@each_dtype
@pytest.mark.parametrize("name", torch_modules.LOSSES)
def test_loss(name, dtype):
    """Values and gradients of all samples of a loss agree."""
    samples = torch_modules.inputs_of(name, dtype)
    assert len(samples) >= 12
    for _, sample in samples:
        assert torch_modules.compare_loss(name, sample) == 2


@pytest.mark.parametrize(
    "name", [n for n in (*torch_modules.LAYERS, *torch_modules.LOSSES) if torch_modules.errors_of(n)]
)
def test_layer_refuses(name):
    """What PyTorch's layer refuses is a ``ValueError`` or ``TypeError`` of ours."""
    for error in torch_modules.errors_of(name):
        assert refused(torch_modules.provoke, name, error), error.error_regex


def test_every_layer_has_samples():
    """Every layer of PyTorch's samples that is also ours is tested."""
    ours = {name for name in torch_modules.MODULES if hasattr(nn, name)}
    assert ours == {*torch_modules.LAYERS, *torch_modules.LOSSES}


@each_dtype
@pytest.mark.parametrize("name", ["dropout", "dropout2d", "dropout3d"])
def test_dropout(name, dtype):
    """Nothing, all, or some entries (or channels) are dropped, kept ones scaled; the gradient goes the same way."""
    samples = torch_samples.samples_of(OPERATORS[f"nn.functional.{name}", ""], dtype)
    kinds = set()
    for sample in samples:
        x, p, training = sample.input.detach(), sample.kwargs.get("p", 0.5), sample.kwargs.get("training", True)
        assert not sample.args
        if not training:
            assert torch.equal(getattr(F, name)(x, p, False), x)
            kinds.add("evaluation")
            continue
        y, mask = getattr(F, name)(x, p, seed=0)
        kept = np.broadcast_to(np.asarray(mask) != 0, x.shape)
        scaled = x.double().numpy() / (1 - p) if p < 1 else np.zeros(x.shape)
        bound = 2 * np.finfo(x.numpy().dtype).eps * np.abs(scaled)
        assert (np.abs(y.double().numpy() - np.where(kept, scaled, 0)) <= bound).all()
        gradient = torch.ones_like(x)
        back = getattr(F, f"{name}_backward")(gradient, mask, p).double().numpy()
        np.testing.assert_allclose(back, np.where(kept, 1 / (1 - p) if p < 1 else 0, 0), rtol=1e-6)
        if p in (0, 1):
            assert kept.all() == (p == 0) or not x.numel()
        kinds.add("training")
    assert kinds == {"training", "evaluation"}
