"""Matplotlib figures of what a network has learnt, sees and does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._extras import require
from ..nn.module import Module
from .attribution import overlay
from .inside import feature_maps, filters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "confusion_figure",
    "feature_maps_figure",
    "filters_figure",
    "heatmaps_figure",
    "misread_figure",
    "montage",
    "readings_figure",
    "training_figure",
]

_INK = "#1f2933"
_MUTED = "#66788a"
_BLUE = "#2166ac"
_RED = "#b2182b"


def montage(images: NDArray[Any], columns: int, gap: int = 1) -> NDArray[np.float64]:
    """Lay images out on a grid, with NaN (which matplotlib leaves blank) between them and in empty places.

    Parameters
    ----------
    images : numpy.ndarray
        ``(K, H, W)``.
    columns : int
        Images in a row.
    gap : int
        Pixels between images.

    Returns
    -------
    numpy.ndarray
        One ``(rows * (H + gap) - gap, columns * (W + gap) - gap)`` image.
    """
    count, height, width = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


_HEADING = 0.85
"""Inches at the top of a figure for its title and note."""


def _figure(width: float, height: float, title: str, note: str) -> Figure:
    """Return a figure with a heading above ``height`` inches for the picture itself."""
    full = height + _HEADING
    figure: Figure = require("matplotlib.figure", purpose="a picture").Figure(
        figsize=(width, full), layout="constrained", facecolor="white"
    )
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.02, 0.0, 0.96, height / full))
    left = 0.2 / width
    figure.text(left, 1 - 0.16 / full, title, fontsize=13, fontweight="bold", color=_INK, va="top")
    figure.text(left, 1 - 0.48 / full, note, fontsize=9, color=_MUTED, va="top")
    return figure


def _bare(axes: Axes) -> None:
    """Take ticks and frame off."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_frame_on(False)


def filters_figure(layer: Module, title: str = "Learned filters") -> Figure:
    """Draw a two-dimensional convolution's filters: a row of tiles for one input channel, otherwise a tile a pair.

    Raises
    ------
    TypeError
        If the layer is not a two-dimensional convolution.
    """
    weight = filters(layer)
    if weight.ndim != 4:
        raise TypeError(f"layer: expected a two-dimensional convolution, got {type(layer).__name__}")
    outputs, inputs, height, width = weight.shape
    if inputs == 1:
        columns = min(outputs, 8)
        tiles = weight[:, 0]
    else:
        columns = outputs
        tiles = weight.transpose(1, 0, 2, 3).reshape(-1, height, width)
    rows = -(-len(tiles) // columns)
    tile = min(1.3, 9.0 / columns)
    note = "Blue weights are positive, red ones negative; each output channel is scaled by its largest."
    figure = _figure(max(6.5, columns * tile + 1.2), rows * tile * height / width + 0.5, title, note)
    axes = figure.add_subplot()
    picture = axes.imshow(montage(tiles, columns), cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    _bare(axes)
    if inputs > 1:
        axes.set_xlabel("output channel", color=_MUTED)
        axes.set_ylabel("input channel", color=_MUTED)
        axes.set_xticks(np.arange(columns) * (width + 1) + (width - 1) / 2, [str(i + 1) for i in range(columns)])
        axes.set_yticks(np.arange(rows) * (height + 1) + (height - 1) / 2, [str(i + 1) for i in range(rows)])
        axes.tick_params(length=0, colors=_MUTED, labelsize=8)
    bar: Any = figure.colorbar(picture, ax=axes, shrink=0.9, aspect=18, pad=0.02, ticks=[-1, 0, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=_MUTED, labelsize=8)
    return figure


def feature_maps_figure(module: Module, x: NDArray[Any], title: str = "Feature maps") -> Figure:
    """Draw what each two-dimensional layer makes of one image, layer under layer.

    Parameters
    ----------
    module : Module
        A network.
    x : numpy.ndarray
        A batch of one image, ``(1, 1, H, W)``.
    title : str
        Heading.

    Raises
    ------
    ValueError
        If ``x`` is not one image with one channel.
    """
    maps = [(name, y[0]) for name, y in feature_maps(module, x).items() if y.ndim == 4]
    classes = {name: type(each).__name__ for name, each in module.named_modules()}
    image = np.squeeze(np.asarray(x))
    if image.ndim != 2:
        raise ValueError(f"x: expected one image with one channel, got shape {np.shape(x)}")
    rows = [("input", "image", image[None]), *((name, classes[name], y) for name, y in maps)]

    # Placed by hand, in inches: tiles of one width in every row, the names to their left.
    tile, columns, left, gap = 0.8, 8, 1.9, 0.16
    width = left + columns * tile + 0.2
    heights = [-(-len(y) // columns) * tile * y.shape[1] / y.shape[2] for _, _, y in rows]
    height = sum(heights) + gap * len(rows) + 0.1
    figure = _figure(width, height, title, "A tile for each channel, dark where it responds strongly.")
    figure.set_layout_engine("none")
    full, top = height + _HEADING, height
    for (name, kind, y), high in zip(rows, heights, strict=True):
        wide = min(columns, len(y)) * tile
        axes = figure.add_axes((left / width, (top - high) / full, wide / width, high / full))
        strip = montage(y, min(columns, len(y)), gap=max(1, round(y.shape[2] / 14)))
        axes.imshow(strip, cmap="gray_r" if name == "input" else "magma_r", interpolation="nearest", aspect="auto")
        _bare(axes)
        shape = " x ".join(str(size) for size in (y.shape if name != "input" else y.shape[1:]))
        figure.text(0.2 / width, (top - 0.02) / full, name, fontsize=10, fontweight="bold", color=_INK, va="top")
        figure.text(0.2 / width, (top - 0.22) / full, f"{kind}, {shape}", fontsize=8, color=_MUTED, va="top")
        top -= high + gap
    return figure


def misread_figure(
    images: NDArray[Any], truth: ArrayLike, read: ArrayLike, confidence: ArrayLike, total: int | None = None
) -> Figure:
    """Draw images that were read wrongly, with what was read and what they are.

    Parameters
    ----------
    images : numpy.ndarray
        ``(K, H, W)``, the wrongly read ones; none is fine. At most 40 are drawn, in the order given.
    truth, read : array_like of int
        Right and given label of each.
    confidence : array_like of float
        Probability that was given to the wrong label.
    total : int, optional
        Number of images that were read at all, for the heading.
    """
    note = f"{len(images):,} of {total:,}" if total is not None else f"{len(images):,}"
    more = f"; the first {_SHOWN} are shown" if len(images) > _SHOWN else ""
    note += f"{more}. Above each: what was read, and how sure the network was."
    return _readings(images, truth, read, confidence, "Wrongly read digits", note)


def readings_figure(images: NDArray[Any], truth: ArrayLike, read: ArrayLike, confidence: ArrayLike) -> Figure:
    """Draw images with what was read; in red, and with what they are, where that is wrong.

    Parameters
    ----------
    images : numpy.ndarray
        ``(K, H, W)``. At most 40 are drawn, in the order given.
    truth, read : array_like of int
        Right and given label of each.
    confidence : array_like of float
        Probability that was given to the label.
    """
    note = "Above each: what was read, and how sure the network was. Mistakes are red."
    return _readings(images, truth, read, confidence, "Digits that the network had never seen", note)


_SHOWN = 40


def _readings(
    images: NDArray[Any], truth: ArrayLike, read: ArrayLike, confidence: ArrayLike, title: str, note: str
) -> Figure:
    """Draw images with what was read above, and below what they are where that is something else."""
    truth, read, confidence = np.asarray(truth), np.asarray(read), np.asarray(confidence)
    shown = min(len(images), _SHOWN)
    columns = 8 if shown > 12 else max(1, math.ceil(shown / 2)) if shown > 6 else max(shown, 1)
    rows = max(1, -(-shown // columns))
    figure = _figure(max(6.5, columns * 1.15), rows * 1.5, title, note)
    if not shown:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.text(0.5, 0.5, "none", ha="center", va="center", color=_MUTED, fontsize=14)
        return figure
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.ravel()):
        _bare(axes)
        if i >= shown:
            continue
        axes.imshow(images[i], cmap="gray_r", interpolation="nearest")
        right = truth[i] == read[i]
        axes.set_title(
            f"read {read[i]}  ({100 * confidence[i]:.0f} %)", fontsize=9, color=_INK if right else _RED, pad=3
        )
        if not right:
            axes.set_xlabel(f"is {truth[i]}", fontsize=9, color=_INK, labelpad=2)
    return figure


def confusion_figure(matrix: NDArray[np.integer[Any]], labels: Sequence[str] | None = None) -> Figure:
    """Draw a confusion matrix: rows are true classes, columns what was read. Colour shows mistakes only.

    Parameters
    ----------
    matrix : numpy.ndarray
        ``(K, K)`` counts, as scikit-learn's ``confusion_matrix`` gives them.
    labels : sequence of str, optional
        Names of the classes; their numbers unless given.
    """
    size = len(matrix)
    names = [str(i) for i in range(size)] if labels is None else list(labels)
    mistakes = np.where(np.eye(size, dtype=bool) | (matrix == 0), np.nan, matrix)
    note = f"{int(np.trace(matrix)):,} of {int(matrix.sum()):,} right; mistakes are coloured."
    figure = _figure(6.4, 6.0, "Confusion matrix", note)
    axes = figure.add_subplot()
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(4.0, 1.4 * float(np.nanmax(mistakes, initial=0))))
    for i in range(size):
        for j in range(size):
            if matrix[i, j]:
                axes.text(
                    j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=9,
                    color=_MUTED if i == j else _INK, fontweight="normal" if i == j else "bold",
                )  # fmt: skip
    axes.set_xticks(range(size), names)
    if max(map(len, names)) > 3:
        axes.tick_params(axis="x", rotation=40)
    axes.set_yticks(range(size), names)
    axes.set_xlabel("read as", color=_INK)
    axes.set_ylabel("is", color=_INK)
    axes.set_xticks(np.arange(-0.5, size), minor=True)
    axes.set_yticks(np.arange(-0.5, size), minor=True)
    axes.grid(which="minor", color="#e4e7eb", linewidth=0.8)
    axes.tick_params(which="both", length=0, colors=_INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def training_figure(losses: Sequence[float], accuracies: Sequence[float]) -> Figure:
    """Draw loss and held-out accuracy (0 to 1) of each epoch, one curve above the other."""
    epochs = np.arange(1, len(losses) + 1)
    note = "Above, the loss on distorted digits; below, how many held-out digits are misread."
    figure = _figure(7.0, 4.6, "Training", note)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(epochs, losses, color=_BLUE, linewidth=1.8, marker="o" if len(epochs) < 3 else None)
    above.set_ylabel("loss")
    errors = np.maximum(100 * (1 - np.asarray(accuracies, float)), 0.05)
    below.plot(epochs, errors, color=_RED, linewidth=1.8, marker="o" if len(epochs) < 3 else None)
    below.set_yscale("log")
    below.set_ylabel("misread (%)")
    below.set_xlabel("epoch")
    below.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}".strip("0.") in ("2", "5") else "")
    below.annotate(
        f"{accuracies[-1] * 100:.2f} % right", (epochs[-1], errors[-1]), xytext=(0, 14), textcoords="offset points",
        ha="right", color=_RED, fontsize=10, fontweight="bold",
    )  # fmt: skip
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
        axes.tick_params(colors=_MUTED, which="both", labelsize=9)
        axes.yaxis.label.set_color(_INK)
        axes.xaxis.label.set_color(_INK)
    below.xaxis.get_major_locator().set_params(integer=True)
    return figure


def heatmaps_figure(
    images: NDArray[Any],
    heatmaps: Mapping[str, NDArray[Any]],
    title: str = "What the answer comes from",
    note: str = "The brighter, the more it speaks for the answer.",
) -> Figure:
    """Draw pictures, and heatmaps over them: a column for each picture, a row for each kind of map.

    Parameters
    ----------
    images : numpy.ndarray
        ``(N, H, W)`` or ``(N, H, W, 3)``, from 0 to 1.
    heatmaps : mapping of str to numpy.ndarray
        Titles and ``(N, H, W)`` maps.
    title, note : str
        Heading and the line under it.
    """
    pictures = np.repeat(images[..., None], 3, 3) if images.ndim == 3 else images
    rows = {"the picture": pictures}
    for name, maps in heatmaps.items():
        rows[name] = np.stack([overlay(image, heat) for image, heat in zip(images, maps, strict=True)])
    tile = min(1.9, 8.0 / len(images))
    figure = _figure(max(6.5, tile * len(images) + 0.4), (tile + 0.1) * len(rows), title, note)
    for line, (name, tiles) in zip(figure.subplots(len(rows), len(images), squeeze=False), rows.items(), strict=True):
        for axes, picture in zip(line, tiles, strict=True):
            axes.imshow(picture, interpolation="nearest")
            _bare(axes)
        line[0].set_ylabel(name, fontsize=9, color=_INK)
    return figure
