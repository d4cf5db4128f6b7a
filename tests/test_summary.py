"""The table of a network's layers: shapes, parameters, multiply-adds, receptive fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastconv import nn
from layer_cases import CASES
from torch.utils.flop_counter import FlopCounterMode

each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])

LEAVES = [case for case in CASES if not list(case.ours(data_format="channels_first").children())]


@each_case
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_every_layer(case, data_format):
    """Shape, parameters and multiply-adds are those of PyTorch's layer, as PyTorch's counter sees them."""
    ours, theirs = case.ours(data_format=data_format), case.theirs().eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        expected = theirs(torch.ones(case.shape))
    shape, output = case.shape, tuple(expected.shape)
    if data_format == "channels_last":
        shape = (shape[0], *shape[2:], shape[1])
        output = (output[0], *output[2:], output[1])
    summary = ours.summary(shape)
    assert summary.rows[-1].output_shape == output or isinstance(ours, nn.Concat | nn.Residual)
    assert summary.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert summary.multiply_adds == counter.get_total_flops() / 2
    assert ours.training


@pytest.mark.parametrize("case", LEAVES, ids=[case.name for case in LEAVES])
def test_receptive_field_of_every_layer(case):
    """A NaN in one position reaches just the outputs that see it."""
    layer = case.ours(data_format="channels_first", dtype=np.float64)
    row = layer.summary(case.shape).rows[-1]
    mixes = isinstance(layer, nn.SwitchNorm1d | nn.SwitchNorm2d | nn.SwitchNorm3d)
    norm = type(layer).__module__ == nn.BatchNorm2d.__module__
    if mixes or (norm and getattr(layer, "running_mean", None) is None):
        assert row.receptive_field == (1,) * (len(case.shape) - 2), "statistics of the input do not count"
        return
    layer.eval()
    spatial = case.shape[2:]
    seen = []
    for position in np.ndindex(spatial):
        x = np.ones((1, *case.shape[1:]))
        x[(slice(None), slice(None), *position)] = np.nan
        seen.append(np.isnan(layer(x)))
    seen = np.array(seen).reshape(*spatial, *seen[0].shape)
    if row.receptive_field is None or isinstance(layer, nn.Flatten):
        # A layer without a window: its outputs see everything, or the one value that they are.
        assert (row.receptive_field is None) == seen.all()
        return
    # By axis, how far apart are the first and the last position that an output sees; the largest of all outputs.
    for axis, field in enumerate(row.receptive_field):
        others = tuple(i for i in range(seen.ndim) if i != axis and i < len(spatial))
        reached = seen.any(others).reshape(spatial[axis], -1)
        extent = np.where(reached.any(0), spatial[axis] - reached[::-1].argmax(0) - reached.argmax(0), 0)
        assert extent.max() == min(field, spatial[axis]), (axis, row.receptive_field)


def test_summary():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.ReLU())),
        nn.MaxPool(2),
        nn.SeparableConv2d(8, 4, 3, padding=1),
        nn.Concat(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5, padding=2)),
        nn.ConvTranspose2d(8, 2, 2, stride=2),
        nn.Flatten(),
        nn.Linear(2 * 14 * 14, 10),
    )
    x = np.ones((1, 1, 14, 14), np.float32)
    y = net(x)
    summary = net.summary((4, 1, 14, 14))
    rows = {row.name: row for row in summary.rows}
    assert rows["0"] == ("0", "Conv2d", (4, 8, 14, 14), 80, 4 * 8 * 196 * 9, (3, 3))
    assert rows["2.branch.0"] == ("2.branch.0", "Conv2d", (4, 8, 14, 14), 584, 4 * 8 * 196 * 72, (7, 7))
    assert rows["3"] == ("3", "MaxPool", (4, 8, 7, 7), 0, 0, (8, 8))
    assert rows["4"] == ("4", "SeparableConv2d", (4, 4, 7, 7), 72 + 32 + 4, 4 * 49 * (72 + 32), (12, 12))
    assert rows["5.0"].receptive_field == (12, 12)
    assert rows["5.1"].receptive_field == (20, 20)
    # A transposed 2 x 2 kernel with stride 2 gives each input's field to four outputs.
    assert rows["6"] == ("6", "ConvTranspose2d", (4, 2, 14, 14), 66, 4 * 8 * 49 * 2 * 4, (20, 20))
    assert rows["8"] == ("8", "Linear", (4, 10), 3930, 4 * 3920, None)
    assert summary.parameters == sum(parameter.size for parameter in net.parameters())
    assert summary.multiply_adds == sum(row.multiply_adds for row in rows.values())
    table = str(summary)
    assert repr(summary) == table
    lines = table.splitlines()
    assert lines[0].split("  ")[0] == "Layer"
    assert lines[-1].startswith("Total")
    assert "20 x 20" in table
    assert table.rstrip().endswith(f"{summary.multiply_adds:,}")
    assert net.training
    assert net[1].num_batches_tracked == 1
    net.backward(np.ones_like(y))  # the forward before the summary is still the latest


def test_receptive_field_is_what_a_gradient_reaches():
    """The field of the middle output is as wide as the non-zero part of its gradient."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, (3, 5), padding=(1, 2), dtype=np.float64),
        nn.AvgPool(2),
        nn.Conv2d(2, 2, 3, stride=2, padding=2, dilation=2, dtype=np.float64),
        nn.Conv2d(2, 1, (1, 3), padding=(0, 1), dtype=np.float64),
    )
    x = np.random.default_rng(0).standard_normal((1, 1, 64, 64))
    y = net(x)
    grad = np.zeros_like(y)
    grad[0, 0, y.shape[2] // 2, y.shape[3] // 2] = 1
    reached = np.nonzero(net.backward(grad)[0, 0])
    extent = tuple(int(axis.max() - axis.min()) + 1 for axis in reached)
    assert net.summary(x.shape).rows[-1].receptive_field == extent


def test_summary_refuses_shapes_without_a_batch():
    with pytest.raises(ValueError, match=r"input_shape: expected \(N, ...\) with positive sizes, got \(3,\)"):
        nn.Linear(3, 4).summary((3,))
