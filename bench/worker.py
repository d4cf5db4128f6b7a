"""A process that runs one library, told what to do by JSON lines on its standard input.

``python -m bench.worker fastconv`` or ``torch``.  Requests, one a line, each answered by one line:

- ``{"do": "prepare", "key", "problem", "arrays", "pass", "data_format", "dtype", "threads", "answer"}``: load the
  arrays, build the call under ``key``, run it once and save its result, channels first, in the file ``answer``.
- ``{"do": "time", "key", "seconds"}``: the samples in seconds.
- ``{"do": "clear"}``: forget every call.

A failure is answered by ``{"error": message}``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pathlib
import sys
import traceback

import numpy as np


def _timing():
    """``fastconv/_cli/timing.py``, loaded alone: a worker of another library must not load fastconv's threads."""
    package = importlib.util.find_spec("fastconv")
    path = pathlib.Path(package.submodule_search_locations[0]) / "_cli" / "timing.py"
    spec = importlib.util.spec_from_file_location("timing", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gradient_for(output):
    """The gradient every library gets for an output of this shape (channels first)."""
    return np.random.default_rng(1).standard_normal(output.shape)


def main():
    """Serve until the input ends."""
    library = importlib.import_module(f"bench.{sys.argv[1]}_calls")
    seconds_per_call = _timing().seconds_per_call
    calls = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                arrays = {name: np.load(path) for name, path in request["arrays"].items()}
                call, to_first = library.prepare(request, arrays)
                calls[request["key"]] = call
                np.save(request["answer"], to_first(call()))
                reply = {"version": library.VERSION}
            elif request["do"] == "time":
                reply = {"samples": seconds_per_call(calls[request["key"]], request["seconds"])}
            else:
                calls.clear()
                reply = {}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
