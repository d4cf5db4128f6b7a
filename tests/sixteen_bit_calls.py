"""Calls of every op on arrays of any dtype, for the tests of float16 and bfloat16."""

import fastconv.functional as F
import numpy as np

LAST = {"data_format": "channels_last"}

# A call on arrays of any dtype; a list of the shapes of its arrays.
CALLS = {
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1), [(2, 4, 33), (7, 4, 3), (7,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [(2, 4, 9, 19), (35, 4, 3, 3), (35,)]),
    "conv2d last": (lambda x, w, b: F.conv2d(x, w, b, 2, 1, **LAST), [(2, 9, 19, 4), (35, 4, 3, 3), (35,)]),
    "conv2d 1x1": (lambda x, w: F.conv2d(x, w), [(2, 40, 9, 9), (17, 40, 1, 1)]),
    "conv2d grouped": (lambda x, w: F.conv2d(x, w, groups=2), [(2, 8, 9, 9), (10, 4, 3, 3)]),
    "conv2d depthwise": (lambda x, w: F.conv2d(x, w, groups=40), [(2, 40, 9, 9), (40, 1, 3, 3)]),
    "conv2d depthwise wide": (lambda x, w: F.conv2d(x, w, padding=1, groups=9), [(2, 9, 9, 39), (18, 1, 3, 3)]),
    "conv2d depthwise last": (lambda x, w: F.conv2d(x, w, groups=40, **LAST), [(2, 9, 9, 40), (40, 1, 3, 3)]),
    "conv2d depthwise relu": (
        lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 37, activation="relu", **LAST),
        [(2, 9, 9, 37), (37, 1, 3, 3), (37,)],
    ),
    "conv2d elu": (lambda x, w, b: F.conv2d(x, w, b, activation="elu"), [(2, 4, 9, 9), (5, 4, 3, 3), (5,)]),
    "conv2d circular": (
        lambda x, w: F.conv2d(x, w, padding=2, padding_mode="circular"),
        [(2, 4, 9, 9), (5, 4, 3, 3)],
    ),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=1), [(2, 3, 5, 6, 7), (4, 3, 3, 3, 3)]),
    "conv2d_backward": (
        lambda g, x, w: F.conv2d_backward(g, x, w, padding=1),
        [(2, 35, 9, 19), (2, 4, 9, 19), (35, 4, 3, 3)],
    ),
    "conv2d_backward last": (
        lambda g, x, w: F.conv2d_backward(g, x, w, 2, 1, **LAST),
        [(2, 5, 10, 35), (2, 9, 19, 4), (35, 4, 3, 3)],
    ),
    "conv2d_backward depthwise": (
        lambda g, x, w: F.conv2d_backward(g, x, w, 1, 1, groups=33),
        [(2, 33, 9, 9), (2, 33, 9, 9), (33, 1, 3, 3)],
    ),
    "conv2d_backward depthwise last": (
        lambda g, x, w: F.conv2d_backward(g, x, w, 2, 1, groups=33, **LAST),
        [(2, 5, 5, 33), (2, 9, 9, 33), (33, 1, 3, 3)],
    ),
    "conv2d_backward reflect": (
        lambda g, x, w: F.conv2d_backward(g, x, w, padding=1, padding_mode="reflect"),
        [(2, 5, 9, 9), (2, 4, 9, 9), (5, 4, 3, 3)],
    ),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1),
        [(2, 4, 5, 6), (4, 9, 3, 3), (9,)],
    ),
    "conv_transpose2d_backward": (
        lambda g, x, w: F.conv_transpose2d_backward(g, x, w, 2, 1, 1),
        [(2, 9, 10, 12), (2, 4, 5, 6), (4, 9, 3, 3)],
    ),
    "separable_conv2d": (
        lambda x, d, p, b: F.separable_conv2d(x, d, p, b, padding=1),
        [(2, 4, 9, 9), (8, 1, 3, 3), (5, 8, 1, 1), (5,)],
    ),
    "separable_conv2d_backward": (
        lambda g, x, d, p: F.separable_conv2d_backward(g, x, d, p, padding=1),
        [(2, 5, 9, 9), (2, 4, 9, 9), (8, 1, 3, 3), (5, 8, 1, 1)],
    ),
    "softmax": (lambda x: F.softmax(x, 1), [(5, 33, 7)]),
    "softmax rows": (lambda x: F.softmax(x, -1), [(5, 33)]),
    "softmax view": (lambda x: F.softmax(x[:, ::2, ::-1], 2), [(5, 33, 9)]),
    "log_softmax": (lambda x: F.log_softmax(x, 1), [(5, 33, 300)]),
    "softmax_backward": (lambda g, y: F.softmax_backward(g, y, 1), [(5, 33, 7), (5, 33, 7)]),
    "log_softmax_backward": (lambda g, y: F.log_softmax_backward(g, y, 1), [(5, 33), (5, 33)]),
    "dropout": (lambda x: F.dropout(x, 0.3, seed=5)[0], [(3, 1500)]),
    "dropout_backward": (lambda g: F.dropout_backward(g, np.arange(1500) % 3 > 0, 0.3), [(1500,)]),
    "mse_loss": (lambda y, t: np.asarray(F.mse_loss(y, t)), [(33, 41), (33, 41)]),
    "mse_loss each": (lambda y, t: F.mse_loss(y, t, "none"), [(33, 41), (33, 41)]),
    "mse_loss_backward": (lambda y, t: F.mse_loss_backward(1.5, y, t), [(33, 41), (33, 41)]),
    "mse_loss_backward each": (lambda g, y, t: F.mse_loss_backward(g, y, t, "none"), [(5, 41), (5, 41), (5, 41)]),
    "binary": (
        lambda y, t, w: F.binary_cross_entropy_with_logits(y, t, w, "none"),
        [(33, 41), (33, 41), (41,)],
    ),
    "binary mean": (lambda y, t: np.asarray(F.binary_cross_entropy_with_logits(y, t)), [(33, 41), (33, 41)]),
    "binary backward": (
        lambda g, y, t: F.binary_cross_entropy_with_logits_backward(g, y, t, reduction="none"),
        [(33, 41), (33, 41), (33, 41)],
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, np.arange(33) % 10, reduction="none"), [(33, 10)]),
    "cross_entropy mean": (lambda x, w: np.asarray(F.cross_entropy(x, np.arange(33) % 10, w)), [(33, 10), (10,)]),
    "cross_entropy probabilities": (
        lambda x, t: F.cross_entropy(x, t, reduction="none", label_smoothing=0.1),
        [(3, 10, 37), (3, 10, 37)],
    ),
    "cross_entropy_backward": (
        lambda x: F.cross_entropy_backward(0.5, x, np.arange(3 * 37).reshape(3, 37) % 10),
        [(3, 10, 37)],
    ),
    "cross_entropy_backward probabilities": (
        lambda g, x, t: F.cross_entropy_backward(g, x, t, reduction="none"),
        [(3,), (3, 10), (3, 10)],
    ),
    **{name: (getattr(F, name), [(33, 41)]) for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "step")},
    **{
        f"{name}_backward": (getattr(F, f"{name}_backward"), [(3, 41), (3, 41)])
        for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh")
    },
    "relu of a view": (lambda x: F.relu(x[::2, ::-1]), [(33, 41)]),
    "linear": (lambda x, w, b: F.linear(x, w, b), [(5, 33), (9, 33), (9,)]),
    "linear_backward": (lambda g, x, w: F.linear_backward(g, x, w), [(5, 9), (5, 33), (9, 33)]),
}


def norm_calls(title, forward, backward, x, *parameters, **options):
    """The calls of a norm whose forward pass takes ``(x, *parameters)`` and whose backward pass the statistics too."""

    def both(g, x, *parameters):
        y, *stats = forward(x, *parameters, return_stats=True, **options)
        return (y, *backward(g, x, *stats, *parameters, **options))

    return {
        title: (lambda x, *parameters: forward(x, *parameters, **options), [x, *parameters]),
        f"{title} backward": (both, [x, x, *parameters]),
    }


def batch(x, weight, *, return_stats=False, **options):
    """Batch norm of the batch's own statistics."""
    return F.batch_norm(x, None, None, weight, None, True, return_stats=return_stats, **options)


def switch(x, mean_weight, var_weight, weight, *, return_stats=False, **options):
    """Switch norm of the batch's own statistics."""
    batch_only = (weight, None, None, None, True, 0.1, 1e-5)
    return F.switch_norm(x, mean_weight, var_weight, *batch_only, return_stats=return_stats, **options)


def switch_backward(g, x, mean, var, mean_weight, var_weight, weight, **options):
    """The gradients of `switch`."""
    return F.switch_norm_backward(g, x, mean, var, mean_weight, var_weight, weight, None, None, True, 1e-5, **options)


def groups(x, weight, *, return_stats=False, **options):
    """Group norm of groups of three channels."""
    count = x.shape[-1 if options else 1] // 3
    return F.group_norm(x, count, weight, return_stats=return_stats, **options)


def rows(x, weight, *, return_stats=False):
    """Layer norm over the axes that the weight has."""
    return F.layer_norm(x, weight.shape, weight, return_stats=return_stats)


def instances(x, weight, *, return_stats=False, **options):
    """Instance norm of the input's own statistics."""
    return F.instance_norm(x, None, None, weight, return_stats=return_stats, **options)


CALLS |= norm_calls("batch_norm", batch, F.batch_norm_backward, (3, 6, 9, 11), (6,))
CALLS |= norm_calls("batch_norm long", batch, F.batch_norm_backward, (2, 3, 17000), (3,))
CALLS |= norm_calls("batch_norm last", batch, F.batch_norm_backward, (3, 9, 11, 6), (6,), **LAST)
CALLS |= norm_calls("batch_norm wide last", batch, F.batch_norm_backward, (2, 9, 11, 300), (300,), **LAST)
CALLS |= norm_calls("batch_norm rows", batch, F.batch_norm_backward, (33, 35), (35,))
CALLS |= norm_calls("group_norm", groups, F.group_norm_backward, (3, 6, 5, 7), (6,))
CALLS |= norm_calls("group_norm last", groups, F.group_norm_backward, (3, 5, 7, 6), (6,), **LAST)
CALLS |= norm_calls("group_norm rows", groups, F.group_norm_backward, (5, 33), (33,))
CALLS |= norm_calls("instance_norm", instances, F.instance_norm_backward, (3, 5, 4, 6, 7), (5,))
CALLS |= norm_calls("instance_norm last", instances, F.instance_norm_backward, (3, 40, 5), (5,), **LAST)
CALLS |= norm_calls("layer_norm", rows, F.layer_norm_backward, (5, 33), (33,))
CALLS |= norm_calls("layer_norm two axes", rows, F.layer_norm_backward, (5, 9, 11), (9, 11))
CALLS |= norm_calls("layer_norm long", rows, F.layer_norm_backward, (3, 17000), (17000,))
CALLS |= norm_calls("switch_norm", switch, switch_backward, (3, 5, 6, 7), (3,), (3,), (5,))
CALLS |= norm_calls("switch_norm last", switch, switch_backward, (3, 6, 7, 5), (3,), (3,), (5,), **LAST)
CALLS |= {
    "batch_norm eval": (
        lambda x, m, v, w, b: F.batch_norm(x, m, np.abs(v), w, b),
        [(3, 6, 9, 11), (6,), (6,), (6,), (6,)],
    ),
    "batch_norm eval backward": (
        lambda g, x, m, v, w: F.batch_norm_backward(g, x, m, np.abs(v), w, False),
        [(3, 6, 9), (3, 6, 9), (6,), (6,), (6,)],
    ),
    "batch_norm of a view": (
        lambda x, w: batch(x[:, ::2, ::-1, 1:], w),
        [(3, 6, 9, 11), (3,)],
    ),
    "layer_norm of a view": (lambda x, w, b: F.layer_norm(x.T[::-1], 5, w, b), [(5, 33), (5,), (5,)]),
}


def add_convolutions(n):
    """The convolutions of `n` dimensions in both directions, whatever else the table has."""
    last, kernel, sizes = (4, *(5,) * n), (3,) * n, (5,) * n
    conv, conv_backward = getattr(F, f"conv{n}d"), getattr(F, f"conv{n}d_backward")
    back, back_backward = getattr(F, f"conv_transpose{n}d"), getattr(F, f"conv_transpose{n}d_backward")
    separable, separable_backward = getattr(F, f"separable_conv{n}d"), getattr(F, f"separable_conv{n}d_backward")
    x, weight = (2, *last), (4, 4, *kernel)
    depthwise, pointwise = (4, 1, *kernel), (6, 4, *(1,) * n)
    CALLS[f"any conv{n}d"] = (lambda x, w: conv(x, w, padding=1), [x, weight])
    CALLS[f"any conv{n}d_backward"] = (lambda g, x, w: conv_backward(g, x, w, padding=1), [x, x, weight])
    CALLS[f"any conv_transpose{n}d"] = (lambda x, w: back(x, w, padding=1), [x, weight])
    CALLS[f"any conv_transpose{n}d_backward"] = (lambda g, x, w: back_backward(g, x, w, padding=1), [x, x, weight])
    CALLS[f"any separable_conv{n}d"] = (lambda x, d, p: separable(x, d, p, padding=1), [x, depthwise, pointwise])
    CALLS[f"any separable_conv{n}d_backward"] = (
        lambda g, x, d, p: separable_backward(g, x, d, p, padding=1),
        [(2, 6, *sizes), x, depthwise, pointwise],
    )


def add_dropouts(n):
    """Dropout of whole channels."""
    dropout, backward = getattr(F, f"dropout{n}d"), getattr(F, f"dropout{n}d_backward")

    def both(x, g):
        y, mask = dropout(x, 0.3, seed=5)
        return (y, backward(g, mask, 0.3))

    CALLS[f"dropout{n}d"] = (both, [(5, 6, *(4,) * n)] * 2)


def output_shape(call, shape):
    """The shape of what a call makes of an array."""
    y = call(np.ones(shape, np.float32))
    return (y[0] if isinstance(y, tuple) else y).shape


def add_window_pools(n, title, shape, window, **options):
    """The pools of windows, forward and backward; `window` is their size, stride and padding."""

    def function(name):
        return getattr(F, name.replace("#", f"{n}d"))

    def add_extreme(op):
        pool, backward = function(f"{op}_pool#"), function(f"{op}_pool#_backward")

        def both(x, g):
            y, places = pool(x, *window, return_indices=True, **options)
            return (y, places, backward(g, places, x.shape, **options))

        CALLS[f"{op}_pool{n}d {title}"] = (both, [shape, output])

    def add_root(name, pool, backward, *args, **keywords):
        def both(x, g, y):
            x, y = np.abs(x), np.abs(y)
            return (pool(x, *args, **keywords, **options), backward(g, x, y, *args, **keywords, **options))

        CALLS[f"{name} {title}"] = (both, [shape, output, output])

    def average(x, g):
        gradient = function("avg_pool#_backward")(g, shape, *window, False, False, **options)
        return (function("avg_pool#")(x, *window, False, False, **options), gradient)

    def unpooled(y, g):
        corners = np.zeros(output, np.int64) + (np.arange(output[0]) % 3).reshape(-1, *(1,) * (n + 1))
        sizes = shape[1:-1] if options else shape[2:]
        filled = function("max_unpool#")(y, corners, *window, output_size=sizes, **options)
        return (filled, function("max_unpool#_backward")(g, corners, **options))

    output = output_shape(lambda x: function("avg_pool#")(x, *window, **options), shape)
    add_extreme("max")
    add_extreme("min")
    CALLS[f"avg_pool{n}d {title}"] = (average, [shape, output])
    add_root(f"rms_pool{n}d", function("rms_pool#"), function("rms_pool#_backward"), *window)
    for norm in (1.0, 2.5, float("inf")):
        lp, lp_backward = function("lp_pool#"), function("lp_pool#_backward")
        add_root(f"lp_pool{n}d {norm}", lp, lp_backward, norm, *window[:2], padding=window[2])
    CALLS[f"max_unpool{n}d {title}"] = (unpooled, [output, shape])


def add_adaptive_pools(n, title, shape, size, **options):
    """The pools of bins, and of the whole image."""
    average, average_backward = getattr(F, f"adaptive_avg_pool{n}d"), getattr(F, f"adaptive_avg_pool{n}d_backward")
    extreme, extreme_backward = getattr(F, f"adaptive_max_pool{n}d"), getattr(F, f"adaptive_max_pool{n}d_backward")

    def means(x, g):
        return (average(x, size, **options), average_backward(g, shape, **options))

    def maxima(x, g):
        y, places = extreme(x, size, return_indices=True, **options)
        return (y, places, extreme_backward(g, places, shape, **options))

    def of_all(x, g):
        most, places = F.global_max_pool(x, return_indices=True, **options)
        gradients = (
            F.global_avg_pool_backward(g, shape, **options),
            F.global_max_pool_backward(g, places, shape, **options),
        )
        return (F.global_avg_pool(x, **options), most, places, *gradients)

    output = output_shape(lambda x: average(x, size, **options), shape)
    CALLS[f"adaptive_avg_pool{n}d {title}"] = (means, [shape, output])
    CALLS[f"adaptive_max_pool{n}d {title}"] = (maxima, [shape, output])
    CALLS[f"global pools {n}d {title}"] = (of_all, [shape, (shape[0], shape[-1 if options else 1])])


for n, sizes in ((1, (37,)), (2, (9, 22)), (3, (5, 6, 9))):
    add_convolutions(n)
    add_dropouts(n)
    for title, shape, options in (("first", (3, 5, *sizes), {}), ("last", (2, *sizes, 19), LAST)):
        add_window_pools(n, title, shape, (3, 2, 1), **options)
        add_adaptive_pools(n, title, shape, 4, **options)
# Sizes of which a box of results is less than an item.
add_window_pools(2, "large", (1, 1, 300, 310), (3, 1, 1))
add_window_pools(2, "large last", (1, 110, 200, 3), (3, 2, 1), **LAST)
add_window_pools(1, "long", (1, 2, 10000), (7, 3, 2))
add_adaptive_pools(2, "large", (1, 2, 300, 310), 7)
add_adaptive_pools(2, "large last", (1, 300, 310, 40), 7, **LAST)
