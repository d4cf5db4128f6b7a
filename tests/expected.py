"""What a problem's output and gradients should be, and how far a kernel may be from them.

`expect` applies the definitions of `reference` to a problem's arrays; the bound of every sum of products is the same
definition of the absolute values times the growth that its length allows (`tolerance`).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import problems
import reference
import tolerance
from fastconv._cli.calls import IMAGES, Call, make_arrays, to_format
from fastconv._cli.problem import LOSSES


@dataclasses.dataclass
class Expected:
    """A value, channels first in float64, and the bound of its error."""

    name: str
    value: np.ndarray
    bound: np.ndarray


def _conv_definition(problem):
    """``(forward(x, w, b), backward(gy, x, w), lengths)`` with lengths of the output's and each gradient's sums."""
    geometry = problems.geometry_of(problem) | {"groups": problem.groups}
    taps, out = math.prod(problem.kernel), math.prod(problems.output_size_of(problem))

    def backward(gy, x, w):
        return (
            reference.conv_backward_input(gy, x.shape, w, **geometry),
            reference.conv_backward_weight(gy, x, w.shape, **geometry),
            reference.conv_backward_bias(gy),
        )

    def forward(x, w, b):
        return reference.conv(x, w, b, **geometry)

    groups, positions = problem.groups, problem.n * out
    return forward, backward, (problem.c // groups * taps, problem.k // groups * taps, positions, positions)


def _conv_transpose_definition(problem):
    geometry = problems.geometry_of(problem) | {"groups": problem.groups}
    taps, out = math.prod(problem.kernel), math.prod(problems.output_size_of(problem))

    def backward(gy, x, w):
        return (
            reference.conv_transpose_backward_input(gy, x.shape, w, **geometry),
            reference.conv_transpose_backward_weight(gy, x, w.shape, **geometry),
            reference.conv_backward_bias(gy),
        )

    def forward(x, w, b):
        extra = problem.output_padding or (0,) * problem.spatial
        return reference.conv_transpose(x, w, b, output_padding=extra, **geometry)

    groups, n = problem.groups, problem.n
    lengths = (problem.c // groups * taps, problem.k // groups * taps, n * math.prod(problem.size), n * out)
    return forward, backward, lengths


def _separable_definition(problem):
    geometry = problems.geometry_of(problem)
    unit = (1,) * problem.spatial
    plain = {"stride": unit, "pads": ((0, 0),) * problem.spatial, "dilation": unit}
    depthwise = geometry | {"groups": problem.c}
    taps, out = math.prod(problem.kernel), math.prod(problems.output_size_of(problem))
    middle, positions = problem.c * problem.multiplier, problem.n * out

    def backward(gy, x, w, p):
        between = reference.conv(x, w, **depthwise)
        g = reference.conv_backward_input(gy, between.shape, p, **plain)
        return (
            reference.conv_backward_input(g, x.shape, w, **depthwise),
            reference.conv_backward_weight(g, x, w.shape, **depthwise),
            reference.conv_backward_weight(gy, between, p.shape, **plain),
            reference.conv_backward_bias(gy),
        )

    def forward(x, w, p, b):
        return reference.separable_conv(x, w, p, b, **geometry)

    # Two sums follow each other: their lengths add.
    inward = problem.k + problem.multiplier * taps
    return forward, backward, (taps + middle, inward, problem.k + positions, taps + positions, positions)


def _linear_definition(problem):
    rows = problem.n * math.prod(problem.size)
    return reference.linear, reference.linear_backward, (problem.c, problem.k, rows, rows)


_DEFINITIONS = {
    "conv": (_conv_definition, ("weight",)),
    "conv_transpose": (_conv_transpose_definition, ("weight",)),
    "separable_conv": (_separable_definition, ("weight", "pointwise_weight")),
    "linear": (_linear_definition, ("weight",)),
}

PRODUCT_OPS = tuple(_DEFINITIONS)
"""The ops that are sums of products: `expect` serves these."""


def lengths(problem):
    """How many products each sum of the output and of the gradients adds."""
    return _DEFINITIONS[problem.op][0](problem)[2]


def _absolute(arrays):
    return [None if a is None else np.abs(a) for a in arrays]


def expect(call, grad_output=None, taps_mix=False):
    """The output of a call and, with an output gradient (channels first), every gradient, each as `Expected`.

    ``taps_mix``: the rounding of one tap's gradient may be that of all taps of its channels.
    """
    problem, arrays = call.problem, call.arrays
    definition, names = _DEFINITIONS[problem.op]
    forward, backward, sums = definition(problem)
    dtype = arrays["x"].dtype
    x = problems.to_first(arrays["x"], call.data_format) if problem.op != "linear" else arrays["x"]
    weights = [arrays[name] for name in names]
    operands = reference.f64(x, *weights, arrays.get("bias"))
    size = tolerance.sum_bound(dtype, sums[0] + 1, forward(*_absolute(operands)))
    results = [Expected("output", forward(*operands), size)]
    if grad_output is not None:
        operands = reference.f64(grad_output, x, *weights)
        values, sizes = backward(*operands), backward(*_absolute(operands))
        for name, value, length, most in zip(("x", *names, "bias"), values, sums[1:], sizes, strict=True):
            if taps_mix and name == "weight":
                most = np.broadcast_to(most.sum(axis=(-2, -1), keepdims=True), most.shape)
            results.append(Expected(f"gradient of {name}", value, tolerance.sum_bound(dtype, length, most)))
    return results


def make_call(problem, dtype, rng, data_format="channels_first", view="contiguous", bias=True, weight_view=None):
    """A `Call` on random arrays, ``x`` in the data format and the view, the weights in theirs (the same view)."""
    arrays = make_arrays(problem, dtype, rng)
    spatial = problem.op not in ("linear", *LOSSES)
    for name, array in arrays.items():
        if name in IMAGES:
            own = to_format(array, data_format) if spatial else array
            arrays[name] = problems.as_view(own, view)
        elif array.dtype.kind == "f" and not name.startswith("running"):
            arrays[name] = problems.as_view(array, weight_view or view)
    if not bias:
        arrays.pop("bias", None)
    return Call(problem, arrays, data_format)


def make_gradient(call, rng, output, view="contiguous"):
    """``(grad_output in the call's format and the view, the same values channels first)``."""
    gradient = np.asarray(rng.standard_normal(output.shape), output.dtype)
    gradient = problems.as_view(gradient, view)
    spatial = call.problem.op != "linear"
    return gradient, problems.to_first(gradient, call.data_format) if spatial and gradient.ndim > 2 else gradient


def check(call, rng, view="contiguous", backward=True, taps_mix=False):
    """Run a call forward and backward and hold both against the definitions."""
    output = call.forward()
    assert output.dtype == call.arrays["x"].dtype
    first = problems.to_first(output, call.data_format) if call.problem.op != "linear" else output
    gradient, gradient_first = make_gradient(call, rng, output, view)
    expected = expect(call, gradient_first if backward else None, taps_mix)
    tolerance.assert_close(first, expected[0].value, expected[0].bound, f"{call.problem} output")
    if not backward:
        return
    results = call.backward(gradient)
    assert len(results) == len(expected) - 1
    for i, (result, wanted) in enumerate(zip(results, expected[1:], strict=True)):
        assert result.dtype == output.dtype
        if i == 0 and call.problem.op != "linear":
            result = problems.to_first(result, call.data_format)
        tolerance.assert_close(result, wanted.value, wanted.bound, f"{call.problem} {wanted.name}")
