"""The options that every network hands on to its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Keyword arguments for the kinds of layers.

    Parameters
    ----------
    data_format : {"channels_first", "channels_last"}
        Where the channels are.
    dtype : dtype
        Type of the parameters.
    rng : numpy.random.Generator or None
        Source of the first weights.
    """

    data_format: str
    dtype: DTypeLike
    rng: np.random.Generator | None

    @property
    def layout(self) -> dict[str, Any]:
        """For layers without parameters."""
        return {"data_format": self.data_format}

    @property
    def normed(self) -> dict[str, Any]:
        """For norms, whose first values are not random."""
        return {"data_format": self.data_format, "dtype": self.dtype}

    @property
    def weighted(self) -> dict[str, Any]:
        """For layers with random first weights."""
        return {"data_format": self.data_format, "dtype": self.dtype, "rng": self.rng}

    @property
    def dropping(self) -> dict[str, Any]:
        """For dropout: a generator of its own, so that its masks do not depend on who else draws from ``rng``."""
        own = None if self.rng is None else np.random.default_rng(self.rng.integers(2**63))
        return {"data_format": self.data_format, "rng": own}
