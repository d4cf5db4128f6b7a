"""A network's state in a file: ``.npz`` (NumPy's) or ``.safetensors`` (which PyTorch's tools read too).

Neither format can hold code, so a file from a stranger cannot run any.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._extras import require
from .._files import read_npz, widened, write_npz, write_whole
from .module import IncompatibleKeys, Module

__all__ = ["load", "save"]

State = dict[str, NDArray[Any]]

# The format's names for the numbers that NumPy has; they are stored little-endian.
_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}


def save(module: Module, path: str | os.PathLike[str]) -> None:
    """Write all parameters and buffers of a network to a file, under the names of ``state_dict``.

    The file appears whole or not at all: it is written under another name beside its place, then renamed.

    Parameters
    ----------
    module : Module
        The network.
    path : path-like
        Ends in ``.npz`` or ``.safetensors``. An existing file is replaced.

    Raises
    ------
    ValueError
        If the name ends in anything else.
    fastconv._extras.MissingExtraError
        If it is ``.safetensors`` and that package is not installed (an ``ImportError``).
    """
    path, suffix = _checked(path)
    state = module.state_dict()
    if suffix == ".safetensors":
        # Zero-dimensional arrays too; state_dict gives contiguous copies, as the format needs.
        content = _safetensors("numpy").save(state)
        write_whole(path, lambda file: file.write(content))
    else:
        write_whole(path, lambda file: write_npz(file, state))


def load(module: Module, path: str | os.PathLike[str], strict: bool = True) -> IncompatibleKeys:
    """Read a network's parameters and buffers from a file.

    Parameters
    ----------
    module : Module
        The network, built as the saved one was.
    path : path-like
        A file that `save` wrote, or any of PyTorch's weights in the same formats. Its name ends in ``.npz`` or
        ``.safetensors``.
    strict : bool
        As for `Module.load_state_dict`.

    Returns
    -------
    IncompatibleKeys
        Named tuple ``(missing_keys, unexpected_keys)``.

    Raises
    ------
    ValueError
        If the name ends in anything else, the file is damaged, or it does not fit the network, which is then as it
        was.
    fastconv._extras.MissingExtraError
        If it is ``.safetensors`` and that package is not installed (an ``ImportError``).
    """
    path, suffix = _checked(path)
    state = _read_safetensors(path) if suffix == ".safetensors" else read_npz(path)
    return module.load_state_dict(state, strict)


def _checked(path: str | os.PathLike[str]) -> tuple[Path, str]:
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name that ends in .npz or .safetensors, got {str(path)!r}")
    return path, path.suffix


def _safetensors(submodule: str | None = None) -> Any:
    name = "safetensors" + (f".{submodule}" if submodule else "")
    return require(name, purpose="A .safetensors file", extra="safetensors")


def _read_safetensors(path: Path) -> State:
    library = _safetensors()
    content = path.read_bytes()
    try:
        tensors = library.deserialize(content)
    except library.SafetensorError as error:
        raise ValueError(f"path: {str(path)!r} is not a .safetensors file, or is damaged: {error}") from None
    state: State = {}
    for name, tensor in tensors:
        dtype, data = tensor["dtype"], bytes(tensor["data"])
        if dtype == "BF16":
            array = widened(np.frombuffer(data, "<u2"))
        elif dtype in _DTYPES:
            array = np.frombuffer(data, _DTYPES[dtype])
        else:
            raise ValueError(f"path: {name} in {str(path)!r} has dtype {dtype}, which NumPy does not have")
        state[name] = array.reshape(tensor["shape"])
    return state
