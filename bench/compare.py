"""fastconv against PyTorch, each in a process of its own, in alternating rounds.

``python -m bench.compare --help`` lists the options; README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from fastconv._cli.calls import dtype_by_name, make_arrays, passes_of
from fastconv._cli.problem import OPS, parse_problems
from fastconv._cli.timing import spread

ROOT = pathlib.Path(__file__).resolve().parent
FORMATS = ("channels_first", "channels_last")
PASSES = ("forward", "backward", "backward_input", "backward_weight")

RELATIVE_ERROR = {"float32": 1e-5, "float64": 1e-13, "float16": 4e-3, "bfloat16": 3e-2}
"""How far an answer may be from PyTorch's in float64, in the relative Euclidean norm, before its row is refused."""


class Worker:
    """A process that serves one library; see `bench.worker`."""

    def __init__(self, library, python=sys.executable):
        self.library = library
        self._process = subprocess.Popen(
            [python, "-m", "bench.worker", library],
            cwd=ROOT.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **request):
        """Send one request and return its answer; a failure raises ``RuntimeError``."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.library} worker ended with status {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.library}: {reply['error']}")
        return reply

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def formats_of(problem):
    """The data formats that make a difference: a problem without spatial axes has one, a loss's axis is fixed."""
    return FORMATS if problem.size and problem.op not in ("linear", "cross_entropy", "mse_loss") else FORMATS[:1]


def bytes_of(problem, name, output, dtype):
    """The bytes a pass must read and write: each array once."""
    item = dtype_by_name(dtype).itemsize
    x, y = int(np.prod(problem.x_shape)) * item, output.size * item
    if name == "forward":
        return x + y
    saved = {"max_pool": output.size * 8, "min_pool": output.size * 8, "batch_norm": x, "elu": x, "leaky_relu": x}
    saved |= {"adaptive_max_pool": output.size * 8, "max_unpool": x, "rms_pool": x + y, "lp_pool": x + y}
    saved |= {"relu": y, "sigmoid": y, "tanh": y, "softmax": y, "log_softmax": y, "mse_loss": 2 * x}
    return x + y + saved.get(problem.op, 0)


def check(answer, truth, problem, dtype, what):
    """Refuse to time a wrong answer."""
    if problem.op == "dropout":
        kept = float(np.count_nonzero(answer)) / answer.size
        if abs(kept - 0.5) > 4 / np.sqrt(answer.size):
            raise RuntimeError(f"{what}: kept {kept:.3f} of the values, expected 0.5")
        return
    if answer.shape != truth.shape:
        raise RuntimeError(f"{what}: shape {answer.shape}, expected {truth.shape}")
    error = np.linalg.norm((answer - truth).ravel()) / max(np.linalg.norm(truth.ravel()), 1e-300)
    if not error <= RELATIVE_ERROR[dtype]:
        raise RuntimeError(f"{what}: relative error {error:.2e}, at most {RELATIVE_ERROR[dtype]:.0e} allowed")


def measure(problem, name, workers, folder, options):
    """One row: a dict of the samples of every library and format, checked first."""
    paths, dtype = {}, dtype_by_name(options.dtype)
    for key, array in make_arrays(problem, "float64", np.random.default_rng(0)).items():
        paths[key] = str(folder / f"{key}.npy")
        # Both libraries and the float64 answer start from values that the dtype holds exactly.
        np.save(paths[key], array.astype(dtype).astype(np.float64) if array.dtype.kind == "f" else array)
    request = {"problem": dataclasses.asdict(problem), "pass": name, "arrays": paths, "threads": options.threads}
    answer = str(folder / "answer.npy")
    request |= {"do": "prepare", "answer": answer}
    truth = None
    if "torch" in workers:
        workers["torch"].ask(**request, key="truth", data_format="channels_first", dtype="float64")
        truth = np.load(answer)
        workers["torch"].ask(do="clear")
    shapes = dict(request, **{"pass": "forward"})
    workers["fastconv"].ask(**shapes, key="shape", data_format="channels_first", dtype=options.dtype)
    output = np.load(answer)
    variants = []
    for library, worker in workers.items():
        for data_format in formats_of(problem):
            # PyTorch has no channels-last tensors with one spatial axis.
            if library == "torch" and data_format == "channels_last" and problem.spatial == 1:
                continue
            worker.ask(**request, key=data_format, data_format=data_format, dtype=options.dtype)
            if truth is not None:
                check(np.load(answer), truth, problem, options.dtype, f"{library} {data_format}")
            variants.append((library, data_format))
    samples = {variant: [] for variant in variants}
    for turn in range(options.rounds):
        for library, data_format in variants[turn % 2 :] + variants[: turn % 2]:
            time.sleep(0.005)  # the threads of the library before still spin
            reply = workers[library].ask(do="time", key=data_format, seconds=options.seconds)
            samples[library, data_format].append(statistics.median(reply["samples"]))
    for worker in workers.values():
        worker.ask(do="clear")
    work = problem.flops(output.shape[2:])
    row = {"shapes": options.label, "problem": str(problem), "name": problem.name, "op": problem.op, "pass": name}
    row["work"] = work or bytes_of(problem, name, output, options.dtype)
    row["unit"] = "GFLOP/s" if work else "GB/s"
    row["seconds"] = {f"{lib}/{fmt}": statistics.median(s) for (lib, fmt), s in samples.items()}
    row["spread"] = {f"{lib}/{fmt}": spread(s) if len(s) > 1 else 0.0 for (lib, fmt), s in samples.items()}
    return row | ratios(row["seconds"])


def ratios(seconds):
    """How many times longer each other library takes: best against best, and channels first against channels first."""

    def best(library):
        return min((s for key, s in seconds.items() if key.startswith(f"{library}/")), default=None)

    result = {}
    for library in {key.split("/")[0] for key in seconds} - {"fastconv"}:
        result[f"{library}_best"] = best(library) / best("fastconv")
        result[f"{library}_first"] = seconds[f"{library}/channels_first"] / seconds["fastconv/channels_first"]
    return result


def line_of(row, other):
    """A row of the table."""

    def milliseconds(key):
        return f"{1e3 * row['seconds'][key]:.3f}" if key in row["seconds"] else "-"

    best = min(s for key, s in row["seconds"].items() if key.startswith("fastconv/"))
    columns = [milliseconds(f"{library}/{fmt}") for library in ("fastconv", other) for fmt in FORMATS]
    speed = f"{row['work'] / best / 1e9:.1f} {row['unit']}"
    compared = [f"{row[key]:.2f}" if key in row else "-" for key in (f"{other}_best", f"{other}_first")]
    worst = f"{100 * max(row['spread'].values()):.0f}%"
    times = " ".join(f"{c:>9}" for c in columns)
    return f"{row['name']:<22} {row['pass']:<15} {times} {speed:>14} {compared[0]:>6} {compared[1]:>6} {worst:>6}"


def header(other):
    """The table's head."""
    names = " ".join(f"{c:>9}" for c in ("ours NC*", "ours N*C", f"{other} NC*"[-9:], f"{other} N*C"[-9:]))
    return f"{'problem':<22} {'pass':<15} {names} {'ours best':>14} {'best':>6} {'NC*':>6} {'spread':>6}"


def chart(rows, other, path):
    """A bar a row: how many times longer the other library's better layout takes than ours."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if f"{other}_best" in row]
    values = [row[f"{other}_best"] for row in rows]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.22 * len(rows)))
    colours = ["tab:green" if v >= 1 else "tab:orange" if v >= 0.5 else "tab:red" for v in values]
    axes.barh([f"{row['shapes']}/{row['name']} {row['pass']}" for row in rows], values, color=colours)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set_xlabel(f"time of {other}'s better layout over time of fastconv's better layout")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=None, help="shape files or their names (default: all)")
    parser.add_argument("--ops", nargs="+", choices=OPS, help="only these ops")
    parser.add_argument("--names", nargs="+", help="only these problems")
    parser.add_argument("--passes", nargs="+", choices=PASSES, help="only these passes")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds a row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.1, help="time a figure takes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="threads of each library (default: its own choice)")
    parser.add_argument("--dtype", choices=tuple(RELATIVE_ERROR), default="float32")
    parser.add_argument("--against", metavar="PYTHON", help="a Python with another build of fastconv, not PyTorch")
    parser.add_argument("--no-torch", action="store_true", help="time fastconv alone, answers unchecked")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows here")
    parser.add_argument("--chart", type=pathlib.Path, help="draw the ratios here")
    parser.add_argument("--smoke", action="store_true", help="shapes/smoke.txt, quickly: does every row run and agree?")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.shapes, options.rounds, options.seconds = options.shapes or ["smoke"], 2, 0.005
    return options


def shape_files(names):
    """Paths of shape files given by path or by name; all but the smoke file without names."""
    if not names:
        return sorted(path for path in (ROOT / "shapes").glob("*.txt") if path.stem != "smoke")
    return [pathlib.Path(n) if pathlib.Path(n).exists() else ROOT / "shapes" / f"{n}.txt" for n in names]


def main(arguments=None):
    """Measure, print the table and return 1 when a row failed."""
    options = parse_arguments(arguments)
    other = "other" if options.against else "torch"
    rows, failures = [], []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = {"fastconv": Worker("fastconv")}
        if options.against:
            workers["other"] = Worker("fastconv", options.against)
        elif not options.no_torch:
            workers["torch"] = Worker("torch")
        for worker in workers.values():
            stack.callback(worker.close)
        print(header(other))
        for path in shape_files(options.shapes):
            options.label = path.stem
            print(f"# {path.stem}")
            for problem in parse_problems(path.read_text()):
                if (options.ops and problem.op not in options.ops) or (
                    options.names and problem.name not in options.names
                ):
                    continue
                for name in passes_of(problem):
                    if options.passes and name not in options.passes:
                        continue
                    try:
                        row = measure(problem, name, workers, folder, options)
                    except RuntimeError as error:
                        failures.append(f"{path.stem}/{problem.name} {name}: {error}")
                        print(f"{problem.name:<22} {name:<15} FAILED: {error}", flush=True)
                        continue
                    rows.append(row)
                    print(line_of(row, other), flush=True)
    summarise(rows, failures, other)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.chart and rows:
        chart(rows, other, options.chart)
    return 1 if failures else 0


def summarise(rows, failures, other):
    """The geometric mean of the ratios, the worst rows, and the failures."""
    compared = sorted((row for row in rows if f"{other}_best" in row), key=lambda row: row[f"{other}_best"])
    if compared:
        mean = statistics.geometric_mean(row[f"{other}_best"] for row in compared)
        print(f"\n{len(compared)} rows; {other}'s best over ours, geometric mean {mean:.2f}; the worst:")
        for row in compared[:5]:
            print(f"  {row[f'{other}_best']:.2f}  {row['shapes']}/{row['name']} {row['pass']}")
    for failure in failures:
        print(f"FAILED {failure}")


if __name__ == "__main__":
    sys.exit(main())
