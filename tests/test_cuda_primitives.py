"""Each primitive that CUDA kernels are written in, against NumPy: on the emulator, and on a GPU with ``pytest -m gpu``.

The primitives (``csrc/cuda/dev_*.h``) have two sides, assembly for a device and the emulator's. The kernels are tested
on the emulator; that both sides do the same is what is tested here, one small kernel for each.
"""

import os

import fastconv
import numpy as np
import pytest
from device_array import MACHINES, array_libraries
from fastconv._device.array import DeviceArray
from fastconv._device.engine import run
from fastconv._device.extension import OVERRIDE, load

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes has the type bfloat16")
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
SCHEDULES = [("forward", 0, False), ("reverse", 0, True), ("random", 1, False), ("random", 2, True)]

emulated = pytest.param(
    "emulated",
    marks=pytest.mark.skipif(
        OVERRIDE not in os.environ, reason=f"needs the emulated kernels, their file in {OVERRIDE}"
    ),
)
on_gpu = pytest.param(
    "gpu",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(
            not array_libraries() or not fastconv.cuda.is_available(), reason="needs a CUDA device, and PyTorch or CuPy"
        ),
    ],
)


@pytest.fixture(params=[emulated, on_gpu])
def primitive(request):
    """``primitive(name, x, shape, dtype)``: what the kernel makes of x; the same bits in every schedule."""
    machine = MACHINES["emulated" if request.param == "emulated" else array_libraries()[0]]()
    module, _ = load()

    def call(name, x, shape, dtype):
        results = []
        for schedule in SCHEDULES if request.param == "emulated" else [None]:
            if schedule:
                module.set_schedule(*schedule)
            source = DeviceArray(machine.to_device(x))
            y = DeviceArray(machine.to_device(np.zeros(shape, dtype)))
            run("primitive", source, name, source, y)
            results.append(machine.to_host(y.owner))
        if name != "atomics":
            assert all(result.tobytes() == results[0].tobytes() for result in results)
        return results[-1]

    yield call
    if request.param == "emulated":
        module.set_schedule("forward", 0, False)


def integers(low, high, shape, dtype):
    return np.random.default_rng(0).integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_asynchronous_copies(primitive, steps):
    """Copies of 16 bytes through a ring, waited for group by group; zeros where nothing is copied."""
    x = integers(-99, 99, (steps, 128, 4), np.float32)
    live = (np.arange(128) + np.arange(steps)[:, None]) % 3 != 0
    expected = np.roll((x * live[..., None]).sum(0), -1, axis=0)
    np.testing.assert_array_equal(primitive("copy_async", x, (128, 4), np.float32), expected)


@pytest.mark.parametrize("turned", [False, True])
def test_matrices_from_shared_memory(primitive, turned):
    """The fragments of ``ldmatrix.x4``, as the PTX ISA lays them out."""
    x = np.arange(256, dtype=np.float16).reshape(4, 8, 8)
    lane = np.arange(32)
    matrices = x.transpose(0, 2, 1) if turned else x
    expected = np.stack([matrices[:, lane // 4, lane % 4 * 2 + i] for i in range(2)], axis=-1).transpose(1, 0, 2)
    name = "load_matrices_turned" if turned else "load_matrices"
    np.testing.assert_array_equal(primitive(name, x, (32, 4, 2), np.float16), expected)


@pytest.mark.parametrize("name", HALVES)
def test_product_of_fragments(primitive, name):
    """Of ``mma.m16n8k16``: numbers whose products and sums are exact."""
    a, b = integers(-15, 16, (16, 16), HALVES[name]), integers(-15, 16, (16, 8), HALVES[name])
    y = primitive(f"multiply_{name}", np.concatenate([a.ravel(), b.ravel()]), (16, 8), np.float32)
    np.testing.assert_array_equal(y, 2 * (a.astype(np.float32) @ b.astype(np.float32)))


@pytest.mark.parametrize("name", HALVES)
def test_product_of_what_is_not_finite(primitive, name):
    """As IEEE arithmetic has it, and only in the row and the column concerned; float16's subnormal numbers count."""
    a, b = np.ones((16, 16), HALVES[name]), np.ones((16, 8), HALVES[name])
    a[3, 5], a[4, 0], b[7, 2], b[5, 6] = np.inf, np.nan, -np.inf, 0
    a[9], b[:, 4] = np.finfo(np.float16).smallest_subnormal if name == "float16" else 2.0**-126, 2.0**10
    with np.errstate(invalid="ignore"):
        expected = 2 * np.einsum("ik,kj->ij", a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    y = primitive(f"multiply_{name}", np.concatenate([a.ravel(), b.ravel()]), (16, 8), np.float32)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", ["warp_sum", "warp_max", "block_sum", "block_max"])
@pytest.mark.parametrize("odd", [0.0, np.inf, np.nan])
def test_reductions(primitive, name, odd):
    """Every thread gets the result of its warp or of the block; infinity and NaN go their way."""
    x = integers(-999, 999, 96, np.float32)
    x[40] += odd
    over = x.reshape(3, 32) if name.startswith("warp") else x.reshape(1, 96)
    result = over.sum(1) if name.endswith("sum") else over.max(1)
    expected = np.repeat(result, over.shape[1])
    np.testing.assert_array_equal(primitive(name, x, 96, np.float32), expected)


@pytest.mark.parametrize("name", HALVES)
def test_every_number_of_16_bits_is_widened(primitive, name):
    x = np.arange(1 << 16, dtype=np.uint16).view(HALVES[name])
    np.testing.assert_array_equal(primitive(f"widen_{name}", x, x.shape, np.float32), x.astype(np.float32))


@pytest.mark.parametrize("name", HALVES)
def test_numbers_are_rounded_to_16_bits_once(primitive, name):
    """Every number of 16 bits, what lies half-way to the next, and its neighbours on both sides."""
    every = np.arange(1 << 16, dtype=np.uint16).view(HALVES[name]).astype(np.float32)
    every = every[np.isfinite(every)]
    with np.errstate(over="ignore"):
        halfway = (np.sort(every)[:-1] / 2 + np.sort(every)[1:] / 2).astype(np.float32)
        near = [np.nextafter(halfway, np.float32(side)) for side in (-np.inf, np.inf)]
        x = np.concatenate([every, halfway, *near, np.float32([np.inf, -np.inf, np.nan])])
        x = x[(x == 0) | (np.abs(x) >= np.finfo(np.float32).tiny) | np.isnan(x)]
        expected = x.astype(HALVES[name]).astype(np.float32)
    y = primitive(f"narrow_{name}", x, x.shape, HALVES[name])
    np.testing.assert_array_equal(y.astype(np.float32), expected)


def test_atomic_operations(primitive):
    """One thread found 0, every other what one of them had put there; the largest is the largest."""
    x = np.random.default_rng(0).permutation(64).astype(np.int64) + 1
    y = primitive("atomics", x, 65, np.int64)
    last = set(x) - set(y[:64])
    assert len(last) == 1
    assert sorted(y[:64]) == sorted((set(x) | {0}) - last)
    assert y[64] == 64
