"""Random calls of every op, right and wrong ones: each returns arrays or raises ``ValueError`` or ``TypeError``.

Some are problems with damaged arguments, others are made from the signatures of functions and layers
(`fuzz_signatures`).  A call that asks for a result larger than memory may raise ``MemoryError``; the address space is
limited so that it does.

``python tests/fuzz.py --calls 20000 --seed 0``.  Run it plainly and in a build with sanitizers; a crash ends the
process, and the last line of ``--log`` then is the call that did it.  A call that takes longer than ``--limit`` ends
the process, too, with the traceback; resident memory that has grown by more than ``--growth`` is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import random
import sys
import time
import warnings

import expected
import fuzz_signatures
import numpy as np
import problems
from fastconv._cli.problem import ADAPTIVE_POOLS, OPS, WINDOW_POOLS

EXTREMES = (0, -1, 1, 2, 3, 7, 2**31, 2**62, -(2**63), 2**63, 2**70, 1.5, "2", None, (), (1,), (2, 2, 2, 2), True)
NUMBERS = (0.0, -1.0, 0.5, 1.0, 2.0, 1e300, float("nan"), float("inf"), "x", None)
WORDS = ("same", "valid", "full", "causal", "", "SAME", "mean", "channels_last", "NHWC", b"same", 3)
DTYPES = (
    np.float32,
    np.float64,
    np.float16,
    np.int32,
    np.int64,
    np.bool_,
    np.complex64,
    object,
    ">f4",
    "S3",
    *fuzz_signatures.DTYPES,
)
FLOATS = fuzz_signatures.DTYPES
SIZES = ("stride", "padding", "dilation", "output_padding", "kernel_size", "output_size")
"""Keyword arguments that take sizes; others take a number, a word, a flag or a shape."""

KEYWORDS = {
    "conv": ("stride", "padding", "dilation", "groups", "data_format", "activation", "output_mask"),
    "conv_transpose": ("stride", "padding", "dilation", "groups", "output_padding", "data_format", "output_mask"),
    "separable_conv": ("stride", "padding", "dilation", "data_format", "output_mask"),
    "max_pool": ("stride", "padding", "dilation", "ceil_mode", "data_format"),
    "min_pool": ("stride", "padding", "dilation", "ceil_mode", "data_format"),
    "avg_pool": ("stride", "padding", "dilation", "ceil_mode", "count_include_pad", "divisor_override", "data_format"),
    "rms_pool": ("stride", "padding", "dilation", "ceil_mode", "data_format"),
    "lp_pool": ("stride", "padding", "dilation", "ceil_mode", "data_format"),
    "adaptive_avg_pool": ("output_size", "data_format"),
    "adaptive_max_pool": ("return_indices", "data_format"),
    "max_unpool": ("stride", "padding", "output_size", "data_format"),
    "batch_norm": ("training", "momentum", "eps", "data_format"),
    "layer_norm": ("eps", "data_format", "output_mask"),
    "group_norm": ("num_groups", "eps", "data_format", "output_mask"),
    "instance_norm": ("use_input_stats", "momentum", "eps", "data_format", "output_mask"),
    "switch_norm": ("training", "momentum", "eps", "data_format", "output_mask"),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
    "softmax": ("axis",),
    "log_softmax": ("axis",),
    "dropout": ("p", "noise_shape", "seed"),
    "cross_entropy": ("ignore_index", "reduction", "label_smoothing"),
    "mse_loss": ("reduction",),
    "binary_cross_entropy_with_logits": ("reduction",),
}


def random_problem(source, op):
    """A problem of the op, not always a possible one."""
    if op in ("conv", "conv_transpose", "separable_conv"):
        return problems.conv_problem(source, op=op)
    if op in WINDOW_POOLS:
        return problems.pool_problem(source, op=op)
    if op in ADAPTIVE_POOLS:
        return problems.adaptive_problem(source, op)
    if op == "max_unpool":
        return problems.unpool_problem(source)
    axes = source.integer(1, 3) if "global" in op else source.integer(0, 3)
    return problems.channel_problem(source, op, axes)


def damage_array(source, array):
    """The array with its shape, dtype, values or kind changed."""
    kind = source.integer(0, 9)
    if kind == 0:
        return None
    if kind == 1:
        return array.tolist() if array.size < 200 else "x"
    if kind == 2 and array.dtype.kind not in "SO":  # what such an array became before may not be a number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return array.astype(source.choice(FLOATS if array.dtype.kind == "V" else DTYPES))
    if kind == 3 and array.ndim:
        axis = source.integer(0, array.ndim - 1)
        return np.take(array, range(source.integer(0, array.shape[axis])), axis=axis)
    if kind == 4:
        return array[None]
    if kind == 5 and array.ndim:
        return array[0] if array.shape[0] else array[None]
    if kind == 6:
        return np.broadcast_to(array.reshape(-1)[:1].reshape((1,) * array.ndim), array.shape) if array.size else array
    if kind == 7 and array.dtype in FLOATS:
        damaged = np.array(array)
        damaged.reshape(-1)[: source.integer(0, 5)] = source.choice((np.nan, np.inf, -np.inf, 1e30, 1e-45))
        return damaged
    if kind == 8 and array.dtype.kind in "iu":
        return array.astype(np.int64) + source.choice((-(2**62), -1, 1, 1000, 2**62))
    return array.T


def damage_keyword(source, name):
    """Any value for a keyword argument, mostly of the wrong kind or size."""
    if source.integer(0, 3) == 0:
        return source.choice(EXTREMES + NUMBERS + WORDS)
    if name in SIZES or name in ("groups", "num_groups", "divisor_override", "axis", "ignore_index", "seed"):
        if source.integer(0, 2):
            return source.choice(EXTREMES)
        return tuple(source.choice(EXTREMES) for _ in range(source.integer(1, 3)))
    if name in ("data_format", "activation", "reduction"):
        return source.choice((*WORDS, "channels_last", "relu", "none", "sum"))
    if name in ("noise_shape", "output_mask"):
        return tuple(source.integer(0, 2) for _ in range(source.integer(0, 5)))
    return source.choice((*NUMBERS, True, False))


def random_call(source):
    """``(op, call)``: a `Call` whose arrays and options may be damaged, and its output gradient."""
    op = source.choice(OPS)
    problem = random_problem(source, op)
    dtype, data_format = source.choice(FLOATS), source.choice(problems.FORMATS)
    view = source.choice(problems.VIEWS)
    call = expected.make_call(problem, dtype, source.rng, data_format, view, bool(source.integer(0, 1)))
    for _ in range(source.choice((0, 0, 1, 1, 2))):
        if source.integer(0, 1) and KEYWORDS.get(op):
            name = source.choice(KEYWORDS[op])
            call.options[name] = damage_keyword(source, name)
        else:
            name = source.choice(sorted(call.arrays))
            if isinstance(call.arrays[name], np.ndarray):
                call.arrays[name] = damage_array(source, call.arrays[name])
    return call


class Damaged:
    """Runs a problem's call with its options forced over the problem's own keywords, forward and backward."""

    def __init__(self, call, source):
        self.call, self.source = call, source
        own = call._keywords

        def keywords():
            return own() | call.options

        call._keywords = keywords

    def __str__(self):
        return describe(self.call)

    def run(self):
        """Forward, and backward with an output gradient that may be damaged, too."""
        call, source = self.call, self.source
        mask = call.options.pop("output_mask", None)
        output = call.forward()
        if isinstance(output, tuple) and call.options.get("return_indices"):
            output = output[0]
        if not isinstance(output, np.ndarray):
            raise AssertionError(f"forward returned {type(output)}")
        if not isinstance(call.arrays["x"], np.ndarray):
            return
        call.options.pop("activation", None)
        gradient = np.asarray(source.rng.standard_normal(output.shape), output.dtype)
        if source.integer(0, 2) == 0:
            gradient = damage_array(source, np.asarray(gradient))
        call.save()
        if mask is None:
            call.backward(gradient)
        else:
            call.backward(gradient, mask)
        if source.integer(0, 9) == 0 and call._saved:
            call._saved = tuple(damage_array(source, np.asarray(s)) for s in call._saved)
            call.backward(gradient)


def describe(call):
    """One line that tells a call: the problem, the arrays and the options."""
    arrays = ", ".join(
        f"{k}={a.dtype}{a.shape}" if isinstance(a, np.ndarray) else f"{k}={type(a).__name__}"
        for k, a in call.arrays.items()
    )
    return f"{call.problem} {call.data_format} {arrays} {call.options!r}"


SANITIZED = "san.so" in os.environ.get("LD_PRELOAD", "")
"""Whether a sanitizer is in the process: its own memory takes most of the address space."""


@contextlib.contextmanager
def limited_memory(gibibytes):
    """Limit what the process may allocate, where the system can and no sanitizer needs it."""
    try:
        import resource
    except ModuleNotFoundError:
        resource = None
    if resource is None or SANITIZED:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (gibibytes << 30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Quick(problems.Seeded):
    """Choices from Python's generator, which costs a tenth of NumPy's for single integers."""

    def __init__(self, seed, call):
        self.rng = np.random.Generator(np.random.Philox(key=(seed, call)))
        self._random = random.Random(f"{seed} {call}").random

    def integer(self, low, high):
        """An integer from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))


def any_call(source):
    """A random call of one of the three kinds: something to run, which ``str`` describes."""
    kind = source.integer(0, 5)

    def damage(name, value):
        if source.integer(0, 15):
            return value
        return damage_array(source, value) if isinstance(value, np.ndarray) else damage_keyword(source, name)

    if kind == 0:
        return fuzz_signatures.LayerCall(source, damage)
    if kind <= 2:
        return fuzz_signatures.FunctionCall(source, damage)
    return Damaged(random_call(source), source)


def resident_megabytes():
    """The process's resident memory; 0 where the system does not say."""
    gc.collect()
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


class Result:
    """What became of the calls: how many gave arrays, how many were refused, seconds of the slowest, growth in MB."""

    def __init__(self):
        self.solved = self.refused = 0
        self.slowest, self.slowest_call = 0.0, ""
        self.growth = 0.0


BETWEEN = 32
"""Calls between two settings of the alarm."""


def fuzz(calls, seed, log=None, limit=None):
    """Make the calls; returns a `Result`. What is neither arrays nor a refusal raises."""
    result = Result()
    warm, warm_size = calls // 10, None
    for i in range(calls):
        if limit and i % BETWEEN == 0:
            faulthandler.dump_traceback_later(limit, exit=True)
        if i == warm:
            warm_size = resident_megabytes()
        source = Quick(seed, i)
        call = any_call(source)
        if log is not None:
            print(f"{i}: {call}", file=log, flush=True)
        began = time.perf_counter()
        try:
            call.run()
            result.solved += 1
        except (ValueError, TypeError, MemoryError):
            result.refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, call {i}: {call}: {error!r}") from error
        taken = time.perf_counter() - began
        if taken > result.slowest:
            result.slowest, result.slowest_call = taken, f"call {i}: {call}"
    faulthandler.cancel_dump_traceback_later()
    del call, source
    result.growth = resident_megabytes() - warm_size
    return result


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=int, default=4, help="GiB the process may take; 0: no limit")
    parser.add_argument("--log", help="write each call here before it is made")
    parser.add_argument("--limit", type=float, default=120, help=f"seconds that {BETWEEN} calls may take; 0: no limit")
    parser.add_argument("--growth", type=float, default=20, help="MB that resident memory may grow after the warm-up")
    arguments = parser.parse_args()
    np.seterr(all="ignore")
    log = open(arguments.log, "w") if arguments.log else None  # noqa: SIM115
    limit = limited_memory(arguments.memory) if arguments.memory else contextlib.nullcontext()
    with limit:
        result = fuzz(arguments.calls, arguments.seed, log, arguments.limit)
    print(f"{arguments.calls} calls: {result.solved} gave arrays, {result.refused} were refused, none crashed")
    print(f"slowest: {result.slowest:.2f} s, {result.slowest_call[:300]}")
    print(f"resident memory grew by {result.growth:.1f} MB after the first tenth")
    grew = result.growth > arguments.growth and not SANITIZED  # a sanitizer keeps freed memory for a while
    return 0 if result.solved and result.refused and not grew else 1


if __name__ == "__main__":
    sys.exit(main())
