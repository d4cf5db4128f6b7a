"""fastconv against other libraries, each in a process of its own, in alternating rounds.

``python -m bench.compare --help`` lists the options; README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

from fastconv._cli.calls import passes_of
from fastconv._cli.problem import OPS, Problem, parse_problems

from bench import table
from bench.checks import PRECISION_ERROR, RELATIVE_ERROR
from bench.rows import Row, Settings, measure
from bench.workers import DEFAULT_PEERS, PEERS, ROOT, Worker, missing

PASSES = ("forward", "backward", "backward_input", "backward_weight")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=None, help="shape files or their names (default: all)")
    parser.add_argument("--ops", nargs="+", choices=OPS, help="only these ops")
    parser.add_argument("--names", nargs="+", help="only these problems")
    parser.add_argument("--passes", nargs="+", choices=PASSES, help="only these passes")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        help=f"libraries to compare with (default: those installed of {DEFAULT_PEERS})",
    )
    parser.add_argument("--against", metavar="PYTHON", help="a Python with another build of fastconv, instead of peers")
    parser.add_argument("--isa", help="hold every library to this instruction set of ours, and those below it")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds a row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.1, help="time a figure takes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="threads of each library (default: as we choose)")
    parser.add_argument("--dtype", choices=tuple(RELATIVE_ERROR), default="float32")
    parser.add_argument(
        "--precision", choices=tuple(PRECISION_ERROR), default="highest", help="of our float32 products"
    )
    parser.add_argument("--json", type=pathlib.Path, help="write the rows here")
    parser.add_argument("--summary", type=pathlib.Path, help="write the means of each file and pass here, as JSON")
    parser.add_argument("--chart", type=pathlib.Path, help="draw ratios and fractions of the ceiling here, as PNG")
    parser.add_argument("--smoke", action="store_true", help="shapes/smoke.txt, quickly: does every row run and agree?")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.shapes, options.rounds, options.seconds = options.shapes or ["smoke"], 2, 0.005
    chosen = tuple(DEFAULT_PEERS if options.peers is None else options.peers)
    absent = dict.fromkeys(missing(chosen), "not installed; pip install '.[bench]' brings every peer")
    if absent and options.peers is not None and not options.against:
        parser.error("; ".join(f"{peer}: {reason}" for peer, reason in absent.items()))
    if options.isa and "onnxruntime" in chosen:
        absent["onnxruntime"] = "it takes the machine's best instruction set, whatever one says"
    options.absent = {} if options.against else absent
    options.peers = ("other",) if options.against else tuple(peer for peer in chosen if peer not in absent)
    return options


def shape_files(names: Sequence[str] | None) -> list[pathlib.Path]:
    """Return paths of shape files given by path or by name; all but the smoke file without names."""
    if not names:
        return sorted(path for path in (ROOT / "shapes").glob("*.txt") if path.stem != "smoke")
    return [pathlib.Path(n) if pathlib.Path(n).exists() else ROOT / "shapes" / f"{n}.txt" for n in names]


def chosen_passes(path: pathlib.Path, options: argparse.Namespace) -> Iterator[tuple[Problem, str]]:
    """Yield the problems of a file and their passes that the options leave."""
    for problem in parse_problems(path.read_text()):
        if (options.ops and problem.op not in options.ops) or (options.names and problem.name not in options.names):
            continue
        for name in passes_of(problem):
            if not options.passes or name in options.passes:
                yield problem, name


def start_workers(options: argparse.Namespace, stack: contextlib.ExitStack) -> dict[str, Worker]:
    """Start the processes; the stack ends them."""
    workers = {"fastconv": stack.enter_context(Worker("fastconv", isa=options.isa))}
    for peer in options.peers:
        python = options.against or sys.executable
        library = "fastconv" if peer == "other" else peer
        workers[peer] = stack.enter_context(Worker(library, python, options.isa))
    return workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and return 1 when a row failed."""
    options = parse_arguments(arguments)
    rows: list[Row] = []
    failures: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = start_workers(options, stack)
        ask = {"do": "ceilings", "dtype": options.dtype, "threads": options.threads}
        # Threads are equal: what we choose by ourselves, the others are told.
        best = workers["fastconv"].ask(**ask)
        threads = int(best["threads"])
        settings = Settings(folder, options.dtype, options.precision, threads, options.rounds, options.seconds)
        for peer, reason in options.absent.items():
            print(f"# without {peer}: {reason}")
        print(f"# {threads} threads, milliseconds\n{table.header(options.peers)}")
        for path in shape_files(options.shapes):
            ceilings = workers["fastconv"].ask(**ask)
            # What else the machine does only lowers them: the highest of the run so far is the nearest to the truth.
            best = ceilings = {name: max(value, best[name]) for name, value in ceilings.items()}
            print(f"# {path.stem}: {ceilings['operations'] / 1e9:.0f} GFLOP/s, copy {ceilings['bytes'] / 1e9:.1f} GB/s")
            for problem, name in chosen_passes(path, options):
                try:
                    row = {"shapes": path.stem} | measure(problem, name, workers, settings, ceilings)
                except RuntimeError as error:
                    failures.append(f"{path.stem}/{problem.name} {name}: {error}")
                    print(f"{problem.name:<22} {name:<15} FAILED: {error}", flush=True)
                    continue
                rows.append(row | {"ceilings": ceilings})
                print(table.line_of(row, options.peers), flush=True)
    finish(rows, failures, options)
    return 1 if failures else 0


def finish(rows: list[Row], failures: list[str], options: argparse.Namespace) -> None:
    """Print the summary and the failures, and write the files that were asked for."""
    summary = table.summary_of(rows, options.peers)
    if summary:
        print("\nTheir time over ours, geometric means:", *table.summary_lines(summary), sep="\n")
    for failure in failures:
        print(f"FAILED {failure}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.summary:
        options.summary.write_text(json.dumps(summary, indent=1) + "\n")
    if options.chart and options.peers and rows:
        table.chart(rows, options.peers[0], options.chart)


if __name__ == "__main__":
    sys.exit(main())
