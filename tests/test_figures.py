"""The numbers that the figures show are those that they were given."""

from __future__ import annotations

import numpy as np
import pytest
from fastconv import nn, visualize

pytest.importorskip("matplotlib.figure")


def _images(axes):
    return [np.ma.filled(image.get_array().astype(float), np.nan) for image in axes.images]


def test_training_figure():
    figure = visualize.training_figure([2.0, 0.5, 0.25], [0.5, 0.9, 0.98])
    above, below = figure.axes
    np.testing.assert_array_equal(above.lines[0].get_xydata(), [[1, 2.0], [2, 0.5], [3, 0.25]])
    np.testing.assert_allclose(below.lines[0].get_xydata(), [[1, 50], [2, 10], [3, 2]])
    assert [text.get_text() for text in below.texts] == ["98.00 % right"]


def test_confusion_figure():
    matrix = np.array([[5, 1, 0], [0, 7, 0], [2, 0, 4]])
    figure = visualize.confusion_figure(matrix, ["zero", "one", "two"])
    (axes,) = figure.axes
    written = {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in axes.texts}
    assert written == {(i, j): matrix[i, j] for i in range(3) for j in range(3) if matrix[i, j]}
    (mistakes,) = _images(axes)
    np.testing.assert_array_equal(mistakes, [[np.nan, 1, np.nan], [np.nan] * 3, [2, np.nan, np.nan]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["zero", "one", "two"]
    assert "16 of 19 right" in figure.texts[1].get_text()


@pytest.mark.parametrize("inputs", [1, 2])
def test_filters_figure(inputs):
    layer = nn.Conv2d(inputs, 3, 2, rng=np.random.default_rng(0))
    (picture,) = _images(visualize.filters_figure(layer).axes[0])
    scaled = visualize.filters(layer)
    for output in range(3):
        for channel in range(inputs):  # a column for each output; a row for each input
            tile = picture[3 * channel : 3 * channel + 2, 3 * output : 3 * output + 2]
            np.testing.assert_array_equal(tile, scaled[output, channel])


def test_feature_maps_figure():
    rng = np.random.default_rng(0)
    net = nn.Sequential({"conv": nn.Conv2d(1, 3, 3, padding=1, rng=rng), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2)})
    x = rng.standard_normal((1, 1, 8, 8)).astype(np.float32)
    figure = visualize.feature_maps_figure(net, x)
    pictures = [_images(axes)[0] for axes in figure.axes]
    np.testing.assert_array_equal(pictures[0], x[0, 0])
    for picture, maps in zip(pictures[1:], visualize.feature_maps(net, x).values(), strict=True):
        size = maps.shape[-1]
        for i, tile in enumerate(maps[0]):
            np.testing.assert_array_equal(picture[:, i * (size + 1) : i * (size + 1) + size], tile)


def test_readings_and_misread_figures():
    images = np.random.default_rng(0).random((3, 4, 4))
    figure = visualize.readings_figure(images, [1, 2, 3], [1, 5, 3], [0.9, 0.5, 0.25])
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(_images(axes)[0], image)
    assert [axes.get_title() for axes in figure.axes] == ["read 1  (90 %)", "read 5  (50 %)", "read 3  (25 %)"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "is 2", ""], "only mistakes say what is right"
    colours = {axes.title.get_color() for axes in figure.axes}
    assert len(colours) == 2
    assert "1 of 3" in visualize.misread_figure(images[1:2], [2], [5], [0.5], 3).texts[1].get_text()
