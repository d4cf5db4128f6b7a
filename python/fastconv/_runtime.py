"""Versions, instruction sets and threads: what the engine is and how it runs."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator

import numpy as np

from fastconv import _core, cuda

__version__: str = _core.build_config()["version"]


def available_isas() -> list[str]:
    """Instruction sets that are compiled in and usable on this machine, best last."""
    return list(_core.available_isas())


def get_isa() -> str:
    """The best instruction set that kernels may use now."""
    return _core.get_isa()


def set_isa(name: str) -> None:
    """Let kernels use instruction sets up to `name` only.

    Parameters
    ----------
    name
        One of :func:`available_isas`. ``FASTCONV_ISA`` sets it at start.

    Raises
    ------
    ValueError
        The name is unknown, or this machine cannot run it.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {name!r}")
    _core.set_isa(name)


def get_num_threads() -> int:
    """CPU threads that an op may use.

    Until :func:`set_num_threads` is called this is the smallest of ``OMP_NUM_THREADS`` (or threadpoolctl's limit), the
    process's CPU affinity and its cgroup quota.
    """
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Use `n` CPU threads (at least 1). Results do not depend on the number of threads."""
    from fastconv._check import integer

    _core.set_num_threads(min(integer(n, "n", 1), 4096))


def release_memory() -> int:
    """Give the memory that the engine keeps for its next results and calls back to the system.

    Freed results of 1 MB and more are kept, as every page of fresh memory costs a fault: with those in use at most
    twice what was once in use together (or 256 MB), and never more than an eighth of the machine's memory. Each thread
    keeps up to 16 MB of what its calls took to compute in.

    Returns
    -------
    int
        Bytes given back.
    """
    return int(_core.release_memory())


PRECISIONS = ("highest", "high", "medium")
_precision = "highest"


def get_float32_precision() -> str:
    """The accuracy that float32 convolutions keep at least; see :func:`set_float32_precision`."""
    return _precision


def set_float32_precision(p: str) -> None:
    """Say which accuracy float32 convolutions must keep at least.

    Parameters
    ----------
    p
        "highest" (default): an error no larger than that of a plain float32 loop of fused multiply-adds; "high": about
        1e-5 relative; "medium": operands may be rounded to bfloat16. A level is a permission: where the kernels of this
        machine gain nothing by it, a call is more accurate than asked.

    Raises
    ------
    TypeError, ValueError
        Not one of the three names.
    """
    global _precision
    _precision = check_precision(p)


@contextlib.contextmanager
def float32_precision(p: str) -> Iterator[None]:
    """Set the precision inside a ``with`` block, for all threads, as :func:`set_float32_precision`."""
    before = get_float32_precision()
    set_float32_precision(p)
    try:
        yield
    finally:
        set_float32_precision(before)


def check_precision(precision: object) -> str:
    """`precision` if it is a level's name."""
    if not isinstance(precision, str):
        raise TypeError(f"precision: expected a str, got {precision!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {PRECISIONS}")
    return precision


def _cuda_line() -> str:
    kernels = ", ".join(cuda.arch_list())
    if not kernels:
        return "not in this build"
    count = cuda.device_count()
    return f"{kernels}; {f'{count} devices' if count else cuda.unavailable_reason()}"


def show_config() -> None:
    """Print versions, compiler, instruction sets, threads and CUDA support."""
    build = _core.build_config()
    usable = available_isas()
    compiled = sorted({row["isa"] for row in _core.kernel_table()} | {"baseline"})
    lines = {
        "fastconv": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        "compiler": f"{build['compiler']}, {build['build_type']}",
        "instruction set": f"{get_isa()} (usable here: {', '.join(usable)}; compiled in: {', '.join(compiled)})",
        "threads": f"{get_num_threads()} (OpenMP {build['openmp']})",
        "kernels": f"{len(_core.kernel_table())} compiled in",
        "CUDA": _cuda_line(),
    }
    width = max(map(len, lines))
    print("\n".join(f"{key:<{width}}  {value}" for key, value in lines.items()))
