"""``fastconv bench``."""

from __future__ import annotations

import argparse
import pathlib
import statistics
from functools import partial

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = (
    "Time fastconv's operations on this machine. A problem is a line such as "
    "'stem: n=8 c=3 k=64 in=224x224 kernel=7x7 stride=2 pad=3' or "
    "'pool: op=max_pool n=8 c=64 in=112x112 kernel=3x3 stride=2 pad=1'."
)

DEFAULT_PROBLEMS = """
conv_3x3: n=4 c=64 k=64 in=56x56 kernel=3x3 pad=1
conv_1x1: n=4 c=256 k=64 in=56x56 kernel=1x1
conv_stem: n=4 c=3 k=64 in=224x224 kernel=7x7 stride=2 pad=3
conv_depthwise: n=4 c=144 k=144 in=56x56 kernel=3x3 pad=1 groups=144
conv_1d: n=4 c=64 k=64 in=8000 kernel=11 pad=5
conv_3d: n=2 c=32 k=32 in=16x16x16 kernel=3x3x3 pad=1
transposed: op=conv_transpose n=4 c=128 k=64 in=28x28 kernel=4x4 stride=2 pad=1
max_pool: op=max_pool n=4 c=64 in=112x112 kernel=3x3 stride=2 pad=1
avg_pool: op=avg_pool n=4 c=64 in=112x112 kernel=2x2 stride=2
batch_norm: op=batch_norm n=4 c=256 in=56x56
relu: op=relu n=4 c=256 in=56x56
linear: op=linear n=64 c=2048 k=1000
softmax: op=softmax n=256 c=1000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("problem", nargs="*", help="problem lines (default: a short list of common layers)")
    parser.add_argument("--shapes", type=pathlib.Path, help="a file of problem lines")
    parser.add_argument("--dtype", choices=("float32", "float64", "float16", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as configured)")
    parser.add_argument("--seconds", type=float, default=0.2, help="time for each figure (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Time each pass of each problem in both data formats and print a table."""
    import numpy as np

    from .. import get_isa, get_num_threads, set_num_threads
    from .calls import IMAGES, Call, dtype_by_name, make_arrays, to_format
    from .problem import parse_problem, parse_problems
    from .timing import seconds_per_call

    problems = [parse_problem(line) for line in arguments.problem]
    if arguments.shapes is not None:
        problems += parse_problems(arguments.shapes.read_text())
    if arguments.threads is not None:
        set_num_threads(arguments.threads)
    print(f"instruction set {get_isa()}, {get_num_threads()} threads, {arguments.dtype}; milliseconds, median")
    print(f"{'problem':<24} {'pass':<16} {'channels_first':>15} {'channels_last':>14} {'best GFLOP/s':>13}")
    for problem in problems or parse_problems(DEFAULT_PROBLEMS):
        arrays = make_arrays(problem, dtype_by_name(arguments.dtype), np.random.default_rng(0))
        formats = ("channels_first", "channels_last") if problem.size else ("channels_first",)
        calls, gradients = [], []
        for data_format in formats:
            own = {k: to_format(a, data_format) if k in IMAGES else a for k, a in arrays.items()}
            call = Call(problem, own, data_format)
            call.save()
            calls.append(call)
            gradients.append(np.ones_like(call.forward()))
        out = gradients[0].shape[2:]
        for name in calls[0].passes:
            medians = [
                statistics.median(seconds_per_call(partial(call.run, name, gradient), arguments.seconds))
                for call, gradient in zip(calls, gradients, strict=True)
            ]
            columns = [f"{1e3 * m:.3f}" for m in medians] + ["-"] * (2 - len(medians))
            work = problem.flops(out)
            speed = f"{work / min(medians) / 1e9:.1f}" if work else "-"
            print(f"{problem.name:<24} {name:<16} {columns[0]:>15} {columns[1]:>14} {speed:>13}")
    return 0
