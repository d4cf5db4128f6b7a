"""Loads the engine, and with it OpenMP, whose threads shall not wait long for each other.

GNU's OpenMP lets a thread that waits spin 300,000 times before it sleeps: eight milliseconds. While it does, the thread
that it waits for cannot run where both have one processor, as happens when others use the machine: a call of half a
millisecond then takes sixteen. A sleeping thread is awake again in some 50 microseconds, so spinning for longer than
that pays little (docs/decisions/0008).
"""

from __future__ import annotations

import os

_SPIN_COUNT = "3000"  # 50 to 150 microseconds
_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # what a user decides stays

# OpenMP reads its settings when it is loaded, and this process's children shall not see ours.
if any(name in os.environ for name in _SETTINGS):
    from fastconv import _core
else:
    os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    try:
        from fastconv import _core  # noqa: F401
    finally:
        del os.environ["GOMP_SPINCOUNT"]
