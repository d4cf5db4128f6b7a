"""Misuse of every op: the error's type, and the argument's name and value in its message."""

import warnings

import fastconv
import fastconv.functional as F
import numpy as np
import pytest

f = np.float32


def a(*shape, dtype=f):
    """An array of ones."""
    return np.ones(shape, dtype)


X, W, B, G = a(2, 4, 8, 8), a(6, 4, 3, 3), a(6), a(2, 6, 6, 6)
WT, GT = a(4, 6, 3, 3), a(2, 6, 10, 10)
DW, PW = a(4, 1, 3, 3), a(6, 4, 1, 1)
IDX = np.zeros((2, 4, 4, 4), np.int64)
HUGE = 2**62
READ_ONLY = a(2, 6, 6, 6)
READ_ONLY.flags.writeable = False


def conv_table(call, w, weight_channels):
    """Rows that convolution and transposed convolution share: ``call(x, w, b, **keywords)``."""
    wrong = a(*(8 if i == weight_channels else s for i, s in enumerate(w.shape)))
    return [
        ("x of integers", lambda: call(X.astype(int), w), TypeError, "x", "int64"),
        ("x of booleans", lambda: call(X > 0, w), TypeError, "x", "bool"),
        ("x complex", lambda: call(X.astype(complex), w), TypeError, "x", "complex128"),
        ("x of objects", lambda: call(X.astype(object), w), TypeError, "x", "object"),
        ("x None", lambda: call(None, w), TypeError, "x", "None"),
        ("x a string", lambda: call("abc", w), TypeError, "x", ""),
        ("x masked", lambda: call(np.ma.masked_array(X), w), TypeError, "x", "masked"),
        ("x without channels", lambda: call(a(8, 8), w), ValueError, "x", "(8, 8)"),
        ("x with too many axes", lambda: call(a(1, 1, 4, 8, 8), w), ValueError, "x", "(1, 1, 4, 8, 8)"),
        ("x with other channels", lambda: call(a(2, 5, 8, 8), w), ValueError, "x", "5"),
        ("weight None", lambda: call(X, None), TypeError, "weight", "None"),
        ("weight of another dtype", lambda: call(X, w.astype("d")), TypeError, "weight", "float64"),
        ("weight with too few axes", lambda: call(X, w[0]), ValueError, "weight", ""),
        ("weight with other channels", lambda: call(X, wrong), ValueError, "weight", "8"),
        ("weight without taps", lambda: call(X, w[:, :, :0]), ValueError, "weight", "0"),
        ("bias too long", lambda: call(X, w, a(7)), ValueError, "bias", "7"),
        ("bias with two axes", lambda: call(X, w, a(6, 1)), ValueError, "bias", "(6, 1)"),
        ("bias of another dtype", lambda: call(X, w, a(6, dtype="d")), TypeError, "bias", "float64"),
        ("stride 0", lambda: call(X, w, stride=0), ValueError, "stride", "0"),
        ("stride negative", lambda: call(X, w, stride=(1, -2)), ValueError, "stride", "-2"),
        ("stride of three", lambda: call(X, w, stride=(1, 1, 1)), ValueError, "stride", "(1, 1, 1)"),
        ("stride a float", lambda: call(X, w, stride=1.5), TypeError, "stride", "1.5"),
        ("stride a string", lambda: call(X, w, stride="2"), TypeError, "stride", "2"),
        ("stride None", lambda: call(X, w, stride=None), TypeError, "stride", "None"),
        ("stride of bytes", lambda: call(X, w, stride=b"ab"), TypeError, "stride", "ab"),
        ("stride an array of floats", lambda: call(X, w, stride=np.array([1.5, 1])), TypeError, "stride", "1.5"),
        ("stride beyond 64 bits", lambda: call(X, w, stride=2**70), ValueError, "stride", str(2**70)),
        ("padding negative", lambda: call(X, w, padding=-1), ValueError, "padding", "-1"),
        ("padding pair negative", lambda: call(X, w, padding=((0, 0), (-3, 0))), ValueError, "padding", "-3"),
        ("padding unknown", lambda: call(X, w, padding="sam"), ValueError, "padding", "sam"),
        ("padding of three", lambda: call(X, w, padding=(1, 1, 1)), ValueError, "padding", "(1, 1, 1)"),
        ("padding of triples", lambda: call(X, w, padding=((1, 1, 1), (0, 0, 0))), ValueError, "padding", ""),
        ("padding a float", lambda: call(X, w, padding=0.5), TypeError, "padding", "0.5"),
        ("padding too large", lambda: call(X, w, padding=HUGE), ValueError, "padding", str(HUGE)),
        ("dilation 0", lambda: call(X, w, dilation=0), ValueError, "dilation", "0"),
        ("dilation negative", lambda: call(X, w, dilation=-1), ValueError, "dilation", "-1"),
        ("dilation of one", lambda: call(X, w, dilation=(2,)), ValueError, "dilation", "(2,)"),
        ("dilation too large", lambda: call(X, w, dilation=HUGE), ValueError, "", str(HUGE)),
        ("groups 0", lambda: call(X, w, groups=0), ValueError, "groups", "0"),
        ("groups negative", lambda: call(X, w, groups=-2), ValueError, "groups", "-2"),
        ("groups that do not divide", lambda: call(X, w, groups=3), ValueError, "groups", "3"),
        ("groups a float", lambda: call(X, w, groups=2.0), TypeError, "groups", "2.0"),
        ("data_format unknown", lambda: call(X, w, data_format="NHCW"), ValueError, "data_format", "NHCW"),
        ("data_format a number", lambda: call(X, w, data_format=1), TypeError, "data_format", "1"),
        ("an unknown keyword", lambda: call(X, w, strides=1), TypeError, "strides", ""),
    ]


def out_table(call, w, shape):
    """Rows of ``out=``."""
    return [
        ("out of another shape", lambda: call(X, w, out=a(1)), ValueError, "out", "(1,)"),
        ("out of another dtype", lambda: call(X, w, out=a(*shape, dtype="d")), TypeError, "out", "float64"),
        ("out broadcast", lambda: call(X, w, out=np.broadcast_to(a(1), shape)), ValueError, "out", ""),
        ("out of swapped bytes", lambda: call(X, w, out=a(*shape, dtype=">f4")), TypeError, "out", ">f4"),
        ("out a list", lambda: call(X, w, out=[1.0]), TypeError, "out", "list"),
    ]


def conv_backward(g=G, x=X, w=W, **keywords):
    return F.conv2d_backward(g, x, w, **keywords)


def conv_transpose_backward(g=GT, x=X, w=WT, **keywords):
    return F.conv_transpose2d_backward(g, x, w, **keywords)


CONV = [
    *conv_table(F.conv2d, W, 1),
    *out_table(F.conv2d, W, (2, 6, 6, 6)),
    ("out read-only", lambda: F.conv2d(X, W, out=READ_ONLY), ValueError, "out", "read"),
    ("kernel larger than the input", lambda: F.conv2d(a(1, 4, 2, 8), W), ValueError, "", "2"),
    ("groups that do not divide the outputs", lambda: F.conv2d(X, a(5, 2, 3, 3), groups=2), ValueError, "groups", "5"),
    ("activation unknown", lambda: F.conv2d(X, W, activation="gelu"), ValueError, "activation", "gelu"),
    ("activation a function", lambda: F.conv2d(X, W, activation=abs), TypeError, "activation", ""),
    ("causal in two dimensions", lambda: F.conv2d(X, W, padding="causal"), ValueError, "padding", "causal"),
    ("grad_output too small", lambda: conv_backward(a(2, 6, 5, 6)), ValueError, "grad_output", "(2, 6, 5, 6)"),
    ("grad_output of another dtype", lambda: conv_backward(G.astype("d")), TypeError, "grad_output", "float64"),
    ("grad_output None", lambda: conv_backward(None), TypeError, "grad_output", "None"),
    ("grad_output with other samples", lambda: conv_backward(a(3, 6, 6, 6)), ValueError, "grad_output", "3"),
    ("output_mask of two", lambda: conv_backward(output_mask=(True, True)), ValueError, "output_mask", "(True, True)"),
    ("output_mask a number", lambda: conv_backward(output_mask=7), ValueError, "output_mask", "7"),
    ("backward stride 0", lambda: conv_backward(stride=0), ValueError, "stride", "0"),
    ("backward groups 3", lambda: conv_backward(groups=3), ValueError, "groups", "3"),
    ("backward x of integers", lambda: conv_backward(x=X.astype(int)), TypeError, "x", "int64"),
]
CONV_TRANSPOSE = [
    *conv_table(F.conv_transpose2d, WT, 0),
    *out_table(F.conv_transpose2d, WT, (2, 6, 10, 10)),
    ("padding that leaves nothing", lambda: F.conv_transpose2d(X, WT, padding=5), ValueError, "", "5"),
    (
        "output_padding negative",
        lambda: F.conv_transpose2d(X, WT, output_padding=-1),
        ValueError,
        "output_padding",
        "-1",
    ),
    (
        "output_padding too large",
        lambda: F.conv_transpose2d(X, WT, output_padding=1),
        ValueError,
        "output_padding",
        "1",
    ),
    (
        "output_padding a float",
        lambda: F.conv_transpose2d(X, WT, output_padding=0.5),
        TypeError,
        "output_padding",
        "0.5",
    ),
    ("stride too large", lambda: F.conv_transpose2d(X, WT, stride=HUGE), ValueError, "stride", str(HUGE)),
    ("grad_output too small", lambda: conv_transpose_backward(a(2, 6, 9, 10)), ValueError, "grad_output", "9"),
    ("grad_output of integers", lambda: conv_transpose_backward(GT.astype(int)), TypeError, "grad_output", "int64"),
    ("backward dilation 0", lambda: conv_transpose_backward(dilation=0), ValueError, "dilation", "0"),
]


def sep(x=X, depthwise=DW, pointwise=PW, *args, **keywords):
    return F.separable_conv2d(x, depthwise, pointwise, *args, **keywords)


SEPARABLE = [
    ("x of integers", lambda: sep(X.astype(int)), TypeError, "x", "int64"),
    ("depthwise of another dtype", lambda: sep(depthwise=DW.astype("d")), TypeError, "depthwise_weight", "float64"),
    ("depthwise not a multiple", lambda: sep(X, a(6, 1, 3, 3), a(6, 6, 1, 1)), ValueError, "depthwise_weight", "6"),
    ("depthwise dense", lambda: sep(depthwise=a(4, 4, 3, 3)), ValueError, "depthwise_weight", "4"),
    ("pointwise not 1x1", lambda: sep(pointwise=W), ValueError, "pointwise_weight", "(6, 4, 3, 3)"),
    ("pointwise channels", lambda: sep(pointwise=a(6, 5, 1, 1)), ValueError, "pointwise_weight", "5"),
    ("bias too long", lambda: sep(X, DW, PW, a(7)), ValueError, "bias", "7"),
    ("stride 0", lambda: sep(stride=0), ValueError, "stride", "0"),
    ("dilation negative", lambda: sep(dilation=-1), ValueError, "dilation", "-1"),
    ("padding unknown", lambda: sep(padding="fulll"), ValueError, "padding", "fulll"),
    (
        "grad_output too small",
        lambda: F.separable_conv2d_backward(a(2, 6, 5, 5), X, DW, PW),
        ValueError,
        "grad_output",
        "5",
    ),
]


def pool_table(name, *norm):
    """Rows of a window pooling; ``norm`` is what it takes before the window."""

    def pool(x, kernel_size, **keywords):
        return getattr(F, f"{name}2d")(x, *norm, kernel_size, **keywords)

    return [
        ("x of integers", lambda: pool(X.astype(int), 2), TypeError, "x", "int64"),
        ("x None", lambda: pool(None, 2), TypeError, "x", "None"),
        ("x with two axes", lambda: pool(a(8, 8), 2), ValueError, "x", "(8, 8)"),
        ("x without channels", lambda: pool(a(0, 8, 8), 2), ValueError, "x", "(0, 8, 8)"),
        ("x with five axes", lambda: pool(a(1, 2, 3, 8, 8), 2), ValueError, "x", "(1, 2, 3, 8, 8)"),
        ("kernel_size 0", lambda: pool(X, 0), ValueError, "kernel_size", "0"),
        ("kernel_size negative", lambda: pool(X, (2, -1)), ValueError, "kernel_size", "-1"),
        ("kernel_size of three", lambda: pool(X, (2, 2, 2)), ValueError, "kernel_size", "(2, 2, 2)"),
        ("kernel_size a float", lambda: pool(X, 2.0), TypeError, "kernel_size", "2.0"),
        ("kernel_size None", lambda: pool(X, None), TypeError, "kernel_size", "None"),
        ("kernel_size larger than the input", lambda: pool(X, 9), ValueError, "", "9"),
        ("kernel_size beyond 64 bits", lambda: pool(X, 2**70), ValueError, "kernel_size", str(2**70)),
        ("stride 0", lambda: pool(X, 2, stride=0), ValueError, "stride", "0"),
        ("stride negative", lambda: pool(X, 2, stride=-1), ValueError, "stride", "-1"),
        ("stride a string", lambda: pool(X, 2, stride="a"), TypeError, "stride", "a"),
        ("padding negative", lambda: pool(X, 2, padding=-1), ValueError, "padding", "-1"),
        ("padding over half the kernel", lambda: pool(X, 2, padding=2), ValueError, "padding", "2"),
        ("padding unknown", lambda: pool(X, 2, padding="sam"), ValueError, "padding", "sam"),
        ("dilation 0", lambda: pool(X, 2, dilation=0), ValueError, "dilation", "0"),
        ("dilation too large", lambda: pool(X, 2, dilation=HUGE), ValueError, "", str(HUGE)),
        ("data_format unknown", lambda: pool(X, 2, data_format="first"), ValueError, "data_format", "first"),
        ("data_format a list", lambda: pool(X, 2, data_format=[]), TypeError, "data_format", "[]"),
    ]


def extreme_table(name):
    """Rows of the backward pass of a maximum or minimum pooling."""
    back = getattr(F, f"{name}2d_backward")
    g, shape = a(2, 4, 4, 4), X.shape
    return [
        ("grad_output of integers", lambda: back(IDX, IDX, shape), TypeError, "grad_output", "int64"),
        ("indices of another shape", lambda: back(g, IDX[:1], shape), ValueError, "indices", "(1, 4, 4, 4)"),
        ("indices of floats", lambda: back(g, g, shape), TypeError, "indices", "float32"),
        ("indices too large", lambda: back(g, IDX + 64, shape), ValueError, "indices", "64"),
        ("indices negative", lambda: back(g, IDX - 1, shape), ValueError, "indices", "-1"),
        ("input_shape with other channels", lambda: back(g, IDX, (2, 5, 8, 8)), ValueError, "input_shape", "5"),
        ("input_shape too short", lambda: back(g, IDX, (2, 4)), ValueError, "input_shape", "(2, 4)"),
        ("input_shape of floats", lambda: back(g, IDX, (2, 4, 8.0, 8)), TypeError, "input_shape", "8.0"),
        ("input_shape negative", lambda: back(g, IDX, (2, 4, -8, -8)), ValueError, "input_shape", "-8"),
        ("input_shape None", lambda: back(g, IDX, None), TypeError, "input_shape", "None"),
    ]


def avg_backward(g=None, shape=X.shape, kernel=2, **keywords):
    return F.avg_pool2d_backward(a(2, 4, 4, 4) if g is None else g, shape, kernel, **keywords)


AVG_POOL = [
    *pool_table("avg_pool"),
    ("divisor_override 0", lambda: F.avg_pool2d(X, 2, divisor_override=0), ValueError, "divisor_override", "0"),
    ("divisor_override a string", lambda: F.avg_pool2d(X, 2, divisor_override="2"), TypeError, "divisor_override", "2"),
    ("grad_output too small", lambda: avg_backward(a(2, 4, 3, 4)), ValueError, "grad_output", "(2, 4, 3, 4)"),
    ("input_shape too short", lambda: avg_backward(shape=(8, 8)), ValueError, "input_shape", "(8, 8)"),
    ("input_shape negative", lambda: avg_backward(shape=(2, 4, -8, 8)), ValueError, "input_shape", "-8"),
    ("kernel_size 0", lambda: avg_backward(kernel=0), ValueError, "kernel_size", "0"),
]


def lp(norm, x=X, kernel=2, **keywords):
    return F.lp_pool2d(x, norm, kernel, **keywords)


def lp_backward(g=None, x=X, y=None, norm=3, kernel=2, **keywords):
    ones = a(2, 4, 4, 4)
    return F.lp_pool2d_backward(ones if g is None else g, x, ones if y is None else y, norm, kernel, **keywords)


POWER_POOL = [
    *[(f"rms: {row[0]}", *row[1:]) for row in pool_table("rms_pool")],
    *[(f"lp: {row[0]}", *row[1:]) for row in pool_table("lp_pool", 2)],
    ("norm_type 0", lambda: lp(0), ValueError, "norm_type", "0"),
    ("norm_type NaN", lambda: lp(float("nan")), ValueError, "norm_type", "nan"),
    ("norm_type None", lambda: lp(None), TypeError, "norm_type", "None"),
    ("norm_type a string", lambda: lp("2"), TypeError, "norm_type", "2"),
    ("norm_type True", lambda: lp(True), TypeError, "norm_type", "True"),
    ("grad_output too small", lambda: lp_backward(a(2, 4, 3, 4)), ValueError, "grad_output", "(2, 4, 3, 4)"),
    ("y of another shape", lambda: lp_backward(y=a(2, 4, 4, 3)), ValueError, "y", "(2, 4, 4, 3)"),
    ("y of another dtype", lambda: lp_backward(y=a(2, 4, 4, 4, dtype="d")), TypeError, "y", "float64"),
    ("y None", lambda: F.rms_pool2d_backward(a(2, 4, 4, 4), X, None, 2), TypeError, "y", "None"),
    ("x without its batch", lambda: lp_backward(x=X[0]), ValueError, "grad_output", "(2, 4, 4, 4)"),
    ("backward norm_type 0", lambda: lp_backward(norm=0), ValueError, "norm_type", "0"),
    ("backward kernel_size 0", lambda: lp_backward(kernel=0), ValueError, "kernel_size", "0"),
]


def adaptive_table(name):
    """Rows of an adaptive pooling."""
    pool = getattr(F, f"{name}2d")
    return [
        (f"{name}: x of integers", lambda: pool(X.astype(int), 2), TypeError, "x", "int64"),
        (f"{name}: x with two axes", lambda: pool(a(8, 8), 2), ValueError, "x", "(8, 8)"),
        (f"{name}: x without positions", lambda: pool(a(2, 3, 0, 4), 2), ValueError, "x", "(2, 3, 0, 4)"),
        (f"{name}: x without channels", lambda: pool(a(2, 0, 4, 4), 2), ValueError, "x", "(2, 0, 4, 4)"),
        (f"{name}: output_size 0", lambda: pool(X, 0), ValueError, "output_size", "0"),
        (f"{name}: output_size negative", lambda: pool(X, (3, -1)), ValueError, "output_size", "-1"),
        (f"{name}: output_size of three", lambda: pool(X, (3, 3, 3)), ValueError, "output_size", "(3, 3, 3)"),
        (f"{name}: output_size empty", lambda: pool(X, ()), ValueError, "output_size", "()"),
        (f"{name}: output_size a float", lambda: pool(X, 2.0), TypeError, "output_size", "2.0"),
        (f"{name}: output_size None", lambda: pool(X, None), TypeError, "output_size", "None"),
        (f"{name}: output_size a string", lambda: pool(X, "2"), TypeError, "output_size", "2"),
        (f"{name}: output_size too large", lambda: pool(X, 2**40), ValueError, "output_size", str(2**40)),
        (f"{name}: data_format unknown", lambda: pool(X, 2, data_format="HW"), ValueError, "data_format", "HW"),
    ]


def adaptive_backward(g=None, shape=X.shape, **keywords):
    return F.adaptive_avg_pool2d_backward(a(2, 4, 3, 3) if g is None else g, shape, **keywords)


ADAPTIVE_POOL = [
    *adaptive_table("adaptive_avg_pool"),
    *adaptive_table("adaptive_max_pool"),
    ("return_indices 1", lambda: F.adaptive_max_pool2d(X, 2, 1), TypeError, "return_indices", "1"),
    ("grad_output of integers", lambda: adaptive_backward(IDX), TypeError, "grad_output", "int64"),
    ("grad_output with other channels", lambda: adaptive_backward(a(2, 5, 3, 3)), ValueError, "grad_output", "5"),
    ("grad_output empty", lambda: adaptive_backward(a(2, 4, 0, 3)), ValueError, "grad_output", "(2, 4, 0, 3)"),
    ("grad_output unbatched", lambda: adaptive_backward(a(4, 3, 3)), ValueError, "grad_output", "(4, 3, 3)"),
    ("input_shape too short", lambda: adaptive_backward(shape=(8, 8)), ValueError, "input_shape", "(8, 8)"),
    ("input_shape empty", lambda: adaptive_backward(shape=(2, 4, 0, 8)), ValueError, "input_shape", "0"),
    ("input_shape None", lambda: adaptive_backward(shape=None), TypeError, "input_shape", "None"),
]


def unpool(x=None, indices=IDX, kernel=2, **keywords):
    return F.max_unpool2d(a(2, 4, 4, 4) if x is None else x, indices, kernel, **keywords)


UNPOOL = [
    ("x of integers", lambda: unpool(IDX), TypeError, "x", "int64"),
    ("x with two axes", lambda: unpool(a(8, 8)), ValueError, "x", "(8, 8)"),
    ("x without positions", lambda: unpool(a(2, 4, 0, 4), IDX[:, :, :0]), ValueError, "x", "(2, 4, 0, 4)"),
    ("indices of another shape", lambda: unpool(indices=IDX[:1]), ValueError, "indices", "(1, 4, 4, 4)"),
    ("indices of floats", lambda: unpool(indices=a(2, 4, 4, 4)), TypeError, "indices", "float32"),
    ("indices None", lambda: unpool(indices=None), TypeError, "indices", "None"),
    ("indices too large", lambda: unpool(indices=IDX + 64), ValueError, "indices", "64"),
    ("indices negative", lambda: unpool(indices=IDX - 1), ValueError, "indices", "-1"),
    ("kernel_size 0", lambda: unpool(kernel=0), ValueError, "kernel_size", "0"),
    ("stride 0", lambda: unpool(stride=0), ValueError, "stride", "0"),
    ("padding that leaves nothing", lambda: unpool(stride=1, padding=3), ValueError, "padding", "3"),
    ("padding same", lambda: unpool(padding="same"), ValueError, "padding", "same"),
    ("output_size too large", lambda: unpool(output_size=(10, 8)), ValueError, "output_size", "(10, 8)"),
    ("output_size of three", lambda: unpool(output_size=(8, 8, 8)), ValueError, "output_size", "(8, 8, 8)"),
    ("output_size an int", lambda: unpool(output_size=8), TypeError, "output_size", "8"),
    ("output_size a string", lambda: unpool(output_size="88"), TypeError, "output_size", "88"),
    ("output_size of floats", lambda: unpool(output_size=(8.0, 8)), TypeError, "output_size", "8.0"),
    ("backward of integers", lambda: F.max_unpool2d_backward(IDX, IDX), TypeError, "grad_output", "int64"),
    ("backward indices too large", lambda: F.max_unpool2d_backward(X, IDX + 64), ValueError, "indices", "64"),
    ("backward indices of one axis", lambda: F.max_unpool2d_backward(X, IDX[0]), ValueError, "indices", "(4, 4, 4)"),
    ("backward other channels", lambda: F.max_unpool2d_backward(X, IDX[:, :3]), ValueError, "indices", "(2, 3, 4, 4)"),
]
FIVES = np.full((2, 3), 5)
GLOBAL = [
    ("avg of integers", lambda: F.global_avg_pool(X.astype(int)), TypeError, "x", "int64"),
    ("max of integers", lambda: F.global_max_pool(X.astype(int)), TypeError, "x", "int64"),
    ("avg without spatial axes", lambda: F.global_avg_pool(a(2, 3)), ValueError, "x", "(2, 3)"),
    ("max without spatial axes", lambda: F.global_max_pool(a(2, 3)), ValueError, "x", "(2, 3)"),
    ("avg without positions", lambda: F.global_avg_pool(a(2, 3, 0)), ValueError, "x", "(2, 3, 0)"),
    ("max without positions", lambda: F.global_max_pool(a(2, 3, 0)), ValueError, "x", "(2, 3, 0)"),
    ("avg grad_output", lambda: F.global_avg_pool_backward(a(2, 3), (2, 4, 5)), ValueError, "grad_output", "(2, 3)"),
    ("max indices", lambda: F.global_max_pool_backward(a(2, 3), FIVES, (2, 3, 5)), ValueError, "indices", "5"),
]

M, V = a(4), a(4)


def norm(x=X, mean=M, var=V, *args, **keywords):
    return F.batch_norm(x, mean, var, *args, **keywords)


BATCH_NORM = [
    ("x of integers", lambda: norm(X.astype(int)), TypeError, "x", "int64"),
    ("x with one axis", lambda: norm(a(4)), ValueError, "x", "(4,)"),
    ("running_mean too long", lambda: norm(mean=a(5)), ValueError, "running_mean", "5"),
    ("running_var of another dtype", lambda: norm(var=a(4, dtype="d")), TypeError, "running_var", "float64"),
    ("no running statistics to use", lambda: norm(mean=None, var=None), ValueError, "running_mean", "None"),
    ("weight too short", lambda: norm(X, M, V, a(3)), ValueError, "weight", "3"),
    ("bias of another dtype", lambda: norm(X, M, V, None, a(4, dtype="d")), TypeError, "bias", "float64"),
    ("eps negative", lambda: norm(eps=-1.0), ValueError, "eps", "-1"),
    ("eps zero in training", lambda: norm(training=True, eps=0.0), ValueError, "eps", "0.0"),
    ("eps a string", lambda: norm(eps="x"), TypeError, "eps", "x"),
    ("momentum a string", lambda: norm(training=True, momentum="x"), TypeError, "momentum", "x"),
    ("one value a channel", lambda: norm(a(1, 4), training=True), ValueError, "x", "(1, 4)"),
    ("data_format unknown", lambda: norm(data_format="C"), ValueError, "data_format", "C"),
    ("grad_output", lambda: F.batch_norm_backward(a(2, 4), X, M, V), ValueError, "grad_output", "(2, 4)"),
    ("mean too long", lambda: F.batch_norm_backward(X, X, a(5), V), ValueError, "mean", "5"),
    ("invstd of another dtype", lambda: F.batch_norm_backward(X, X, M, V.astype("d")), TypeError, "invstd", "float64"),
    ("backward weight too long", lambda: F.batch_norm_backward(X, X, M, V, a(9)), ValueError, "weight", "9"),
]
S3, N4 = a(3), a(2, 4)


def layer(x=X, shape=8, *args, **keywords):
    return F.layer_norm(x, shape, *args, **keywords)


def group(x=X, groups=2, *args, **keywords):
    return F.group_norm(x, groups, *args, **keywords)


def switch(x=X, of_mean=S3, of_var=S3, weight=None, bias=None, mean=M, var=V, training=False, momentum=0.1, eps=1e-5):
    return F.switch_norm(x, of_mean, of_var, weight, bias, mean, var, training, momentum, eps)


def switch_backward(g=X, x=X, mean=N4, var=N4, weight=None, running=M, **keywords):
    return F.switch_norm_backward(g, x, mean, var, S3, S3, weight, running, running, False, 1e-5, **keywords)


SAMPLE_NORM = [
    ("layer of integers", lambda: layer(X.astype(int)), TypeError, "x", "int64"),
    ("layer of None", lambda: layer(None), TypeError, "x", "None"),
    ("layer of another size", lambda: layer(X, 7), ValueError, "normalized_shape", "7"),
    ("layer of no axes", lambda: layer(X, ()), ValueError, "normalized_shape", "()"),
    ("layer of too many axes", lambda: layer(X, (1, 2, 4, 8, 8)), ValueError, "normalized_shape", "(1, 2, 4, 8, 8)"),
    ("layer of a float", lambda: layer(X, 8.0), TypeError, "normalized_shape", "8.0"),
    ("layer of a negative size", lambda: layer(X, -8), ValueError, "normalized_shape", "-8"),
    ("layer weight too short", lambda: layer(X, 8, a(7)), ValueError, "weight", "7"),
    ("layer bias of another shape", lambda: layer(X, (8, 8), None, a(64)), ValueError, "bias", "(64,)"),
    ("layer bias of another dtype", lambda: layer(X, 8, None, a(8, dtype="d")), TypeError, "bias", "float64"),
    ("layer eps a string", lambda: layer(eps="x"), TypeError, "eps", "x"),
    ("layer return_stats a number", lambda: layer(return_stats=1), TypeError, "return_stats", "1"),
    ("layer data_format unknown", lambda: layer(data_format="C"), ValueError, "data_format", "C"),
    ("layer mean of other axes", lambda: F.layer_norm_backward(X, X, a(4), a(4)), ValueError, "mean", "(4,)"),
    ("layer mean of all axes", lambda: F.layer_norm_backward(X, X, X, X), ValueError, "mean", "(2, 4, 8, 8)"),
    ("layer mean None", lambda: F.layer_norm_backward(X, X, None, a(2)), TypeError, "mean", "None"),
    ("layer invstd shape", lambda: F.layer_norm_backward(X, X, a(2), a(2, 4)), ValueError, "invstd", "(2, 4)"),
    ("layer grad_output", lambda: F.layer_norm_backward(a(2, 4), X, a(2), a(2)), ValueError, "grad_output", "(2, 4)"),
    ("layer backward weight", lambda: F.layer_norm_backward(X, X, a(2), a(2), a(8)), ValueError, "weight", "(8,)"),
    ("group of integers", lambda: group(X.astype(int)), TypeError, "x", "int64"),
    ("group of one axis", lambda: group(a(4)), ValueError, "x", "(4,)"),
    ("group of no groups", lambda: group(X, 0), ValueError, "num_groups", "0"),
    ("groups that do not divide", lambda: group(X, 3), ValueError, "num_groups", "3"),
    ("groups a float", lambda: group(X, 2.0), TypeError, "num_groups", "2.0"),
    ("groups beyond 64 bits", lambda: group(X, 2**70), ValueError, "num_groups", str(2**70)),
    ("group weight too short", lambda: group(X, 2, a(3)), ValueError, "weight", "3"),
    ("group bias of another dtype", lambda: group(X, 2, None, a(4, dtype="d")), TypeError, "bias", "float64"),
    ("group of one value", lambda: group(a(1, 2), 2), ValueError, "x", "(1, 2)"),
    ("group mean shape", lambda: F.group_norm_backward(X, X, a(4), a(4)), ValueError, "mean", "(4,)"),
    ("group mean samples", lambda: F.group_norm_backward(X, X, a(3, 2), a(3, 2)), ValueError, "mean", "(3, 2)"),
    ("group mean groups", lambda: F.group_norm_backward(X, X, a(2, 3), a(2, 3)), ValueError, "num_groups", "3"),
    ("group invstd shape", lambda: F.group_norm_backward(X, X, a(2, 2), a(2)), ValueError, "invstd", "(2,)"),
    (
        "group output_mask",
        lambda: F.group_norm_backward(X, X, a(2, 2), a(2, 2), output_mask=1),
        ValueError,
        "mask",
        "1",
    ),
    ("instance of a matrix", lambda: F.instance_norm(a(2, 4)), ValueError, "x", "(2, 4)"),
    ("instance of one position", lambda: F.instance_norm(a(2, 4, 1)), ValueError, "x", "(2, 4, 1)"),
    (
        "instance without statistics",
        lambda: F.instance_norm(X, use_input_stats=False),
        ValueError,
        "running_mean",
        "None",
    ),
    ("instance running_var None", lambda: F.instance_norm(X, M), ValueError, "running_var", "None"),
    ("instance running_mean too long", lambda: F.instance_norm(X, a(5), V), ValueError, "running_mean", "5"),
    ("instance use_input_stats", lambda: F.instance_norm(X, use_input_stats=1), TypeError, "use_input_stats", "1"),
    ("instance momentum", lambda: F.instance_norm(X, M, V, momentum="x"), TypeError, "momentum", "x"),
    ("instance mean shape", lambda: F.instance_norm_backward(X, X, a(2, 2), a(2, 2)), ValueError, "mean", "(2, 2)"),
    ("switch of integers", lambda: switch(X.astype(int)), TypeError, "x", "int64"),
    ("switch of a matrix", lambda: switch(a(2, 4)), ValueError, "x", "(2, 4)"),
    ("switch mean_weight None", lambda: switch(of_mean=None), TypeError, "mean_weight", "None"),
    ("switch var_weight too long", lambda: switch(of_var=a(4)), ValueError, "var_weight", "(4,)"),
    ("switch weight too long", lambda: switch(weight=a(5)), ValueError, "weight", "5"),
    ("switch without statistics", lambda: switch(mean=None, var=None), ValueError, "running_mean", "None"),
    ("switch training a number", lambda: switch(training=1), TypeError, "training", "1"),
    ("switch one value a channel", lambda: switch(a(1, 4, 1), training=True), ValueError, "x", "(1, 4, 1)"),
    ("switch eps negative", lambda: switch(eps=-1.0), ValueError, "eps", "-1"),
    ("switch mean shape", lambda: switch_backward(mean=a(4)), ValueError, "mean", "(4,)"),
    ("switch var shape", lambda: switch_backward(var=a(2, 3)), ValueError, "var", "(2, 3)"),
    ("switch grad_output", lambda: switch_backward(a(2, 4)), ValueError, "grad_output", "(2, 4)"),
    ("switch backward statistics", lambda: switch_backward(running=None), ValueError, "running_mean", "None"),
    ("switch output_mask", lambda: switch_backward(output_mask=(True,) * 3), ValueError, "output_mask", "five"),
]
LINEAR = [
    ("x of integers", lambda: F.linear(a(2, 5).astype(int), a(3, 5)), TypeError, "x", "int64"),
    ("x without axes", lambda: F.linear(a(), a(3, 5)), ValueError, "x", "()"),
    ("other features", lambda: F.linear(a(2, 4), a(3, 5)), ValueError, "x", "4"),
    ("weight with one axis", lambda: F.linear(a(2, 5), a(5)), ValueError, "weight", "(5,)"),
    ("weight of another dtype", lambda: F.linear(a(2, 5), a(3, 5, dtype="d")), TypeError, "weight", "float64"),
    ("bias too long", lambda: F.linear(a(2, 5), a(3, 5), a(4)), ValueError, "bias", "4"),
    ("grad_output", lambda: F.linear_backward(a(2, 4), a(2, 5), a(3, 5)), ValueError, "grad_output", "(2, 4)"),
    ("grad_output rows", lambda: F.linear_backward(a(3, 3), a(2, 5), a(3, 5)), ValueError, "grad_output", "(3, 3)"),
]
ACTIVATION = [
    *[
        (f"{name} of integers", lambda name=name: getattr(F, name)(X.astype(int)), TypeError, "x", "int64")
        for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "step")
    ],
    *[
        (f"{name} of None", lambda name=name: getattr(F, name)(None), TypeError, "x", "None")
        for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "step")
    ],
    *[
        (
            f"{name}_backward with another shape",
            lambda name=name: getattr(F, f"{name}_backward")(a(2, 3), a(3, 2)),
            ValueError,
            "grad_output",
            "(2, 3)",
        )
        for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh")
    ],
    ("negative_slope a string", lambda: F.leaky_relu(X, "a"), TypeError, "negative_slope", "a"),
    ("alpha None", lambda: F.elu(X, None), TypeError, "alpha", "None"),
    ("alpha beyond float64", lambda: F.elu(X, 10**400), ValueError, "alpha", "beyond"),
    *[
        row
        for name in ("softmax", "log_softmax")
        for op, back in [(getattr(F, name), getattr(F, f"{name}_backward"))]
        for row in [
            (f"{name} of integers", lambda op=op: op(IDX, 1), TypeError, "x", "int64"),
            (f"{name} axis too large", lambda op=op: op(X, 4), ValueError, "axis", "4"),
            (f"{name} axis too small", lambda op=op: op(X, -5), ValueError, "axis", "-5"),
            (f"{name} axis a float", lambda op=op: op(X, 1.0), TypeError, "axis", "1.0"),
            (f"{name} of a number", lambda op=op: op(a(), 1), ValueError, "axis", "()"),
            (f"{name}_backward", lambda back=back: back(a(2, 3), a(2, 4), 1), ValueError, "grad_output", "(2, 3)"),
        ]
    ],
]
DROPOUT = [
    ("x of integers", lambda: F.dropout(IDX), TypeError, "x", "int64"),
    ("p negative", lambda: F.dropout(X, -0.1), ValueError, "p", "-0.1"),
    ("p above one", lambda: F.dropout(X, 1.5), ValueError, "p", "1.5"),
    ("p not a number", lambda: F.dropout(X, float("nan")), ValueError, "p", "nan"),
    ("p a string", lambda: F.dropout(X, "half"), TypeError, "p", "half"),
    ("noise_shape that does not fit", lambda: F.dropout(X, noise_shape=(3, 1, 1, 1)), ValueError, "noise_shape", "3"),
    ("seed a string", lambda: F.dropout(X, seed="a"), TypeError, "seed", "a"),
    ("dropout2d of a matrix", lambda: F.dropout2d(a(3, 4)), ValueError, "x", "(3, 4)"),
]
L, T = a(4, 5), np.array([0, 1, 2, 3])


def ce(logits=L, target=T, *args, **keywords):
    return F.cross_entropy(logits, target, *args, **keywords)


LOSS = [
    ("logits of integers", lambda: ce(L.astype(int)), TypeError, "logits", "int64"),
    ("target too large", lambda: ce(target=T + 2), ValueError, "target", "5"),
    ("target negative", lambda: ce(target=T - 1), ValueError, "target", "-1"),
    ("target beyond 64 bits", lambda: ce(target=T.astype("u8") - 1), ValueError, "target", str(2**63 - 1)),
    ("target too short", lambda: ce(target=T[:3]), ValueError, "target", "(3,)"),
    ("target of float indices", lambda: ce(target=T.astype(f)), (ValueError, TypeError), "target", ""),
    ("target None", lambda: ce(target=None), TypeError, "target", "None"),
    ("probabilities of another shape", lambda: ce(target=a(4, 6)), ValueError, "target", "(4, 6)"),
    ("weight too short", lambda: ce(L, T, a(4)), ValueError, "weight", "4"),
    ("weight of another dtype", lambda: ce(L, T, a(5, dtype="d")), TypeError, "weight", "float64"),
    ("reduction unknown", lambda: ce(reduction="avg"), ValueError, "reduction", "avg"),
    ("label_smoothing above one", lambda: ce(label_smoothing=1.5), ValueError, "label_smoothing", "1.5"),
    ("label_smoothing negative", lambda: ce(label_smoothing=-0.5), ValueError, "label_smoothing", "-0.5"),
    ("ignore_index of probabilities", lambda: ce(target=a(4, 5), ignore_index=1), ValueError, "ignore_index", "1"),
    ("ignore_index a float", lambda: ce(ignore_index=0.5), TypeError, "ignore_index", "0.5"),
    ("grad_output", lambda: F.cross_entropy_backward(a(3), L, T, reduction="none"), ValueError, "grad_output", "(3,)"),
    ("backward target", lambda: F.cross_entropy_backward(f(1), L, T + 9), ValueError, "target", ""),
    ("bce of integers", lambda: F.binary_cross_entropy_with_logits(IDX, IDX), TypeError, "y", "int64"),
    ("bce shapes", lambda: F.binary_cross_entropy_with_logits(a(2, 3), a(3)), ValueError, "target", "(3,)"),
    ("bce target None", lambda: F.binary_cross_entropy_with_logits(a(2), None), TypeError, "target", "None"),
    ("bce weight", lambda: F.binary_cross_entropy_with_logits(L, L, a(4)), ValueError, "weight", "(4,)"),
    ("bce pos_weight", lambda: F.binary_cross_entropy_with_logits(L, L, pos_weight=X), ValueError, "pos_weight", "(2,"),
    ("bce weight dtype", lambda: F.binary_cross_entropy_with_logits(L, L, a(5, dtype="d")), TypeError, "weight", "64"),
    ("bce reduction", lambda: F.binary_cross_entropy_with_logits(L, L, None, "avg"), ValueError, "reduction", "avg"),
    (
        "bce grad_output",
        lambda: F.binary_cross_entropy_with_logits_backward(a(3), L, L, reduction="none"),
        ValueError,
        "grad_output",
        "(3,)",
    ),
    ("mse of integers", lambda: F.mse_loss(IDX, IDX), TypeError, "y", "int64"),
    ("mse shapes", lambda: F.mse_loss(a(2, 3), a(3, 2)), ValueError, "target", "(3, 2)"),
    ("mse dtypes", lambda: F.mse_loss(a(2), a(2, dtype="d")), TypeError, "target", "float64"),
    ("mse reduction", lambda: F.mse_loss(a(2), a(2), "average"), ValueError, "reduction", "average"),
    ("mse grad_output", lambda: F.mse_loss_backward(a(3), a(2), a(2), "none"), ValueError, "grad_output", "(3,)"),
]
CONTROL = [
    ("set_isa unknown", lambda: fastconv.set_isa("sse9"), ValueError, "", "sse9"),
    ("set_isa a number", lambda: fastconv.set_isa(2), TypeError, "", ""),
    ("set_num_threads 0", lambda: fastconv.set_num_threads(0), ValueError, "", "0"),
    ("set_num_threads negative", lambda: fastconv.set_num_threads(-4), ValueError, "", "-4"),
    ("set_num_threads a string", lambda: fastconv.set_num_threads("2"), TypeError, "", ""),
    ("set_num_threads a float", lambda: fastconv.set_num_threads(1.5), TypeError, "", ""),
]

TABLES = {
    "conv": CONV,
    "conv_transpose": CONV_TRANSPOSE,
    "separable_conv": SEPARABLE,
    "max_pool": pool_table("max_pool") + extreme_table("max_pool"),
    "min_pool": pool_table("min_pool") + extreme_table("min_pool"),
    "avg_pool": AVG_POOL,
    "power_pool": POWER_POOL,
    "adaptive_pool": ADAPTIVE_POOL,
    "max_unpool": UNPOOL,
    "global_pool": GLOBAL,
    "batch_norm": BATCH_NORM,
    "sample_norm": SAMPLE_NORM,
    "linear": LINEAR,
    "activation": ACTIVATION,
    "dropout": DROPOUT,
    "loss": LOSS,
    "control": CONTROL,
}
ROWS = [pytest.param(*row[1:], id=f"{op}: {row[0]}") for op, table in TABLES.items() for row in table]


@pytest.mark.parametrize(("call", "error", "argument", "value"), ROWS)
def test_misuse(call, error, argument, value):
    """The error says which argument is wrong and what came."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error) as caught:
            call()
    message = str(caught.value)
    assert argument in message, f"the message does not name {argument!r}: {message}"
    assert value in message, f"the message does not say {value!r}: {message}"
