"""Train the same LeNet-5 with fastconv and with PyTorch, turn by turn, and compare losses and time.

``python -m bench.train_lenet5``: the same first weights, the same batches of MNIST digits, the same rule. Each library
runs in a process of its own, told by lines on its standard input how many steps to train; one works at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fastconv import models, nn, optim, set_num_threads
from fastconv.datasets import load_digits
from numpy.typing import NDArray

Step = Callable[[NDArray[Any], NDArray[Any]], float]


def batches(count: int, size: int) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return so many batches of digits, the same in every process."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    chosen = [rng.choice(len(digits.train_images), size, replace=False) for _ in range(count)]
    images = (digits.train_images[:, None] / 255).astype(np.float32)
    return [(images[each], digits.train_labels[each]) for each in chosen]


def fastconv_step(threads: int) -> Step:
    """Return a function that trains our network on a batch and returns its loss."""
    set_num_threads(threads)
    model, loss = models.lenet5(rng=np.random.default_rng(1)), nn.CrossEntropyLoss()
    rule = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def step(x: NDArray[Any], y: NDArray[Any]) -> float:
        rule.zero_grad()
        value = loss(model(x), y)
        model.backward_parameters(loss.backward())
        rule.step()
        return float(value)

    return step


def torch_step(threads: int) -> Step:
    """Return the same of PyTorch's network, which starts with our weights."""
    import torch

    from bench.torch_networks import torch_models

    torch.set_num_threads(threads)
    model = torch_models.lenet5()
    with torch.no_grad():
        for tensor, parameter in zip(
            model.parameters(), models.lenet5(rng=np.random.default_rng(1)).parameters(), strict=True
        ):
            tensor.copy_(torch.from_numpy(parameter.data))
    rule = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def step(x: NDArray[Any], y: NDArray[Any]) -> float:
        rule.zero_grad()
        value = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        value.backward()
        rule.step()
        return float(value.item())

    return step


STEPS = {"fastconv": fastconv_step, "torch": torch_step}


def work(library: str, arguments: argparse.Namespace) -> None:
    """Train as many steps as each line of standard input says, and tell losses and seconds."""
    step = STEPS[library](arguments.threads)
    data = batches(arguments.steps, arguments.batch_size)
    done = 0
    for line in sys.stdin:
        losses, wall, cpu = [], time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            losses.append(step(*data[done % len(data)]))
            done += 1
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"losses": losses, "seconds": seconds}), flush=True)


def compare(arguments: argparse.Namespace) -> int:
    """Let both train in turns, and print what came out; 1 if the losses differ."""
    command = [sys.executable, "-m", "bench.train_lenet5", *sys.argv[1:], "--worker"]
    workers = {
        library: subprocess.Popen([*command, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for library in STEPS
    }

    def ask(library: str, steps: int) -> Any:
        worker = workers[library]
        assert worker.stdin is not None and worker.stdout is not None  # noqa: PT018
        print(steps, file=worker.stdin, flush=True)
        return json.loads(worker.stdout.readline())

    first = {library: ask(library, arguments.steps)["losses"] for library in STEPS}
    difference = float(np.abs(np.subtract(*first.values())).max())
    print(f"losses of the first {arguments.steps} steps differ by at most {difference:.1e}")
    seconds: dict[str, list[list[float]]] = {library: [] for library in STEPS}
    for _ in range(arguments.rounds):
        for library in STEPS:
            seconds[library].append(ask(library, arguments.steps)["seconds"])
    for worker in workers.values():
        worker.communicate()
    print(
        f"{'':12}{'ms a step':>12}{'of CPU':>12}   medians of {arguments.rounds} rounds, threads: {arguments.threads}"
    )
    medians = {}
    for library, rounds in seconds.items():
        medians[library] = [1e3 * statistics.median(column) / arguments.steps for column in zip(*rounds, strict=True)]
        print(f"{library:12}{medians[library][0]:12.3f}{medians[library][1]:12.3f}")
    wall, cpu = (medians["torch"][i] / medians["fastconv"][i] for i in (0, 1))
    print(f"{'faster by':12}{wall:12.2f}{cpu:12.2f}")
    return int(difference > 1e-4)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.train_lenet5", description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="batches of a round (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="digits a step (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each library (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    parser.add_argument("--worker", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments)
        return 0
    return compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
