"""Arrays on CUDA devices: how the ops see them, and the kernels that serve them.

Nothing here is loaded before the first device array: neither the extension with the kernels nor array-api-compat.
"""

from __future__ import annotations

from fastconv._device.array import DeviceArray
from fastconv._device.libraries import is_device_array

__all__ = ["DeviceArray", "is_device_array", "on_device"]


def on_device(array: object) -> bool:
    """Whether an op's array stands for one on a device."""
    return type(array) is DeviceArray
