"""What CUDA devices there are, and whether this build's kernels run on them.

The functions never raise, whatever the machine has or lacks.
"""

from __future__ import annotations

from fastconv._device.extension import load

__all__ = ["arch_list", "device_count", "is_available", "unavailable_reason"]


def is_available() -> bool:
    """Whether arrays on a CUDA device can be computed with: the kernels are in this build, and a device is there."""
    return device_count() > 0


def device_count() -> int:
    """The number of CUDA devices that this build's kernels run on."""
    return _devices()[0]


def unavailable_reason() -> str:
    """Why :func:`is_available` is false: no kernels in this build, no driver or an old one, no device; else ``""``."""
    return _devices()[1]


def arch_list() -> list[str]:
    """The device architectures, such as ``"sm_90"``, that this build has kernels for."""
    module, _ = load()
    return [] if module is None else list(module.architectures())


def _devices() -> tuple[int, str]:
    module, reason = load()
    if module is None:
        return 0, reason
    count, reason = module.devices()
    return count, "" if count else f"CUDA: {reason or 'no device is visible'}"
