"""The definitions of fastconv's operations, in float64 NumPy, written to be read and never optimised.

Every function takes channels-first arrays ``(N, C, *spatial)`` with any number of spatial axes, converts them to
float64 and returns float64.  ``stride``, ``dilation`` and ``kernel_size`` are tuples with one entry per spatial axis,
``pads`` is a tuple of ``(before, after)`` pairs.  Padding is never materialised: a tap that falls outside the input is
skipped, so that it contributes nothing even where the weight is infinite.
"""

from __future__ import annotations

import itertools

import numpy as np


def f64(*arrays):
    """The arrays in float64 (``None`` stays ``None``); a single array when one is given."""
    converted = tuple(None if a is None else np.asarray(a, dtype=np.float64) for a in arrays)
    return converted[0] if len(converted) == 1 else converted


# --- shape arithmetic ------------------------------------------------------------------------------------------------


def conv_output_size(size, kernel, stride, pads, dilation):
    """Spatial output size: ``floor((in + before + after - dilation*(kernel-1) - 1) / stride) + 1`` on each axis."""
    return tuple(
        (i + b + a - d * (k - 1) - 1) // s + 1
        for i, k, s, (b, a), d in zip(size, kernel, stride, pads, dilation, strict=True)
    )


def conv_transpose_output_size(size, kernel, stride, pads, dilation, output_padding):
    """Spatial size of the transposed convolution: ``(in-1)*stride - pads + dilation*(kernel-1) + extra + 1``."""
    return tuple(
        (i - 1) * s - b - a + d * (k - 1) + e + 1
        for i, k, s, (b, a), d, e in zip(size, kernel, stride, pads, dilation, output_padding, strict=True)
    )


def pool_output_size(size, kernel, stride, pads, dilation, ceil_mode=False):
    """As a convolution's; with ``ceil_mode`` rounded up, unless the last window would start in the right padding."""
    sizes = []
    for i, k, s, (b, a), d in zip(size, kernel, stride, pads, dilation, strict=True):
        span = i + b + a - d * (k - 1) - 1
        out = -(-span // s) + 1 if ceil_mode else span // s + 1
        if ceil_mode and (out - 1) * s >= i + b:
            out -= 1
        sizes.append(out)
    return tuple(sizes)


def resolve_padding(padding, size, kernel, stride, dilation):
    """Pairs ``(before, after)`` from every form of ``padding`` the API takes.

    ``"same"`` is Keras's: output ``ceil(in/stride)``, the odd pad at the end.
    """
    n = len(size)
    if padding == "valid":
        return ((0, 0),) * n
    if padding == "full":
        return tuple((d * (k - 1),) * 2 for k, d in zip(kernel, dilation, strict=True))
    if padding == "causal":
        return tuple((d * (k - 1), 0) for k, d in zip(kernel, dilation, strict=True))
    if padding == "same":
        pairs = []
        for i, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max((-(-i // s) - 1) * s + d * (k - 1) + 1 - i, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    if isinstance(padding, int):
        return ((padding, padding),) * n
    return tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)


def _live(size, out, stride, pads, dilation, tap):
    """The output positions for which ``tap`` falls inside the input, and the input positions it meets there.

    Two tuples of slices, or ``None`` when the tap meets the input nowhere.  On each axis output ``o`` meets input
    ``o*stride - before + tap*dilation``.
    """
    out_slices, in_slices = [], []
    for i, o, s, (b, _), d, t in zip(size, out, stride, pads, dilation, tap, strict=True):
        shift = t * d - b
        first = max(0, -(shift // s))  # ceil(-shift / s)
        last = min(o - 1, (i - 1 - shift) // s)
        if last < first:
            return None
        out_slices.append(slice(first, last + 1))
        in_slices.append(slice(first * s + shift, last * s + shift + 1, s))
    return tuple(out_slices), tuple(in_slices)


def _taps(kernel):
    return itertools.product(*(range(k) for k in kernel))


def _groups(a, axis, groups):
    """Split ``axis`` into ``(groups, axis/groups)``."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def _flat(a):
    """``(n, groups, channels, positions)``."""
    return a.reshape(*a.shape[:3], int(np.prod(a.shape[3:])))


def _contract(equation, *operands):
    """``einsum`` that multiplies zero by infinity as IEEE does, without a warning."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.einsum(equation, *operands)


# --- convolution -----------------------------------------------------------------------------------------------------


def conv(x, weight, bias=None, *, stride, pads, dilation, groups=1):
    """``y[n, k, o] = bias[k] + sum over c and taps t of weight[k, c, t] * x[n, c, o*stride - before + t*dilation]``."""
    x, weight, bias = f64(x, weight, bias)
    size, kernel = x.shape[2:], weight.shape[2:]
    out = conv_output_size(size, kernel, stride, pads, dilation)
    xg, wg = _groups(x, 1, groups), _groups(weight, 0, groups)
    y = np.zeros((x.shape[0], groups, weight.shape[0] // groups, *out))
    for tap in _taps(kernel):
        live = _live(size, out, stride, pads, dilation, tap)
        if live is not None:
            o, i = live
            with np.errstate(invalid="ignore"):
                y[..., *o] += _contract("ngc...,gkc->ngk...", xg[..., *i], wg[..., *tap])
    y = y.reshape(x.shape[0], weight.shape[0], *out)
    return y if bias is None else y + bias.reshape(1, -1, *(1,) * len(size))


def conv_backward_input(grad_output, input_shape, weight, *, stride, pads, dilation, groups=1):
    """``gx[n, c, i]``: every ``grad_output[n, k, o] * weight[k, c, t]`` that met input position ``i`` going forward."""
    grad_output, weight = f64(grad_output, weight)
    size, kernel, out = input_shape[2:], weight.shape[2:], grad_output.shape[2:]
    gy, wg = _groups(grad_output, 1, groups), _groups(weight, 0, groups)
    gx = np.zeros((input_shape[0], groups, input_shape[1] // groups, *size))
    for tap in _taps(kernel):
        live = _live(size, out, stride, pads, dilation, tap)
        if live is not None:
            o, i = live
            with np.errstate(invalid="ignore"):
                gx[..., *i] += _contract("ngk...,gkc->ngc...", gy[..., *o], wg[..., *tap])
    return gx.reshape(input_shape)


def conv_backward_weight(grad_output, x, weight_shape, *, stride, pads, dilation, groups=1):
    """``gw[k, c, t] = sum over n and o of grad_output[n, k, o] * x[n, c, o*stride - before + t*dilation]``."""
    grad_output, x = f64(grad_output, x)
    size, kernel, out = x.shape[2:], weight_shape[2:], grad_output.shape[2:]
    gy, xg = _groups(grad_output, 1, groups), _groups(x, 1, groups)
    gw = np.zeros((groups, weight_shape[0] // groups, weight_shape[1], *kernel))
    for tap in _taps(kernel):
        live = _live(size, out, stride, pads, dilation, tap)
        if live is not None:
            o, i = live
            flat_y = _flat(gy[..., *o])
            flat_x = _flat(xg[..., *i])
            gw[..., *tap] = _contract("ngkp,ngcp->gkc", flat_y, flat_x)
    return gw.reshape(weight_shape)


def conv_backward_bias(grad_output):
    """The sum over samples and positions of each output channel's gradient."""
    g = f64(grad_output)
    return g.sum(axis=(0, *range(2, g.ndim)))


def conv_transpose(x, weight, bias=None, *, stride, pads, output_padding, dilation, groups=1):
    """Scatter: every input ``x[n, c, i]`` adds ``x * weight[c, k, t]`` to output ``i*stride - before + t*dilation``."""
    x, weight, bias = f64(x, weight, bias)
    size, kernel = x.shape[2:], weight.shape[2:]
    out = conv_transpose_output_size(size, kernel, stride, pads, dilation, output_padding)
    xg, wg = _groups(x, 1, groups), _groups(weight, 0, groups)
    channels = groups * weight.shape[1]
    y = np.zeros((x.shape[0], groups, weight.shape[1], *out))
    for tap in _taps(kernel):
        live = _live(out, size, stride, pads, dilation, tap)
        if live is not None:
            i, o = live
            with np.errstate(invalid="ignore"):
                y[..., *o] += _contract("ngc...,gck->ngk...", xg[..., *i], wg[..., *tap])
    y = y.reshape(x.shape[0], channels, *out)
    return y if bias is None else y + bias.reshape(1, -1, *(1,) * len(size))


def conv_transpose_backward_input(grad_output, input_shape, weight, *, stride, pads, dilation, groups=1):
    """Gather what was scattered: ``gx[n, c, i] = sum of grad_output[n, k, i*stride - before + t*dilation] * w``."""
    grad_output, weight = f64(grad_output, weight)
    size, kernel, out = input_shape[2:], weight.shape[2:], grad_output.shape[2:]
    gy, wg = _groups(grad_output, 1, groups), _groups(weight, 0, groups)
    gx = np.zeros((input_shape[0], groups, input_shape[1] // groups, *size))
    for tap in _taps(kernel):
        live = _live(out, size, stride, pads, dilation, tap)
        if live is not None:
            i, o = live
            with np.errstate(invalid="ignore"):
                gx[..., *i] += _contract("ngk...,gck->ngc...", gy[..., *o], wg[..., *tap])
    return gx.reshape(input_shape)


def conv_transpose_backward_weight(grad_output, x, weight_shape, *, stride, pads, dilation, groups=1):
    """``gw[c, k, t] = sum over n and i of x[n, c, i] * grad_output[n, k, i*stride - before + t*dilation]``."""
    grad_output, x = f64(grad_output, x)
    size, kernel, out = x.shape[2:], weight_shape[2:], grad_output.shape[2:]
    gy, xg = _groups(grad_output, 1, groups), _groups(x, 1, groups)
    gw = np.zeros((groups, weight_shape[0] // groups, weight_shape[1], *kernel))
    for tap in _taps(kernel):
        live = _live(out, size, stride, pads, dilation, tap)
        if live is not None:
            i, o = live
            flat_x = _flat(xg[..., *i])
            flat_y = _flat(gy[..., *o])
            gw[..., *tap] = _contract("ngcp,ngkp->gck", flat_x, flat_y)
    return gw.reshape(weight_shape)


def separable_conv(x, depthwise, pointwise, bias=None, *, stride, pads, dilation):
    """A depthwise convolution (``groups`` = input channels), then a 1x1 convolution, which has the bias."""
    unit = (1,) * (np.ndim(x) - 2)
    none = ((0, 0),) * len(unit)
    middle = conv(x, depthwise, stride=stride, pads=pads, dilation=dilation, groups=x.shape[1])
    return conv(middle, pointwise, bias, stride=unit, pads=none, dilation=unit)


# --- pooling ---------------------------------------------------------------------------------------------------------


def _extreme_pool(x, kernel, stride, pads, dilation, ceil_mode, better):
    """``(y, indices)``: the best value of each window and where it lies, flat over the input's spatial positions.

    The taps are visited in order and a value replaces the best so far when it is strictly better or a NaN: the first
    of equal values wins, a NaN wins over numbers and the last NaN over earlier ones, as in PyTorch.
    """
    x = f64(x)
    size = x.shape[2:]
    out = pool_output_size(size, kernel, stride, pads, dilation, ceil_mode)
    positions = np.broadcast_to(np.arange(int(np.prod(size))).reshape(size), x.shape)
    y = np.zeros((*x.shape[:2], *out))
    indices = np.full(y.shape, -1, dtype=np.int64)
    for tap in _taps(kernel):
        live = _live(size, out, stride, pads, dilation, tap)
        if live is not None:
            o, i = live
            value, best, where = x[..., *i], y[..., *o], indices[..., *o]
            with np.errstate(invalid="ignore"):
                take = (where < 0) | better(value, best) | np.isnan(value)
            y[..., *o] = np.where(take, value, best)
            indices[..., *o] = np.where(take, positions[..., *i], where)
    return y, indices


def max_pool(x, kernel, *, stride, pads, dilation, ceil_mode=False):
    """The largest value of each window and its flat spatial index; padding never wins."""
    return _extreme_pool(x, kernel, stride, pads, dilation, ceil_mode, np.greater)


def min_pool(x, kernel, *, stride, pads, dilation, ceil_mode=False):
    """The smallest value of each window and its flat spatial index; padding never wins."""
    return _extreme_pool(x, kernel, stride, pads, dilation, ceil_mode, np.less)


def pool_backward_from_indices(grad_output, indices, input_shape):
    """Each output's gradient goes to the input that ``indices`` names; meetings add up."""
    g = f64(grad_output)
    gx = np.zeros((*input_shape[:2], int(np.prod(input_shape[2:]))))
    n, c = np.ogrid[: input_shape[0], : input_shape[1]]
    for o in itertools.product(*(range(s) for s in g.shape[2:])):
        np.add.at(gx, (n, c, indices[..., *o]), g[..., *o])
    return gx.reshape(input_shape)


def _avg_divisor(size, out, kernel, stride, pads, dilation, count_include_pad, divisor_override):
    """What each window's sum is divided by: its number of taps inside the input, or inside the padded input."""
    if divisor_override is not None:
        return np.full(out, float(divisor_override))
    count = np.zeros(out)
    for tap in _taps(kernel):
        if count_include_pad:  # the padded input is an input without padding, as far as counting goes
            padded = tuple(i + b + a for i, (b, a) in zip(size, pads, strict=True))
            live = _live(padded, out, stride, ((0, 0),) * len(size), dilation, tap)
        else:
            live = _live(size, out, stride, pads, dilation, tap)
        if live is not None:
            count[live[0]] += 1
    return np.maximum(count, 1)


def avg_pool(x, kernel, *, stride, pads, dilation=None, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The sum of each window's values inside the input over the divisor; padding adds zero."""
    x = f64(x)
    size = x.shape[2:]
    dilation = dilation or (1,) * len(size)
    out = pool_output_size(size, kernel, stride, pads, dilation, ceil_mode)
    y = np.zeros((*x.shape[:2], *out))
    for tap in _taps(kernel):
        live = _live(size, out, stride, pads, dilation, tap)
        if live is not None:
            o, i = live
            with np.errstate(invalid="ignore"):
                y[..., *o] += x[..., *i]
    return y / _avg_divisor(size, out, kernel, stride, pads, dilation, count_include_pad, divisor_override)


def avg_pool_backward(
    grad_output,
    input_shape,
    kernel,
    *,
    stride,
    pads,
    dilation=None,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """Each input receives ``grad_output / divisor`` from every window it lies in."""
    g = f64(grad_output)
    size, out = input_shape[2:], g.shape[2:]
    dilation = dilation or (1,) * len(size)
    g = g / _avg_divisor(size, out, kernel, stride, pads, dilation, count_include_pad, divisor_override)
    gx = np.zeros(input_shape)
    for tap in _taps(kernel):
        live = _live(size, out, stride, pads, dilation, tap)
        if live is not None:
            o, i = live
            gx[..., *i] += g[..., *o]
    return gx


def global_avg_pool(x):
    """The mean over the spatial positions: ``(N, C)``."""
    x = f64(x)
    return x.reshape(*x.shape[:2], -1).mean(axis=-1)


def global_avg_pool_backward(grad_output, input_shape):
    """Every position receives its channel's gradient over the number of positions."""
    g = f64(grad_output).reshape(*input_shape[:2], *(1,) * (len(input_shape) - 2))
    return np.broadcast_to(g / np.prod(input_shape[2:]), input_shape).copy()


def global_max_pool(x):
    """The maximum over the spatial positions, ``(N, C)``, and its flat index (the first of equals; a NaN wins)."""
    size = np.shape(x)[2:]
    n = len(size)
    y, indices = max_pool(x, size, stride=(1,) * n, pads=((0, 0),) * n, dilation=(1,) * n)
    return y.reshape(y.shape[:2]), indices.reshape(y.shape[:2])


def global_max_pool_backward(grad_output, indices, input_shape):
    """Each channel's gradient goes to the position of its maximum."""
    unit = (*input_shape[:2], *(1,) * (len(input_shape) - 2))
    return pool_backward_from_indices(f64(grad_output).reshape(unit), indices.reshape(unit), input_shape)


# --- linear ----------------------------------------------------------------------------------------------------------


def linear(x, weight, bias=None):
    """``y[..., o] = sum over i of x[..., i] * weight[o, i] + bias[o]``."""
    x, weight, bias = f64(x, weight, bias)
    y = _contract("...i,oi->...o", x, weight)
    return y if bias is None else y + bias


def linear_backward(grad_output, x, weight):
    """``(grad_input, grad_weight, grad_bias)``."""
    grad_output, x, weight = f64(grad_output, x, weight)
    g, rows = grad_output.reshape(-1, weight.shape[0]), x.reshape(-1, weight.shape[1])
    return _contract("...o,oi->...i", grad_output, weight), _contract("po,pi->oi", g, rows), g.sum(axis=0)


# --- activations -----------------------------------------------------------------------------------------------------


def relu(x):
    """``max(x, 0)``; a NaN stays."""
    x = f64(x)
    return np.where(x <= 0, 0.0, x)


def step(x):
    """1 where positive, else 0; NaN stays NaN."""
    return np.heaviside(f64(x), 0.0)


def relu_backward(grad_output, y):
    """The gradient passes where the output is positive (and, as in PyTorch, where it is a NaN)."""
    return np.where(f64(y) <= 0, 0.0, f64(grad_output))


def leaky_relu(x, negative_slope=0.01):
    """``x`` where positive, else ``negative_slope * x``."""
    x = f64(x)
    return np.where(x > 0, x, negative_slope * x)


def leaky_relu_backward(grad_output, x, negative_slope=0.01):
    """The gradient, times the slope where ``x`` is not positive."""
    g = f64(grad_output)
    return np.where(f64(x) > 0, g, negative_slope * g)


def elu(x, alpha=1.0):
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    x = f64(x)
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(grad_output, x, alpha=1.0):
    """The gradient, times ``alpha * exp(x)`` where ``x`` is not positive."""
    g, x = f64(grad_output, x)
    return np.where(x > 0, g, g * alpha * np.exp(np.minimum(x, 0)))


def sigmoid(x):
    """``1 / (1 + exp(-x))``, written so that neither tail overflows."""
    x = f64(x)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def sigmoid_backward(grad_output, y):
    """``grad_output * y * (1 - y)``."""
    g, y = f64(grad_output, y)
    return g * y * (1 - y)


def tanh(x):
    """The hyperbolic tangent."""
    return np.tanh(f64(x))


def tanh_backward(grad_output, y):
    """``grad_output * (1 - y**2)``."""
    g, y = f64(grad_output, y)
    return g * (1 - y * y)


def softmax(x, axis):
    """``exp(x) / sum(exp(x))`` along ``axis``, with the largest value subtracted first."""
    return np.exp(log_softmax(x, axis))


def softmax_backward(grad_output, y, axis):
    """``y * (g - sum(g * y))``."""
    g, y = f64(grad_output, y)
    return y * (g - (g * y).sum(axis=axis, keepdims=True))


def log_softmax(x, axis):
    """``x - max - log(sum(exp(x - max)))`` along ``axis``."""
    x = f64(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - x.max(axis=axis, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def log_softmax_backward(grad_output, y, axis):
    """``g - exp(y) * sum(g)``."""
    g, y = f64(grad_output, y)
    return g - np.exp(y) * g.sum(axis=axis, keepdims=True)


# --- losses ----------------------------------------------------------------------------------------------------------


def mse_loss(y, target, reduction="mean"):
    """The squared difference: per element, its sum or its mean."""
    loss = (f64(y) - f64(target)) ** 2
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


def mse_loss_backward(grad_output, y, target, reduction="mean"):
    """``2 * (y - target)`` times the loss's gradient, over the number of elements for ``"mean"``."""
    g, y, target = f64(grad_output, y, target)
    return g * 2 * (y - target) / (y.size if reduction == "mean" else 1)


def binary_cross_entropy_with_logits(y, target, weight=None, reduction="mean", pos_weight=None):
    """``w * ((1 - t) * softplus(y) + p * t * softplus(-y))``, and its reduction."""
    y, t, w, p = f64(y, target, 1.0 if weight is None else weight, 1.0 if pos_weight is None else pos_weight)
    loss = w * ((1 - t) * np.logaddexp(0, y) + p * t * np.logaddexp(0, -y))
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


def binary_cross_entropy_with_logits_backward(grad_output, y, target, weight=None, reduction="mean", pos_weight=None):
    """``w * ((1 - t) * sigmoid(y) - p * t * sigmoid(-y))`` times the loss's gradient."""
    g, y, t, w, p = f64(
        grad_output, y, target, 1.0 if weight is None else weight, 1.0 if pos_weight is None else pos_weight
    )
    return g * w * ((1 - t) * sigmoid(y) - p * t * sigmoid(-y)) / (y.size if reduction == "mean" else 1)


def _cross_entropy_parts(shape, target, weight, ignore_index, label_smoothing):
    """``(coefficients, counted)``: the loss of a position is ``-sum over c of coefficients[c] * log_softmax[c]``.

    ``counted`` is what each position adds to the mean's denominator: its class weight for class indices (0 where
    ignored), 1 for class probabilities.
    """
    classes = shape[1]
    weight = np.ones(classes) if weight is None else f64(weight)
    per_class = weight.reshape(1, -1, *(1,) * (len(shape) - 2))
    target = np.asarray(target)
    if target.shape == tuple(shape) and target.dtype.kind == "f":
        soft = f64(target) * (1 - label_smoothing) + label_smoothing / classes
        return soft * per_class, np.ones((shape[0], *shape[2:]))
    kept = target != ignore_index
    safe = np.where(kept, target, 0)
    one_hot = np.moveaxis(np.eye(classes)[safe], -1, 1) * kept[:, None]
    smooth = np.broadcast_to(kept[:, None] / classes, shape)
    soft = (1 - label_smoothing) * one_hot + label_smoothing * smooth
    return soft * per_class, weight[safe] * kept


def cross_entropy(logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Minus the weighted log-softmax (over axis 1) of the target; the mean is over the weights of the targets."""
    logits = f64(logits)
    coefficients, counted = _cross_entropy_parts(logits.shape, target, weight, ignore_index, label_smoothing)
    loss = -(coefficients * log_softmax(logits, 1)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / counted.sum()}[reduction]


def cross_entropy_backward(
    grad_output, logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """The gradient of ``-sum(coefficients * log_softmax)``: ``softmax * sum(coefficients) - coefficients``."""
    g, logits = f64(grad_output, logits)
    coefficients, counted = _cross_entropy_parts(logits.shape, target, weight, ignore_index, label_smoothing)
    g = g[:, None] if reduction == "none" else g
    gx = g * (softmax(logits, 1) * coefficients.sum(axis=1, keepdims=True) - coefficients)
    return gx / counted.sum() if reduction == "mean" else gx
