"""Every layer with PyTorch's equal and an input: the cases that the tests of layers share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastconv import nn


class Case(NamedTuple):
    """A layer, PyTorch's equal and the shape of an input, channels first."""

    name: str
    ours: object
    theirs: object
    shape: tuple[int, ...]


class TorchSeparable(torch.nn.Module):
    """The textbook composition, with the parameter names of our layer."""

    def __init__(self, n, c_in, c_out, kernel, stride=1, padding=0, dilation=1, multiplier=1, bias=True):
        super().__init__()
        conv = getattr(torch.nn, f"Conv{n}d")
        self.n, self.geometry = n, (stride, padding, dilation, c_in)
        self.depthwise_weight = conv(c_in, c_in * multiplier, kernel, groups=c_in).weight
        self.pointwise_weight = conv(c_in * multiplier, c_out, 1).weight
        self.bias = torch.nn.Parameter(torch.randn(c_out)) if bias else None

    def forward(self, x):
        conv = getattr(torch.nn.functional, f"conv{self.n}d")
        return conv(conv(x, self.depthwise_weight, None, *self.geometry), self.pointwise_weight, self.bias)


class TorchMinPool(torch.nn.Module):
    """PyTorch has no min pool; by definition it is this."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return -self.pool(-x)


class TorchRMSPool(torch.nn.Module):
    """PyTorch has no root mean square; by definition it is this."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return self.pool(x * x).sqrt()


class TorchResidual(torch.nn.Module):
    def __init__(self, branch, shortcut=None):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x):
        return self.branch(x) + (x if self.shortcut is None else self.shortcut(x))


class TorchConcat(torch.nn.Sequential):
    def forward(self, x):
        return torch.cat([branch(x) for branch in self], 1)


class TorchSwitchNorm(torch.nn.Module):
    """PyTorch has no switchable norm; by its definition (Luo and others, 2018) it is this."""

    def __init__(self, channels, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = torch.nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = torch.nn.Parameter(torch.zeros(channels)) if affine else None
        self.mean_weight, self.var_weight = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
        self.register_buffer("running_mean", torch.zeros(channels) if track_running_stats else None)
        self.register_buffer("running_var", torch.ones(channels) if track_running_stats else None)

    def forward(self, x):
        positions = tuple(range(2, x.ndim))
        axes = (positions, (1, *positions), (0, *positions))
        means = [x.mean(a, keepdim=True) for a in axes]
        variances = [x.var(a, unbiased=False, keepdim=True) for a in axes]
        spread = means[2].shape
        if self.running_mean is not None and self.training:
            unbiased = x.var(axes[2])
            self.running_mean.lerp_(means[2].detach().flatten(), self.momentum)
            self.running_var.lerp_(unbiased.detach(), self.momentum)
        elif self.running_mean is not None:
            means[2], variances[2] = self.running_mean.reshape(spread), self.running_var.reshape(spread)
        shares = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        mean, var = (
            sum(share * each for share, each in zip(kind, statistics, strict=True))
            for kind, statistics in zip(shares, (means, variances), strict=True)
        )
        y = (x - mean) / (var + self.eps).sqrt()
        return y if self.weight is None else y * self.weight.reshape(spread) + self.bias.reshape(spread)


SPATIAL = {1: (9,), 2: (8, 7), 3: (5, 6, 4)}


def _cases():
    t = torch.nn
    for n, spatial in SPATIAL.items():
        shape = (3, 4, *spatial)
        for arguments, keywords in (
            ((4, 6, 3), {}),
            ((4, 6, 3), {"stride": 2, "padding": 1, "groups": 2, "bias": False}),
            ((4, 4, (2,) * n), {"padding": (2,) * n, "dilation": 2, "groups": 4}),
        ):
            for kind in ("Conv", "ConvTranspose"):
                ours, theirs = getattr(nn, f"{kind}{n}d"), getattr(t, f"{kind}{n}d")
                yield Case(
                    f"{kind}{n}d-{arguments}-{keywords}",
                    lambda o=ours, a=arguments, k=keywords, **kw: o(*a, **k, **kw),
                    lambda o=theirs, a=arguments, k=keywords: o(*a, **k),
                    shape,
                )
        yield Case(
            f"ConvTranspose{n}d-output_padding",
            lambda n=n, **kw: getattr(nn, f"ConvTranspose{n}d")(4, 2, 3, stride=3, output_padding=2, **kw),
            lambda n=n: getattr(t, f"ConvTranspose{n}d")(4, 2, 3, stride=3, output_padding=2),
            shape,
        )
        for keywords in ({}, {"stride": 2, "padding": 1, "bias": False, "multiplier": 3}):
            renamed = {("depth_multiplier" if k == "multiplier" else k): v for k, v in keywords.items()}
            yield Case(
                f"SeparableConv{n}d-{keywords}",
                lambda n=n, k=renamed, **kw: getattr(nn, f"SeparableConv{n}d")(4, 5, 3, **k, **kw),
                lambda n=n, k=keywords: TorchSeparable(n, 4, 5, 3, **k),
                shape,
            )
        for keywords in ({}, {"stride": 2, "padding": 1}, {"stride": (2,) * n, "ceil_mode": True}):
            for kind in ("Max", "Min", "Avg"):
                reference = getattr(t, f"{'Max' if kind == 'Min' else kind}Pool{n}d")
                for suffix in ("", f"{n}d"):
                    ours = getattr(nn, f"{kind}Pool{suffix}")
                    yield Case(
                        f"{kind}Pool{suffix}-{n}-{keywords}",
                        lambda o=ours, k=keywords, dtype=None, **kw: o(3, **k, **kw),
                        lambda r=reference, k=keywords, m=kind: TorchMinPool(r(3, **k)) if m == "Min" else r(3, **k),
                        shape,
                    )
        yield Case(
            f"MaxPool-dilation-{n}",
            lambda dtype=None, **kw: nn.MaxPool(2, stride=1, dilation=2, **kw),
            lambda n=n: getattr(t, f"MaxPool{n}d")(2, stride=1, dilation=2),
            shape,
        )
        yield Case(
            f"AvgPool-count-{n}",
            lambda dtype=None, **kw: nn.AvgPool(3, 2, 1, count_include_pad=False, **kw),
            lambda n=n: getattr(t, f"AvgPool{n}d")(3, 2, 1, count_include_pad=False),
            shape,
        )
        for p, keywords in ((2, {}), (3, {"stride": 2}), (1.5, {"stride": 2, "ceil_mode": True})):
            for suffix in ("", f"{n}d"):
                yield Case(
                    f"LPPool{suffix}-{n}-{p}-{keywords}",
                    lambda s=suffix, p=p, k=keywords, dtype=None, **kw: nn.Sequential(
                        nn.Sigmoid(), getattr(nn, f"LPPool{s}")(p, 3, **k, **kw)
                    ),
                    lambda n=n, p=p, k=keywords: t.Sequential(t.Sigmoid(), getattr(t, f"LPPool{n}d")(p, 3, **k)),
                    shape,
                )
        for suffix in ("", f"{n}d"):
            yield Case(
                f"RMSPool{suffix}-{n}",
                lambda s=suffix, dtype=None, **kw: getattr(nn, f"RMSPool{s}")(3, 2, 1, **kw),
                lambda n=n: TorchRMSPool(getattr(t, f"AvgPool{n}d")(3, 2, 1)),
                shape,
            )
            for kind in ("Avg", "Max"):
                for size in (3, (2,) * n, (None,) * n if n > 1 else 4):
                    yield Case(
                        f"Adaptive{kind}Pool{suffix}-{n}-{size}",
                        lambda s=suffix, o=size, m=kind, dtype=None, **kw: getattr(nn, f"Adaptive{m}Pool{s}")(o, **kw),
                        lambda n=n, o=size, m=kind: getattr(t, f"Adaptive{m}Pool{n}d")(o),
                        shape,
                    )
        yield Case(
            f"GlobalAvgPool-{n}",
            lambda dtype=None, **kw: nn.GlobalAvgPool(**kw),
            lambda n=n: t.Sequential(getattr(t, f"AdaptiveAvgPool{n}d")(1), t.Flatten()),
            shape,
        )
        yield Case(
            f"GlobalMaxPool-{n}",
            lambda dtype=None, **kw: nn.GlobalMaxPool(**kw),
            lambda n=n: t.Sequential(getattr(t, f"AdaptiveMaxPool{n}d")(1), t.Flatten()),
            shape,
        )
        for keywords in ({}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.1}):
            yield Case(
                f"BatchNorm{n}d-{keywords}",
                lambda n=n, k=keywords, **kw: getattr(nn, f"BatchNorm{n}d")(4, **k, **kw),
                lambda n=n, k=keywords: getattr(t, f"BatchNorm{n}d")(4, **k),
                shape,
            )
        for keywords in (
            {},
            {"affine": True, "eps": 0.1},
            {"affine": True, "track_running_stats": True, "momentum": 0.3},
        ):
            yield Case(
                f"InstanceNorm{n}d-{keywords}",
                lambda n=n, k=keywords, **kw: getattr(nn, f"InstanceNorm{n}d")(4, **k, **kw),
                lambda n=n, k=keywords: getattr(t, f"InstanceNorm{n}d")(4, **k),
                shape,
            )
        for keywords in ({}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.1, "momentum": 0.3}):
            yield Case(
                f"SwitchNorm{n}d-{keywords}",
                lambda n=n, k=keywords, **kw: getattr(nn, f"SwitchNorm{n}d")(4, **k, **kw),
                lambda k=keywords: TorchSwitchNorm(4, **k),
                shape,
            )
        for arguments, keywords in (((2, 4), {}), ((4, 4), {"eps": 0.1}), ((1, 4), {"affine": False})):
            yield Case(
                f"GroupNorm-{n}-{arguments}-{keywords}",
                lambda a=arguments, k=keywords, **kw: nn.GroupNorm(*a, **k, **kw),
                lambda a=arguments, k=keywords: t.GroupNorm(*a, **k),
                shape,
            )
        yield Case(f"Flatten-{n}", lambda dtype=None, **kw: nn.Flatten(**kw), t.Flatten, shape)
    for name, arguments in (
        ("ReLU", ()), ("LeakyReLU", ()), ("LeakyReLU", (0.2,)), ("ELU", ()), ("ELU", (0.5,)), ("Sigmoid", ()),
        ("Tanh", ()),
    ):  # fmt: skip
        yield Case(
            f"{name}{arguments}",
            lambda o=name, a=arguments, dtype=None, **kw: getattr(nn, o)(*a, **kw),
            lambda o=name, a=arguments: getattr(t, o)(*a),
            (3, 4, 5, 6),
        )
    for name in ("Softmax", "LogSoftmax"):
        yield Case(
            name,
            lambda o=name, dtype=None, **kw: getattr(nn, o)(**kw),
            lambda o=name: getattr(t, o)(1),
            (3, 4, 5, 6),
        )
    yield Case("BatchNorm1d-2axes", lambda **kw: nn.BatchNorm1d(4, **kw), lambda: t.BatchNorm1d(4), (7, 4))
    yield Case("GroupNorm-2axes", lambda **kw: nn.GroupNorm(2, 4, **kw), lambda: t.GroupNorm(2, 4), (7, 4))
    for keywords in ({}, {"elementwise_affine": False}, {"bias": False, "eps": 0.1}):
        yield Case(
            f"LayerNorm-{keywords}",
            lambda k=keywords, **kw: nn.LayerNorm(4, **k, **kw),
            lambda k=keywords: t.LayerNorm(4, **k),
            (7, 4),
        )
    yield Case("Linear", lambda **kw: nn.Linear(4, 6, **kw), lambda: t.Linear(4, 6), (7, 4))
    yield Case(
        "Linear-bias", lambda **kw: nn.Linear(4, 6, bias=False, **kw), lambda: t.Linear(4, 6, bias=False), (7, 4)
    )
    yield Case(
        "Residual",
        lambda **kw: nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, **kw), nn.BatchNorm2d(4, **kw))),
        lambda: TorchResidual(t.Sequential(t.Conv2d(4, 4, 3, padding=1), t.BatchNorm2d(4))),
        (3, 4, 5, 6),
    )
    yield Case(
        "Residual-shortcut",
        lambda **kw: nn.Residual(nn.Conv2d(4, 6, 3, stride=2, padding=1, **kw), nn.Conv2d(4, 6, 1, stride=2, **kw)),
        lambda: TorchResidual(t.Conv2d(4, 6, 3, stride=2, padding=1), t.Conv2d(4, 6, 1, stride=2)),
        (3, 4, 5, 6),
    )
    yield Case(
        "Concat",
        lambda **kw: nn.Concat(
            nn.Conv2d(4, 2, 1, **kw), nn.Conv2d(4, 3, 3, padding=1, **kw), nn.Conv2d(4, 1, 1, **kw),
            data_format=kw.get("data_format", "channels_first"),
        ),
        lambda: TorchConcat(t.Conv2d(4, 2, 1), t.Conv2d(4, 3, 3, padding=1), t.Conv2d(4, 1, 1)),
        (3, 4, 5, 6),
    )  # fmt: skip


def _upsample_cases():
    """Sizes that grow and shrink, whole and fractional factors; one number for all axes or one for each."""
    for n, spatial in SPATIAL.items():
        for keywords in (
            {"scale_factor": 2},
            {"scale_factor": 3.0, "mode": "nearest-exact"},
            {"scale_factor": (2.5, 0.5, 1.0)[:n], "mode": "nearest"},
            {"size": (7, 16, 3)[:n]},
            {"size": 5, "mode": "nearest-exact"},
            *(
                {"mode": ("linear", "bilinear", "trilinear")[n - 1], "align_corners": align, **target}
                for align in (None, False, True)
                for target in ({"scale_factor": 2}, {"scale_factor": (1.7, 0.6, 3.0)[:n]}, {"size": (1, 11, 4)[:n]})
            ),
        ):
            yield Case(
                f"Upsample-{n}-{keywords}",
                lambda k=keywords, dtype=None, **kw: nn.Upsample(**k, **kw),
                lambda k=keywords: torch.nn.Upsample(**k),
                (3, 4, *spatial),
            )


CASES = [*_cases(), *_upsample_cases()]
