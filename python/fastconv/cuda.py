"""What CUDA devices there are. This build has no CUDA kernels, so there are none that it can use.

The functions never raise, whatever the machine has or lacks.
"""

from __future__ import annotations

__all__ = ["arch_list", "device_count", "is_available"]


def is_available() -> bool:
    """Whether arrays on a CUDA device can be computed with: the kernels are in this build, and a device is there."""
    return device_count() > 0


def device_count() -> int:
    """The number of CUDA devices that this build's kernels run on."""
    return 0


def arch_list() -> list[str]:
    """The device architectures, such as ``"sm_90"``, that this build has kernels for."""
    return []
