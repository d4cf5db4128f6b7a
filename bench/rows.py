"""One row of a comparison: a pass of a problem, solved by every library in every layout, checked and timed."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from typing import Any

import numpy as np
from fastconv._cli.calls import dtype_by_name, make_arrays
from fastconv._cli.problem import CONVOLUTIONS, Problem
from fastconv._cli.timing import spread

from bench.checks import allowed_error, checked_error
from bench.protocol import Array, UnsupportedError
from bench.workers import Worker

FORMATS = ("channels_first", "channels_last")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How rows are measured: see the options of `bench.compare`."""

    folder: pathlib.Path
    dtype: str = "float32"
    precision: str = "highest"
    threads: int | None = None
    rounds: int = 5
    seconds: float = 0.1


def formats_of(problem: Problem, library: str) -> tuple[str, ...]:
    """Return the data formats that make a difference to the library.

    A problem without spatial axes has one and a loss's axis is fixed; PyTorch has no channels-last tensors with one
    spatial axis, and the other peers have none at all.
    """
    both = bool(problem.size) and problem.op not in ("linear", "cross_entropy", "mse_loss")
    if library in ("onnxruntime", "scipy") or (library.startswith("torch") and problem.spatial == 1):
        both = False
    return FORMATS if both else FORMATS[:1]


def operations_of(problem: Problem, name: str, output: Array) -> float:
    """Return the multiplications and additions of a pass; 0 where memory is the limit."""
    # A backward pass that is one pass makes both gradients.
    return problem.flops(output.shape[2:]) * (2 if name == "backward" else 1)


def bytes_of(problem: Problem, name: str, output: Array, dtype: str) -> int:
    """Return the bytes a pass must read and write: each array once."""
    item = dtype_by_name(dtype).itemsize
    x, y = int(np.prod(problem.x_shape)) * item, output.size * item
    if problem.op in CONVOLUTIONS or problem.op == "linear":
        # An input of the forward pass is an output of a backward one, and the other way round.
        weight = int(np.prod(problem.weight_shape)) * item
        if problem.op == "separable_conv":
            weight += int(np.prod(problem.pointwise_shape)) * item
        return x + y + weight + (x + weight if name == "backward" else 0)
    if name == "forward":
        return x + y
    saved = {"max_pool": output.size * 8, "min_pool": output.size * 8, "batch_norm": x, "elu": x, "leaky_relu": x}
    saved |= {"adaptive_max_pool": output.size * 8, "max_unpool": x, "rms_pool": x + y, "lp_pool": x + y}
    saved |= {"relu": y, "sigmoid": y, "tanh": y, "softmax": y, "log_softmax": y, "mse_loss": 2 * x}
    return x + y + saved.get(problem.op, 0)


def request_of(problem: Problem, name: str, settings: Settings) -> dict[str, Any]:
    """Write the problem's arrays into files, and return what to ask a worker but the key, format and dtype."""
    paths, dtype = {}, dtype_by_name(settings.dtype)
    for key, array in make_arrays(problem, "float64", np.random.default_rng(0)).items():
        paths[key] = str(settings.folder / f"{key}.npy")
        # All libraries and the float64 answer start from values that the dtype holds exactly.
        np.save(paths[key], array.astype(dtype).astype(np.float64) if array.dtype.kind == "f" else array)
    request: Row = {"do": "prepare", "problem": dataclasses.asdict(problem), "pass": name, "arrays": paths}
    request |= {"threads": settings.threads, "precision": settings.precision}
    return request | {"answer": str(settings.folder / "answer.npy")}


def prepare(problem: Problem, name: str, workers: dict[str, Worker], settings: Settings) -> tuple[Array, Row]:
    """Build every library's calls and check their answers; return the output, and the errors by call."""
    request = request_of(problem, name, settings)
    # The truth is PyTorch's where it takes part, else what we compute in float64.
    judge = workers.get("torch", workers["fastconv"])
    judge.ask(**request, key="truth", data_format="channels_first", dtype="float64")
    truth = np.load(request["answer"])
    judge.ask(do="clear")
    shape = request | {"pass": "forward", "key": "shape", "data_format": "channels_first", "dtype": settings.dtype}
    workers["fastconv"].ask(**shape)
    output = np.load(request["answer"])
    errors: Row = {}
    for library, worker in workers.items():
        precision = "medium" if library == "torch_bfloat16" else settings.precision
        precision = "highest" if library in ("torch", "onnxruntime", "scipy") else precision
        for data_format in formats_of(problem, library):
            what = f"{library}/{data_format}"
            try:
                worker.ask(**request, key=data_format, data_format=data_format, dtype=settings.dtype)
            except UnsupportedError:
                continue
            answer = np.load(request["answer"])
            errors[what] = checked_error(answer, truth, problem.op, allowed_error(settings.dtype, precision), what)
    return output, errors


def time_calls(
    calls: list[tuple[str, str]], workers: dict[str, Worker], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Time prepared calls, each the key of a call of a library, in rounds that alternate; return medians of each."""
    samples: dict[str, list[float]] = {f"{library}/{key}": [] for library, key in calls}
    for turn in range(rounds):
        first = turn % max(len(calls), 1)
        for library, key in calls[first:] + calls[:first]:
            time.sleep(0.005)  # the threads of the library before still spin
            reply = workers[library].ask(do="time", key=key, seconds=seconds)
            samples[f"{library}/{key}"].append(statistics.median(reply["samples"]))
    return samples


def measure(
    problem: Problem, name: str, workers: dict[str, Worker], settings: Settings, ceilings: dict[str, float]
) -> Row:
    """Return one row: the samples of every library and format, checked first, and what follows from them."""
    output, errors = prepare(problem, name, workers, settings)
    calls = [(what.partition("/")[0], what.partition("/")[2]) for what in errors]
    samples = time_calls(calls, workers, settings.rounds, settings.seconds)
    for worker in workers.values():
        worker.ask(do="clear")
    row: Row = {"problem": str(problem), "name": problem.name, "op": problem.op, "pass": name}
    row["operations"] = operations_of(problem, name, output)
    row["bytes"] = bytes_of(problem, name, output, settings.dtype)
    row["seconds"] = {call: statistics.median(s) for call, s in samples.items()}
    row["spread"] = {call: spread(s) if len(s) > 1 else 0.0 for call, s in samples.items()}
    row["errors"] = errors
    # Nothing can be faster than its arithmetic in registers, or than a copy of its bytes.
    floor = max(row["operations"] / ceilings["operations"], row["bytes"] / ceilings["bytes"])
    row["of_ceiling"] = floor / best_seconds(row, "fastconv")
    return row | {"ratios": ratios(row)}


def best_seconds(row: Row, library: str) -> float:
    """Return the time of the library's better layout."""
    return min(float(s) for call, s in row["seconds"].items() if call.startswith(f"{library}/"))


def best_error(row: Row, library: str) -> float | None:
    """Return the error of the library's better layout, the faster one."""
    own = [call for call in row["seconds"] if call.startswith(f"{library}/")]
    error = row["errors"][min(own, key=lambda call: float(row["seconds"][call]))] if own else None
    return None if error is None else float(error)


def ratios(row: Row) -> dict[str, dict[str, float]]:
    """Return how many times longer each other library takes.

    ``best`` is better layout against better layout, ``first`` channels first against channels first.
    """
    result = {}
    seconds = row["seconds"]
    for library in dict.fromkeys(call.split("/")[0] for call in seconds):
        if library != "fastconv":
            first = seconds[f"{library}/channels_first"] / seconds["fastconv/channels_first"]
            result[library] = {"best": best_seconds(row, library) / best_seconds(row, "fastconv"), "first": first}
    return result
