"""A small array library whose arrays claim to be on a CUDA device and lie in the host's memory.

With the emulated kernels behind it (``FASTCONV_CUDA_MODULE``) the whole device path of the package can be driven on a
machine without a GPU: what the array library is asked for, and what the kernels do. `on_device` turns a function of
NumPy arrays into one that hands them over as device arrays, of this library or, on a GPU, of a real one.
"""

from __future__ import annotations

import functools
import inspect
import types

import numpy as np

FILES = (
    "test_activation.py",
    "test_adaptive_pooling.py",
    "test_conv.py",
    "test_conv_transpose.py",
    "test_dropout.py",
    "test_linear.py",
    "test_loss.py",
    "test_norm.py",
    "test_padding_modes.py",
    "test_pooling.py",
    "test_power_pooling.py",
    "test_sample_norms.py",
    "test_separable.py",
    "test_sixteen_bit.py",
    "test_unpooling.py",
)
"""The test files of the ops, which hold for device arrays as well."""

LOOKS_AT_VALUES = {
    "test_unpooling.py::test_as_pytorch": "an index outside the output is refused, where a device passes over it",
}
"""Tests of what only the host refuses, because a device's values are not waited for."""

ARRAYS = {
    "bias",
    "depthwise_weight",
    "grad_output",
    "indices",
    "invstd",
    "logits",
    "mask",
    "mean",
    "mean_weight",
    "out",
    "pointwise_weight",
    "pos_weight",
    "running_mean",
    "running_var",
    "target",
    "var",
    "var_weight",
    "weight",
    "x",
    "y",
}
"""Names of the ops' parameters that take arrays."""


class Device:
    """A device, by its number."""

    def __init__(self, number):
        self.id = number


class EmulatedArray:
    """An array on the emulated device; all that a library's array must have for the ops to take it."""

    def __init__(self, host, device=0):
        self.host = host
        self.device = Device(device)

    @property
    def shape(self):
        return self.host.shape

    @property
    def ndim(self):
        return self.host.ndim

    @property
    def dtype(self):
        return self.host.dtype

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.host.shape,
            "typestr": self.host.dtype.str,
            "data": (self.host.ctypes.data, not self.host.flags.writeable),
            "strides": self.host.strides,
            "stream": 1,
            "version": 3,
        }

    def __array__(self, *arguments, **keywords):
        raise TypeError("an emulated device array was read by the host")

    def __array_namespace__(self, api_version=None):
        return NAMESPACE

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        return EmulatedArray(self.host[keys if Ellipsis in keys else (*keys, ...)], self.device.id)


def _lifted(function):
    return lambda x, *arguments: EmulatedArray(function(x.host, *arguments), x.device.id)


def _poisoned(shape, dtype=np.float64, device=None):
    """Fresh memory holds anything: here bytes that are a NaN in every floating-point type."""
    host = np.empty(shape, dtype)
    host.reshape(-1).view(np.uint8)[:] = 1 if host.dtype == np.bool_ else 0xFF
    return EmulatedArray(host, device.id if device else 0)


NAMESPACE = types.SimpleNamespace(
    __name__="emulated",
    empty=_poisoned,
    reshape=_lifted(np.reshape),
    permute_dims=_lifted(np.transpose),
    broadcast_to=_lifted(np.broadcast_to),
    astype=_lifted(lambda host, dtype: host.astype(dtype)),
    int64=np.dtype(np.int64),
)


def is_carried(value):
    """Whether a device has the array's dtype and can step through it."""
    if not isinstance(value, np.ndarray):
        return False
    if value.dtype.name == "bfloat16":
        return True
    return (
        type(value) is np.ndarray and value.dtype.isnative and value.flags.aligned and value.dtype.kind not in "OcSUV"
    )


class Emulator:
    """The emulated device: its arrays are the host's memory."""

    kind = EmulatedArray
    shares_memory = True

    def to_device(self, host):
        return EmulatedArray(host)

    def to_host(self, array):
        return array.host


class Torch:
    """PyTorch's tensors on a GPU."""

    shares_memory = False

    def __init__(self):
        import torch

        self.torch, self.kind = torch, torch.Tensor

    def to_device(self, host):
        if any(stride < 0 or stride % host.itemsize for stride in host.strides):
            host = host.copy()
        if host.dtype.name == "bfloat16":
            return self.torch.from_numpy(host.view(np.int16).copy()).view(self.torch.bfloat16).cuda()
        return self.torch.from_numpy(np.array(host, order="K")).cuda()

    def to_host(self, array):
        if array.dtype == self.torch.bfloat16:
            import ml_dtypes

            return array.cpu().view(self.torch.int16).numpy().view(ml_dtypes.bfloat16)
        return array.cpu().numpy()


class CuPy:
    """CuPy's arrays on a GPU."""

    shares_memory = False

    def __init__(self):
        import cupy

        self.cupy, self.kind = cupy, cupy.ndarray

    def to_device(self, host):
        return self.cupy.asarray(np.array(host, order="K"))

    def to_host(self, array):
        return self.cupy.asnumpy(array)


MACHINES = {"emulated": Emulator, "torch": Torch, "cupy": CuPy}
"""What ``--device`` can name."""


def array_libraries():
    """Those of the real libraries that have a device here."""
    found = []
    for name in ("torch", "cupy"):
        try:
            library = __import__(name)
            there = library.cuda.is_available()
        except (ImportError, AttributeError, RuntimeError, Warning):
            continue
        if there:
            found.append(name)
    return found


def to_host(value, machine=None):
    """What the op returned, as NumPy's arrays."""
    machine = machine or Emulator()
    if isinstance(value, machine.kind):
        return machine.to_host(value)
    if isinstance(value, tuple):
        parts = [to_host(part, machine) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


WRITTEN = ("out", "running_mean", "running_var")


def on_device(function, machine=None):
    """The function of NumPy arrays that computes on a device."""
    machine = machine or Emulator()
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments, **keywords):
        try:
            bound = signature.bind(*arguments, **keywords)
        except TypeError:
            return function(*arguments, **keywords)
        given = dict(bound.arguments)
        for name, value in given.items():
            if name in ARRAYS and is_carried(value):
                bound.arguments[name] = machine.to_device(value)
        result = function(*bound.args, **bound.kwargs)
        for name in WRITTEN if not machine.shares_memory else ():
            if isinstance(bound.arguments.get(name), machine.kind):
                given[name][...] = machine.to_host(bound.arguments[name])
        if "out" in given and result is bound.arguments["out"] and given["out"] is not None:
            return given["out"]
        host = to_host(result, machine)
        return host[()] if "reduction" in signature.parameters and np.ndim(host) == 0 else host

    return call


if __name__ == "__main__":  # for shell scripts
    print("\n".join(f"tests/{name}" for name in FILES))
