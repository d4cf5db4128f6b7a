"""PyTorch's own sample inputs of the ops that both have: an adapter from each ``OpInfo`` to a call of ours.

`ADAPTERS` has a row for each entry of PyTorch's operator database that is one of our ops: the names of the operator's
arguments in its order, and a function of them that returns our outputs and a function from the outputs' gradients to
the inputs'.  Tensors go in as they come, in whatever strides PyTorch's samples have them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import fastconv.functional as F
import hypothesis
import numpy as np
import tolerance
import torch


@contextlib.contextmanager
def importing_pytorchs_tests():
    """Import from PyTorch's test library without its warnings, and keep the settings of hypothesis that it changes."""
    hypothesis.settings.register_profile("before", hypothesis.settings.default)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    hypothesis.settings.load_profile("before")


with importing_pytorchs_tests():
    from torch.testing._internal.common_methods_invocations import op_db

BINARY32, BINARY64 = torch.float32, torch.float64


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How an operator of PyTorch is called here.

    ``arguments`` are its parameters in order; ``call`` takes what a sample gives of them by name and returns
    ``(outputs, backward)``, where ``backward`` takes a gradient of the first output and returns the gradients by
    argument name; a norm's call adds ``1 / deviation``.
    """

    arguments: str
    call: Callable[..., tuple[Any, ...]]

    def bind(self, sample: Any) -> dict[str, Any]:
        """The sample's arguments by name."""
        names = self.arguments.split()
        given = (sample.input, *sample.args)
        assert len(given) <= len(names), f"{len(given)} arguments for {names}"
        bound = dict(zip(names, given, strict=False))
        assert not bound.keys() & sample.kwargs.keys()
        assert sample.kwargs.keys() <= set(names), f"{sorted(sample.kwargs)}: expected {names}"
        return bound | sample.kwargs


def _named(gradients: tuple[Any, ...], *names: str) -> dict[str, Any]:
    return dict(zip(names, gradients, strict=True))


def _conv(name: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input, weight, bias=None, **keywords):
        def gradients(g):
            return _named(backward(g, input, weight, **keywords), "input", "weight", "bias")

        return (forward(input, weight, bias, **keywords),), gradients

    more = "output_padding groups dilation" if "transpose" in name else "dilation groups"
    return Adapter(f"input weight bias stride padding {more}", call)


def _linear(input, weight, bias=None):
    return (F.linear(input, weight, bias),), lambda g: _named(
        F.linear_backward(g, input, weight), "input", "weight", "bias"
    )


def _max_pool(name: str, arguments: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input, return_indices=False, **keywords):
        y, indices = forward(input, return_indices=True, **keywords)
        outputs = (y, indices) if return_indices else (forward(input, **keywords),)
        return outputs, lambda g: {"input": backward(g, indices, input.shape)}

    return Adapter(f"input {arguments}", call)


def _avg_pool(name: str, arguments: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input, **keywords):
        size = {key: keywords[key] for key in keywords if key != "output_size"}
        return (forward(input, **keywords),), lambda g: {"input": backward(g, input.shape, **size)}

    return Adapter(f"input {arguments}", call)


def _max_unpool(name: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input, indices, **keywords):
        return (forward(input, indices, **keywords),), lambda g: {"input": backward(g, indices)}

    return Adapter("input indices kernel_size stride padding output_size", call)


def _batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    running = [None if a is None else a.clone() for a in (running_mean, running_var)]
    y, mean, invstd = F.batch_norm(input, *running, weight, bias, training, momentum, eps, return_stats=True)

    def backward(g):
        return _named(F.batch_norm_backward(g, input, mean, invstd, weight, training), "input", "weight", "bias")

    return (y,), backward, invstd


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    y, mean, invstd = F.layer_norm(input, normalized_shape, weight, bias, eps, return_stats=True)

    def backward(g):
        return _named(F.layer_norm_backward(g, input, mean, invstd, weight), "input", "weight", "bias")

    return (y,), backward, invstd


def _group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    y, mean, invstd = F.group_norm(input, num_groups, weight, bias, eps, return_stats=True)

    def backward(g):
        return _named(F.group_norm_backward(g, input, mean, invstd, weight), "input", "weight", "bias")

    return (y,), backward, invstd


def _native_group_norm(input, weight, bias, N, C, HxW, group, eps):
    y, mean, invstd = F.group_norm(input, group, weight, bias, eps, return_stats=True)
    return (y, mean, invstd), _group_norm(input, group, weight, bias, eps)[1], invstd


def _native_layer_norm(input, normalized_shape, weight, bias, eps):
    (y,), backward, _ = _layer_norm(input, normalized_shape, weight, bias, eps)
    _, mean, invstd = F.layer_norm(input, normalized_shape, weight, bias, eps, return_stats=True)
    statistics = (*input.shape[: input.ndim - len(normalized_shape)], *(1,) * len(normalized_shape))
    return (y, mean.reshape(statistics), invstd.reshape(statistics)), backward, invstd


def _instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    running = [None if a is None else a.clone() for a in (running_mean, running_var)]
    y, mean, invstd = F.instance_norm(input, *running, weight, bias, use_input_stats, momentum, eps, return_stats=True)

    def backward(g):
        gradients = F.instance_norm_backward(g, input, mean, invstd, weight, use_input_stats)
        return _named(gradients, "input", "weight", "bias")

    return (y,), backward, invstd


def _from_output(name: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input):
        y = forward(input)
        return (y,), lambda g: {"input": backward(g, y)}

    return Adapter("input", call)


def _from_input(name: str, parameter: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input, **keywords):
        return (forward(input, **keywords),), lambda g: {"input": backward(g, input, **keywords)}

    return Adapter(f"input {parameter}", call)


def _softmax(name: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input, dim, dtype=None):
        y = forward(input if dtype is None else input.to(dtype), dim)  # PyTorch's dtype= casts first
        return (y,), lambda g: {"input": backward(g, y, dim).to(input.dtype)}

    return Adapter("input dim dtype", call)


def _loss(name: str, arguments: str) -> Adapter:
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")

    def call(input, target, **keywords):
        value = torch.as_tensor(forward(input, target, **keywords))
        return (value,), lambda g: {"input": backward(g, input, target, **keywords)}

    return Adapter(f"input target {arguments}", call)


_WINDOW = "kernel_size stride padding"
_POOL = f"{_WINDOW} dilation ceil_mode return_indices"
_NORM = "running_mean running_var weight bias"

ADAPTERS: dict[tuple[str, str], Adapter] = {
    ("nn.functional.linear", ""): Adapter("input weight bias", _linear),
    ("nn.functional.batch_norm", ""): Adapter(f"input {_NORM} training momentum eps", _batch_norm),
    ("nn.functional.batch_norm", "without_cudnn"): Adapter(f"input {_NORM} training momentum eps", _batch_norm),
    ("nn.functional.instance_norm", ""): Adapter(f"input {_NORM} use_input_stats momentum eps", _instance_norm),
    ("nn.functional.layer_norm", ""): Adapter("input normalized_shape weight bias eps", _layer_norm),
    ("nn.functional.group_norm", ""): Adapter("input num_groups weight bias eps", _group_norm),
    ("native_layer_norm", ""): Adapter("input normalized_shape weight bias eps", _native_layer_norm),
    ("native_group_norm", ""): Adapter("input weight bias N C HxW group eps", _native_group_norm),
    ("nn.functional.relu", ""): _from_output("relu"),
    ("sigmoid", ""): _from_output("sigmoid"),
    ("tanh", ""): _from_output("tanh"),
    ("nn.functional.leaky_relu", ""): _from_input("leaky_relu", "negative_slope"),
    ("nn.functional.elu", ""): _from_input("elu", "alpha"),
    ("nn.functional.cross_entropy", ""): _loss("cross_entropy", "weight ignore_index reduction label_smoothing"),
    ("nn.functional.mse_loss", ""): _loss("mse_loss", "reduction"),
    ("nn.functional.binary_cross_entropy_with_logits", ""): _loss(
        "binary_cross_entropy_with_logits", "weight reduction pos_weight"
    ),
}
for _n in (1, 2, 3):
    _counts = "ceil_mode count_include_pad" + (" divisor_override" if _n > 1 else "")
    ADAPTERS |= {
        (f"nn.functional.conv{_n}d", ""): _conv(f"conv{_n}d"),
        (f"nn.functional.conv_transpose{_n}d", ""): _conv(f"conv_transpose{_n}d"),
        (f"nn.functional.max_pool{_n}d", ""): _max_pool(f"max_pool{_n}d", _POOL),
        (f"nn.functional.adaptive_max_pool{_n}d", ""): _max_pool(
            f"adaptive_max_pool{_n}d", "output_size return_indices"
        ),
        (f"nn.functional.avg_pool{_n}d", ""): _avg_pool(f"avg_pool{_n}d", f"{_WINDOW} {_counts}"),
        (f"nn.functional.adaptive_avg_pool{_n}d", ""): _avg_pool(f"adaptive_avg_pool{_n}d", "output_size"),
        (f"nn.functional.max_unpool{_n}d", ""): _max_unpool(f"max_unpool{_n}d"),
        (f"nn.functional.max_unpool{_n}d", "grad"): _max_unpool(f"max_unpool{_n}d"),
    }
for _variant in ("", "with_dtype"):
    ADAPTERS |= {(name, _variant): _softmax(name) for name in ("softmax", "log_softmax")}

OPERATORS = {(info.name, info.variant_test_name): info for info in op_db}


def samples_of(info: Any, dtype: torch.dtype, most: int | None = None) -> list[Any]:
    """PyTorch's reference inputs of an operator, its sample inputs and more; of more than ``most`` some at random."""
    torch.manual_seed(0)
    samples = list(info.reference_inputs("cpu", dtype, requires_grad=True))
    if most is None or len(samples) <= most:
        return samples
    return [samples[i] for i in sorted(np.random.default_rng(0).permutation(len(samples))[:most])]


def detached(value: Any) -> Any:
    """A tensor without its history; anything else as it is."""
    return value.detach() if isinstance(value, torch.Tensor) else value


def in_double(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return value.detach().to(BINARY64).requires_grad_(value.requires_grad)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _terms(*values: Any) -> int:
    """At least as many terms as any sum of a call has, from all its inputs and outputs."""
    return max(1, *(math.prod(value.shape) for value in values if isinstance(value, torch.Tensor)))


def _largest(*values: Any) -> float:
    """The product of the largest finite magnitudes of the tensors among the values, each at least 1."""
    tensors = [value.detach().double() for value in values if isinstance(value, torch.Tensor)]
    return math.prod(float(np.abs(t[torch.isfinite(t)].numpy()).max(initial=1.0)) for t in tensors)


def assert_agree(actual: Any, expected: Any, terms: int, what: str, magnitude: float = 1.0) -> None:
    """``actual`` is ``expected`` up to the roundings of sums of ``terms`` terms.

    Each term is taken to be as large as the largest entry that is expected, 1 or ``magnitude``.
    """
    actual, expected = actual.detach().numpy(), expected.detach().numpy()
    if actual.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    magnitude = np.abs(expected[np.isfinite(expected)]).max(initial=magnitude)
    tolerance.assert_close(actual, expected, 2 * tolerance.sum_bound(actual.dtype, terms, magnitude), what)


def compare(info: Any, adapter: Adapter, sample: Any) -> int:
    """Hold our outputs and gradients for a sample against PyTorch's in float64; returns how many arrays agreed."""
    bound = adapter.bind(sample)
    what = describe(bound)
    exact = sample.transform(in_double)
    theirs = _tuple(info.op(exact.input, *exact.args, **exact.kwargs))
    outputs, backward, *invstd = adapter.call(**{name: detached(value) for name, value in bound.items()})
    assert len(outputs) == len(theirs), what
    dtype = bound.get("dtype") or bound["input"].dtype
    terms = _terms(*bound.values(), *outputs)
    # A norm's (x - mean) / deviation has the roundings of x, which a small deviation makes large.
    size = _largest(bound["input"], bound.get("weight"), *invstd) if invstd else 1.0
    for i, (output, their) in enumerate(zip(outputs, theirs, strict=True)):
        assert isinstance(output, torch.Tensor), what
        assert output.dtype == (dtype if their.is_floating_point() else their.dtype), what
        assert_agree(output, their, terms, f"{what}: output {i}", size)
    twin = adapter.bind(exact)
    wanted = [name for name, value in twin.items() if isinstance(value, torch.Tensor) and value.requires_grad]
    if not wanted or not theirs[0].requires_grad:
        return len(outputs)
    gradient = torch.randn(theirs[0].shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = torch.autograd.grad(theirs[0], [twin[name] for name in wanted], gradient.to(BINARY64))
    ours = backward(gradient)
    checked = 0
    for name, their in zip(wanted, expected, strict=True):
        if name == "target":  # no loss here has a gradient of its target
            continue
        assert ours[name].dtype == bound[name].dtype, f"{what}: gradient of {name}"
        own, their = mend(info, bound, ours[name], their)
        assert_agree(own, their, terms, f"{what}: gradient of {name}", size * _largest(gradient, *invstd))
        checked += 1
    return len(outputs) + checked


def mend(info: Any, bound: dict[str, Any], ours: Any, theirs: Any) -> tuple[Any, Any]:
    """The two gradients without what is not compared.

    PyTorch's ELU has a slope of NaN or of 1 at a NaN, depending on where that lies in memory; ours is always NaN.
    """
    if info.name != "nn.functional.elu":
        return ours, theirs
    place = torch.isnan(bound["input"])
    assert torch.isnan(ours[place]).all(), describe(bound)
    return ours[~place], theirs[~place]


def describe(bound: dict[str, Any]) -> str:
    """The arguments in one line, of tensors their shapes."""
    return ", ".join(
        f"{name}={tuple(value.shape) if isinstance(value, torch.Tensor) else value!r}" for name, value in bound.items()
    )
