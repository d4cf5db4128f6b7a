"""Times of the CUDA kernels next to PyTorch's on the same GPU: ``python -m bench.gpu``.

Each call is timed by CUDA events over a run of calls that is long enough, after a warm-up; medians of a few runs. Both
libraries compute the same thing, in the same dtype, with PyTorch's TF32 off for float32.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys

import fastconv
import fastconv.functional as F

SHAPES = {
    "stem 7x7 s2, 3->64 @224": (32, 3, 224, 64, 7, 2, 3, 1),
    "3x3, 64->64 @56": (32, 64, 56, 64, 3, 1, 1, 1),
    "1x1, 64->256 @56": (32, 64, 56, 256, 1, 1, 0, 1),
    "3x3, 128->128 @28": (32, 128, 28, 128, 3, 1, 1, 1),
    "3x3, 512->512 @7": (32, 512, 7, 512, 3, 1, 1, 1),
    "depthwise 3x3, 144 @56": (32, 144, 56, 144, 3, 1, 1, 144),
}
"""Samples, input channels, size, output channels, kernel, stride, padding, groups."""


def milliseconds(torch, call, runs=5, least=20.0):
    """The median time of one call."""
    call()
    torch.cuda.synchronize()
    times, count = [], 1
    while len(times) < runs:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        spent = begin.elapsed_time(end)
        if spent < least and count < 4096:
            count *= 2
            continue
        times.append(spent / count)
    return statistics.median(times)


def cases(torch, dtype):
    """Names, and pairs of calls of ours and PyTorch's."""
    for name, (n, c, size, k, kernel, stride, padding, groups) in SHAPES.items():
        x = torch.randn(n, c, size, size, device="cuda", dtype=dtype)
        w = torch.randn(k, c // groups, kernel, kernel, device="cuda", dtype=dtype)
        y = torch.nn.functional.conv2d(x, w, None, stride, padding, 1, groups)
        theirs = torch.ops.aten.convolution_backward
        arguments = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups)
        yield (
            f"conv2d {name}",
            lambda x=x, w=w, s=stride, p=padding, g=groups: F.conv2d(x, w, None, s, p, 1, g),
            lambda x=x, w=w, s=stride, p=padding, g=groups: torch.nn.functional.conv2d(x, w, None, s, p, 1, g),
        )
        for part, mask in (("input", (True, False, False)), ("weight", (False, True, False))):
            yield (
                f"conv2d_backward, {part}, {name}",
                lambda y=y, x=x, w=w, s=stride, p=padding, g=groups, m=mask: F.conv2d_backward(
                    y, x, w, s, p, 1, g, output_mask=m
                ),
                functools.partial(theirs, y, x, w, None, *arguments, mask),
            )
    x = torch.randn(64, 64, 56, 56, device="cuda", dtype=dtype)
    statistics_ = torch.zeros(64, device="cuda", dtype=dtype), torch.ones(64, device="cuda", dtype=dtype)
    yield "relu", lambda: F.relu(x), lambda: torch.relu(x)
    yield "max_pool2d 3 s2", lambda: F.max_pool2d(x, 3, 2, 1), lambda: torch.nn.functional.max_pool2d(x, 3, 2, 1)
    yield (
        "batch_norm, training",
        lambda: F.batch_norm(x, *statistics_, training=True),
        lambda: torch.nn.functional.batch_norm(x, *statistics_, training=True),
    )
    yield "softmax", lambda: F.softmax(x, 1), lambda: torch.softmax(x, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", action="append", choices=["float32", "float16", "bfloat16"])
    arguments = parser.parse_args()
    if not fastconv.cuda.is_available():
        print(f"needs a CUDA device: {fastconv.cuda.unavailable_reason()}")
        return 1
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, fastconv {fastconv.__version__}")
    for dtype in arguments.dtype or ["float32", "bfloat16"]:
        print(f"\n{dtype:<50}{'ours, us':>12}{'theirs, us':>12}{'ratio':>8}")
        for name, ours, theirs in cases(torch, getattr(torch, dtype)):
            mine, yours = milliseconds(torch, ours), milliseconds(torch, theirs)
            print(f"{name:<50}{1e3 * mine:>12.1f}{1e3 * yours:>12.1f}{mine / yours:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
