"""How rows are shown: a line each as they come, a summary of each file and pass, and a chart."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Iterable
from typing import Any

from bench.rows import FORMATS, Row, best_error, best_seconds

SHORT = {"fastconv": "ours", "onnxruntime": "ort", "torch_bfloat16": "bf16"}
"""Names of libraries that are too long for a column."""

_LAYOUT = {"channels_first": "NC*", "channels_last": "N*C"}

_WIDTH = 9


def _columns(peers: Iterable[str]) -> list[tuple[str, str]]:
    """The libraries and layouts that have a column of milliseconds."""
    both = [(library, layout) for library in ("fastconv", *peers) for layout in FORMATS]
    return [each for each in both if each[0] not in ("onnxruntime", "scipy") or each[1] == "channels_first"]


def header(peers: tuple[str, ...]) -> str:
    """Return the table's head."""
    names = [f"{SHORT.get(library, library)} {_LAYOUT[layout]}" for library, layout in _columns(peers)]
    compared = [SHORT.get(peer, peer) + "/ours" for peer in peers]
    tail = [f"{'ours best':>14} {'ceiling':>7} {'error':>7}", *(f"{'error':>7}" for _ in peers[:1])]
    tail += [*(f"{name:>10}" for name in compared), *(f"{'NC*':>6}" for _ in peers[:1]), f"{'spread':>6}"]
    return f"{'problem':<22} {'pass':<15} " + " ".join(f"{n:>{_WIDTH}}" for n in names) + " " + " ".join(tail)


def line_of(row: Row, peers: tuple[str, ...]) -> str:
    """Return a row of the table."""

    def milliseconds(call: str) -> str:
        return f"{1e3 * row['seconds'][call]:.3f}" if call in row["seconds"] else "-"

    def error(library: str) -> str:
        value = best_error(row, library)
        return "-" if value is None else f"{value:.0e}" if value else "0"

    def ratio(peer: str, kind: str) -> str:
        return f"{row['ratios'][peer][kind]:.2f}" if peer in row["ratios"] else "-"

    cells = [f"{row['name']:<22} {row['pass']:<15}"]
    cells += [f"{milliseconds(f'{library}/{layout}'):>{_WIDTH}}" for library, layout in _columns(peers)]
    best = best_seconds(row, "fastconv")
    work, unit = (row["operations"], "GFLOP/s") if row["operations"] else (row["bytes"], "GB/s")
    cells += [f"{f'{work / best / 1e9:.1f} {unit}':>14}", f"{100 * row['of_ceiling']:>6.0f}%"]
    cells += [f"{error(library):>7}" for library in ("fastconv", *peers[:1])]
    cells += [f"{ratio(peer, 'best'):>10}" for peer in peers]
    cells += [f"{ratio(peer, 'first'):>6}" for peer in peers[:1]]
    return " ".join([*cells, f"{100 * max(row['spread'].values()):>5.0f}%"])


EXACT = 1e-15
"""Errors below this are those of the answer in float64 that all are held against."""


def _less_exact(row: Row, peer: str) -> bool:
    ours, theirs = best_error(row, "fastconv"), best_error(row, peer)
    return ours is not None and theirs is not None and ours > max(theirs, EXACT)


def summary_of(rows: list[Row], peers: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the means of every shape file and pass, and of every pass over all files, against each peer.

    ``best`` and ``first`` are geometric means of the row's ratios, ``worst`` the row with the least ``best``,
    ``ceiling`` the geometric mean of the fraction of the ceiling, and ``less_exact`` the rows whose error is larger
    than the peer's.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["shapes"], row["pass"]), []).append(row)
    for row in rows:
        groups.setdefault(("all", row["pass"]), []).append(row)
    result = []
    for (shapes, name), members in groups.items():
        for peer in peers:
            compared = [row for row in members if peer in row["ratios"]]
            if not compared:
                continue
            worst = min(compared, key=lambda row: float(row["ratios"][peer]["best"]))
            result.append(
                {
                    "shapes": shapes,
                    "pass": name,
                    "peer": peer,
                    "rows": len(compared),
                    "best": statistics.geometric_mean(row["ratios"][peer]["best"] for row in compared),
                    "first": statistics.geometric_mean(row["ratios"][peer]["first"] for row in compared),
                    "worst": {"ratio": worst["ratios"][peer]["best"], "name": f"{worst['shapes']}/{worst['name']}"},
                    "ceiling": statistics.geometric_mean(row["of_ceiling"] for row in compared),
                    "less_exact": [row["name"] for row in compared if _less_exact(row, peer)],
                }
            )
    return result


def summary_lines(summary: list[dict[str, Any]]) -> list[str]:
    """Return the summary as the lines of a table."""
    lines = [
        f"{'file':<16} {'pass':<16} {'peer':<14} {'rows':>4} {'best':>6} {'NC*':>6} {'ceiling':>7} {'less exact':>10}"
        f"  worst row"
    ]
    for each in summary:
        lines.append(
            f"{each['shapes']:<16} {each['pass']:<16} {each['peer']:<14} {each['rows']:>4} {each['best']:>6.2f} "
            f"{each['first']:>6.2f} {100 * each['ceiling']:>6.0f}% {len(each['less_exact']):>10}"
            f"  {each['worst']['ratio']:.2f} {each['worst']['name']}"
        )
    return lines


def chart(rows: list[Row], peer: str, path: pathlib.Path) -> None:
    """Draw two bars a row: how many times longer the peer's better layout takes, and our fraction of the ceiling."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if peer in row["ratios"]]
    names = [f"{row['shapes']}/{row['name']} {row['pass']}" for row in rows]
    values = [row["ratios"][peer]["best"] for row in rows]
    colours = ["tab:green" if v >= 1 else "tab:orange" if v >= 0.5 else "tab:red" for v in values]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.2 + 0.22 * len(rows)), sharey=True, width_ratios=(2, 1), layout="constrained"
    )
    left.barh(names, values, color=colours)
    left.set_xscale("log")
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlabel(f"time of {peer}'s better layout over time of fastconv's")
    right.barh(names, [row["of_ceiling"] for row in rows], color="tab:blue")
    right.axvline(1, color="black", linewidth=0.8)
    right.set_xlabel("fastconv's part of the ceiling")
    left.invert_yaxis()
    left.tick_params(labelsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)
