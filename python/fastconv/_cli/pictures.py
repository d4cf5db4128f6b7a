"""The pictures of a run of the demo, and what the report says about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from .. import nn, train, visualize
from ..datasets import DigitSplit
from .training import as_input

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "draw"]


class Picture(NamedTuple):
    """A picture with words for people who see such a thing for the first time."""

    file: str
    title: str
    about: str
    figure: Figure


def draw(model: nn.Module, digits: DigitSplit, logits: NDArray[np.float32], history: train.History) -> list[Picture]:
    """Return the pictures of a run, in the order in which to look at them.

    Parameters
    ----------
    model : Module
        The trained network.
    digits : DigitSplit
        What it was trained and tested on.
    logits : numpy.ndarray
        Its outputs for the held-out digits.
    history : History
        Of the training.
    """
    read, truth = logits.argmax(1), digits.test_labels
    confidence = F.softmax(logits, 1)[np.arange(len(read)), read]
    right, wrong = np.flatnonzero(read == truth), np.flatnonzero(read != truth)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    some = _evenly(len(read), 24)
    counts = np.zeros((10, 10), np.int64)
    np.add.at(counts, (truth, read), 1)
    example = as_input(digits.test_images[[next(iter(right[truth[right] == 5]), 0)]])
    layers = dict(model.named_modules())
    return [
        Picture(
            "readings.png",
            "What it does",
            "It is given a picture of 28 x 28 pixels and answers with a probability for each digit; the largest is "
            "what it reads. These digits were kept from it while it learned.",
            visualize.readings_figure(digits.test_images[some], truth[some], read[some], confidence[some]),
        ),
        Picture(
            "training.png",
            "How it learned",
            "An epoch is once through all digits. The loss says how far the network's answers are from the right ones; "
            "training changes the weights, a little after each batch of digits, so that it falls. The digits that it "
            "learns from are shifted, turned and bent anew each time, so that it cannot learn them by heart.",
            visualize.training_figure(history.column("loss"), history.column("val_accuracy")),
        ),
        Picture(
            "confusion.png",
            "What it takes for what",
            "A row for each digit, a column for what it was read as. What is right is on the diagonal.",
            visualize.confusion_figure(counts),
        ),
        Picture(
            "misread.png",
            "Where it is wrong",
            "The surest mistakes come first. Some of these could be argued about.",
            visualize.misread_figure(
                digits.test_images[wrong], truth[wrong], read[wrong], confidence[wrong], len(read)
            ),
        ),
        _heatmaps(model, digits, read, right),
        Picture(
            "filters-conv1.png",
            "What it looks for first",
            "Each filter of the first convolution is a small pattern that slides over the picture and responds where "
            "it finds itself: ink under blue, paper under red. Nobody drew these: they began as random numbers.",
            visualize.filters_figure(layers["conv1"], "Filters of the first convolution"),
        ),
        Picture(
            "feature-maps.png",
            "What each layer makes of a digit",
            "From the picture to maps of strokes and corners, smaller and smaller, from which the answer is computed.",
            visualize.feature_maps_figure(model, example, "What each layer makes of a digit"),
        ),
        Picture(
            "filters-conv2.png",
            "How it combines them",
            "Each filter of the second convolution looks at all maps of the layer before, through a pattern for each.",
            visualize.filters_figure(layers["conv2"], "Filters of the second convolution"),
        ),
    ]


def _evenly(count: int, wanted: int) -> NDArray[np.intp]:
    """Return so many indices, spread over all."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.intp))


def _heatmaps(model: nn.Module, digits: DigitSplit, read: NDArray[np.intp], right: NDArray[np.intp]) -> Picture:
    """Return rightly read digits, one of a class, with heatmaps of what the network goes by."""
    labels, first = np.unique(read[right], return_index=True)
    chosen = right[first[_evenly(len(labels), 6)]] if len(right) else np.array([0])
    x, label = as_input(digits.test_images[chosen]), read[chosen]
    maps = {"covered": visualize.occlusion_map(model, x, label, size=7, stride=2)}
    about = (
        "A square is laid over the digit, here and there, and the network asked again. It is bright where covering "
        "costs the answer the most: these strokes are what the network goes by."
    )
    if any(isinstance(layer, nn.GlobalAvgPool) for layer in model.modules()):
        maps = {"activation": visualize.class_activation_map(model, x, label)} | maps
        about = (
            "The activation map shows where the last convolution saw the digit: the answer is the mean of this map. A "
            "second way needs nothing of the network's inside: " + about[0].lower() + about[1:]
        )
    title = "What the network goes by"
    return Picture("heatmaps.png", "Where it looks", about, visualize.heatmaps_figure(x[:, 0], maps, title))
