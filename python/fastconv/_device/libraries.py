"""What the array libraries say about their device arrays: address, strides, device, stream; and what they allocate.

PyTorch is asked by its own methods, which know bfloat16. Every other library is asked by the CUDA array interface,
version 3, whose ``stream`` entry is the library's current stream: CuPy's and Numba's arrays have it.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np

from fastconv._extras import require

__all__ = ["Library", "is_device_array", "library_of"]


class Library(Protocol):
    """One array library; `owner` is one of its arrays."""

    def dtype(self, owner: Any) -> np.dtype[Any]:
        """NumPy's dtype of the array."""

    def pointer(self, owner: Any) -> int:
        """The address of the first element."""

    def steps(self, owner: Any) -> tuple[int, ...]:
        """Strides in elements."""

    def writeable(self, owner: Any) -> bool:
        """Whether the array may be written to."""

    def device(self, owner: Any) -> int:
        """The number of the device."""

    def stream(self, owner: Any) -> int:
        """The library's current stream on the array's device."""

    def empty(self, owner: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A fresh contiguous array on the device of `owner`."""


def is_device_array(value: object) -> bool:
    """Whether `value` lives on a CUDA device."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return bool(value.device.type == "cuda")
    return getattr(type(value), "__cuda_array_interface__", None) is not None


def library_of(value: object) -> Library:
    """The library that a device array belongs to."""
    torch = sys.modules.get("torch")
    return _TORCH if torch is not None and isinstance(value, torch.Tensor) else _INTERFACE


def namespace(owner: Any) -> Any:
    """The array API namespace of an array: views are made with its functions."""
    compat = require("array_api_compat", purpose="an array on a CUDA device", extra="cuda", package="array-api-compat")
    try:
        result: Any = compat.array_namespace(owner)
    except TypeError:
        kind = f"{type(owner).__module__}.{type(owner).__qualname__}"
        raise TypeError(f"x: a CUDA array of type {kind}; those of CuPy and PyTorch are served") from None
    return result


def contiguous_steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of an array in C order."""
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))


class _Torch:
    def dtype(self, owner: Any) -> np.dtype[Any]:
        return _named_dtype(str(owner.dtype).removeprefix("torch."))

    def pointer(self, owner: Any) -> int:
        return int(owner.data_ptr())

    def steps(self, owner: Any) -> tuple[int, ...]:
        return tuple(owner.stride())

    def writeable(self, owner: Any) -> bool:
        return True

    def device(self, owner: Any) -> int:
        return int(owner.device.index)

    def stream(self, owner: Any) -> int:
        return int(sys.modules["torch"].cuda.current_stream(owner.device).cuda_stream)

    def empty(self, owner: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, dtype.name), device=owner.device)


class _Interface:
    def dtype(self, owner: Any) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(owner.dtype)
        return dtype

    def pointer(self, owner: Any) -> int:
        return int(owner.__cuda_array_interface__["data"][0] or 0)

    def steps(self, owner: Any) -> tuple[int, ...]:
        strides = owner.__cuda_array_interface__.get("strides")
        if strides is None:
            return contiguous_steps(tuple(owner.shape))
        return tuple(stride // owner.dtype.itemsize for stride in strides)

    def writeable(self, owner: Any) -> bool:
        return not owner.__cuda_array_interface__["data"][1]

    def device(self, owner: Any) -> int:
        return int(getattr(owner.device, "id", owner.device))

    def stream(self, owner: Any) -> int:
        return int(owner.__cuda_array_interface__.get("stream") or 0)

    def empty(self, owner: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return namespace(owner).empty(shape, dtype=dtype, device=owner.device)


def _named_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        from fastconv._check import bfloat16

        return bfloat16("x")
    return np.dtype(name)


_TORCH, _INTERFACE = _Torch(), _Interface()
