"""Does time grow as work grows?  Sweeps over sizes, dilations, batches and threads, each with its limit.

``python -m bench.scaling`` prints a table a sweep, with a verdict a point, and ends with status 1 where a limit is
missed. The points of a sweep are timed in turns, so that a machine that gets slower gets slower for all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from fastconv._cli.calls import passes_of
from fastconv._cli.problem import Problem, parse_problem

from bench.rows import FORMATS, Settings, request_of, time_calls
from bench.workers import Worker

Judge = Callable[[list[float]], list[float]]


def against_the_one_before(seconds: list[float]) -> list[float]:
    """Return how much slower or faster than its neighbour below each point is, whichever is more; 1 for the first."""
    return [1.0, *(max(after / before, before / after) for before, after in itertools.pairwise(seconds))]


def against_the_first(seconds: list[float]) -> list[float]:
    """Return the time of each point over the first one's."""
    return [each / seconds[0] for each in seconds]


def against_the_least(seconds: list[float]) -> list[float]:
    """Return the time of each point over the shortest."""
    return [each / min(seconds) for each in seconds]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Problems that differ in one size.

    ``line`` is a problem line with ``{}`` for the size. ``judge`` makes figures of the points' seconds (a sample's
    where ``per_sample``); each must be at most ``limit``.
    """

    title: str
    line: str
    values: tuple[int, ...]
    judge: Judge
    limit: float
    per_sample: bool = False

    def problems(self) -> list[Problem]:
        """Return the problem of each point."""
        return [parse_problem(self.line.replace("{}", str(value))) for value in self.values]


SIZES, DILATIONS, BATCHES = tuple(range(24, 34)), tuple(range(1, 9)), (1, 2, 4, 8, 16, 32, 64)

SWEEPS = {
    "size": (
        Sweep("map size", "3x3: n=4 c=64 k=64 in={}x{} kernel=3x3 pad=1", SIZES, against_the_one_before, 1.3),
        Sweep("map size", "1x1: n=8 c=128 k=64 in={}x{} kernel=1x1", SIZES, against_the_one_before, 1.3),
        Sweep("length", "1-D: n=4 c=64 k=64 in={}00 kernel=9 pad=4", SIZES, against_the_one_before, 1.3),
        Sweep(
            "map size",
            "max pool: op=max_pool n=8 c=64 in={}x{} kernel=2x2 stride=2",
            SIZES,
            against_the_one_before,
            1.3,
        ),
        Sweep("input channels", "3x3: n=4 c={} k=64 in=28x28 kernel=3x3 pad=1", SIZES, against_the_one_before, 1.3),
        Sweep("output channels", "3x3: n=4 c=64 k={} in=28x28 kernel=3x3 pad=1", SIZES, against_the_one_before, 1.3),
    ),
    "dilation": (
        Sweep(
            "dilation", "3x3: n=4 c=64 k=64 in=56x56 kernel=3x3 pad={} dilation={}", DILATIONS, against_the_first, 1.25
        ),
        Sweep("dilation", "1-D: n=4 c=64 k=64 in=4000 kernel=3 pad={} dilation={}", DILATIONS, against_the_first, 1.25),
        Sweep(
            "dilation",
            "depthwise: n=4 c=96 k=96 in=56x56 kernel=3x3 pad={} dilation={} groups=96",
            DILATIONS,
            against_the_first,
            1.25,
        ),
    ),
    "batch": (
        Sweep("batch", "3x3: n={} c=64 k=64 in=56x56 kernel=3x3 pad=1", BATCHES, against_the_least, 1.2, True),
        Sweep("batch", "1x1: n={} c=256 k=128 in=28x28 kernel=1x1", BATCHES, against_the_least, 1.2, True),
    ),
}
"""The sweeps of each promise; threads are apart (`THREADED`)."""

THREADED = (
    "3x3: n=8 c=64 k=64 in=56x56 kernel=3x3 pad=1",
    "1x1: n=8 c=256 k=64 in=56x56 kernel=1x1",
    "7x7 map: n=8 c=512 k=512 in=7x7 kernel=3x3 pad=1",
    "1-D: n=8 c=64 k=64 in=8000 kernel=11 pad=5",
    "3-D: n=2 c=32 k=32 in=24x24x24 kernel=3x3x3 pad=1",
)
"""Compute-bound layers that two threads must do this much faster than one:"""

THREADS_LIMIT = 1.8


def prepare(worker: Worker, problem: Problem, name: str, key: str, data_format: str, settings: Settings) -> None:
    """Build a call in the worker."""
    request = request_of(problem, name, settings)
    worker.ask(**request, key=key, data_format=data_format, dtype=settings.dtype)


def verdict(figure: float, kept: bool) -> str:
    """Return a figure and whether it keeps its limit."""
    return f"{figure:>8.2f}  {'kept' if kept else 'MISSED'}"


def run_sweep(sweep: Sweep, name: str, data_format: str, worker: Worker, settings: Settings) -> dict[str, Any]:
    """Time a sweep's points in turns, print its table and return it."""
    problems = sweep.problems()
    for value, problem in zip(sweep.values, problems, strict=True):
        prepare(worker, problem, name, str(value), data_format, settings)
    calls = [("worker", str(value)) for value in sweep.values]
    samples = time_calls(calls, {"worker": worker}, settings.rounds, settings.seconds)
    worker.ask(do="clear")
    medians = [statistics.median(samples[f"worker/{value}"]) for value in sweep.values]
    seconds = [s / (p.n if sweep.per_sample else 1) for s, p in zip(medians, problems, strict=True)]
    figures = sweep.judge(seconds)
    unit = "us a sample" if sweep.per_sample else "us"
    print(f"\n{sweep.title} of {sweep.line}, {name}, {data_format}: at most {sweep.limit}")
    print(f"{sweep.title:>16} {unit:>14} {'figure':>8}")
    for value, second, figure in zip(sweep.values, seconds, figures, strict=True):
        print(f"{value:>16} {1e6 * second:>14.1f} {verdict(figure, figure <= sweep.limit)}", flush=True)
    kept = all(figure <= sweep.limit for figure in figures)
    table = {"sweep": sweep.title, "line": sweep.line, "pass": name, "data_format": data_format, "limit": sweep.limit}
    return table | {"values": sweep.values, "seconds": seconds, "figures": figures, "kept": kept}


def run_threads(formats: Sequence[str], passes: Sequence[str], workers: dict[str, Worker], settings: Settings) -> Any:
    """Time compute-bound layers on one thread and on two, print the table and return its rows."""
    print(f"\none thread over two: at least {THREADS_LIMIT}")
    print(f"{'problem':<12} {'pass':<16} {'format':<16} {'one, us':>10} {'two, us':>10} {'figure':>8}")
    rows = []
    for line in THREADED:
        problem = parse_problem(line)
        for name in (each for each in passes_of(problem) if each in passes):
            for data_format in formats:
                for threads, worker in workers.items():
                    own = dataclasses.replace(settings, threads=int(threads))
                    prepare(worker, problem, name, "call", data_format, own)
                samples = time_calls([(each, "call") for each in workers], workers, settings.rounds, settings.seconds)
                one, two = (statistics.median(samples[f"{threads}/call"]) for threads in ("1", "2"))
                kept = one / two >= THREADS_LIMIT
                print(
                    f"{problem.name:<12} {name:<16} {data_format:<16} {1e6 * one:>10.1f} {1e6 * two:>10.1f} "
                    f"{verdict(one / two, kept)}",
                    flush=True,
                )
                row = {"sweep": "threads", "line": line, "pass": name, "data_format": data_format}
                rows.append(row | {"seconds": [one, two], "figures": [one / two], "kept": kept})
                for worker in workers.values():
                    worker.ask(do="clear")
    return rows


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=(*SWEEPS, "threads"), default=(*SWEEPS, "threads"))
    parser.add_argument("--passes", nargs="+", default=["forward"], help="(default: forward)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=[FORMATS[0]], help="(default: %(default)s)")
    parser.add_argument("--library", choices=("fastconv", "torch"), default="fastconv", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the sweeps but the one over threads (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each point (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="time of each figure (default: %(default)s)")
    parser.add_argument("--isa", help="hold the library to this instruction set")
    parser.add_argument("--json", type=pathlib.Path, help="write the tables here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweeps, and return 1 when a limit was missed."""
    options = parse_arguments(arguments)
    tables: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = Settings(folder, threads=options.threads, rounds=options.rounds, seconds=options.seconds)
        workers = {n: stack.enter_context(Worker(options.library, isa=options.isa)) for n in ("1", "2")}
        for sweep in (each for only in options.only for each in SWEEPS.get(only, ())):
            for name in (each for each in passes_of(sweep.problems()[0]) if each in options.passes):
                for data_format in options.formats:
                    tables.append(run_sweep(sweep, name, data_format, workers["1"], settings))
        if "threads" in options.only:
            tables += run_threads(options.formats, options.passes, workers, settings)
    missed = [f"{table['line']} {table['pass']} {table['data_format']}" for table in tables if not table["kept"]]
    print(f"\n{len(tables) - len(missed)} of {len(tables)} kept", *(f"MISSED {each}" for each in missed), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(tables, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
