"""The processes of the libraries that are compared: starting, asking and ending them."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Self

from bench.protocol import UnsupportedError

ROOT = pathlib.Path(__file__).resolve().parent

PEERS = {"torch": "torch", "onnxruntime": "onnxruntime", "scipy": "scipy", "torch_bfloat16": "torch"}
"""The libraries we are compared with, and the package each of them needs; ``torch_bfloat16`` is PyTorch that converts
float32 arrays to bfloat16, computes, and converts back."""

DEFAULT_PEERS = ("torch", "onnxruntime", "scipy")

_LIMITS = {
    "baseline": ("SSE41", "default", "SSE4_2"),
    "avx2": ("AVX2", "avx2", "AVX2"),
    "avx512": ("AVX512_CORE", "avx512", "AVX512"),
}
"""What oneDNN, PyTorch's own kernels and MKL call our instruction sets; above them nothing is held back."""


def environment_of(isa: str | None) -> dict[str, str]:
    """Return the environment of a process whose library may use this instruction set and those below it."""
    environment = dict(os.environ)
    if isa is None:
        return environment
    environment["FASTCONV_ISA"] = isa
    if isa in _LIMITS:
        onednn, aten, mkl = _LIMITS[isa]
        environment |= {"ONEDNN_MAX_CPU_ISA": onednn, "DNNL_MAX_CPU_ISA": onednn}
        environment |= {"ATEN_CPU_CAPABILITY": aten, "MKL_ENABLE_INSTRUCTIONS": mkl}
    return environment


def missing(peers: tuple[str, ...]) -> list[str]:
    """Return the peers whose packages are not installed."""
    packages = {peer: [PEERS[peer], *(["onnx"] if peer == "onnxruntime" else [])] for peer in peers}
    return [peer for peer in peers if any(importlib.util.find_spec(name) is None for name in packages[peer])]


class Worker:
    """A process that serves one library; see `bench.worker`."""

    def __init__(self, library: str, python: str = sys.executable, isa: str | None = None) -> None:
        self.library = library
        self._process = subprocess.Popen(
            [python, "-m", "bench.worker", PEERS.get(library, library)],
            cwd=ROOT.parent,
            env=environment_of(isa),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # Its imports must not run beside the measurements of another.
        self.ask(do="clear")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return its answer; a failure raises ``RuntimeError``.

        A problem that the library cannot do raises `UnsupportedError`.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: PT018
        if self.library == "torch_bfloat16":
            request["through"] = "bfloat16"
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.library} worker ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "unsupported" in reply:
            raise UnsupportedError(reply["unsupported"])
        if "error" in reply:
            raise RuntimeError(f"{self.library}: {reply['error']}")
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
