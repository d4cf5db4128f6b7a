"""The extension with the CUDA kernels, loaded when it is first needed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pathlib
from typing import Any

__all__ = ["extension", "load"]

OVERRIDE = "FASTCONV_CUDA_MODULE"
"""The environment variable that names another file to load, such as the emulated module of the tests."""


@functools.cache
def load() -> tuple[Any, str]:
    """The extension and ``""``, or ``None`` and why it is not there."""
    path = os.environ.get(OVERRIDE)
    try:
        if path is None:
            return importlib.import_module("fastconv._cuda"), ""
        name = pathlib.Path(path).name.split(".")[0]
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            return None, f"{OVERRIDE}: {path} is no extension module"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module, ""
    except ModuleNotFoundError:
        return None, "this build of fastconv has no CUDA kernels: it was not built with FASTCONV_CUDA=ON and nvcc"
    except ImportError as error:
        return None, f"the CUDA kernels could not be loaded: {error}"


def extension() -> Any:
    """The extension; ``RuntimeError`` with the reason where there is none."""
    module, reason = load()
    if module is None:
        raise RuntimeError(f"x: is on a CUDA device, but {reason}")
    return module
