"""How much more two Python threads do than one, each with one kernel thread of its own.

Says what the GIL costs: ``python -m bench.python_threads``.  Turns of one and of two threads alternate, so that a
machine that gets slower gets slower for both; the figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

import fastconv
import numpy as np
from fastconv import functional as F


def work(until: float, done: list[int]) -> None:
    """Convolve, pool and normalise until the time is over; append how often."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 32, 28, 28), np.float32), rng.standard_normal((32, 32, 3, 3), np.float32)
    turns = 0
    while time.perf_counter() < until:
        y = F.conv2d(x, w, padding=1, activation="relu")
        F.conv2d_backward(y, x, w, padding=1)
        F.max_pool2d(y, 2)
        F.batch_norm(y, None, None, training=True)
        turns += 1
    done.append(turns)


def rate(threads: int, seconds: float) -> float:
    """Turns a second of so many Python threads together."""
    done: list[int] = []
    began = time.perf_counter()
    workers = [threading.Thread(target=work, args=(began + seconds, done)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - began)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    fastconv.set_num_threads(1)
    rate(2, 0.2)
    pairs = [(rate(1, arguments.seconds), rate(2, arguments.seconds)) for _ in range(arguments.rounds)]
    ratios = sorted(two / one for one, two in pairs)
    one, two = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    print(f"one thread {one:.1f} turns/s, two threads {two:.1f}; ratio {statistics.median(ratios):.2f}", end=" ")
    print(f"({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds)")


if __name__ == "__main__":
    main()
