"""``fastconv report``: everything about a run on one page."""

from __future__ import annotations

import argparse
import base64
import html
import json
from pathlib import Path
from typing import Any

from .._files import write_whole

__all__ = ["DESCRIPTION", "RECORD", "add_arguments", "page", "run"]

DESCRIPTION = """Write one HTML page about a run of the demo: what was learned from, how the training went, what is read
wrongly, and what the network looks at. The page holds its pictures and opens from disk."""

RECORD = "run.json"
"""File of a run's folder that says what the report needs to know."""

_STYLE = """
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; color: #1f2933; background: #fff;
       font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .25rem; }
p { margin: .4rem 0 1rem; max-width: 46rem; }
.lead { color: #52606d; margin-top: 0; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0; padding: 0; list-style: none; }
.facts li { flex: 1 1 10rem; background: #f1f5f9; border-radius: .5rem; padding: .75rem 1rem; }
.facts b { display: block; font-size: 1.5rem; line-height: 1.3; }
img { display: block; max-width: 100%; height: auto; }
pre { background: #f1f5f9; border-radius: .5rem; padding: .9rem 1rem; overflow-x: auto;
      font-size: .82rem; line-height: 1.45; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid #e4e7eb; }
summary { cursor: pointer; color: #2166ac; margin: .5rem 0; }
footer { margin-top: 3rem; color: #66788a; font-size: .88rem; }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="folder that a command left, for example fastconv-demo"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="the page to write (default: RUN/report.html)")


def run(arguments: argparse.Namespace) -> int:
    """Write the page."""
    target = arguments.output or arguments.folder / "report.html"
    text = page(arguments.folder)
    write_whole(target.absolute(), lambda file: file.write(text.encode()))
    print(f"{target.absolute()} ({len(text) / 1e6:.1f} MB)")
    return 0


def page(folder: Path) -> str:
    """Return the page about a run.

    Parameters
    ----------
    folder : Path
        With ``run.json`` and the pictures that it names.

    Raises
    ------
    FileNotFoundError
        If there is no ``run.json``, or a picture is missing.
    ValueError
        If ``run.json`` is not what a command wrote.
    """
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"RUN: {folder} has no {RECORD}; make a run first, for example: fastconv demo")
    try:
        record = json.loads(path.read_text())
        parts = [_head(record), *_pictures(folder, record), _network(record), _foot(record)]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"RUN: {path} is damaged: {error!r}") from None
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(record['title'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _head(record: dict[str, Any]) -> str:
    """Return title and headline numbers."""
    right, held_out = sum(row[i] for i, row in enumerate(record["matrix"])), sum(map(sum, record["matrix"]))
    facts = {
        f"{100 * right / held_out:.2f} %": f"of {held_out:,} held-out digits are read right",
        f"{record['seconds']:.0f} s": f"of training: {record['samples']:,} digits, {len(record['history'])} times",
        f"{record['parameters']:,}": "numbers were learned",
    }
    items = "\n".join(f"<li><b>{html.escape(value)}</b> {html.escape(what)}</li>" for value, what in facts.items())
    return (
        f"<h1>{html.escape(record['title'])}</h1>\n<p class='lead'>{html.escape(record['data'])}</p>\n"
        f"<ul class='facts'>\n{items}\n</ul>\n<p>{html.escape(record['about'])}</p>"
    )


def _pictures(folder: Path, record: dict[str, Any]) -> list[str]:
    """Return a section for each picture."""
    sections = []
    for picture in record["pictures"]:
        data = base64.b64encode((folder / picture["file"]).read_bytes()).decode()
        title = html.escape(picture["title"])
        sections.append(
            f"<h2>{title}</h2>\n<p>{html.escape(picture['about'])}</p>\n"
            f"<img alt='{title}' src='data:image/png;base64,{data}'>"
        )
        if picture["file"] == "training.png":
            sections.append(_epochs(record["history"]))
    return sections


def _epochs(history: list[dict[str, float]]) -> str:
    """Return the numbers of every epoch as a table that can be opened."""
    rows = "\n".join(
        f"<tr><td>{epoch['epoch']:.0f}</td><td>{epoch['loss']:.4f}</td><td>{epoch['val_loss']:.4f}</td>"
        f"<td>{100 * epoch['val_accuracy']:.2f} %</td><td>{epoch['lr']:.2g}</td></tr>"
        for epoch in history
    )
    return (
        "<details><summary>The numbers of every epoch</summary>\n<table>\n"
        "<tr><th>epoch</th><th>loss</th><th>held-out loss</th><th>read right</th><th>learning rate</th></tr>\n"
        f"{rows}\n</table></details>"
    )


def _network(record: dict[str, Any]) -> str:
    return (
        "<h2>The network</h2>\n<p>Layer by layer: the shape of what comes out, how many numbers it learned, how many "
        "multiplications a picture takes, and how large a part of the picture one of its outputs sees.</p>\n"
        f"<pre>{html.escape(record['summary'])}</pre>"
    )


def _foot(record: dict[str, Any]) -> str:
    return (
        f"<h2>Do it again</h2>\n<pre>{html.escape(record['command'])}</pre>\n"
        f"<footer>fastconv {html.escape(record['version'])} on {html.escape(record['engine'])}. The same command gives "
        "the same network, bit for bit, on the same instruction set.</footer>"
    )
