"""Problem lines: one text form for a problem, read by the tests, the fuzzer and the benchmarks.

A line names a problem and gives its fields::

    conv2_x: n=8 c=64 k=64 in=56x56 kernel=3x3 stride=1 pad=1 dilation=1 groups=1
    stem_pool: op=max_pool n=8 c=64 in=112x112 kernel=3x3 stride=2 pad=1

``op`` is ``conv`` unless the line says otherwise.  ``in`` fixes the number of spatial axes; the other sizes are one
integer for all axes or one per axis joined by ``x``.  ``pad`` is such a size, pairs ``before:after`` joined by ``x``,
``same`` or ``valid``.  An adaptive pool has the sizes ``out``, and ``lp_pool`` the power ``norm``.  ``#`` starts a
comment.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

Padding = str | tuple[tuple[int, int], ...]

CONVOLUTIONS = ("conv", "conv_transpose", "separable_conv")
WINDOW_POOLS = ("max_pool", "min_pool", "avg_pool", "rms_pool", "lp_pool")
ADAPTIVE_POOLS = ("adaptive_avg_pool", "adaptive_max_pool")
GLOBAL_POOLS = ("global_avg_pool", "global_max_pool")
NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "switch_norm")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "step")
SOFTMAXES = ("softmax", "log_softmax")
LOSSES = ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits")
OPS = (
    *CONVOLUTIONS,
    *WINDOW_POOLS,
    *ADAPTIVE_POOLS,
    *GLOBAL_POOLS,
    "max_unpool",
    *NORMS,
    "linear",
    *ACTIVATIONS,
    *SOFTMAXES,
    "dropout",
    *LOSSES,
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """The shapes and the options of one call.

    ``n`` samples of ``c`` channels on ``size`` spatial positions; ``k`` output channels (``linear``: output features).
    ``separable_conv`` has ``c * multiplier`` channels between its two convolutions; ``output`` is the spatial size of
    an adaptive pool's output.
    """

    name: str
    op: str
    n: int
    c: int
    size: tuple[int, ...] = ()
    k: int = 0
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: Padding = "valid"
    dilation: tuple[int, ...] = ()
    groups: int = 1
    output_padding: tuple[int, ...] = ()
    multiplier: int = 1
    ceil_mode: bool = False
    norm: float = 2.0
    output: tuple[int, ...] = ()

    @property
    def spatial(self) -> int:
        """The number of spatial axes."""
        return len(self.size)

    @property
    def windowed(self) -> bool:
        """Whether the op slides a window: it then has a kernel, a stride and a padding."""
        return self.op in (*CONVOLUTIONS, *WINDOW_POOLS, "max_unpool")

    @property
    def function(self) -> str:
        """The name of the function in ``fastconv.functional``."""
        return f"{self.op}{self.spatial}d" if self.windowed or self.op in ADAPTIVE_POOLS else self.op

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of the input, channels first."""
        return (self.n, self.c, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the weight (``separable_conv``: of the depthwise one)."""
        if self.op == "conv":
            return (self.k, self.c // self.groups, *self.kernel)
        if self.op == "conv_transpose":
            return (self.c, self.k // self.groups, *self.kernel)
        if self.op == "separable_conv":
            return (self.c * self.multiplier, 1, *self.kernel)
        if self.op == "linear":
            return (self.k, self.c)
        raise ValueError(f"op {self.op!r} has no weight")

    @property
    def pointwise_shape(self) -> tuple[int, ...]:
        """The shape of ``separable_conv``'s second weight."""
        return (self.k, self.c * self.multiplier, *(1,) * self.spatial)

    def flops(self, output_size: tuple[int, ...]) -> float:
        """Multiplications and additions of a pass that makes ``output_size`` positions; 0 where memory is the limit."""
        taps = math.prod(self.kernel)
        if self.op == "conv":
            return 2.0 * self.n * self.k * math.prod(output_size) * (self.c // self.groups) * taps
        if self.op == "conv_transpose":
            return 2.0 * self.n * self.c * math.prod(self.size) * (self.k // self.groups) * taps
        if self.op == "separable_conv":
            middle = self.c * self.multiplier
            return 2.0 * self.n * math.prod(output_size) * middle * (taps + self.k)
        if self.op == "linear":
            return 2.0 * self.n * math.prod(self.size) * self.c * self.k
        return 0.0

    def __str__(self) -> str:
        fields = [f"op={self.op}", f"n={self.n}", f"c={self.c}"]
        if self.k:
            fields.append(f"k={self.k}")
        if self.size:
            fields.append(f"in={_join(self.size)}")
        if self.windowed:
            pad = self.padding if isinstance(self.padding, str) else "x".join(f"{b}:{a}" for b, a in self.padding)
            fields += [f"kernel={_join(self.kernel)}", f"stride={_join(self.stride)}", f"pad={pad}"]
            fields.append(f"dilation={_join(self.dilation)}")
        if self.output:
            fields.append(f"out={_join(self.output)}")
        if self.op == "lp_pool":
            fields.append(f"norm={self.norm!r}")
        if self.groups != 1:
            fields.append(f"groups={self.groups}")
        if any(self.output_padding):
            fields.append(f"output_padding={_join(self.output_padding)}")
        if self.op == "separable_conv":
            fields.append(f"multiplier={self.multiplier}")
        if self.ceil_mode:
            fields.append("ceil_mode=1")
        return f"{self.name}: {' '.join(fields)}"


_FIELDS = {
    *("op", "n", "c", "k", "in", "kernel", "stride", "pad", "dilation", "groups"),
    *("output_padding", "multiplier", "ceil_mode", "norm", "out"),
}


def _join(sizes: Iterable[int]) -> str:
    return "x".join(str(s) for s in sizes)


def _integers(text: str, field: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError:
        raise ValueError(f"{field}={text} is not integers joined by 'x'") from None


def _sizes(text: str, axes: int, field: str) -> tuple[int, ...]:
    parts = _integers(text, field)
    if len(parts) == 1:
        parts *= axes
    if len(parts) != axes:
        raise ValueError(f"{field}={text} has {len(parts)} sizes; in= has {axes} spatial axes")
    return parts


def _padding(text: str, axes: int) -> Padding:
    if text in ("same", "valid"):
        return text
    pairs = []
    for part in text.split("x"):
        before, _, after = part.partition(":")
        pairs.append((int(before), int(after or before)))
    if len(pairs) == 1:
        pairs *= axes
    if len(pairs) != axes:
        raise ValueError(f"pad={text} has {len(pairs)} entries; in= has {axes} spatial axes")
    return tuple(pairs)


def parse_problem(line: str) -> Problem:
    """Read one problem line.

    Raises
    ------
    ValueError
        When the line has no name, an unknown field or op, a size that is not an integer, or a missing field.
    """
    name, colon, rest = line.partition(":")
    if not colon or "=" in name:
        raise ValueError(f"problem line {line!r} does not start with a name and a colon")
    fields: dict[str, str] = {}
    for item in rest.split():
        key, equals, value = item.partition("=")
        if not equals or key not in _FIELDS or key in fields:
            raise ValueError(
                f"problem {name.strip()!r}: {item!r} is not one of {sorted(_FIELDS)} given once as field=value"
            )
        fields[key] = value
    op = fields.get("op", "conv")
    if op not in OPS:
        raise ValueError(f"problem {name.strip()!r}: op={op} is not one of {', '.join(OPS)}")
    try:
        return _build(name.strip(), op, fields)
    except KeyError as missing:
        raise ValueError(f"problem {name.strip()!r}: op={op} needs the field {missing.args[0]}=") from None
    except ValueError as error:
        raise ValueError(f"problem {name.strip()!r}: {error}") from None


def _build(name: str, op: str, fields: dict[str, str]) -> Problem:
    size = _integers(fields["in"], "in") if "in" in fields else ()
    axes = len(size)
    options: dict[str, Any] = {"name": name, "op": op, "n": int(fields["n"]), "c": int(fields["c"]), "size": size}
    if op in CONVOLUTIONS or op == "linear":
        options["k"] = int(fields["k"])
    if op in (*CONVOLUTIONS, *WINDOW_POOLS, *ADAPTIVE_POOLS, "max_unpool") and not size:
        raise KeyError("in")
    if op in ADAPTIVE_POOLS:
        options["output"] = _sizes(fields["out"], axes, "out")
    if op in (*CONVOLUTIONS, *WINDOW_POOLS, "max_unpool"):
        options["kernel"] = _sizes(fields["kernel"], axes, "kernel")
        options["stride"] = _sizes(fields.get("stride", "1"), axes, "stride")
        options["dilation"] = _sizes(fields.get("dilation", "1"), axes, "dilation")
        options["padding"] = _padding(fields.get("pad", "0"), axes)
        options["ceil_mode"] = fields.get("ceil_mode", "0") == "1"
    if op == "lp_pool":
        options["norm"] = float(fields.get("norm", "2"))
    if op in CONVOLUTIONS or op == "group_norm":
        options["groups"] = int(fields.get("groups", "1"))
    if op in CONVOLUTIONS:
        options["multiplier"] = int(fields.get("multiplier", "1"))
    if op == "conv_transpose":
        options["output_padding"] = _sizes(fields.get("output_padding", "0"), axes, "output_padding")
    return Problem(**options)


def parse_problems(text: str) -> list[Problem]:
    """Read every problem line of a text; blank lines and comments are skipped."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [parse_problem(line) for line in lines if line]
