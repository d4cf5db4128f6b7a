"""On a real GPU: the tests of the ops on device arrays, streams, large arrays, and the results of PyTorch.

``pytest -m gpu`` runs them; ``.ci/run-gpu`` builds, runs these and times. Without a GPU each says that it needs one.
"""

import pathlib
import subprocess
import sys

import fastconv
import fastconv.functional as F
import numpy as np
import pytest
from device_array import FILES, array_libraries

pytestmark = pytest.mark.gpu
HERE = pathlib.Path(__file__).parent
needs_gpu = pytest.mark.skipif(
    not fastconv.cuda.is_available(), reason=f"needs a CUDA device: {fastconv.cuda.unavailable_reason()}"
)
LIBRARIES = array_libraries()
needs_torch = pytest.mark.skipif("torch" not in LIBRARIES, reason="needs PyTorch with CUDA")


@needs_gpu
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_ops(library, file):
    """The file's tests, with every array on the device as one of the library."""
    if library not in LIBRARIES:
        pytest.skip(f"needs {library} with CUDA")
    command = [sys.executable, "-m", "pytest", "-q", "--device", library, str(HERE / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert done.returncode == 0, done.stdout[-5000:]


@needs_gpu
@needs_torch
def test_a_producer_on_another_stream():
    """The kernels wait for what the current stream has to do, and what comes after waits for them."""
    import torch

    w = torch.randn(8, 8, 3, 3, device="cuda")
    for _ in range(5):
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)
            x = torch.ones(4, 8, 32, 32, device="cuda").mul_(2)
            y = F.conv2d(x, w)
            total = y.double().sum()
        side.synchronize()
        expected = torch.nn.functional.conv2d(torch.full((4, 8, 32, 32), 2.0, dtype=torch.float64), w.cpu().double())
        assert abs(total.item() - expected.sum().item()) < 1e-2


@needs_gpu
@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("order", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize("groups", [1, 24], ids=["dense", "depthwise"])
def test_against_pytorch(dtype, order, groups):
    """Convolution and its gradients, the same dtype, against PyTorch in float64."""
    import torch

    kind = getattr(torch, dtype)
    torch.manual_seed(0)
    x = torch.randn(4, 24, 20, 20, device="cuda", dtype=kind).to(memory_format=getattr(torch, order))
    w = torch.randn(48, 24 // groups, 3, 3, device="cuda", dtype=kind)
    wide_x, wide_w = x.double().requires_grad_(), w.double().requires_grad_()
    expected = torch.nn.functional.conv2d(wide_x, wide_w, stride=2, padding=1, groups=groups)
    y = F.conv2d(x, w, stride=2, padding=1, groups=groups)
    expected.backward(y.double())
    grads = F.conv2d_backward(y, x, w, stride=2, padding=1, groups=groups)
    tolerance = {"float32": 1e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    for ours, theirs in ((y, expected), (grads.input, wide_x.grad), (grads.weight, wide_w.grad)):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < tolerance


@needs_gpu
@needs_torch
def test_more_than_two_to_the_31_elements():
    """Offsets beyond 32 bits, in every kind of kernel that walks over an image."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    if free < 16 << 30:
        pytest.skip("needs 16 GiB of device memory")
    x = torch.zeros(2**31 + 4096, device="cuda", dtype=torch.float16)
    x[-1] = 3
    assert F.relu(x)[-1].item() == 3
    image = x.reshape(1, 1, -1, 4096)
    w = torch.ones(1, 1, 1, 1, device="cuda", dtype=torch.float16)
    assert F.conv2d(image, w)[0, 0, -1, -1].item() == 3
    assert F.max_pool2d(image, (1, 2))[0, 0, -1, -1].item() == 3
    assert F.global_max_pool(image).item() == 3


@needs_gpu
@needs_torch
def test_the_same_bits_each_time():
    import torch

    x = torch.randn(8, 16, 56, 56, device="cuda")
    w = torch.randn(32, 16, 3, 3, device="cuda")
    y = F.conv2d(x, w)
    first = [np.asarray(part.cpu()) for part in F.conv2d_backward(y, x, w)]
    for _ in range(3):
        again = [np.asarray(part.cpu()) for part in F.conv2d_backward(y, x, w)]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
