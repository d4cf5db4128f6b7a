"""Whole networks: training steps and forward passes of ours, of PyTorch's and of ONNX Runtime's, in turns.

``python -m bench.networks``: the same weights and batches in every library. Outputs, or the losses of the first steps,
are compared before anything is timed. PyTorch runs eagerly, in both memory formats; ONNX Runtime runs the graph that
PyTorch exports of its network, forward only. The status is 1 where an answer is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastconv import get_num_threads, nn
from fastconv._cli.timing import spread

from bench.checks import relative_error
from bench.fastconv_networks import NETWORKS, build
from bench.protocol import Array
from bench.rows import FORMATS, Row, best_seconds, ratios, time_calls
from bench.workers import Worker, missing

TASKS = {"lenet5": ("step",), "resnet50": ("forward", "step"), "xception": ("forward",)}
"""What each network is timed on: a forward pass in evaluation, or a training step of gradient descent with momentum."""

PEERS = ("torch", "onnxruntime")

ALLOWED = {"forward": (1e-4,), "step": (1e-5, 2e-2)}
"""Relative differences from PyTorch's outputs; from its first loss, and from the one after an update. The second has
what float32 does to a gradient through fifty layers: of ResNet-50 with 32 images it lies 0.5 to 0.7 % from that of
float64 in both libraries and both layouts, where the update changes it by 9 %."""

STEPS = 2
"""Training steps whose losses are compared."""


def settle(model: nn.Module, x: Array) -> None:
    """Give the batch norms a batch's statistics, as training would.

    With those they start with, the images' part of the output fades from layer to layer, and only biases are left to be
    compared.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()
    model(x)


def request_of(network: str, task: str, batch: int, folder: pathlib.Path, threads: int) -> dict[str, Any]:
    """Write a network's weights and a batch into files, and return what to ask a worker but the key and the format."""
    model, shape, classes = build(network), NETWORKS[network][1], NETWORKS[network][2]
    rng = np.random.default_rng(0)
    settle(model, rng.standard_normal((2, *shape), np.float32))
    np.savez(folder / "weights.npz", allow_pickle=False, **model.state_dict())
    np.save(folder / "x.npy", rng.standard_normal((batch, *shape), np.float32))
    np.save(folder / "y.npy", rng.integers(0, classes, batch))
    request = {"do": "network", "network": network, "task": task, "threads": threads, "steps": STEPS}
    return (
        request
        | {name: str(folder / f"{name}.npy") for name in ("x", "y", "answer")}
        | {
            "weights": str(folder / "weights.npz"),
            "model": str(folder / "model.onnx"),
        }
    )


def errors_of(task: str, answer: Array, reference: Array) -> list[float]:
    """Return the relative difference of the outputs, or the losses' over the first loss."""
    if task == "forward":
        return [relative_error(answer, reference)]
    return [abs(own - other) / abs(reference[0]) for own, other in zip(answer, reference, strict=True)]


def measure(
    network: str, task: str, batch: int, workers: dict[str, Worker], folder: pathlib.Path, options: argparse.Namespace
) -> Row:
    """Return a row of one network's task: checked answers, medians and ratios."""
    request = request_of(network, task, batch, folder, options.threads)
    if "onnxruntime" in workers and task == "forward":
        workers["torch"].ask(**(request | {"task": "export"}), key="export", data_format=FORMATS[0])
    answers, calls = {}, []
    for library, worker in workers.items():
        if library == "onnxruntime" and task != "forward":
            continue
        for data_format in FORMATS if library != "onnxruntime" else FORMATS[:1]:
            worker.ask(**request, key=data_format, data_format=data_format)
            answers[f"{library}/{data_format}"] = np.load(request["answer"])
            calls.append((library, data_format))
    reference = "torch/channels_first" if "torch" in workers else "fastconv/channels_first"
    row: Row = {"network": network, "task": task, "batch": batch}
    row["errors"] = {call: errors_of(task, answer, answers[reference]) for call, answer in answers.items()}
    wrong = {
        call: errors
        for call, errors in row["errors"].items()
        if not all(error <= allowed for error, allowed in zip(errors, ALLOWED[task], strict=True))
    }
    if wrong:
        raise RuntimeError(f"answers differ from {reference}'s: {wrong}")
    samples = time_calls(calls, workers, options.rounds, options.seconds)
    for worker in workers.values():
        worker.ask(do="clear")
    row["seconds"] = {call: statistics.median(s) for call, s in samples.items()}
    row["spread"] = {call: spread(s) if len(s) > 1 else 0.0 for call, s in samples.items()}
    return row | {"ratios": ratios(row)}


def line_of(row: Row) -> str:
    """Return a row of the table."""

    def cell(call: str) -> str:
        return f"{1e3 * row['seconds'][call]:>11.2f}" if call in row["seconds"] else f"{'-':>11}"

    calls = [f"{library}/{layout}" for library in ("fastconv", "torch") for layout in FORMATS]
    cells = " ".join(cell(call) for call in (*calls, "onnxruntime/channels_first"))
    compared = (f"{row['ratios'][p]['best']:>10.2f}" if p in row["ratios"] else f"{'-':>10}" for p in PEERS)
    rate = row["batch"] / best_seconds(row, "fastconv")
    name = f"{row['network']:<10} {row['task']:<8} {row['batch']:>5} {cells} {rate:>11.1f} {' '.join(compared)}"
    return f"{name} {100 * max(row['spread'].values()):>5.0f}%"


def header() -> str:
    """Return the table's head."""
    names = " ".join(
        f"{name:>11}" for name in ("ours NC*", "ours N*C", "torch NC*", "torch N*C", "ort NC*", "samples/s")
    )
    return f"{'network':<10} {'task':<8} {'batch':>5} {names} {'torch/ours':>10} {'ort/ours':>10} {'spread':>6}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m bench.networks", description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=tuple(TASKS), default=tuple(TASKS), help="(default: all)")
    parser.add_argument("--tasks", nargs="+", choices=tuple(ALLOWED), default=tuple(ALLOWED), help="(default: both)")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32], help="samples (default: 1 and 32)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="(default: those installed of both)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each library and layout (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of each figure (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=get_num_threads(), help="of each library (default: %(default)s)")
    parser.add_argument("--isa", help="hold ours and PyTorch to this instruction set")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows here")
    options = parser.parse_args(arguments)
    absent = missing(PEERS if options.peers is None else tuple(options.peers))
    if absent and options.peers is not None:
        parser.error(f"not installed: {', '.join(absent)}; pip install '.[bench]' brings every peer")
    chosen = PEERS if options.peers is None else tuple(options.peers)
    options.peers = tuple(p for p in chosen if p not in absent and not (options.isa and p == "onnxruntime"))
    if "onnxruntime" in options.peers and "torch" not in options.peers:
        parser.error("onnxruntime: runs what PyTorch exports; name torch as well")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and return 1 when an answer was wrong."""
    options = parse_arguments(arguments)
    rows: list[Row] = []
    failures: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        libraries = ("fastconv", *options.peers)
        workers = {library: stack.enter_context(Worker(library, isa=options.isa)) for library in libraries}
        print(f"# {options.threads} threads, milliseconds\n{header()}")
        for network in options.networks:
            for task in (each for each in TASKS[network] if each in options.tasks):
                for batch in options.batch:
                    try:
                        rows.append(measure(network, task, batch, workers, folder, options))
                        print(line_of(rows[-1]), flush=True)
                    except RuntimeError as error:
                        failures.append(f"{network} {task} {batch}")
                        print(f"{network:<10} {task:<8} {batch:>5} FAILED: {error}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
