"""Calls for the fuzzer made from signatures: every function and every layer, with every argument that it names.

An argument's value is drawn by its name (`DRAW`), so that an argument of a new name fails `tests/test_fuzz.py` until it
is known here.  Values of one call fit each other more often than not; the fuzzer then damages some.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math

import fastconv.functional as F
import numpy as np
from fastconv import nn

FUNCTIONS = dict(inspect.getmembers(F, inspect.isfunction))
CONTAINERS = ("Concat", "Residual", "Sequential")
LAYERS = {
    name: layer
    for name, layer in inspect.getmembers(nn, inspect.isclass)
    if issubclass(layer, nn.Module) and name not in ("Module", *CONTAINERS)
}
LOSSES = {
    name: layer for name, layer in inspect.getmembers(nn, inspect.isclass) if name.endswith("Loss") and name != "Loss"
}
DTYPES = (np.float32, np.float64, np.float16)
if importlib.util.find_spec("ml_dtypes"):
    import ml_dtypes

    DTYPES = (*DTYPES, ml_dtypes.bfloat16)


class Scene:
    """Sizes that the arguments of one call share, and the draws of each by its name."""

    def __init__(self, source, name):
        self.source, self.name = source, name
        digit = next((int(c) for c in name if c in "123"), None)
        self.n = digit if digit else source.integer(1, 3)
        groups = source.choice((1, 1, 2, 3))
        self.groups = groups
        self.c, self.k = groups * source.integer(1, 5), groups * source.integer(1, 5)
        self.kernel = tuple(source.integer(1, 3) for _ in range(self.n))
        self.stride = source.integer(1, 3)
        self.dilation = source.choice((1, 1, 2))
        self.size = tuple(2 * k + source.integer(0, 6) for k in self.kernel)
        self.samples = source.integer(0, 3) if source.integer(0, 3) == 0 else 2
        self.last = bool(source.integer(0, 1))
        self.dtype = source.choice(DTYPES)
        self.batched = bool(source.integer(0, 4))
        self.multiplier = source.integer(1, 2)
        self.tracked = bool(source.integer(0, 3))

    def normal(self, shape):
        """Random values."""
        return self.source.rng.standard_normal(shape).astype(self.dtype)

    def image(self, channels, size):
        """An image, mostly in a batch, in the call's data format."""
        shape = (*size, channels) if self.last else (channels, *size)
        return self.normal((self.samples, *shape) if self.batched else shape)

    def x(self):
        """The input of the function."""
        if "linear" in self.name:
            return self.normal((self.samples, self.c))
        return self.image(self.c, self.size)

    def weight(self):
        """The weight of the function: of a convolution, a linear layer, a norm or a loss."""
        if "conv_transpose" in self.name:
            return self.normal((self.c, self.k // self.groups, *self.kernel))
        if "conv" in self.name:
            return self.normal((self.k, self.c // self.groups, *self.kernel))
        if "linear" in self.name:
            return self.normal((self.k, self.c))
        if "layer_norm" in self.name:
            return self.normal(self.normalized_shape())
        return self.normal((self.c,))

    def bias(self):
        """The bias that goes with the weight."""
        if "layer_norm" in self.name:
            return self.normal(self.normalized_shape())
        return self.normal((self.k if "conv" in self.name or "linear" in self.name else self.c,))

    def normalized_shape(self):
        """The shape that a layer norm normalises: all axes after the first."""
        return (*self.size, self.c) if self.last else (self.c, *self.size)

    def statistics(self):
        """Positive numbers, one a channel, as running statistics of the data's dtype or of float32."""
        array = np.abs(self.normal((self.c,)))
        return array.astype(np.float32) if array.itemsize == 2 and self.source.integer(0, 1) else array

    def target(self):
        """The target of a loss: values, class indices or probabilities."""
        if "cross_entropy" in self.name and "binary" not in self.name and self.source.integer(0, 1):
            shape = (self.samples, *self.size) if self.batched else self.size
            return self.source.rng.integers(0, self.c, shape)
        return np.abs(self.image(self.c, self.size))

    def indices(self):
        """Positions of an unpooling's result."""
        positions = max(
            1, math.prod(self.stride * (size - 1) + k for size, k in zip(self.size, self.kernel, strict=True))
        )
        return self.source.rng.integers(0, positions, self.image(self.c, self.size).shape)

    def padding(self):
        """Any form of padding."""
        low = min(k // 2 for k in self.kernel)
        pairs = tuple((self.source.integer(0, 2), self.source.integer(0, 2)) for _ in range(self.n))
        if "unpool" in self.name.lower():
            return self.source.choice((0, 0, 0, low, "valid", "same"))
        return self.source.choice((0, 0, low, low, pairs, "same", "valid", "full", "causal"))


def pick(*options):
    """A draw of one of the options."""
    return lambda scene: scene.source.choice(options)


def own(name):
    """A draw that is the scene's attribute or method of the name."""
    return lambda scene: getattr(scene, name)() if callable(getattr(scene, name)) else getattr(scene, name)


def maybe(draw):
    """A draw, or None."""
    return lambda scene: draw(scene) if scene.source.integer(0, 2) else None


def _layer(scene):
    return nn.Conv2d(scene.c, scene.k, 1)


_FLAG, _SIZE = pick(False, True), pick(1, 2, 3, (2,), (1, 2), (2, 1, 2), None)

DRAW = {
    **dict.fromkeys(("x", "y", "logits", "grad_output"), own("x")),
    "weight": own("weight"),
    "bias": own("bias"),
    **dict.fromkeys(("running_mean", "running_var"), lambda scene: scene.statistics() if scene.tracked else None),
    **dict.fromkeys(("mean", "invstd", "var"), own("statistics")),
    **dict.fromkeys(("mean_weight", "var_weight"), lambda scene: scene.normal((3,))),
    "pos_weight": maybe(lambda scene: np.abs(scene.normal((1,)))),
    "depthwise_weight": lambda scene: scene.normal((scene.c * scene.multiplier, 1, *scene.kernel)),
    "pointwise_weight": lambda scene: scene.normal((scene.k, scene.c * scene.multiplier, *(1,) * scene.n)),
    "target": own("target"),
    "indices": own("indices"),
    "mask": lambda scene: scene.x() > 0,
    "out": lambda scene: scene.image(scene.k, scene.size),
    "input_shape": lambda scene: scene.x().shape,
    "kernel_size": own("kernel"),
    "stride": own("stride"),
    "dilation": own("dilation"),
    "padding": own("padding"),
    "output_padding": pick(0, 0, 1, (1,)),
    "groups": own("groups"),
    "num_groups": own("groups"),
    "normalized_shape": own("normalized_shape"),
    "output_size": lambda scene: None if "unpool" in scene.name and scene.source.integer(0, 5) else _SIZE(scene),
    "norm_type": pick(1, 2, 3.0, 1.5, 0.5, 7),
    "axis": pick(0, 1, -1, 2),
    "momentum": pick(0.1, 0.0, 1.0, 0.5),
    "eps": pick(1e-5, 1e-3, 1.0, 0.0),
    "alpha": pick(1.0, 0.5, -1.0, 0.0),
    "negative_slope": pick(0.01, 0.0, -2.0),
    "p": pick(0.5, 0.0, 1.0, 0.1),
    "noise_shape": maybe(lambda scene: tuple(scene.source.choice((size, 1, None)) for size in scene.x().shape)),
    "seed": pick(None, 0, 1, 2**64 - 1),
    "ignore_index": pick(-100, 0, 1),
    "label_smoothing": pick(0.0, 0.1, 1.0),
    "reduction": pick("mean", "sum", "none"),
    "divisor_override": pick(None, None, 1, 5, -2),
    "activation": pick(None, "relu", "leaky_relu", "elu", "sigmoid", "tanh"),
    "precision": pick(None, "highest", "high", "medium"),
    "padding_mode": pick("zeros", "zeros", "reflect", "replicate", "circular"),
    "data_format": lambda scene: "channels_last" if scene.last else "channels_first",
    "output_mask": lambda scene: tuple(
        bool(scene.source.integer(0, 3)) for _ in range(5 if "switch" in scene.name else 3)
    ),
    **dict.fromkeys(
        [
            "ceil_mode",
            "count_include_pad",
            "return_indices",
            "return_stats",
            "training",
            "use_input_stats",
            "affine",
            "track_running_stats",
            "elementwise_affine",
            "align_corners",
        ],
        _FLAG,
    ),
    **dict.fromkeys(("in_channels", "num_features", "num_channels", "in_features"), own("c")),
    **dict.fromkeys(("out_channels", "out_features"), own("k")),
    "depth_multiplier": own("multiplier"),
    "start_dim": pick(1, 0, 2),
    "end_dim": pick(-1, 1, 2),
    "scale": pick(2.0, 0.5, 1),
    "offset": pick(0, -1.0),
    "size": maybe(_SIZE),
    "scale_factor": maybe(pick(2, 0.5, 1.7, (2.0, 1.0))),
    "mode": pick("nearest", "nearest-exact", "linear", "bilinear", "trilinear"),
    "dtype": lambda scene: scene.dtype,
    "rng": pick(None),
}
"""How each argument is drawn, by its name."""


@functools.cache
def arguments_of(function):
    """The names of a function's or a class's arguments, each with whether it may be left out."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default is not parameter.empty for parameter in parameters}


def draw(scene, names, layer=False):
    """Values of the named arguments; of a layer ``bias`` is a flag and ``weight`` left out."""
    values = {}
    for name in names:
        if layer and name in ("weight", "pos_weight"):
            continue
        values[name] = _FLAG(scene) if layer and name == "bias" else DRAW[name](scene)
    return values


def some(source, values):
    """The values without some of those that most calls leave at their defaults."""
    return {name: value for name, value in values.items() if name not in RARE or source.integer(0, 2) == 0}


RARE = (
    "out",
    "precision",
    "padding_mode",
    "activation",
    "divisor_override",
    "noise_shape",
    "output_mask",
    "label_smoothing",
)


class FunctionCall:
    """One call of a function, after its forward function where it is a backward one."""

    def __init__(self, source, damage):
        self.source, self.damage = source, damage
        self.name = source.choice(sorted(FUNCTIONS))
        self.scene = Scene(source, self.name)
        self.forward = FUNCTIONS.get(self.name.removesuffix("_backward"))
        names = {**arguments_of(FUNCTIONS[self.name]), **(arguments_of(self.forward) if self.forward else {})}
        self.values = draw(self.scene, names)
        wanted = some(source, self.values)
        self.values = {name: wanted.get(name) for name in names if name in wanted}

    def _take(self, function, values):
        names = arguments_of(function)
        taken = {name: values[name] for name in names if name in values}
        return taken | {
            name: self.values.get(name) for name, optional in names.items() if not (optional or name in taken)
        }

    def run(self):
        """The forward function, and where the call is of a backward one, that on what forward gave."""
        values = dict(self.values)
        if self.name.endswith("_backward") and self.forward is not None and self.source.integer(0, 5):
            first = values | {name: True for name in ("return_stats",) if name in arguments_of(self.forward)}
            if "return_indices" in arguments_of(self.forward):
                first["return_indices"] = True
            result = self.forward(**self._take(self.forward, first))
            results = result if isinstance(result, tuple) else (result,)
            values["grad_output"] = self.source.rng.standard_normal(np.shape(results[0])).astype(self.scene.dtype)
            if "input_shape" in values:
                values["input_shape"] = values["x"].shape
            rest = [
                name
                for name in ("indices", "mask", "mean", "invstd", "var")
                if name in arguments_of(FUNCTIONS[self.name])
            ]
            values |= dict(zip(rest, results[1:], strict=False))
            if "y" in values and "x" in arguments_of(self.forward):
                values["y"] = results[0]
        if "out" in values and self.source.integer(0, 3):
            plain = self.forward(**self._take(self.forward, values | {"out": None}))
            values["out"] = np.zeros(plain.shape, plain.dtype)
        values = {name: self.damage(name, value) for name, value in values.items()}
        return FUNCTIONS[self.name](**self._take(FUNCTIONS[self.name], values))

    def __str__(self):
        return f"F.{self.name}({show(self.values)}) n={self.scene.n}"


class LayerCall:
    """A layer or a loss made, called, differentiated, and its state saved and loaded."""

    def __init__(self, source, damage):
        self.source, self.damage = source, damage
        self.name = source.choice(sorted(LAYERS) + sorted(LOSSES))
        self.scene = Scene(source, {"Linear": "linear"}.get(self.name, self.name))
        made = LAYERS.get(self.name) or LOSSES[self.name]
        self.values = some(source, draw(self.scene, arguments_of(made), layer=True))

    def run(self):
        """Make, call, differentiate; state out and in."""
        values = {name: self.damage(name, value) for name, value in self.values.items()}
        x = self.damage("x", self.scene.x())
        if self.name in LOSSES:
            loss = LOSSES[self.name](**values)
            value = loss(x, self.damage("target", self.target()))
            loss.backward()
            return value
        layer = LAYERS[self.name](**values)
        kept = bool(self.source.integer(0, 5))
        if not kept or self.source.integer(0, 3) == 0:
            layer.eval(keep_for_backward=kept)
        inputs = (x, self.damage("indices", self.scene.indices())) if "Unpool" in self.name else (x,)
        y = layer(*inputs)
        output = y[0] if isinstance(y, tuple) else y
        gradient = self.source.rng.standard_normal(output.shape).astype(output.dtype)
        try:
            layer.backward(self.damage("grad_output", gradient))
        except RuntimeError:  # there is no forward to go back through
            if kept:
                raise
        state = layer.state_dict()
        layer.load_state_dict({name: self.damage("x", np.asarray(value)) for name, value in state.items()})
        return output

    def target(self):
        """A target for the loss."""
        self.scene.name = {"CrossEntropyLoss": "cross_entropy"}.get(self.name, self.name)
        return self.scene.target()

    def __str__(self):
        return f"nn.{self.name}({show(self.values)}) n={self.scene.n} c={self.scene.c} {np.dtype(self.scene.dtype)}"


def show(values):
    """Arguments in one line, of arrays their dtypes and shapes."""
    return ", ".join(
        f"{name}={value.dtype}{value.shape}" if isinstance(value, np.ndarray) else f"{name}={value!r}"
        for name, value in values.items()
    )
