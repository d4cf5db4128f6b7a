"""fastconv: the convolution engine for people who work in NumPy.

``fastconv.functional`` (by habit ``F``) has the ops, forward and backward; ``fastconv.nn`` the layers;
``fastconv.optim`` the update rules; ``fastconv.models`` known networks; ``fastconv.train`` the training loop;
``fastconv.testing`` a gradient check.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastconv import _openmp  # noqa: F401, before anything else loads the engine
from fastconv._runtime import (
    __version__,
    available_isas,
    float32_precision,
    get_float32_precision,
    get_isa,
    get_num_threads,
    release_memory,
    set_float32_precision,
    set_isa,
    set_num_threads,
    show_config,
)

if TYPE_CHECKING:
    from fastconv import (
        analysis,
        cuda,
        datasets,
        functional,
        kernels,
        models,
        nn,
        optim,
        sklearn,
        testing,
        train,
        visualize,
    )

# Loaded when first used, so that `import fastconv` costs little more than `import numpy`.
_SUBMODULES = (
    "analysis",
    "cuda",
    "datasets",
    "functional",
    "kernels",
    "models",
    "nn",
    "optim",
    "sklearn",
    "testing",
    "train",
    "visualize",
)

__all__ = [
    "__version__",
    "analysis",
    "available_isas",
    "cuda",
    "datasets",
    "float32_precision",
    "functional",
    "get_float32_precision",
    "get_isa",
    "get_num_threads",
    "kernels",
    "models",
    "nn",
    "optim",
    "release_memory",
    "set_float32_precision",
    "set_isa",
    "set_num_threads",
    "show_config",
    "sklearn",
    "testing",
    "train",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"fastconv.{name}")
    raise AttributeError(f"module 'fastconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
