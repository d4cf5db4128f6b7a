"""Files that appear whole or not at all, and arrays in NumPy's ``.npz``."""

from __future__ import annotations

import os
import secrets
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_npz", "widened", "write_npz", "write_whole"]


def write_whole(path: Path, write: Callable[[IO[bytes]], object], temporary: Path | None = None) -> None:
    """Write a file so that its name never leads to a part of it, whenever the process or the machine stops.

    It is written under another name, forced to the disk, and renamed, which is atomic; then the folder, which holds the
    name, is forced to the disk too.

    Parameters
    ----------
    path : Path
        An existing file is replaced.
    write : callable
        Writes the content to the open file that it is given.
    temporary : Path, optional
        The other name, in the same folder; one of its own unless given. A name that is known in advance leaves at most
        one file behind, and the next writing replaces that.
    """
    mode = "xb" if temporary is None else "wb"
    temporary = temporary or path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, mode) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_npz(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what ``numpy.savez`` does, for any names: it takes them as keywords."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a ``.npz`` file; bfloat16 ones come as float32.

    Raises
    ------
    ValueError
        If it is not such a file, or is damaged.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            state = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"path: {str(path)!r} is not a .npz file, or is damaged: {error}") from None
    # NumPy's format does not know bfloat16 and writes its two bytes as such.
    return {n: widened(array.view("<u2")) if array.dtype == np.dtype("V2") else array for n, array in state.items()}


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 numbers, which are the upper halves of float32's, as these."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
