"""The engine that serves an array: the CPU's for ``numpy.ndarray``, the CUDA kernels for arrays on a device.

Both have the same functions, so each op is written once. The one for an op is chosen by its first array.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import _core
from fastconv._device.array import DeviceArray


def _by_array(name: str, position: int = 0) -> Callable[..., Any]:
    """The function `name` of the engine that serves the argument at `position`."""
    host = getattr(_core, name)

    def call(*arguments: Any) -> Any:
        if type(arguments[position]) is DeviceArray:
            return _on_device(name)(*arguments)
        return host(*arguments)

    call.__name__ = call.__qualname__ = name
    return call


def _on_device(name: str) -> Callable[..., Any]:
    from fastconv._device import ops

    function: Callable[..., Any] = getattr(ops, name)
    return function


def empty(shape: tuple[int, ...], like: Any) -> Any:
    """An array without values, of the dtype of `like` and in its memory; aligned unless it is small."""
    if type(like) is DeviceArray or math.prod(shape) * like.itemsize < _core.ALIGNED_RESULT:
        return np.empty(shape, like.dtype, like=like)
    return _core.empty(shape, like.dtype)


def empty_like(array: Any) -> Any:
    """The same in the order of `array`'s own memory."""
    if type(array) is DeviceArray or array.nbytes < _core.ALIGNED_RESULT or not array.flags.c_contiguous:
        return np.empty_like(array)
    return _core.empty(array.shape, array.dtype)


def dropout_mask(like: Any, shape: tuple[int, ...], p: float, seed: int) -> Any:
    """The mask on the device of `like`, or in the host's memory."""
    if type(like) is DeviceArray:
        return _on_device("dropout_mask")(like, shape, p, seed)
    return _core.dropout_mask(shape, p, seed)


conv_forward = _by_array("conv_forward")
conv_backward_input = _by_array("conv_backward_input")
conv_backward_weight = _by_array("conv_backward_weight")
conv_backward_bias = _by_array("conv_backward_bias")
eltwise = _by_array("eltwise", 1)
dropout_apply = _by_array("dropout_apply")
pool = _by_array("pool", 1)
avg_pool_backward = _by_array("avg_pool_backward")
power_pool = _by_array("power_pool")
power_pool_backward = _by_array("power_pool_backward")
pool_backward_from_indices = _by_array("pool_backward_from_indices")
global_pool = _by_array("global_pool", 1)
global_avg_pool_backward = _by_array("global_avg_pool_backward")
global_max_pool_backward = _by_array("global_max_pool_backward")
adaptive_pool = _by_array("adaptive_pool")
adaptive_avg_pool_backward = _by_array("adaptive_avg_pool_backward")
max_unpool = _by_array("max_unpool")
max_unpool_backward = _by_array("max_unpool_backward")
batch_statistics = _by_array("batch_statistics")
batch_norm = _by_array("batch_norm")
batch_norm_backward = _by_array("batch_norm_backward")
sample_products = _by_array("sample_products")
sample_backward = _by_array("sample_backward")
group_norm = _by_array("group_norm")
group_norm_backward = _by_array("group_norm_backward")
layer_norm = _by_array("layer_norm")
layer_norm_backward = _by_array("layer_norm_backward")
softmax = _by_array("softmax")
softmax_backward = _by_array("softmax_backward")
cross_entropy = _by_array("cross_entropy")
cross_entropy_backward = _by_array("cross_entropy_backward", 1)
binary_cross_entropy = _by_array("binary_cross_entropy")
squared_error = _by_array("squared_error")
inverse_deviation = _by_array("inverse_deviation")
update_running = _by_array("update_running")
