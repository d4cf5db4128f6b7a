"""Random problems and their arrays, shared by the tests, the fuzzer and the comparison with PyTorch.

A *source* makes the choices: ``Seeded`` draws them from a NumPy generator, ``Drawn`` from hypothesis, which can then
shrink a failing problem.  The same generator functions serve both.
"""

from __future__ import annotations

import numpy as np
import reference
from fastconv._cli.calls import unpooled_size
from fastconv._cli.problem import Problem

DTYPES = (np.float32, np.float64)
FORMATS = ("channels_first", "channels_last")
NORMS = (1.0, 2.0, 3.0, 4.0, 0.5, 1.5, 2.7, 11.0)
VIEWS = ("contiguous", "reversed", "gapped", "transposed", "offset", "broadcast")


class Seeded:
    """Choices from a NumPy generator."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def integer(self, low, high):
        """An integer from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high, endpoint=True))

    def choice(self, options):
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]


class Drawn:
    """The same choices from hypothesis's ``data()`` object."""

    def __init__(self, data):
        from hypothesis import strategies

        self._data, self._strategies = data, strategies
        self.rng = np.random.default_rng(self.integer(0, 2**16))

    def integer(self, low, high):
        """An integer from ``low`` to ``high``, both included."""
        return self._data.draw(self._strategies.integers(low, high))

    def choice(self, options):
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]


def some(source, axes, low, high):
    """One integer an axis."""
    return tuple(source.integer(low, high) for _ in range(axes))


def _axis_limit(axes):
    return {1: 40, 2: 13, 3: 7}[axes]


def _window(source, axes, max_stride=3, max_dilation=3):
    """``(size, kernel, stride, dilation)`` whose output is not empty even without padding."""
    kernel = some(source, axes, 1, 5 if axes < 3 else 3)
    stride = some(source, axes, 1, max_stride)
    dilation = some(source, axes, 1, max_dilation)
    reach = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    size = tuple(r + source.integer(1, _axis_limit(axes)) for r in reach)
    return size, kernel, stride, dilation


def _pad_pairs(source, limits):
    """Pairs of pads, each up to its axis's limit; asymmetric more often than not."""
    if source.integer(0, 2) == 0:
        return tuple((p, p) for p in (source.integer(0, limit) for limit in limits))
    return tuple((source.integer(0, limit), source.integer(0, limit)) for limit in limits)


def channel_counts(tiles):
    """1 to 33 and the neighbours of every tile size and of twice it."""
    near = {m * t + d for t in tiles for m in (1, 2) for d in (-1, 0, 1)}
    return sorted(set(range(1, 34)) | {c for c in near if c > 0})


def _grouped_channels(source, counts):
    """``(c, k, groups)``: dense, a few groups, or depthwise with a multiplier."""
    kind = source.integer(0, 5)
    if kind <= 2:
        return source.choice(counts), source.choice(counts), 1
    if kind <= 4:
        groups = source.integer(2, 5)
        return groups * source.integer(1, 9), groups * source.integer(1, 9), groups
    groups = source.choice(counts)
    return groups, groups * source.integer(1, 3), groups


def conv_problem(source, axes=None, op="conv", tiles=(), symmetric=False):
    """A convolution, a transposed or a separable one; ``symmetric`` keeps to what PyTorch can express too."""
    axes = axes or source.integer(1, 3)
    size, kernel, stride, dilation = _window(source, axes)
    c, k, groups = _grouped_channels(source, channel_counts(tiles))
    multiplier = 1
    if op == "separable_conv":
        multiplier, groups = source.integer(1, 3), 1
        c, k = min(c, 12), min(k, 33)
    if symmetric:
        padding = tuple((p, p) for p in some(source, axes, 0, 3))
    elif source.integer(0, 5) == 0 and op != "conv_transpose":
        padding = source.choice(("same", "valid"))
    else:
        padding = _pad_pairs(source, (4,) * axes)
    output_padding = ()
    if op == "conv_transpose":
        size = some(source, axes, 1, max(_axis_limit(axes) // 2, 1))
        output_padding = tuple(source.integer(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
        # A pad that leaves no output is misuse; give such an axis none.
        pairs = reference.conv_transpose_output_size(size, kernel, stride, padding, dilation, output_padding)
        padding = tuple(p if o > 0 else (0, 0) for p, o in zip(padding, pairs, strict=True))
    return Problem(
        name="random",
        op=op,
        n=source.integer(1, 3),
        c=c,
        size=size,
        k=k,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_padding=output_padding,
        multiplier=multiplier,
    )


def pool_problem(source, axes=None, op="max_pool", symmetric=False):
    """A pooling window; its pads are at most half of the (undilated) kernel, as PyTorch demands."""
    axes = axes or source.integer(1, 3)
    size, kernel, stride, dilation = _window(source, axes)
    if op in ("avg_pool", "rms_pool", "lp_pool") and symmetric:
        dilation = (1,) * axes
    limits = tuple(k // 2 for k in kernel)
    if op == "lp_pool" and symmetric:
        padding = ((0, 0),) * axes
    elif symmetric:
        padding = tuple((p, p) for p in (source.integer(0, limit) for limit in limits))
    elif source.integer(0, 5) == 0:
        padding = source.choice(("same", "valid"))
    else:
        padding = _pad_pairs(source, limits)
    return Problem(
        name="random",
        op=op,
        n=source.integer(1, 3),
        c=source.integer(1, 33),
        size=size,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=bool(source.integer(0, 1)),
        norm=source.choice(NORMS) if op == "lp_pool" else 2.0,
    )


def adaptive_problem(source, op):
    """An adaptive pool: fewer positions out than in, as many or more."""
    axes = source.integer(1, 3)
    size = some(source, axes, 1, _axis_limit(axes))
    output = some(source, axes, 1, _axis_limit(axes) // 2 + 1)
    if source.integer(0, 3) == 0:  # bins of one size
        size = tuple(o * source.integer(1, 3) for o in output)
    return Problem(name="random", op=op, n=source.integer(1, 3), c=source.integer(1, 33), size=size, output=output)


def unpool_problem(source):
    """An unpooling whose output has at least one position."""
    axes = source.integer(1, 3)
    kernel, stride = some(source, axes, 1, 4), some(source, axes, 1, 3)
    return Problem(
        name="random",
        op="max_unpool",
        n=source.integer(1, 3),
        c=source.integer(1, 33),
        size=some(source, axes, 1, _axis_limit(axes) // 2),
        kernel=kernel,
        stride=stride,
        padding=tuple((p, p) for p in (source.integer(0, (k - 1) // 2) for k in kernel)),
        dilation=(1,) * axes,
    )


def channel_problem(source, op, axes=None):
    """A problem without a window: a norm, an activation, a softmax, a loss, a global pool or a linear layer."""
    axes = source.integer(1, 3) if axes is None else axes
    size = some(source, axes, 1, _axis_limit(axes)) if axes and op != "linear" else ()
    k = source.integer(1, 40) if op == "linear" else 0
    n, c, groups = source.integer(2, 5), source.integer(1, 33), 1
    if op == "group_norm":
        groups = source.integer(1, 8)
        c = groups * source.integer(1, 6)
    return Problem(name="random", op=op, n=n, c=c, size=size, k=k, groups=groups)


# --- arrays ----------------------------------------------------------------------------------------------------------


def normal(rng, shape, dtype):
    """Standard normal values."""
    return rng.standard_normal(shape).astype(dtype)


def to_format(x, data_format):
    """A channels-first array in the data format, contiguous."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if data_format == "channels_last" else x


def to_first(x, data_format):
    """An array of the data format seen channels first."""
    return np.moveaxis(np.asarray(x), -1, 1) if data_format == "channels_last" else np.asarray(x)


def _outside(x):
    """What no kernel may read: NaN, or an index that is refused."""
    return np.nan if x.dtype.kind == "f" else -1


def as_view(x, view):
    """An array of ``x``'s shape in another arrangement of memory.

    Every view but ``"broadcast"`` (which repeats the first entry of the first axis) has ``x``'s values.  What lies
    between the elements of a gapped view is NaN, so that a kernel that reads it shows.
    """
    if view == "reversed":
        backward = (slice(None, None, -1),) * x.ndim
        return np.ascontiguousarray(x[backward])[backward]
    if view == "gapped":
        room = np.full(tuple(2 * s + 1 for s in x.shape), _outside(x), x.dtype)
        gaps = room[(slice(1, None, 2),) * x.ndim]
        gaps[...] = x
        return gaps
    if view == "transposed":
        return np.ascontiguousarray(x.T).T
    if view == "offset":
        room = np.full(x.size + 1, _outside(x), x.dtype)
        shifted = room[1:].reshape(x.shape)
        shifted[...] = x
        return shifted
    if view == "broadcast" and x.shape[0] > 0:
        return np.broadcast_to(x[:1], x.shape)
    return np.ascontiguousarray(x)


def pads_of(problem):
    """The problem's padding as pairs."""
    return reference.resolve_padding(problem.padding, problem.size, problem.kernel, problem.stride, problem.dilation)


def geometry_of(problem):
    """The keyword arguments of the reference functions."""
    return {"stride": problem.stride, "pads": pads_of(problem), "dilation": problem.dilation}


def output_size_of(problem):
    """The output's spatial size."""
    if problem.output:
        return problem.output
    pads = pads_of(problem)
    if problem.op == "max_unpool":
        return unpooled_size(problem)
    if problem.op == "conv_transpose":
        return reference.conv_transpose_output_size(
            problem.size, problem.kernel, problem.stride, pads, problem.dilation, problem.output_padding
        )
    return reference.pool_output_size(
        problem.size, problem.kernel, problem.stride, pads, problem.dilation, problem.ceil_mode
    )


def usable(problem):
    """Whether the output has at least one position on each axis."""
    return min(output_size_of(problem), default=1) > 0
