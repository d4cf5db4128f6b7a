"""Every function of the engine on device arrays, by the name that ``_core`` has for the host's."""

from fastconv._device.engine import *  # noqa: F403
from fastconv._device.losses import *  # noqa: F403
from fastconv._device.norms import *  # noqa: F403
from fastconv._device.pools import *  # noqa: F403
