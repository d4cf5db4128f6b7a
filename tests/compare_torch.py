"""Random problems of every op family against PyTorch, in float32 and float64.

``python tests/compare_torch.py --problems 5000 --seed 0`` solves that many problems of each family, forward and
backward, in one of the data formats and views, with fastconv and with PyTorch in the same dtype and with PyTorch in
float64.  Every result must agree with PyTorch's float64 one within the bound of `tolerance`, and the float32 error (the
root of its mean square over a family, in units of the bound) must be at most twice PyTorch's.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import expected
import numpy as np
import problems
import tolerance
import torch
import torch.nn.functional as T
from fastconv._cli.calls import IMAGES
from fastconv._cli.problem import ADAPTIVE_POOLS, LOSSES, NORMS, Problem

FAMILIES = {
    "conv": ("conv",),
    "conv_transpose": ("conv_transpose",),
    "separable_conv": ("separable_conv",),
    "pool": ("max_pool", "min_pool", "avg_pool"),
    "power_pool": ("rms_pool", "lp_pool"),
    "adaptive_pool": ("adaptive_avg_pool", "adaptive_max_pool"),
    "max_unpool": ("max_unpool",),
    "global_pool": ("global_avg_pool", "global_max_pool"),
    "batch_norm": ("batch_norm",),
    "sample_norm": ("layer_norm", "group_norm", "instance_norm", "switch_norm"),
    "linear": ("linear",),
    "activation": ("relu", "leaky_relu", "elu", "sigmoid", "tanh"),
    "softmax": ("softmax", "log_softmax"),
    "loss": LOSSES,
}


POWERS = ("rms_pool", "lp_pool")


def random_problem(source, op):
    """``(problem, options)`` that PyTorch can express: pads alike on both sides, no dilated average."""
    if op in ("conv", "conv_transpose", "separable_conv"):
        return problems.conv_problem(source, op=op, symmetric=True), {}
    if op in ("max_pool", "min_pool", *POWERS):
        return problems.pool_problem(source, op=op, symmetric=True), {}
    if op in ADAPTIVE_POOLS:
        return problems.adaptive_problem(source, op), {}
    if op == "max_unpool":
        return problems.unpool_problem(source), {}
    if op == "avg_pool":
        problem = problems.pool_problem(source, op=op, symmetric=True)
        options = {"count_include_pad": bool(source.integer(0, 1))}
        if problem.spatial > 1 and source.integer(0, 1):
            options["divisor_override"] = source.integer(1, 9)
        return problem, options
    some = "global" in op or op in ("batch_norm", "instance_norm", "switch_norm")
    problem = problems.channel_problem(source, op, source.integer(1 if some else 0, 3))
    if op in NORMS:
        options = {"eps": source.choice((1e-5, 1e-3))}
        if op in ("batch_norm", "switch_norm"):
            options["training"] = bool(source.integer(0, 1))
        if op == "instance_norm":
            problem = dataclasses.replace(problem, size=tuple(s + 1 for s in problem.size))
            options["use_input_stats"] = bool(source.integer(0, 2))
        return problem, options
    if op == "binary_cross_entropy_with_logits":
        return problem, {"reduction": source.choice(("mean", "sum", "none"))}
    if op == "cross_entropy":
        smoothing, reduction = source.choice((0.0, 0.1)), source.choice(("mean", "sum", "none"))
        return problem, {"reduction": reduction, "label_smoothing": smoothing}
    if op == "mse_loss":
        return problem, {"reduction": source.choice(("mean", "sum", "none"))}
    return problem, {"leaky_relu": {"negative_slope": 0.2}, "elu": {"alpha": 1.5}}.get(op, {})


def torch_switch_norm(t, training, eps):
    """The definition: PyTorch has no such op."""
    x = t["x"]
    per_channel = (1, -1, *(1,) * (x.ndim - 2))
    positions = tuple(range(2, x.ndim))
    mean, var = [], []
    for axes in (positions, (1, *positions), (0, *positions)):
        if axes[0] == 0 and not training:
            mean.append(t["running_mean"].view(per_channel))
            var.append(t["running_var"].view(per_channel))
        else:
            mean.append(x.mean(axes, keepdim=True))
            var.append(x.var(axes, unbiased=False, keepdim=True))

    def mix(weights, statistics):
        return sum(share * each for share, each in zip(weights.softmax(0), statistics, strict=True))

    m, v = mix(t["mean_weight"], mean), mix(t["var_weight"], var)
    return (x - m) / (v + eps).sqrt() * t["weight"].view(per_channel) + t["bias"].view(per_channel)


def torch_forward(problem: Problem, options, t):
    """PyTorch's answer from a dict of tensors."""
    x, n, op = t["x"], problem.spatial, problem.op
    padding = tuple(before for before, _ in problems.pads_of(problem)) if problem.windowed else ()
    if op == "conv":
        conv = getattr(T, f"conv{n}d")
        return conv(x, t["weight"], t.get("bias"), problem.stride, padding, problem.dilation, problem.groups)
    if op == "conv_transpose":
        conv = getattr(T, f"conv_transpose{n}d")
        sizes = (problem.stride, padding, problem.output_padding, problem.groups, problem.dilation)
        return conv(x, t["weight"], t.get("bias"), *sizes)
    if op == "separable_conv":
        conv = getattr(T, f"conv{n}d")
        middle = conv(x, t["weight"], None, problem.stride, padding, problem.dilation, problem.c)
        return conv(middle, t["pointwise_weight"], t.get("bias"))
    if op == "max_pool":
        pool = getattr(T, f"max_pool{n}d")
        return pool(x, problem.kernel, problem.stride, padding, problem.dilation, problem.ceil_mode)
    if op == "min_pool":
        return -torch_forward(dataclasses.replace(problem, op="max_pool"), options, {"x": -x})
    if op == "avg_pool":
        return getattr(T, f"avg_pool{n}d")(x, problem.kernel, problem.stride, padding, problem.ceil_mode, **options)
    if op == "rms_pool":
        return getattr(T, f"avg_pool{n}d")(x * x, problem.kernel, problem.stride, padding, problem.ceil_mode).sqrt()
    if op == "lp_pool":
        kernel, stride = (sizes if n > 1 else sizes[0] for sizes in (problem.kernel, problem.stride))
        return getattr(T, f"lp_pool{n}d")(x, problem.norm, kernel, stride, problem.ceil_mode)
    if op in ADAPTIVE_POOLS:
        return getattr(T, f"{op}{n}d")(x, problem.output if n > 1 else problem.output[0])
    if op == "max_unpool":
        return getattr(T, f"max_unpool{n}d")(x, t["indices"], problem.kernel, problem.stride, padding)
    if op == "global_avg_pool":
        return x.mean(dim=tuple(range(2, x.ndim)))
    if op == "global_max_pool":
        return x.flatten(2).max(dim=2).values
    if op in ("batch_norm", "instance_norm"):
        return getattr(T, op)(x, t["running_mean"], t["running_var"], t["weight"], t["bias"], **options)
    if op == "layer_norm":
        return T.layer_norm(x, x.shape[1:], t["weight"], t["bias"], **options)
    if op == "group_norm":
        return T.group_norm(x, problem.groups, t["weight"], t["bias"], **options)
    if op == "switch_norm":
        return torch_switch_norm(t, **options)
    if op == "linear":
        return T.linear(x, t["weight"], t.get("bias"))
    if op in ("softmax", "log_softmax"):
        return getattr(T, op)(x, dim=1)
    if op in LOSSES:
        return getattr(T, op)(x, t["target"], **options)
    return getattr(torch if op in ("sigmoid", "tanh", "relu") else T, op)(x, **options)


LEAVES = ("x", "weight", "pointwise_weight", "bias", "mean_weight", "var_weight")


def torch_results(problem, options, arrays, gradient, dtype):
    """``[output, gradients...]`` of PyTorch in a dtype, from channels-first arrays."""
    tensors = {}
    for name, array in arrays.items():
        tensor = torch.tensor(array)
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    leaves = [tensors[name].requires_grad_() for name in LEAVES if name in tensors]
    output = torch_forward(problem, options, tensors)
    seed = torch.tensor(np.array(gradient, order="C")).to(dtype)
    return [r.detach().numpy() for r in (output, *torch.autograd.grad(output, leaves, seed))]


def our_results(call, arrays, gradient):
    """The same of fastconv, channels first."""
    output = np.asarray(call.forward())
    spatial = call.problem.op not in ("linear", *LOSSES) and output.ndim > 2
    own = problems.to_format(gradient, call.data_format) if spatial else gradient
    call.save()
    result = call.backward(own)
    gradients = [g for g in (result if isinstance(result, tuple) else (result,)) if g is not None]
    gradients = gradients[: sum(name in arrays for name in LEAVES)]
    if call.problem.op not in ("linear", *LOSSES):
        gradients[0] = problems.to_first(gradients[0], call.data_format)
    return [problems.to_first(output, call.data_format) if spatial else output, *gradients]


def variances(problem, x):
    """The variances that a norm divides by; a mixture is no smaller than its parts' shares."""
    if problem.op == "batch_norm":
        return x.var(axis=(0, *range(2, x.ndim)))
    groups = {"layer_norm": 1, "group_norm": problem.groups}.get(problem.op, problem.c)
    return x.reshape(x.shape[0], groups, -1).var(axis=-1)


CHOICES = ("max_pool", "min_pool", "adaptive_max_pool", "global_max_pool", "max_unpool")
"""Ops that copy values."""

LINEAR_OPS = (*expected.PRODUCT_OPS, *CHOICES, "avg_pool", "adaptive_avg_pool", "global_avg_pool")
"""Ops that are linear in every array: the magnitude of their sums is the op itself on absolute values."""


def bounds(problem, options, arrays, gradient, truths, dtype):
    """The bound of each result's error."""
    if problem.op in expected.PRODUCT_OPS:
        lengths = expected.lengths(problem)
    elif problem.op in ("softmax", "log_softmax"):
        lengths = (problem.c,) * len(truths)
    elif problem.op in (*NORMS, *LOSSES):
        lengths = (problem.n * problem.c * int(np.prod(problem.size)),) * len(truths)
    else:
        lengths = (int(np.prod(problem.kernel or problem.size)),) * len(truths)
    if problem.op in ADAPTIVE_POOLS:  # bins overlap where there are more of them than inputs
        lengths = (lengths[0], max(lengths[0], gradient.size // (problem.n * problem.c)))
    if problem.op in POWERS:
        # A power or a root multiplies the relative error of its argument by the exponent.
        absolute = {name: np.abs(array) for name, array in arrays.items()}
        magnitudes = torch_results(problem, options, absolute, np.abs(gradient), torch.float64)
        p, taps = problem.norm, int(np.prod(problem.kernel))
        forward = (tolerance.growth(taps) + p) / min(p, 1) + 4
        backward = tolerance.growth(taps) + (1 + abs(p - 1)) * forward + p
        return [tolerance.ulp_bound(dtype, m, u) for m, u in zip(magnitudes, (forward, backward), strict=True)]
    if problem.op in LINEAR_OPS:
        absolute = {name: np.abs(array) for name, array in arrays.items()}
        if problem.op in CHOICES:
            magnitudes = [np.abs(truth) for truth in truths]
            if problem.op in ("max_pool", "min_pool", "adaptive_max_pool"):  # several windows may choose one input
                magnitudes[1] = torch_results(problem, options, arrays, np.abs(gradient), torch.float64)[1]
        else:
            magnitudes = torch_results(problem, options, absolute, np.abs(gradient), torch.float64)
        return [tolerance.sum_bound(dtype, length + 1, m) for length, m in zip(lengths, magnitudes, strict=False)]
    scale = 4.0
    if problem.op in NORMS and options.get("training", options.get("use_input_stats", True)):
        # The difference from the mean is relative to x, the normalised value to the standard deviation.
        x = arrays["x"].astype("d")
        spread = np.sqrt(variances(problem, x) + options["eps"])
        scale *= 1 + np.abs(x).max() / spread.min()
    sizes = [scale * (1 + np.abs(truth).max(initial=0.0) + np.abs(gradient).max(initial=0.0)) for truth in truths]
    return [tolerance.sum_bound(dtype, length, size) for length, size in zip(lengths, sizes, strict=True)]


@dataclasses.dataclass
class Score:
    """Sums of squares of one family's float32 errors, ours and PyTorch's, in units of their bounds."""

    count: int = 0
    ours: float = 0.0
    torch: float = 0.0
    worst: float = 0.0

    def ratio(self):
        """Our error over PyTorch's."""
        if self.torch:
            return float(np.sqrt(self.ours / self.torch))
        return float("inf") if self.ours else 0.0


def mean_square(ratios):
    """The mean of the squares, 0 of nothing."""
    return float(np.mean(np.square(ratios))) if ratios.size else 0.0


def compare_one(source, op, score):
    """One random problem in both dtypes; raises when a float64 result is wrong."""
    problem, options = random_problem(source, op)
    data_format, view = source.choice(problems.FORMATS), source.choice(problems.VIEWS)
    if op in LOSSES:
        data_format = "channels_first"
    bias = op in NORMS or bool(source.integer(0, 3))
    seed = source.integer(0, 2**31)
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(seed)
        call = expected.make_call(problem, dtype, rng, data_format, view, bias)
        call.options = dict(options)
        x = call.arrays.get("x")
        if op in POWERS:  # powers below the dtype's range are lost, by PyTorch as well
            x = x if x.flags.writeable else x.base  # of the values that are repeated
            least = np.finfo(dtype).tiny ** (1 / (1 + max(problem.norm, 1)))
            x[...] = np.copysign(np.maximum(np.abs(x), dtype(least)), x)
        # Contiguous: PyTorch 2.13 crashes on some channels-last tensors with three spatial axes, one of them of size 1.
        arrays = {name: np.array(array, order="C") for name, array in call.arrays.items()}
        for name in IMAGES:
            if name in arrays and op not in ("linear", *LOSSES):
                arrays[name] = np.array(problems.to_first(call.arrays[name], data_format), order="C")
        shape = torch_forward(problem, options, {k: torch.tensor(a) for k, a in arrays.items()}).shape
        gradient = np.asarray(rng.standard_normal(tuple(shape)), dtype)
        ours = our_results(call, arrays, gradient)
        theirs = torch_results(problem, options, arrays, gradient, torch.float64)
        names = ["output", *(f"gradient of {name}" for name in LEAVES if name in arrays)]
        assert len(ours) == len(theirs), f"{problem}: {len(ours)} results, PyTorch has {len(theirs)}"
        limits = bounds(problem, options, arrays, gradient, theirs, dtype)
        single = torch_results(problem, options, arrays, gradient, torch.float32) if dtype == np.float32 else None
        for i, (name, mine, truth, limit) in enumerate(zip(names, ours, theirs, limits, strict=True)):
            what = f"{problem} {options} {data_format} {view} {np.dtype(dtype)}: {name}"
            assert mine.dtype == dtype, f"{what}: dtype {mine.dtype}"
            tolerance.assert_close(mine, truth, limit, what)
            if single is not None:
                errors = tolerance.error_ratio(mine, truth, limit)
                score.ours += mean_square(errors)
                score.torch += mean_square(tolerance.error_ratio(single[i], truth, limit))
                score.worst = max(score.worst, float(errors.max(initial=0.0)))
    score.count += 1


def compare(family, count, seed, progress=False):
    """Compare ``count`` problems of a family and return its `Score`."""
    torch.set_num_threads(1)  # two pools of threads in one process hold each other up
    score = Score()
    for i in range(count):
        source = problems.Seeded([seed, i, sum(family.encode())])
        compare_one(source, FAMILIES[family][i % len(FAMILIES[family])], score)
        if progress and (i + 1) % 500 == 0:
            print(f"  {family}: {i + 1}", flush=True)
    return score


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=5000, help="problems a family (default: %(default)s)")
    parser.add_argument("--families", nargs="+", choices=tuple(FAMILIES), default=tuple(FAMILIES))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = False
    for family in arguments.families:
        score = compare(family, arguments.problems, arguments.seed, progress=True)
        ratio = score.ratio()
        failed |= ratio > 2
        print(
            f"{family:<15} {score.count:>6} problems agree; float32 error {ratio:.2f} times PyTorch's"
            f" (at most 2), at worst {score.worst:.2f} of its bound",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
