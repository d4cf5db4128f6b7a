"""LeNet-5: PyTorch's equal, both forms, both data formats, gradients, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_models
from fastconv import nn, optim
from fastconv.models import lenet5
from fastconv.testing import gradcheck


@pytest.mark.parametrize("form", ["modern", "1998"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_lenet5_is_pytorchs(form, data_format):
    torch.manual_seed(0)
    theirs = torch_models.lenet5(7, 3, form).double()
    ours = lenet5(7, 3, form, data_format=data_format, dtype=np.float64)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((4, 3, 28, 28))
    target = np.array([0, 3, 6, 3])
    t = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.cross_entropy(theirs(t), torch.from_numpy(target))
    expected.backward()
    loss = nn.CrossEntropyLoss()
    last = data_format == "channels_last"
    assert loss(ours(np.moveaxis(x, 1, -1) if last else x), target) == pytest.approx(expected.item(), rel=1e-12)
    grad = ours.backward(loss.backward())
    np.testing.assert_allclose(np.moveaxis(grad, -1, 1) if last else grad, t.grad, rtol=1e-9, atol=1e-14)
    for (name, parameter), (other, tensor) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        np.testing.assert_allclose(parameter.grad, tensor.grad, rtol=1e-9, atol=1e-13, err_msg=name)


def test_lenet5_summary():
    summary = lenet5().summary((1, 1, 28, 28))
    assert summary.parameters == 61_706
    # 5x5x1 to 6x28x28, 5x5x6 to 16x10x10, and the three fully connected layers.
    assert summary.multiply_adds == 6 * 784 * 25 + 16 * 100 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    shapes = {row.name: row.output_shape for row in summary.rows}
    assert shapes["conv1"] == (1, 6, 28, 28)
    assert shapes["pool2"] == (1, 16, 5, 5)
    assert shapes["fc3"] == (1, 10)
    assert {row.name: row.receptive_field for row in summary.rows}["pool2"] == (16, 16)


def test_lenet5_gradcheck():
    """Some entries only would miss mistakes, all 61,706 take too long: a small twin of the same layers."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(2, 3, 3), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    assert gradcheck(net, np.random.default_rng(1).standard_normal((2, 1, 12, 12)))


def test_lenet5_is_seedable_and_checks_its_form():
    first, second = (lenet5(rng=np.random.default_rng(3)).state_dict() for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
        assert value.dtype == np.float32
    with pytest.raises(ValueError, match="form: expected 'modern' or '1998', got 'new'"):
        lenet5(form="new")


def test_lenet5_learns_and_does_it_the_same_way_twice():
    """Bars of three directions and places, in noise."""

    def run():
        rng = np.random.default_rng(4)
        labels = rng.integers(0, 3, 96)
        images = 0.3 * rng.standard_normal((96, 1, 28, 28)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            at = rng.integers(6, 22)
            if label == 0:
                image[0, at, 4:24] += 2
            elif label == 1:
                image[0, 4:24, at] += 2
            else:
                image[0, np.arange(4, 24), np.arange(4, 24)] += 2
        model, loss = lenet5(3, rng=rng), nn.CrossEntropyLoss()
        optimizer = optim.Adam(model.parameters(), lr=2e-3)
        losses = []
        for _ in range(25):
            optimizer.zero_grad()
            losses.append(loss(model(images), labels))
            model.backward(loss.backward())
            optimizer.step()
        return losses, float((model.eval()(images).argmax(1) == labels).mean())

    losses, accuracy = run()
    assert losses[-1] < 0.3 * losses[0]
    assert accuracy > 0.95
    assert run() == (losses, accuracy)
