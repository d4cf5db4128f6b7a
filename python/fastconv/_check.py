"""Argument checks, made once: every op, forward and backward, normalises its arguments here.

Each error names the argument, what came and what was expected.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fastconv import _core
from fastconv._device import DeviceArray, is_device_array, on_device

Array: TypeAlias = npt.NDArray[Any]
Pads: TypeAlias = tuple[tuple[int, int], ...]
Restore: TypeAlias = Callable[[Any], Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_CHANNELS_FIRST = {"channels_first", "NCL", "NCW", "NCHW", "NCDHW"}
_CHANNELS_LAST = {"channels_last", "NLC", "NWC", "NHWC", "NDHWC"}
# Sizes beyond this cannot be an array's, and the arithmetic of window positions stays inside 64 bits.
_LARGEST = 2**40


def require(condition: bool, message: str | Callable[[], str]) -> None:
    """Raise ``ValueError`` unless `condition` holds.

    A message made by a function is made only where it is needed: most checks pass, and formatting shapes costs a small
    call more than its kernel.
    """
    if not condition:
        raise ValueError(message if isinstance(message, str) else message())


# What a cache may look up: at the top, where it tells types apart, and inside a tuple, where True and 1 are one key.
_ATOMS: frozenset[type] = frozenset((int, str, bool, type(None)))
_NESTED: frozenset[type] = frozenset((int, str))


def _is_plain(items: tuple[Any, ...], atoms: frozenset[type]) -> bool:
    for item in items:
        kind = type(item)
        if kind not in atoms and not (kind is tuple and _is_plain(item, _NESTED)):
            return False
    return True


def cached(function: _Function) -> _Function:
    """The function, with its latest results kept: checking a small call's arguments takes longer than its kernel.

    Only ints, strs, bools, ``None`` and tuples of ints and strs are looked up. Other values may equal these and still
    be refused, as ``2.0`` is.
    """
    kept = functools.lru_cache(maxsize=512, typed=True)(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return kept(*arguments) if _is_plain(arguments, _ATOMS) else function(*arguments)

    return cast(_Function, call)


def is_sixteen_bit(dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` is float16 or ml_dtypes' bfloat16 (which is known by its name: the package is optional)."""
    return dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16")


def _is_torch(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _from_torch(tensor: Any, name: str) -> Array:
    if tensor.device.type == "cuda":
        return cast(Array, DeviceArray(tensor))
    if tensor.device.type != "cpu":
        raise TypeError(f"{name}: a PyTorch tensor on {tensor.device}; move it to the CPU with .cpu()")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":
        bits: Array = tensor.view(sys.modules["torch"].uint16).numpy()
        return bits.view(bfloat16(name))
    try:
        array: Array = tensor.numpy()
    except TypeError as error:  # a sparse layout, or a dtype that NumPy has not
        raise TypeError(f"{name}: {error}") from None
    return array


def bfloat16(name: str) -> np.dtype[Any]:
    """NumPy's dtype of the type that only the package ml_dtypes has."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise TypeError(f"{name}: bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def as_ndarray(value: object, name: str, *, writes: bool = False) -> Array:
    """A plain ``numpy.ndarray`` of an array or tensor, on the same memory.

    One that the engine cannot step through (it steps in whole native elements from an aligned start) is copied, unless
    the op `writes` to it.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array, whose mask would be ignored; pass {name}.filled(value)")
    if isinstance(value, np.ndarray):
        array: Array = np.asarray(value)
    elif _is_torch(value):
        array = _from_torch(value, name)
    elif type(value).__module__.split(".")[0] in ("jax", "jaxlib"):
        raise TypeError(f"{name}: JAX arrays are immutable and not served; pass numpy.asarray({name})")
    elif is_device_array(value):
        array = cast(Array, DeviceArray(value))
    else:
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(value).__name__}; pass numpy.asarray({name})")
    return array if writes else in_steps(array)


def can_step(array: Array) -> bool:
    """Whether the engine can step through the array: not through an unaligned one, or some fields of records."""
    size = max(array.itemsize, 1)
    for stride in array.strides:  # several times faster than a generator, in every call of every op
        if stride % size:
            return False
    return array.flags.aligned and array.dtype.isnative


def in_steps(array: Array) -> Array:
    """The array, or a copy of one that the engine cannot step through."""
    if array.dtype.hasobject or can_step(array):
        return array
    return np.array(array, array.dtype if array.dtype.isnative else array.dtype.newbyteorder("="), order="K")


_OPTIONAL = {"bias", "out", "pos_weight", "running_mean", "running_var", "weight"}
_WRITTEN = {"out", "running_mean", "running_var"}
# What may be float32 beside 16-bit data: statistics lose too much in 16 bits.
_STATISTICS = {"invstd", "mean", "running_mean", "running_var", "var"}


def present(**named: object) -> None:
    """``TypeError`` for an argument that is ``None`` where an array is needed."""
    for name, value in named.items():
        if value is None:
            raise TypeError(f"{name}: expected an array, got None")


def as_arrays(**named: object) -> tuple[Any, ...]:
    """Check that the arrays of one call are of one dtype, float32, float64, float16 or bfloat16.

    Of a call on 16-bit data the statistics may be float32.

    Parameters
    ----------
    **named
        The call's arrays by argument name; ``None`` stands for an absent optional one (a weight is optional to some
        ops: the others say so with :func:`present`).

    Returns
    -------
    tuple
        The arrays in the same order (on the caller's memory where the engine can step through it, and always those
        that an op writes), then a function that turns a result into the caller's kind of array (a PyTorch tensor where
        one came in).

    Raises
    ------
    TypeError
        Not an array, an unsupported dtype, or mixed dtypes.
    """
    if _core.are_plain(named, _OPTIONAL):  # as they mostly are: nothing to convert or to refuse
        return (*named.values(), _identity)
    arrays: list[Array | None] = []
    first: tuple[str, np.dtype[Any]] | None = None
    tensor_came = device_came = False
    for name, value in named.items():
        if value is None and name in _OPTIONAL:
            arrays.append(None)
            continue
        present(**{name: value})
        tensor_came = tensor_came or _is_torch(value)
        array = as_ndarray(value, name, writes=name in _WRITTEN)
        device_came = device_came or on_device(array)
        if array.dtype not in _DTYPES and not is_sixteen_bit(array.dtype):
            advice = "float64" if array.dtype.kind in "c" else "float32"
            raise TypeError(
                f"{name}: dtype {array.dtype} is not supported, expected float32, float64, float16 or bfloat16; "
                f"cast it with {name}.astype(numpy.{advice})"
            )
        if first is None:
            first = (name, array.dtype)
        elif array.dtype != first[1] and not (
            name in _STATISTICS and is_sixteen_bit(first[1]) and array.dtype == _DTYPES[0]
        ):
            raise TypeError(
                f"{name}: dtype {array.dtype} differs from {first[0]}'s {first[1]}; all arrays of one call share a "
                f"dtype, cast with {name}.astype(numpy.{first[1]})"
            )
        arrays.append(array)
    if device_came:
        same_place(**dict(zip(named, arrays, strict=True)))
        return (*arrays, _to_owner)
    return (*arrays, _to_torch if tensor_came else _identity)


def same_place(**named: Any) -> None:
    """``TypeError`` unless all arrays of a call are of one library, and on one device."""
    places = {
        name: (type(array.owner).__module__.split(".")[0], f"on CUDA device {array.device}")
        if on_device(array)
        else ("numpy", "in the host's memory")
        for name, array in named.items()
        if array is not None
    }
    (first, (library, place)), *others = places.items()
    for name, (other_library, other_place) in others:
        if other_place != place:
            raise TypeError(
                f"{name}: is {other_place}, but {first} is {place}; all arrays of one call are in one place, move one"
            )
        if other_library != library:
            raise TypeError(
                f"{name}: an array of {other_library}, but {first} is one of {library}; convert one of them"
            )


def _to_owner(value: Any) -> Any:
    return value.owner if on_device(value) else value


def _identity(value: Any) -> Any:
    return value


def _to_torch(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    torch = sys.modules["torch"]
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(value)


def channels_last(data_format: object) -> bool:
    """Whether `data_format` means channels-last; ``ValueError`` for an unknown name."""
    if not isinstance(data_format, str):
        raise TypeError(f"data_format: expected a str, got {data_format!r}")
    if data_format in _CHANNELS_FIRST:
        return False
    if data_format in _CHANNELS_LAST:
        return True
    raise ValueError(f'data_format: got {data_format!r}, expected "channels_first" or "channels_last"')


def integer(value: object, name: str, minimum: int) -> int:
    """`value` as an int of at least `minimum`."""
    if type(value) is int and minimum <= value <= _LARGEST:
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    number = int(value)
    require(
        minimum <= number <= _LARGEST,
        lambda: (
            f"{name}: got {number}, expected {'at least' if number < minimum else 'less than'} "
            f"{minimum if number < minimum else _LARGEST}"
        ),
    )
    return number


def tuple_of_ints(value: object, n: int, name: str, minimum: int) -> tuple[int, ...]:
    """An int, or a sequence of `n` ints, as a tuple of `n` ints of at least `minimum`."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = list(value)
        require(len(items) == n, lambda: f"{name}: got {value!r}, expected an int or a tuple of {n} ints")
        return tuple(integer(item, name, minimum) for item in items)
    return (integer(value, name, minimum),) * n


def number(value: object, name: str) -> float:
    """`value` as a float."""
    if type(value) is float:
        return value
    if isinstance(value, bool | str) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: got an int beyond float64") from None


def spatial_shape(x: Array, n: int, name: str, last: bool) -> tuple[int, ...]:
    """The spatial sizes of a batch of images of `n` spatial dimensions; ``ValueError`` for another rank."""
    layout = "(N, *spatial, C)" if last else "(N, C, *spatial)"
    require(x.ndim == n + 2, lambda: f"{name}: expected {n + 2} dimensions {layout}, got shape {x.shape}")
    return tuple(x.shape[1:-1] if last else x.shape[2:])


def channels(x: Array | DeviceArray, last: bool) -> int:
    """The channel count of a batch of images."""
    return int(x.shape[-1] if last else x.shape[1])


def pads(
    padding: object,
    n: int,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """`padding` in any of its forms as `n` pairs ``(before, after)``.

    ``"same"`` is Keras's: output ``ceil(in / stride)``, the odd element of padding at the end. ``"full"`` pads so that
    every overlap counts; ``"causal"`` (1-D) pads before only.
    """
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * n
        if padding == "same":
            totals = [
                max((-(-size // s) - 1) * s + r + 1 - size, 0) for size, s, r in zip(sizes, stride, reach, strict=True)
            ]
            return tuple((total // 2, total - total // 2) for total in totals)
        if padding == "full":
            return tuple((r, r) for r in reach)
        if padding == "causal" and n == 1:
            return ((reach[0], 0),)
        causal = ', "causal"' if n == 1 else ""
        raise ValueError(f'padding: got {padding!r}, expected ints, pairs, "valid", "same", "full"{causal}')
    if isinstance(padding, Sequence | np.ndarray) and any(isinstance(p, Sequence | np.ndarray) for p in padding):
        require(len(padding) == n, lambda: f"padding: got {padding!r}, expected {n} pairs (before, after)")
        pairs = tuple(tuple_of_ints(pair, 2, "padding", 0) for pair in padding)
        return tuple((before, after) for before, after in pairs)
    return tuple((p, p) for p in tuple_of_ints(padding, n, "padding", 0))


def output_sizes(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Pads,
    *,
    ceil_mode: bool = False,
    name: str = "kernel_size",
) -> tuple[int, ...]:
    """Window positions per dimension; ``ValueError`` where a window does not fit the padded input."""
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    require(
        max(reach) <= _LARGEST, lambda: f"dilation: {tuple(dilation)} makes a window of {reach}, longer than any array"
    )
    result = tuple(
        int(_core.output_size(size, k, s, d, before, after, ceil_mode))
        for size, k, s, d, (before, after) in zip(sizes, kernel, stride, dilation, padding, strict=True)
    )
    padded = tuple(size + before + after for size, (before, after) in zip(sizes, padding, strict=True))
    require(
        all(size > 0 for size in result),
        lambda: f"{name}: a window of {reach} (dilation included) is larger than the padded input {padded}",
    )
    return result


def same_shape(array: Array, shape: Sequence[int], name: str) -> None:
    """``ValueError`` unless `array` has `shape`."""
    if array.shape != tuple(shape):
        raise ValueError(f"{name}: got shape {array.shape}, expected {tuple(shape)}")


def flag(value: object, name: str) -> bool:
    """`value` as a bool; anything but a bool is a ``TypeError``."""
    if value is True or value is False:
        return value
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def mask(output_mask: object) -> tuple[bool, bool, bool]:
    """`output_mask` as three bools."""
    if not isinstance(output_mask, Sequence) or len(output_mask) != 3:
        raise ValueError(f"output_mask: got {output_mask!r}, expected three bools (input, weight, bias)")
    first, second, third = (flag(item, "output_mask") for item in output_mask)
    return first, second, third
