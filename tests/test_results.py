"""The memory of results: it begins with a cache line; that of large freed ones serves the next, never one in use."""

import gc
import os
import subprocess
import sys

import fastconv.functional as F
import numpy as np
import pytest
from fastconv import _core
from fuzz import SANITIZED

LARGE = _core.KEPT_RESULT
SIDE = 1024  # of planes whose bytes are an eighth of that, in float32


def planes(count):
    """An array (1, 1, count, 2**20) in float32: ``count / 8`` of a large result."""
    return np.full((1, 1, count, SIDE * SIDE), 1, np.float32)


def address(array):
    return array.__array_interface__["data"][0]


def test_a_large_result_takes_the_place_of_a_freed_one():
    """Of its size or somewhat more, not of one much larger."""
    x = planes(9)
    y = F.relu(x)
    where = address(y)
    del y
    assert address(F.relu(x)) == where
    y = F.relu(planes(8))
    assert address(y) == where
    kept = y
    del y
    larger = address(F.relu(planes(12)))
    assert address(F.relu(planes(8))) not in (where, larger)
    assert all(kept.flags[name] for name in ("WRITEABLE", "ALIGNED", "C_CONTIGUOUS"))


def test_memory_in_use_is_left_alone():
    """A view keeps its array's memory, and results that live at once have places of their own."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3, 1700, 1700), dtype=np.float32)
    w = rng.standard_normal((4, 3, 1, 1), dtype=np.float32)
    y = F.conv2d(x, w)
    assert y.nbytes > LARGE
    row, expected = y[0, 1, 5], y[0, 1, 5].copy()
    del y
    others = [F.conv2d(x * i, w) for i in range(3)]
    assert (row == expected).all()
    for i, some in enumerate(others):
        assert not np.may_share_memory(some, row)
        np.testing.assert_allclose(some[0, 1, 5], i * expected, rtol=1e-6)
    assert len({address(some) for some in others}) == 3


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_kind_of_op(dtype):
    """Results of all sorts of ops are right where they take the place of others full of NaN."""
    shape = (2, 3, 1500, 2000)
    for _ in range(2):
        for size in (np.float64, np.float32, np.float16):
            full = F.relu(np.ones(shape, size))
            full[:] = np.nan
            del full
    x = np.linspace(-1, 1, np.prod(shape)).reshape(shape).astype(dtype)
    np.testing.assert_array_equal(F.relu(x), np.maximum(x, 0))
    weight = np.eye(3).reshape(3, 3, 1, 1).astype(dtype)
    np.testing.assert_array_equal(F.conv2d(x, weight), x)
    np.testing.assert_array_equal(F.max_pool2d(x, 1), x)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.testing.assert_array_equal(F.conv2d(last, weight, data_format="channels_last"), last)
    normal = F.batch_norm(x, np.zeros(3, dtype), np.ones(3, dtype), eps=0)
    np.testing.assert_array_equal(normal, x)


def test_results_begin_with_a_cache_line():
    """From 64 KiB on, whichever op made them; they live as long as a view of them."""
    x = np.ones((1, 16, 32, 33), np.float32)
    results = [F.relu(x), F.conv2d(x, np.ones((16, 16, 1, 1), np.float32)), F.max_pool2d(x, 3, 1, 1)]
    results += [F.batch_norm(x, np.zeros(16, np.float32), np.ones(16, np.float32))]
    for y in results:
        assert _core.ALIGNED_RESULT <= y.nbytes < LARGE
        assert address(y) % 64 == 0
        assert all(y.flags[name] for name in ("WRITEABLE", "ALIGNED", "C_CONTIGUOUS"))
    row = F.relu(x)[0, 0, 0]
    others = [F.relu(2 * x) for _ in range(20)]
    assert (row == 1).all()
    assert all((y == 2).all() for y in others)


@pytest.mark.skipif(sys.platform != "linux", reason="the resident memory is read from Linux's /proc")
def test_what_is_kept_is_bounded():
    """Freed results of many sizes leave at most twice behind what was once in use, and nothing when asked."""
    script = """
import numpy as np, fastconv, fastconv.functional as F
def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
x = np.ones(60 << 20, np.float32)
F.relu(x[:10])
before = resident()
for count in range(9, 60, 3):
    y = F.relu(x[: count << 20])
del y
print(resident() - before)
print(fastconv.release_memory() / 2**20, resident() - before, fastconv.release_memory())
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    kept, released, rest, nothing = map(float, out.stdout.split())
    assert 4 * (54 + 57) < kept < 2 * 4 * (54 + 57) + 24
    assert released < kept + 24
    assert rest < 24
    assert nothing == 0


@pytest.mark.skipif(SANITIZED, reason="with a sanitizer no scratch is kept, so that it sees what is written behind it")
def test_scratch_is_kept():
    """A call of a loop computes in the memory of the one before it; each thread keeps 16 MB at most, until asked."""
    script = """
import resource
import numpy as np, fastconv, fastconv.functional as F
fastconv.set_num_threads(2)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
rng = np.random.default_rng(0)
w = np.ones((64, 64, 3, 3), np.float32)
x = np.ones((2, 64, 20, 20), np.float32)
y = F.conv2d(x, w)
fastconv.release_memory()
before = resident()
for size in (64, 30, 20, 7):
    images = np.ones((4, 64, size, size), np.float32)
    fastconv.functional.conv2d_backward(F.conv2d(images, w), images, w)
for count in range(20):
    F.conv2d(x, w, out=y)
warm = faults()
for count in range(50):
    F.conv2d(x, w, out=y)
print((faults() - warm) / 50)
del images
print(fastconv.release_memory() / 2**20, fastconv.release_memory(), resident() - before)
"""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", script]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
    faults, released, nothing, rest = map(float, out.stdout.split())
    assert faults < 5
    assert released > 0
    assert nothing == 0
    assert rest < 24


def test_no_memory():
    """What cannot be had is NumPy's MemoryError, and the process goes on."""
    with pytest.raises(MemoryError):
        _core.empty((1 << 46,), np.dtype("float32"))
    gc.collect()
    assert _core.empty((3, 0, 1 << 40), np.dtype("float32")).size == 0
