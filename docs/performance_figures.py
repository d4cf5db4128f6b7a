"""Draw the figures of performance.md into images/performance: ``python docs/performance_figures.py``."""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent / "images" / "performance"
BLUE, ORANGE, GREEN, GREY = "tab:blue", "tab:orange", "tab:green", "0.88"

plt.rcParams.update({"font.size": 9})

PEAK, COPY = 201e9, 17e9
"""Operations and bytes a second of two Zen 3 cores, as `bench.compare` measured them (bench/LOG.md)."""

LAYERS = {
    "3x3, 256 to 256 @14": (2 * 9 * 256 * 256 * 196 * 8, 4 * (2 * 8 * 256 * 196 + 9 * 256 * 256)),
    "3x3, 64 to 64 @56": (2 * 9 * 64 * 64 * 3136 * 8, 4 * (2 * 8 * 64 * 3136 + 9 * 64 * 64)),
    "1x1, 256 to 64 @56": (2 * 256 * 64 * 3136 * 8, 4 * (8 * 320 * 3136 + 256 * 64)),
    "depthwise 7x7": (2 * 49, 8),
    "depthwise 3x3": (2 * 9, 8),
    "max pool 2x2": (4, 4 * 5),
    "relu": (1, 8),
}
"""Operations and bytes of layers in float32, each array once."""


def save(figure: Any, name: str) -> None:
    """Write a figure as PNG."""
    figure.savefig(FOLDER / f"{name}.png", dpi=110)
    plt.close(figure)


def cell(axes: Any, x: float, y: float, colour: str, text: str = "", edge: str = "white") -> None:
    """A square of a grid, with its first corner at (x, y)."""
    axes.add_patch(plt.Rectangle((x, y), 1, 1, facecolor=colour, edgecolor=edge, linewidth=1))
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=8)


def grid(axes: Any, width: float, height: float, title: str = "") -> None:
    """Axes of a drawing in squares, the first row at the top."""
    axes.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1), aspect="equal", title=title)
    axes.axis("off")


def ceilings() -> None:
    """What a layer can reach at most, by how much it computes on each byte."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    intensity = np.logspace(-1.2, 2.6, 200)
    axes.loglog(intensity, np.minimum(PEAK, intensity * COPY) / 1e9, color="black")
    for name, (operations, moved) in LAYERS.items():
        reached = min(PEAK, operations / moved * COPY) / 1e9
        axes.plot(operations / moved, reached, "o", color=BLUE if reached < 0.99 * PEAK / 1e9 else ORANGE)
        axes.annotate(name, (operations / moved, reached), (4, -7), textcoords="offset points", rotation=-35, va="top")
    axes.set(xlabel="operations a byte", ylabel="GFLOP/s at most", ylim=(0.3, 400), xlim=(0.06, 2000))
    axes.text(0.12, 6, "bytes decide", color=BLUE, rotation=38)
    axes.text(60, 230, "arithmetic decides", color=ORANGE)
    save(figure, "ceilings")


def packing() -> None:
    """A block of the input, packed once, which the taps read at offsets."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), layout="constrained")
    for axis, (down, right) in zip(axes, ((0, 0), (0, 2), (1, 1)), strict=True):
        grid(axis, 10, 6, f"tap ({down}, {right}): offset {10 * down + right}")
        for y in range(6):
            for x in range(10):
                inside = down <= y < down + 4 and right <= x < right + 8
                border = x in (0, 9) or y == 0
                cell(axis, x, y, ORANGE if inside else GREY, "0" if border else "")
    save(figure, "packing")


def tile() -> None:
    """Six positions by two registers of output channels, and what one step of the reduction loads."""
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    grid(axes, 22, 9)
    for i in range(16):
        cell(axes, 5 + i, 0, BLUE if i < 8 else "tab:cyan", "")
    axes.text(13, -0.5, "weights of 16 output channels: two loads", ha="center", va="bottom")
    for row in range(6):
        cell(axes, 2, 2 + row, GREEN, f"x{row}")
        for i in range(16):
            cell(axes, 5 + i, 2 + row, "#c6dbef" if i < 8 else "#c7e9f0")
        axes.text(13, 2.5 + row, f"y{row} += x{row} * w", ha="center", va="center", fontsize=8)
    axes.text(2.5, 8.3, "inputs of six\npositions: one\nbroadcast each", ha="center", va="top")
    axes.text(13.5, 8.3, "twelve accumulators, in registers for the whole reduction", ha="center", va="top")
    axes.set_ylim(10, -1.2)
    save(figure, "tile")


def phases() -> None:
    """Which taps reach which inputs' gradients under a stride of two."""
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    grid(axes, 13, 6)
    for i in range(13):
        cell(axes, i, 0, BLUE if i % 2 else ORANGE, f"x{i}")
    for o in range(6):
        cell(axes, 2 * o + 1, 4, GREY, f"y{o}")
        for k in range(3):
            i = 2 * o + k
            axes.plot((i + 0.5, 2 * o + 1.5), (1.05, 3.95), color=BLUE if i % 2 else ORANGE, linewidth=1)
    axes.text(
        6.5, 5.3, "gradients at even places have taps 0 and 2, those at odd places tap 1 alone", ha="center", va="top"
    )
    axes.set_ylim(6, -0.2)
    save(figure, "phases")


def lanes() -> None:
    """What lies side by side in a register: output channels, a row, or channels of a depthwise layer."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), layout="constrained")
    titles = ("tiles: output channels", "rows: neighbours along W", "lanes: channels, one filter each")
    for axis, title, kind in zip(axes, titles, range(3), strict=True):
        grid(axis, 8, 7, title)
        for y in range(6):
            for x in range(8):
                chosen = (x == 2 and y < 4, y == 2 and x < 4, x == 2 and y < 4)[kind]
                cell(axis, x, y, (ORANGE, BLUE, GREEN)[kind] if chosen else GREY)
        axis.text(
            4, 6.2, "W across, output channels down" if kind < 2 else "W across, channels down", ha="center", va="top"
        )
    save(figure, "lanes")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for draw in (ceilings, packing, tile, phases, lanes):
        draw()
