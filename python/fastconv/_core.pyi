"""The compiled engine's private functions, as csrc/bindings registers them."""

from collections.abc import Sequence
from typing import Any, TypedDict, type_check_only

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Pads = Sequence[tuple[int, int]]

@type_check_only
class _KernelRow(TypedDict):
    op: str
    name: str
    isa: str
    dtype: str
    level: str
    tile: tuple[int, int]

@type_check_only
class _BuildConfig(TypedDict, total=False):
    version: str
    compiler: str
    build_type: str
    openmp: int
    avx512_emulated: bool
    amx_emulated: bool

# bind_runtime.cpp
def get_num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def set_thread_grain(nanoseconds: float) -> float: ...
def get_isa() -> str: ...
def set_isa(name: str) -> None: ...
def available_isas() -> list[str]: ...

ALIGNED_RESULT: int
KEPT_RESULT: int

def release_memory() -> int: ...
def empty(shape: tuple[int, ...], dtype: Any) -> Any: ...
def are_plain(named: dict[str, Any], optional: set[str]) -> bool: ...
def kernel_table() -> list[_KernelRow]: ...
def force_kernel(name: str | None) -> None: ...
def kernel_counts() -> dict[str, int]: ...
def reset_kernel_counts() -> None: ...
def multiply_adds(is_double: bool, steps: int) -> float: ...
def output_size(
    in_: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil_mode: bool, /
) -> int: ...
def transposed_output_size(
    in_: int, kernel: int, stride: int, dilation: int, before: int, after: int, output_padding: int, /
) -> int: ...
def build_config() -> _BuildConfig: ...

# bind_conv.cpp
def most_padding(in_: int, padding_mode: str, /) -> int: ...
def conv_forward(
    input: _Array,
    weight: _Array,
    bias: _Array | None,
    stride: Sequence[int],
    padding: _Pads,
    dilation: Sequence[int],
    groups: int,
    padding_mode: str,
    channels_last: bool,
    out: _Array | None,
    activation: str | None,
    parameter: float,
    precision: str | None,
    norm: tuple[_Array, _Array, _Array | None, _Array | None] | tuple[()] = (),
) -> _Array: ...
def conv_backward_input(
    grad_output: _Array,
    weight: _Array,
    bias: _Array | None,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: _Pads,
    dilation: Sequence[int],
    groups: int,
    padding_mode: str,
    channels_last: bool,
    out: _Array | None,
    precision: str | None,
    /,
) -> _Array: ...
def conv_backward_weight(
    grad_output: _Array,
    input: _Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: _Pads,
    dilation: Sequence[int],
    groups: int,
    padding_mode: str,
    channels_last: bool,
    precision: str | None,
    /,
) -> _Array: ...
def conv_backward_bias(grad_output: _Array, channels_last: bool, /) -> _Array: ...

# bind_pool.cpp
class PoolWindow:
    def __init__(
        self,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        padding: _Pads,
        ceil_mode: bool,
        count_include_pad: bool = True,
        divisor_override: int = 0,
    ) -> None: ...
    @property
    def kernel_size(self) -> list[int]: ...
    @property
    def stride(self) -> list[int]: ...
    @property
    def dilation(self) -> list[int]: ...
    @property
    def padding(self) -> list[tuple[int, int]]: ...
    @property
    def ceil_mode(self) -> bool: ...
    @property
    def count_include_pad(self) -> bool: ...
    @property
    def divisor_override(self) -> int: ...

def pool_output_shape(window: PoolWindow, sizes: Sequence[int]) -> list[int]: ...

# An array, or with return_indices a pair of them.
def pool(op: str, x: _Array, window: PoolWindow, channels_last: bool, return_indices: bool) -> Any: ...
def avg_pool_backward(
    grad_output: _Array, input_shape: Sequence[int], window: PoolWindow, channels_last: bool
) -> _Array: ...
def power_pool(x: _Array, exponent: float, mean: bool, window: PoolWindow, channels_last: bool) -> _Array: ...
def power_pool_backward(
    grad_output: _Array,
    x: _Array,
    y: _Array,
    exponent: float,
    mean: bool,
    window: PoolWindow,
    channels_last: bool,
) -> _Array: ...
def pool_backward_from_indices(
    grad_output: _Array, indices: npt.NDArray[np.int64], input_shape: Sequence[int], channels_last: bool
) -> _Array: ...
def global_pool(op: str, x: _Array, channels_last: bool, return_indices: bool) -> Any: ...
def global_avg_pool_backward(grad_output: _Array, input_shape: Sequence[int], channels_last: bool) -> _Array: ...
def global_max_pool_backward(
    grad_output: _Array, indices: npt.NDArray[np.int64], input_shape: Sequence[int], channels_last: bool
) -> _Array: ...

# bind_pool_adaptive.cpp
def adaptive_pool(
    x: _Array, output_size: Sequence[int], maximum: bool, channels_last: bool, return_indices: bool
) -> Any: ...
def adaptive_avg_pool_backward(grad_output: _Array, input_shape: Sequence[int], channels_last: bool) -> _Array: ...
def max_unpool(
    x: _Array, indices: npt.NDArray[np.int64], output_shape: Sequence[int], channels_last: bool
) -> _Array: ...
def max_unpool_backward(grad_output: _Array, indices: npt.NDArray[np.int64], channels_last: bool) -> _Array: ...

# bind_norm.cpp
def batch_statistics(
    x: _Array, channels_last: bool, rows: bool, per_sample: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def update_running(old: _Array, batch: _Array, momentum: float) -> None: ...
def inverse_deviation(variance: _Array, eps: float) -> npt.NDArray[np.float64]: ...
def batch_norm(
    x: _Array,
    y: _Array,
    channels_last: bool,
    rows: bool,
    mean: _Array,
    invstd: _Array,
    weight: _Array | None,
    bias: _Array | None,
    rectify: bool = False,
) -> None: ...
def batch_norm_backward(
    grad_output: _Array,
    x: _Array,
    grad_input: _Array | None,
    channels_last: bool,
    rows: bool,
    mean: _Array,
    invstd: _Array,
    weight: _Array | None,
    training: bool,
    sums: bool,
    rectified: _Array | None = None,
) -> tuple[_Array, _Array]: ...
def sample_products(
    grad_output: _Array, x: _Array, channels_last: bool, rows: bool, mean: _Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def sample_backward(
    grad_output: _Array,
    x: _Array,
    grad_input: _Array,
    channels_last: bool,
    rows: bool,
    mean: _Array,
    scale: _Array,
    slope: _Array,
    shift: _Array,
) -> None: ...
def group_norm(
    x: _Array,
    y: _Array,
    channels_last: bool,
    rows: bool,
    num_groups: int,
    eps: float,
    weight: _Array | None,
    bias: _Array | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def group_norm_backward(
    grad_output: _Array,
    x: _Array,
    grad_input: _Array | None,
    channels_last: bool,
    rows: bool,
    num_groups: int,
    mean: _Array,
    invstd: _Array,
    weight: _Array | None,
) -> tuple[_Array, _Array]: ...
def layer_norm(
    x: _Array,
    y: _Array,
    groups: int,
    length: int,
    count: int,
    eps: float,
    weight: _Array | None,
    bias: _Array | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def layer_norm_backward(
    grad_output: _Array,
    x: _Array,
    grad_input: _Array | None,
    groups: int,
    length: int,
    mean: _Array,
    invstd: _Array,
    weight: _Array | None,
    sums: bool,
) -> tuple[_Array, _Array]: ...

# bind_eltwise.cpp
def eltwise(name: str, a: _Array, b: _Array | None, y: _Array, parameter: float = 0.0) -> None: ...
def squared_error(a: _Array, b: _Array) -> float: ...
def softmax(x: _Array, y: _Array, axis: int, logarithm: bool) -> None: ...
def softmax_backward(grad_output: _Array, y: _Array, grad_input: _Array, axis: int, logarithm: bool) -> None: ...
def binary_cross_entropy(
    x: _Array,
    target: _Array,
    weight: _Array | None,
    pos_weight: _Array | None,
    y: _Array | None,
    derivative: bool,
    factor: float,
) -> float: ...
def cross_entropy(
    logits: _Array, target: _Array, weight: _Array | None, ignore_index: int, label_smoothing: float, reduction: str
) -> _Array: ...
def cross_entropy_backward(
    grad_output: _Array,
    logits: _Array,
    target: _Array,
    weight: _Array | None,
    ignore_index: int,
    label_smoothing: float,
    mean: bool,
) -> _Array: ...
def dropout_mask(shape: Sequence[int], p: float, seed: int) -> npt.NDArray[np.bool_]: ...
def dropout_apply(x: _Array, mask: npt.NDArray[np.bool_], y: _Array, scale: float) -> None: ...

# bind_update.cpp
def sgd(
    data: _Array,
    grad: _Array,
    velocity: _Array | None,
    first: bool,
    rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    l1: float,
    /,
) -> None: ...
def adam(
    data: _Array,
    grad: _Array,
    mean: _Array,
    square: _Array,
    largest: _Array | None,
    rate: float,
    beta1: float,
    beta2: float,
    correction: float,
    eps: float,
    weight_decay: float,
    shrink: float,
    /,
) -> None: ...
