"""A device array as the ops handle it: with the attributes, views and functions of NumPy that they use.

The ops are written once, for ``numpy.ndarray``. A `DeviceArray` stands for an array of another library there: views of
it are that library's views, NumPy's functions reach it by NumPy's own protocols (``__array_function__`` of NEP 18,
``like=`` of NEP 35), and arithmetic by ``__array_ufunc__``, which the CUDA kernels do. Nothing of it waits for the
device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastconv._device.libraries import Library, contiguous_steps, library_of, namespace

__all__ = ["DeviceArray", "contiguous"]

_ELEMENTS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3, "bool": 4, "uint8": 4, "int64": 5}
_ARITHMETIC = {
    np.positive: "positive",
    np.negative: "negative",
    np.absolute: "absolute",
    np.sign: "sign",
    np.sqrt: "sqrt",
    np.exp: "exp",
    np.add: "add",
    np.subtract: "subtract",
    np.multiply: "multiply",
    np.divide: "divide",
    np.maximum: "maximum",
    np.minimum: "minimum",
    np.power: "power",
}


class Flags:
    """What `numpy.ndarray.flags` says, as far as it is asked."""

    def __init__(self, c_contiguous: bool, writeable: bool) -> None:
        self.c_contiguous = c_contiguous
        self.writeable = writeable
        self.aligned = True


class DeviceArray(NDArrayOperatorsMixin):
    """An array of another library, on a CUDA device."""

    __slots__ = ("dtype", "library", "owner", "shape")
    __array_priority__ = 1000

    def __init__(self, owner: Any, library: Library | None = None) -> None:
        self.library: Library = library_of(owner) if library is None else library
        self.owner = owner.detach() if hasattr(owner, "detach") else owner
        self.shape: tuple[int, ...] = tuple(owner.shape)
        self.dtype: np.dtype[Any] = self.library.dtype(owner)

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(step * self.itemsize for step in self.library.steps(self.owner))

    @property
    def flags(self) -> Flags:
        steps = self.library.steps(self.owner)
        dense = contiguous_steps(self.shape)
        contiguous = self.size == 0 or all(
            step == expected or size == 1 for step, expected, size in zip(steps, dense, self.shape, strict=True)
        )
        return Flags(contiguous, self.library.writeable(self.owner))

    @property
    def device(self) -> int:
        return self.library.device(self.owner)

    @property
    def described(self) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
        """The array as the extension takes it: address, element type, shape, strides in elements."""
        return self.library.pointer(self.owner), _ELEMENTS[self.dtype.name], self.shape, self.library.steps(self.owner)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a device array does not become a numpy.ndarray by itself")

    # --- other arrays -------------------------------------------------------------------------------------------------

    def new(self, shape: tuple[int, ...], dtype: Any = None) -> DeviceArray:
        """A fresh contiguous array of the same library, on the same device; of the same dtype unless given."""
        owner = self.library.empty(self.owner, tuple(shape), self.dtype if dtype is None else np.dtype(dtype))
        return DeviceArray(owner, self.library)

    def _view(self, owner: Any) -> DeviceArray:
        return DeviceArray(owner, self.library)

    def __getitem__(self, key: Any) -> DeviceArray:
        return self._view(self.owner[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self if key is Ellipsis else self[key]
        target.fill_from(value)

    def reshape(self, *shape: Any) -> DeviceArray:
        sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else tuple(shape)
        return self._view(namespace(self.owner).reshape(self.owner, sizes))

    def permuted(self, axes: tuple[int, ...]) -> DeviceArray:
        """The view whose axis i is this array's axis ``axes[i]``."""
        return self._view(namespace(self.owner).permute_dims(self.owner, axes))

    def broadcast(self, shape: tuple[int, ...]) -> DeviceArray:
        return self if self.shape == tuple(shape) else self._view(namespace(self.owner).broadcast_to(self.owner, shape))

    def fill_from(self, value: Any) -> DeviceArray:
        """Write `value`, an array that broadcasts to this one's shape or a number; returns this array."""
        return self._arithmetic("positive", value, 0.0)

    def astype(self, dtype: Any, *, copy: bool = True) -> DeviceArray:
        wanted = np.dtype(dtype)
        if wanted == self.dtype and not copy:
            return self
        if self.dtype.kind in "iu" or wanted.kind in "iu":
            xp = namespace(self.owner)
            return self._view(xp.astype(self.owner, getattr(xp, wanted.name)))
        return self.new(self.shape, wanted).fill_from(self)

    def copy(self) -> DeviceArray:
        return self.astype(self.dtype)

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    def _arithmetic(self, name: str, first: Any, second: Any) -> DeviceArray:
        """``self[...] = name(first, second)``."""
        from fastconv._device import engine

        engine.arithmetic(name, first, second, self)
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **keywords: Any) -> Any:
        name = _ARITHMETIC.get(ufunc)
        if name is None or method != "__call__" or keywords:
            return NotImplemented
        for each in inputs:
            if not isinstance(each, DeviceArray | int | float | np.number):
                return NotImplemented
        if out is not None:
            target: DeviceArray = out[0]
        else:
            arrays = [each for each in inputs if isinstance(each, DeviceArray)]
            shape = np.broadcast_shapes(*(each.shape for each in arrays))
            kinds = [each.dtype if isinstance(each, DeviceArray) else _weak(each) for each in inputs]
            target = arrays[0].new(shape, np.result_type(*kinds))
        return target._arithmetic(name, inputs[0], inputs[1] if len(inputs) > 1 else 0.0)

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        replacement = FUNCTIONS.get(function)
        if replacement is None:
            return NotImplemented
        return replacement(self, *arguments, **keywords)

    def sum(self, axis: int | None = None, *, keepdims: bool = False) -> DeviceArray:
        if axis is None:
            return self.reshape(self.size)._reduced("sum", 0, False)
        return self._reduced("sum", axis, keepdims)

    def max(self, axis: int, *, keepdims: bool = False) -> DeviceArray:
        return self._reduced("max", axis, keepdims)

    def mean(self, axis: int, *, keepdims: bool = False) -> DeviceArray:
        total = self.sum(axis, keepdims=keepdims)
        total /= max(self.shape[axis], 1) if self.shape[axis] else math.nan
        return total

    def var(self, axis: int, *, keepdims: bool = False) -> DeviceArray:
        deviation = self - self.mean(axis, keepdims=True)
        deviation *= deviation
        result: DeviceArray = deviation.mean(axis, keepdims=keepdims)
        return result

    def where_nonzero(self, condition: DeviceArray) -> DeviceArray:
        """This array, but zero where `condition` is."""
        return self.new(self.shape)._arithmetic("where_nonzero", self, condition)

    def _reduced(self, name: str, axis: int, keepdims: bool) -> DeviceArray:
        from fastconv._device import engine

        along = axis % self.ndim
        result = self.new((*self.shape[:along], *self.shape[along + 1 :]))
        engine.reduce(name, self, along, result)
        return result.reshape((*self.shape[:along], 1, *self.shape[along + 1 :])) if keepdims else result


def _weak(value: Any) -> Any:
    """A number as NumPy's promotion takes it: Python's numbers and float64 scalars do not widen an array."""
    return float(value) if isinstance(value, float | np.floating) else value


def _empty(like: DeviceArray, shape: Any, dtype: Any = float, **_: Any) -> DeviceArray:
    return like.new((shape,) if isinstance(shape, int) else tuple(shape), dtype)


def _filled(value: float) -> Callable[..., DeviceArray]:
    return lambda like, shape, dtype=float, **_: _empty(like, shape, dtype).fill_from(value)


def _moveaxis(_: DeviceArray, array: DeviceArray, source: int, destination: int) -> DeviceArray:
    axes = [axis for axis in range(array.ndim) if axis != source % array.ndim]
    axes.insert(destination % array.ndim, source % array.ndim)
    return array.permuted(tuple(axes))


def _contiguous(_: DeviceArray, array: DeviceArray, dtype: Any = None, **__: Any) -> DeviceArray:
    wanted = array.dtype if dtype is None else np.dtype(dtype)
    if wanted != array.dtype:
        array = array.astype(wanted)
    if array.flags.c_contiguous:
        return array
    if array.dtype.kind in "iu":
        # Flattened, an array in another order is a copy in C order.
        return array.reshape(array.size).reshape(array.shape)
    return array.copy()


def _may_share(_: DeviceArray, first: Any, second: Any, **__: Any) -> bool:
    """Whether the spans of memory from the first to the last element meet."""
    spans = []
    for array in (first, second):
        address, _code, shape, steps = array.described
        reach = [(size - 1) * step * array.itemsize for size, step in zip(shape, steps, strict=True)]
        low = address + sum(min(each, 0) for each in reach)
        spans.append((low, address + sum(max(each, 0) for each in reach) + array.itemsize))
    return bool(first.size > 0 and second.size > 0 and spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1])


def _empty_like(_: DeviceArray, array: DeviceArray, dtype: Any = None, **__: Any) -> DeviceArray:
    """As NumPy's: in the array's own order where its memory is dense."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    result = array.new(tuple(array.shape[axis] for axis in order), dtype)
    if order == list(range(array.ndim)):
        return result
    return result.permuted(tuple(order.index(axis) for axis in range(array.ndim)))


def contiguous(array: DeviceArray | None) -> DeviceArray | None:
    """The array in C order, itself if it is so; ``None`` stays."""
    return None if array is None else _contiguous(array, array)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.empty: _empty,
    np.zeros: _filled(0.0),
    np.ones: _filled(1.0),
    np.empty_like: _empty_like,
    np.zeros_like: lambda _, array, dtype=None, **__: _empty_like(_, array, dtype).fill_from(0.0),
    np.moveaxis: _moveaxis,
    np.ascontiguousarray: _contiguous,
    np.broadcast_to: lambda _, array, shape, **__: array.broadcast(shape),
    np.atleast_1d: lambda _, array: array if array.ndim else array.reshape((1,)),
    np.copyto: lambda _, target, source, **__: target.fill_from(source),
    np.may_share_memory: _may_share,
}
"""What NumPy's functions do to device arrays; each takes the array that was asked first."""
