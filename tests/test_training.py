"""Networks of every kind of layer train: their gradients are right together, and the loss falls."""

from __future__ import annotations

import numpy as np
import pytest
from fastconv import datasets, models, nn, optim, train
from fastconv.testing import gradcheck

FIRST = "channels_first"


def _layer_norm(channels, size, **options):
    image = (size, size)
    return nn.LayerNorm((channels, *image) if options["data_format"] == FIRST else (*image, channels), **options)


# Each takes channels, size of the images and the options that all layers share.
NORMS = {
    "BatchNorm2d": lambda channels, _, **options: nn.BatchNorm2d(channels, **options),
    "LayerNorm": _layer_norm,
    "GroupNorm": lambda channels, _, **options: nn.GroupNorm(2, channels, **options),
    "InstanceNorm2d": lambda channels, _, **options: nn.InstanceNorm2d(channels, affine=True, **options),
    "SwitchNorm2d": lambda channels, _, **options: nn.SwitchNorm2d(channels, **options),
}


def _two_branches(norm, size, seed, **options):
    """A stem, a residual block of two branches side by side, and a head; every activation and pool in between."""
    rng = np.random.default_rng(seed)
    weighted = options | {"rng": rng}
    layout = {"data_format": options["data_format"]}
    wide = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, **weighted), norm(4, size, **options), nn.LeakyReLU(0.1)
    )
    deep = nn.Sequential(
        nn.SeparableConv2d(4, 4, 3, padding="same", **weighted),
        norm(4, size, **options),
        nn.ELU(),
        nn.MaxPool(2, **layout),
        nn.Upsample(scale_factor=2, mode="bilinear", **layout),
    )
    return nn.Sequential(
        nn.utils.weight_standardization(nn.Conv2d(1, 4, 3, padding=1, **weighted)),
        norm(4, size, **options),
        nn.ReLU(),
        nn.Residual(nn.Sequential(nn.Concat(wide, deep, **layout), nn.Conv2d(8, 4, 1, groups=2, **weighted))),
        nn.AvgPool(2, **layout),
        nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, **weighted),
        nn.Tanh(),
        nn.GlobalAvgPool(**layout),
        nn.utils.spectral_norm(nn.Linear(6, 3, **weighted), rng=rng),
    )


def _images(rng, count, size):
    """Stripes along one axis or the other, or neither, under noise."""
    labels = rng.integers(0, 3, count)
    images = 0.5 * rng.standard_normal((count, 1, size, size))
    images[labels == 1, :, ::2] += 1
    images[labels == 2, :, :, ::2] += 1
    return images, labels


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("data_format", [FIRST, "channels_last"])
def test_a_residual_network_of_two_branches_learns(norm, data_format):
    options = {"data_format": data_format, "dtype": np.float32}
    net = _two_branches(norm, 8, 0, **options)
    images, labels = _images(np.random.default_rng(1), 120, 8)
    x = images.astype(np.float32)
    x = x if data_format == FIRST else np.moveaxis(x, 1, -1)
    loss, rule = nn.CrossEntropyLoss(), optim.AdamW(net.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        for start in range(0, 120, 40):
            rule.zero_grad()
            losses.append(loss(net(x[start : start + 40]), labels[start : start + 40]))
            net.backward(loss.backward())
            rule.step()
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_gradients_of_the_whole_network(norm):
    """In evaluation, where power iteration and running statistics stand still, as the gradient has them."""
    options = {"data_format": FIRST, "dtype": np.float64}
    net = _two_branches(norm, 4, 2, **options)
    images, _ = _images(np.random.default_rng(3), 4, 4)
    net(images)  # running statistics that are not those of the start
    net.eval()
    assert gradcheck(net, images[:1], atol=1e-6, rtol=1e-4)


def test_a_small_resnet_sees_what_no_linear_model_sees():
    """Digits in negative on coloured paper: the ink is neither brighter nor darker than the paper, in no colour."""
    linear = pytest.importorskip("sklearn.linear_model")
    digits, rng = datasets.digits_8x8(), np.random.default_rng(0)

    def coloured(images):
        ink = np.kron(images / np.float32(255), np.ones((1, 2, 2), np.float32))[:, None]
        paper = rng.random((len(images), 3, 1, 1)) + 0.15 * rng.standard_normal((len(images), 3, 16, 16))
        return np.abs(paper.clip(0, 1) - ink).astype(np.float32)

    images, held_out = coloured(digits.train_images), coloured(digits.test_images)
    model = models.resnet18(10, form="small", width=8, rng=np.random.default_rng(0))
    adam = optim.Adam(model.parameters(), lr=3e-3)
    history = train.fit(
        model, images, digits.train_labels, nn.CrossEntropyLoss(), adam, epochs=6,
        schedule=optim.CosineAnnealingLR(adam, 6),
        validation=(held_out, digits.test_labels), metrics={"accuracy": train.accuracy},
    )  # fmt: skip
    flat = linear.RidgeClassifier(alpha=100.0).fit(images.reshape(len(images), -1), digits.train_labels)
    below = flat.score(held_out.reshape(len(held_out), -1), digits.test_labels)
    assert history[-1]["val_accuracy"] > below + 0.15, "0.77 and 0.54 when this was written"
