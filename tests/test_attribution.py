"""Heatmaps: the numbers behind them, and that they lie on the thing."""

from __future__ import annotations

import fastconv
import numpy as np
import pytest
from fastconv import models, nn, optim, train, visualize

FORMATS = ["channels_first", "channels_last"]


def _pooled(data_format="channels_first", dtype=np.float64, seed=0):
    """A small network that ends in global average pooling."""
    rng = np.random.default_rng(seed)
    options = {"data_format": data_format, "dtype": dtype, "rng": rng}
    layout = {"data_format": data_format}
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(2, 6, 3, padding=1, **options),
            "relu1": nn.ReLU(**layout),
            "pool": nn.MaxPool2d(2, **layout),
            "conv2": nn.Conv2d(6, 8, 3, padding=1, **options),
            "relu2": nn.ReLU(**layout),
            "average": nn.GlobalAvgPool(**layout),
            "dropout": nn.Dropout(0.5, **layout),
            "fc": nn.Linear(8, 4, **options),
        }
    )


def _pictures(data_format="channels_first", n=3):
    x = np.random.default_rng(1).standard_normal((n, 2, 10, 8))
    return x if data_format == "channels_first" else np.ascontiguousarray(np.moveaxis(x, 1, -1))


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_logit_is_the_mean_of_its_class_activation_map(data_format):
    net, x = _pooled(data_format), _pictures(data_format)
    logits = net.eval()(x)
    net.train()
    for label in range(4):
        maps = visualize.class_activation_map(net, x, label, resize=False)
        assert maps.shape == (3, 5, 4)
        np.testing.assert_allclose(maps.mean((1, 2)) + net["fc"].bias.data[label], logits[:, label], rtol=1e-10)
    each = visualize.class_activation_map(net, x, [2, 0, 3])
    assert each.shape == (3, 10, 8)
    np.testing.assert_array_equal(each[1:2], visualize.class_activation_map(net, x[1:2], 0))
    assert net.training


def test_maps_of_a_network_whose_maps_are_its_classes():
    net = models.mini_xception(3, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((2, 1, 40, 40))
    maps = visualize.class_activation_map(net, x, [2, 1], resize=False)
    np.testing.assert_allclose(maps.mean((1, 2)), net.eval()(x)[[0, 1], [2, 1]], rtol=1e-10)


@pytest.mark.parametrize("data_format", FORMATS)
def test_grad_cam_after_global_average_pooling_is_the_class_activation_map(data_format):
    net, x = _pooled(data_format), _pictures(data_format)
    labels = [1, 2, 0]
    cam = visualize.class_activation_map(net, x, labels, resize=False)
    np.testing.assert_allclose(
        visualize.grad_cam(net, x, labels, resize=False), np.maximum(cam, 0) / 20, rtol=1e-10, atol=1e-14
    )
    assert visualize.grad_cam(net, x, labels).shape == (3, 10, 8)


def test_grad_cam_by_its_definition():
    """Weights are the logit's mean derivatives, here by central differences through the rest of the network."""
    net, x = (
        models.lenet5(dtype=np.float64, rng=np.random.default_rng(2)),
        np.random.default_rng(3).random((1, 1, 28, 28)),
    )
    layers = list(net.eval())
    y = x
    for layer in layers[:5]:
        y = layer(y)

    def logit(features):
        for layer in layers[5:]:
            features = layer(features)
        return features[0, 7]

    weights = []
    for channel in range(16):
        step = np.zeros_like(y)
        step[0, channel] = 1e-6
        weights.append((logit(y + step) - logit(y - step)) / 2e-6 / 100)
    expected = np.maximum(np.einsum("chw,c->hw", y[0], weights), 0)
    actual = visualize.grad_cam(net, x, 7, layer=list(dict(net.named_children()))[4], resize=False)[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-8 * expected.max())


def test_grad_cam_leaves_the_network_as_it_was():
    net, x = _pooled(), _pictures()
    y = net(x)
    net.backward(np.ones_like(y))
    gradients = {name: parameter.grad.copy() for name, parameter in net.named_parameters()}
    visualize.grad_cam(net, x[:1], 0, layer="conv1")
    assert net.training
    for name, parameter in net.named_parameters():
        np.testing.assert_array_equal(parameter.grad, gradients[name])
    assert "backward" not in vars(net["conv1"])
    net.backward(np.ones_like(y))  # the forward before is still the latest


def test_occlusion_by_its_definition():
    net, x = _pooled(), _pictures()
    maps = visualize.occlusion_map(net, x, [0, 1, 2], size=4, stride=3, value=0.5)

    def probability(pictures):
        logits = net.eval()(pictures)
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return share[[0, 1, 2], [0, 1, 2]]

    covered = x.copy()
    covered[:, :, :4, :4] = 0.5
    np.testing.assert_allclose(maps[:, 0, 0], probability(x) - probability(covered), rtol=1e-8)
    assert not maps[:, :, 7].any(), "no square came there"
    last = visualize.occlusion_map(_pooled("channels_last"), _pictures("channels_last"), [0, 1, 2], 4, 3, 0.5)
    np.testing.assert_allclose(last, maps, atol=1e-12)


@pytest.fixture
def one_thread():
    """So small a network gains nothing from more."""
    before = fastconv.get_num_threads()
    fastconv.set_num_threads(1)
    yield
    fastconv.set_num_threads(before)


def test_maps_lie_on_the_thing(one_thread):
    """A cross, a ring or nothing in noise: covering what the map shows costs more than covering as much elsewhere."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((20, 20))
    labels, centres = rng.integers(0, 3, 300), rng.integers(4, 16, (300, 2))
    x = 0.2 * rng.standard_normal((300, 1, 20, 20)).astype(np.float32)
    on = np.zeros((300, 20, 20), bool)
    for i, (label, (y, c)) in enumerate(zip(labels, centres, strict=True)):
        near = np.maximum(abs(rows - y), abs(columns - c))
        shape = ((rows == y) | (columns == c)) & (near <= 3) if label else near == 3
        if label < 2:
            x[i, 0][shape] += 1
        on[i] = near <= 4
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, rng=rng), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, rng=rng), nn.BatchNorm2d(16), nn.ReLU(), nn.GlobalAvgPool(),
        nn.Linear(16, 3, rng=rng),
    )  # fmt: skip
    adam = optim.Adam(net.parameters(), lr=0.01)
    train.fit(net, x[:240], labels[:240], nn.CrossEntropyLoss(), adam, epochs=12, batch_size=24)
    read = train.predict(net, x[240:]).argmax(1)
    assert (read == labels[240:]).mean() > 0.95
    things = 240 + np.flatnonzero((read == labels[240:]) & (read < 2))[:20]
    pictures, truth, on = x[things], labels[things], on[things]
    cam = visualize.class_activation_map(net, pictures, truth)
    gradients = visualize.grad_cam(net, pictures, truth)
    occlusion = visualize.occlusion_map(net, pictures, truth, size=5, stride=3)
    for maps in (cam, gradients):
        hottest = np.array([each.ravel().argmax() for each in maps])
        assert on.reshape(len(maps), -1)[np.arange(len(maps)), hottest].mean() > 0.9, "the peak is on the thing"
        hot = maps >= np.quantile(maps, 0.8, axis=(1, 2), keepdims=True)
        assert occlusion[hot].mean() > 3 * occlusion[~hot].mean(), "and it is what the answer needs"


def test_overlay():
    image, heat = np.full((2, 3), 0.5), np.array([[0.0, -1.0, 2.0], [0.0, 0.0, 0.0]])
    mixed = visualize.overlay(image, heat, opacity=1.0)
    assert mixed.shape == (2, 3, 3)
    np.testing.assert_allclose(mixed[heat <= 0], 0.5)
    np.testing.assert_allclose(mixed[0, 2], [1.0, 1.0, 0.6])
    half = visualize.overlay(image, heat, opacity=0.5)
    np.testing.assert_allclose(half[0, 2], (0.5 + mixed[0, 2]) / 2 + [0.0, 0.0, 0.0], atol=1e-12)
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    np.testing.assert_allclose(visualize.overlay(colour, np.zeros((2, 3))), colour / 255)


def test_heatmaps_figure(tmp_path):
    images = np.random.default_rng(0).random((2, 6, 6))
    maps = {"one": np.stack([np.eye(6)] * 2), "other": np.ones((2, 6, 6))}
    figure = visualize.heatmaps_figure(images, maps)
    figure.savefig(tmp_path / "picture.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["the picture", "", "one", "", "other", ""]
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(drawn[1], np.repeat(images[1][..., None], 3, 2))
    np.testing.assert_array_equal(drawn[2], visualize.overlay(images[0], np.eye(6)))


def test_bad_arguments():
    net, x = _pooled(), _pictures()
    lenet, digit = models.lenet5(), np.zeros((1, 1, 28, 28), np.float32)
    for message, call in (
        ("for others there is grad_cam", lambda: visualize.class_activation_map(lenet, digit, 0)),
        ("x: expected a batch of pictures with four axes", lambda: visualize.class_activation_map(net, x[0], 0)),
        ("label: expected classes from 0 to 3", lambda: visualize.class_activation_map(net, x, 4)),
        ("label: expected classes from 0 to 3", lambda: visualize.grad_cam(net, x, -1)),
        ("label: expected classes from 0 to 9", lambda: visualize.occlusion_map(lenet, digit, 0.5)),
        ("layer: there is no 'conv7'", lambda: visualize.grad_cam(net, x, 0, layer="conv7")),
        ("layer: expected one that gives maps", lambda: visualize.grad_cam(net, x, 0, layer="fc")),
        ("size: 9 is larger than the pictures, 10 x 8", lambda: visualize.occlusion_map(net, x, 0, size=9)),
        ("heatmap: expected shape", lambda: visualize.overlay(np.zeros((2, 3)), np.zeros((3, 2)))),
    ):
        with pytest.raises(ValueError, match=message):
            call()
