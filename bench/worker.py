"""A process that runs one library, told what to do by JSON lines on its standard input.

``python -m bench.worker fastconv``, ``torch``, ``onnxruntime`` or ``scipy``.  Requests, one a line, each answered by
one line:

- ``{"do": "prepare", "key", "problem", "arrays", "pass", "data_format", "dtype", "threads", "answer"}``: load the
  arrays, build the call under ``key``, run it once and save its result, channels first, in the file ``answer``.
- ``{"do": "network", "key", ...}``: the same for a whole network; see `bench.networks.request_of`.
- ``{"do": "time", "key", "seconds"}``: the samples in seconds.
- ``{"do": "ceilings", "dtype", "threads"}``: what the machine can do at most; fastconv's process only.
- ``{"do": "clear"}``: forget every call.

A failure is answered by ``{"error": message}``, a problem that the library cannot do by ``{"unsupported": reason}``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.protocol import UnsupportedError

SETTLE = 0.02
"""Seconds before a round: threads of the library that ran last may spin for 8 ms before they sleep (GNU's OpenMP)."""


def _timing() -> Any:
    """``fastconv/_cli/timing.py``, loaded alone: a worker of another library must not load fastconv's threads."""
    package = importlib.util.find_spec("fastconv")
    assert package is not None and package.submodule_search_locations is not None  # noqa: PT018
    path = pathlib.Path(package.submodule_search_locations[0]) / "_cli" / "timing.py"
    spec = importlib.util.spec_from_file_location("timing", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def serve(library: str) -> None:
    """Answer requests until the input ends."""
    prepare = importlib.import_module(f"bench.{library}_calls").prepare
    seconds_per_call = _timing().seconds_per_call
    calls: dict[str, Callable[[], Any]] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "prepare":
            arrays = {name: np.load(path) for name, path in request["arrays"].items()}
            calls[request["key"]], to_first = prepare(request, arrays)
            np.save(request["answer"], to_first(calls[request["key"]]()))
        elif request["do"] == "network":
            networks = importlib.import_module(f"bench.{library}_networks")
            calls[request["key"]], result = networks.prepare(request)
            np.save(request["answer"], result)
        elif request["do"] == "time":
            time.sleep(SETTLE)
            return {"samples": seconds_per_call(calls[request["key"]], request["seconds"])}
        elif request["do"] == "ceilings":
            ceilings: dict[str, float] = importlib.import_module("bench.ceilings").measure(request)
            return ceilings
        else:
            calls.clear()
        return {}

    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except UnsupportedError as error:
            reply = {"unsupported": str(error)}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
