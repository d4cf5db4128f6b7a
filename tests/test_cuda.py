"""The path of device arrays through the package: what is refused, what the array library is asked for, and promises.

The ops' own tests run on the emulated device with ``pytest --device emulated``. Here the device path itself is tested,
on arrays that claim to be on a device (`device_array`), with the emulated kernels of ``FASTCONV_CUDA_MODULE``.
"""

import os
import subprocess
import sys

import fastconv
import fastconv.functional as F
import numpy as np
import pytest
from device_array import EmulatedArray, to_host
from fastconv._device.extension import OVERRIDE, load

emulated = pytest.mark.skipif(
    OVERRIDE not in os.environ, reason=f"needs the emulated kernels: preset cuda-emulated, their file in {OVERRIDE}"
)
ORDERS = [("forward", 0, False), ("reverse", 0, True), ("random", 1, False), ("random", 2, True)]


def generator():
    return np.random.default_rng(3)


def normal(*shape, dtype="f"):
    return generator().standard_normal(shape).astype(dtype)


def device(*arrays, number=0):
    return [EmulatedArray(array, number) for array in arrays]


def test_without_the_override_nothing_raises():
    """On any machine the questions about devices have answers, and a reason where the answer is no."""
    code = (
        "from fastconv import cuda\n"
        "print(cuda.is_available(), cuda.device_count() > 0, bool(cuda.unavailable_reason()), cuda.arch_list())"
    )
    environment = {key: value for key, value in os.environ.items() if key != OVERRIDE}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    available, counted, reason, _ = done.stdout.split(maxsplit=3)
    assert available == counted != reason


def test_a_build_without_kernels_says_so(monkeypatch):
    """A device array in a build without CUDA is refused with the reason."""
    monkeypatch.setenv(OVERRIDE, "/nowhere/module.so")
    load.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="on a CUDA device, but the CUDA kernels could not be loaded"):
            F.relu(*device(normal(2, 3)))
        assert not fastconv.cuda.is_available()
        assert "could not be loaded" in fastconv.cuda.unavailable_reason()
    finally:
        load.cache_clear()


def test_an_unknown_librarys_array_is_refused():
    """An array on a device whose library cannot allocate for us."""

    class Unknown:
        shape, ndim, dtype, device = (3,), 1, np.dtype("f"), 0

        @property
        def __cuda_array_interface__(self):
            return {"shape": (3,), "typestr": "<f4", "data": (64, False), "strides": None, "version": 3}

    with pytest.raises(TypeError, match=r"a CUDA array of type test_cuda\..*Unknown; those of CuPy and PyTorch are"):
        F.relu(Unknown())


@pytest.fixture
def schedule():
    """Set the emulator's order of threads and of copies; put back afterwards."""
    module, _ = load()
    yield module.set_schedule
    module.set_schedule("forward", 0, False)


@emulated
def test_the_emulated_device_is_there():
    assert fastconv.cuda.is_available()
    assert fastconv.cuda.unavailable_reason() == ""
    assert fastconv.cuda.arch_list() == ["sm_emulated"]


@emulated
def test_results_are_arrays_of_the_library():
    """On the device of the arguments, contiguous in the data format, whatever the op makes on the way."""
    x, w = device(normal(2, 3, 8, 8), normal(4, 3, 3, 3), number=1)
    y = F.conv2d(x, w, padding=1)
    assert isinstance(y, EmulatedArray)
    assert y.device.id == 1
    pooled, places = F.max_pool2d(y, 2, return_indices=True)
    assert pooled.device.id == places.device.id == 1
    assert places.dtype == np.int64
    loss = F.mse_loss(pooled, pooled)
    assert isinstance(loss, EmulatedArray)
    assert loss.shape == ()


@emulated
def test_host_and_device_do_not_mix():
    x, w = normal(1, 3, 5, 5), normal(4, 3, 3, 3)
    for arguments in ([*device(x), w], [x, *device(w)]):
        with pytest.raises(TypeError, match=r"weight: is .*in one place"):
            F.conv2d(*arguments)
    _, places = F.max_pool2d(x, 2, return_indices=True)
    for gradient, indices in ((EmulatedArray(x[..., :2, :2]), places), (x[..., :2, :2], EmulatedArray(places))):
        with pytest.raises(TypeError, match=r"indices: is .*in one place"):
            F.max_pool2d_backward(gradient, indices, x.shape)
    with pytest.raises(TypeError, match="mask: is in the host's memory"):
        F.dropout_backward(EmulatedArray(x), x > 0)


@emulated
def test_devices_do_not_mix():
    x, w = EmulatedArray(normal(1, 3, 5, 5), 0), EmulatedArray(normal(4, 3, 3, 3), 1)
    with pytest.raises(TypeError, match="weight: is on CUDA device 1, but x is on CUDA device 0"):
        F.conv2d(x, w)


@emulated
def test_dtypes_and_shapes_are_refused_as_on_the_host():
    with pytest.raises(TypeError, match="x: dtype int32 is not supported"):
        F.relu(EmulatedArray(np.ones((2, 2), np.int32)))
    x, w = normal(1, 3, 5, 5), normal(4, 2, 3, 3)
    with pytest.raises(ValueError, match="weight") as host:
        F.conv2d(x, w)
    with pytest.raises(ValueError, match="weight") as on_device:
        F.conv2d(*device(x, w))
    assert str(host.value) == str(on_device.value)


@emulated
@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::2], np.s_[..., ::-1, :], np.s_[:, :, 1:, 1:]], ids=str)
def test_any_strides(view):
    x, w = normal(4, 6, 9, 9)[view], None
    w = normal(5, x.shape[1], 3, 3).transpose(0, 1, 3, 2)
    expected = F.conv2d(x, w)
    np.testing.assert_allclose(to_host(F.conv2d(*device(x, w))), expected, rtol=1e-5, atol=1e-5)
    broadcast = np.broadcast_to(x[:1], x.shape)
    np.testing.assert_allclose(to_host(F.relu(EmulatedArray(broadcast))), F.relu(broadcast))


@emulated
def test_out_is_written_and_returned():
    x, w = normal(2, 3, 6, 6), normal(4, 3, 3, 3)
    out = EmulatedArray(np.zeros((2, 4, 4, 4), "f"))
    assert F.conv2d(*device(x, w), out=out) is out
    np.testing.assert_allclose(out.host, F.conv2d(x, w), rtol=1e-5, atol=1e-5)
    frozen = np.zeros((2, 4, 4, 4), "f")
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out: is read-only"):
        F.conv2d(*device(x, w), out=EmulatedArray(frozen))


def calls():
    """One call of each kind of kernel, as functions of device arrays that return the result's parts."""
    x, g = normal(3, 6, 10, 10), normal(3, 8, 10, 10)
    w, b = normal(8, 6, 3, 3), normal(8)
    mean, var = normal(6), np.abs(normal(6))
    target = generator().integers(0, 6, (3, 10, 10))

    def pooled():
        y, places = F.max_pool2d(*device(x), 3, 1, return_indices=True)
        return y, places, F.max_pool2d_backward(y, places, x.shape)

    return {
        "conv": lambda: F.conv2d(*device(x, w, b), padding=1, activation="elu"),
        "conv_backward": lambda: F.conv2d_backward(*device(g, x, w), padding=1),
        "pool": pooled,
        "batch_norm": lambda: F.batch_norm(*device(x, mean, var), training=True, return_stats=True),
        "layer_norm": lambda: F.layer_norm(*device(x), (10, 10), return_stats=True),
        "softmax": lambda: F.softmax(*device(x), 1),
        "cross_entropy": lambda: F.cross_entropy(*device(x, target)),
        "dropout": lambda: F.dropout(*device(x), 0.3, seed=5),
    }


def parts_of(result):
    host = to_host(result)
    return list(host) if isinstance(host, tuple) else [host]


@emulated
@pytest.mark.parametrize("name", calls())
def test_the_order_of_threads_changes_no_bit(schedule, name):
    """Whatever the hardware leaves open, each call gives the same bits."""
    results = []
    for order in ORDERS:
        schedule(*order)
        results.append(parts_of(calls()[name]()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.tobytes() == b.tobytes()


@emulated
def test_a_sample_does_not_depend_on_its_batch():
    x, w = normal(5, 4, 7, 7), normal(6, 4, 3, 3)
    together = to_host(F.conv2d(*device(x, w)))
    pooled, normed = (to_host(each) for each in (F.avg_pool2d(*device(x), 2), F.group_norm(*device(x), 2)))
    for i in range(len(x)):
        assert together[i].tobytes() == to_host(F.conv2d(*device(x[i : i + 1], w)))[0].tobytes()
        assert pooled[i].tobytes() == to_host(F.avg_pool2d(*device(x[i : i + 1]), 2))[0].tobytes()
        assert normed[i].tobytes() == to_host(F.group_norm(*device(x[i : i + 1]), 2))[0].tobytes()


@emulated
def test_dropout_draws_the_hosts_mask():
    x = normal(7, 11)
    for one, other in zip(F.dropout(x, 0.4, seed=11), F.dropout(*device(x), 0.4, seed=11), strict=True):
        assert one.tobytes() == to_host(other).tobytes()


@emulated
def test_many_samples():
    """More samples than a grid's second dimension may have blocks."""
    x, w = normal(70000, 1, 2), normal(1, 1, 2)
    np.testing.assert_allclose(to_host(F.conv1d(*device(x, w))), F.conv1d(x, w), rtol=1e-5, atol=1e-6)


@emulated
def test_what_only_values_tell_is_not_waited_for():
    """A class that does not exist gives NaN, and an index outside the image is passed over."""
    logits, target = normal(3, 4), np.array([0, 9, 1])
    loss = to_host(F.cross_entropy(*device(logits, target), reduction="none"))
    assert np.isnan(loss).tolist() == [False, True, False]
    gradient = to_host(F.max_pool1d_backward(*device(np.ones((1, 1, 2), "f"), np.array([[[1, 99]]])), (1, 1, 4)))
    assert gradient.tolist() == [[[0, 1, 0, 0]]]


@emulated
def test_running_statistics_are_updated_in_place():
    x, mean, var = normal(4, 3, 5, 5), normal(3), np.abs(normal(3))
    kept = mean.copy(), var.copy()
    F.batch_norm(x, *kept, training=True)
    F.batch_norm(*device(x, mean, var), training=True)
    np.testing.assert_allclose(mean, kept[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(var, kept[1], rtol=1e-6)


# --- tiles of dense convolution --------------------------------------------------------------------------------------


def convolved(x, w, gradient, **options):
    """Forward and both gradients on the device, and the same in float64 on the host."""
    ours = [to_host(F.conv2d(*device(x, w), **options))]
    ours += to_host(F.conv2d_backward(*device(gradient(ours[0].shape), x, w), **options))[:2]
    wide = [each.astype(np.float64) for each in (x, w)]
    theirs = [F.conv2d(*wide, **options)]
    theirs += F.conv2d_backward(gradient(ours[0].shape).astype(np.float64), *wide, **options)[:2]
    return ours, theirs


@emulated
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("outputs", [16, 63, 64, 65])
@pytest.mark.parametrize(
    ("options", "inputs", "size"),
    [
        ({}, 2, (10, 10)),
        ({"padding": 1}, 17, (7, 9)),
        ({"padding": ((0, 2), (1, 0)), "stride": (2, 3)}, 16, (9, 8)),
        ({"padding": 2, "dilation": 2}, 3, (8, 8)),
        ({"stride": 5}, 16, (11, 6)),
    ],
    ids=["plain", "padded", "strided", "dilated", "gaps"],
)
def test_sizes_around_a_tile(options, inputs, size, outputs, last):
    """One below, at and above a tile of channels; positions and sums of taps that fill no tile."""
    x, w = normal(2, inputs, *size), normal(outputs, inputs, 3, 3)
    if last:
        x, options = np.ascontiguousarray(np.moveaxis(x, 1, -1)), {**options, "data_format": "channels_last"}
    for ours, theirs in zip(*convolved(x, w, lambda shape: normal(*shape), **options), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4)


@emulated
@pytest.mark.parametrize("dtype", ["f", "d", "e"])
def test_tiles_of_groups_and_dtypes(dtype):
    x, w = normal(2, 48, 6, 6, dtype=dtype), normal(40, 24, 3, 3, dtype=dtype)
    tolerance = {"f": 1e-4, "d": 1e-11, "e": 5e-2}[dtype]
    gradient = lambda shape: normal(*shape, dtype=dtype)  # noqa: E731
    for ours, theirs in zip(*convolved(x, w, gradient, padding=1, groups=2), strict=True):
        np.testing.assert_allclose(ours.astype(float), theirs, rtol=tolerance, atol=tolerance)


@emulated
def test_padding_makes_no_nan_in_a_tile():
    """An infinite weight meets only inputs, not the zeros that stand for padding in a tile."""
    x, w = np.abs(normal(1, 8, 6, 6)) + 1, normal(32, 8, 3, 3)
    w[5, 3, 0, 0], w[9, 2, 2, 2] = np.inf, np.nan
    y = to_host(F.conv2d(*device(x, w), padding=1))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(y, F.conv2d(x, w, padding=1), rtol=1e-4, atol=1e-4)
    assert np.isfinite(y[0, 5, 0]).all()
    assert np.isfinite(y[0, 5, :, 0]).all()
    assert np.isinf(y[0, 5, 1:, 1:]).all()


@emulated
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
def test_padding_makes_no_nan_in_a_weights_gradient(last):
    """An infinite gradient meets only inputs, not the zeros that stand for padding in a tile."""
    x, w, g = np.abs(normal(2, 8, 6, 7)) + 1, normal(32, 8, 3, 3), normal(2, 32, 6, 7)
    g[0, 5, 0, 3], g[1, 9, 5, 6] = np.inf, np.nan
    expected = F.conv2d_backward(g, x, w, padding=1).weight
    options = {"padding": 1}
    if last:
        x, g = (np.ascontiguousarray(np.moveaxis(each, 1, -1)) for each in (x, g))
        options["data_format"] = "channels_last"
    ours = to_host(F.conv2d_backward(*device(g, x, w), **options)).weight
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(ours[5, :, 0]).all()
    assert np.isinf(ours[5, :, 1:]).all()
    assert np.isnan(ours[9, :, 0, 0]).all()
    assert np.isfinite(ours[9, :, 2]).all()


@emulated
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize(("samples", "size"), [(1, 15), (1, 16), (1, 17), (2, 256), (1, 513), (9, 57), (3, 1025)])
def test_runs_of_a_weights_gradient(schedule, samples, size, last):
    """Positions around a stage, a run and a chain of a run's sums; the same bits whatever runs first."""
    axis = -1 if last else 1
    x, g = (np.moveaxis(normal(samples, channels, size), 1, axis) for channels in (24, 17))
    wide = [each.astype(np.float64) for each in (g, x, np.zeros((17, 24, 1)))]
    options = {"data_format": "channels_last"} if last else {}
    expected = F.conv1d_backward(*wide, **options).weight
    results = []
    for order in ORDERS:
        schedule(*order)
        results.append(to_host(F.conv1d_backward(*device(g, x, np.zeros((17, 24, 1), "f")), **options)).weight)
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=1e-6 * size * samples)
    assert all(other.tobytes() == results[0].tobytes() for other in results)


def sixteen(name, *shape):
    dtype = np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    return normal(*shape).astype(dtype)


def assert_rounded_once(ours, wide, magnitude=1.0):
    """Within the rounding of the result and a few of float32's, of what the terms add up to."""
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[ours.dtype.name]
    bound = 1.01 * unit * np.abs(wide) + 2.0**-20 * magnitude + 6e-8
    error = np.abs(ours.astype(np.float64) - wide)
    assert (error <= bound).all(), (error / bound).max()


@emulated
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "options"),
    [
        (16, 63, (9, 14), {}),
        (8, 64, (1, 127), {"padding": 1}),
        (3, 65, (2, 64), {"padding": 1}),
        (24, 16, (3, 43), {"padding": (1, 0), "dilation": (1, 2)}),
        (17, 129, (7, 9), {"stride": 2, "padding": 2}),
        (20, 40, (6, 6), {"groups": 2, "padding": 1, "stride": (1, 3)}),
    ],
    ids=["plain", "row", "few_inputs", "dilated", "strided", "groups"],
)
def test_tensor_cores_at_sizes_around_a_tile(schedule, dtype, inputs, outputs, size, options, last):
    """Positions, output channels and steps that are one below, at or above what a tile has."""
    groups = options.get("groups", 1)
    inputs, kernel = inputs * groups, (1 if size[0] == 1 else 2, 3)
    x, w = sixteen(dtype, 2, inputs, *size), sixteen(dtype, outputs * groups, inputs // groups, *kernel)
    if last:
        x, options = np.ascontiguousarray(np.moveaxis(x, 1, -1)), {**options, "data_format": "channels_last"}
    wide = [each.astype(np.float64) for each in (x, w)]
    y = F.conv2d(*wide, **options)
    gradient = sixteen(dtype, *y.shape)
    expected = F.conv2d_backward(gradient.astype(np.float64), *wide, **options)
    magnitude = 16 * np.sqrt(inputs * 6)
    for order in ORDERS[::3]:
        schedule(*order)
        assert_rounded_once(to_host(F.conv2d(*device(x, w), **options)), y, magnitude)
        ours = to_host(F.conv2d_backward(*device(gradient, x, w), **options))
        assert_rounded_once(ours.input, expected.input, 16 * np.sqrt(outputs * 6))
        assert_rounded_once(ours.weight, expected.weight, 16 * np.sqrt(y.size / outputs))


@emulated
@pytest.mark.parametrize("outputs", [65, 128])
def test_large_tiles_of_tensor_cores(outputs):
    """Where there are many tiles: here one of each group."""
    x, w = sixteen("float16", 1, 256 * 16, 2, 5), sixteen("float16", 256 * outputs, 16, 1, 1)
    y = to_host(F.conv2d(*device(x, w), groups=256))
    assert_rounded_once(y, F.conv2d(x.astype(np.float64), w.astype(np.float64), groups=256), 64)


@emulated
def test_tensor_cores_see_what_the_fused_step_needs():
    """Bias, activation and strided arrays."""
    x, w, b = sixteen("float16", 3, 10, 9, 9), sixteen("float16", 20, 10, 3, 3), sixteen("float16", 20)
    wide = [each.astype(np.float64) for each in (x[:, ::-1, ::2], w, b)]
    y = to_host(F.conv2d(*device(x[:, ::-1, ::2], w, b), padding=1, activation="elu"))
    assert_rounded_once(y, F.conv2d(*wide, padding=1, activation="elu"), 64)
    wide[0] = x.astype(np.float64)
    back = sixteen("float16", 3, 20, 18, 18)
    ours = to_host(F.conv_transpose2d(*device(back, w, b[:10]), stride=2, padding=1))
    wide = [each.astype(np.float64) for each in (back, w, b[:10])]
    assert_rounded_once(ours, F.conv_transpose2d(*wide, stride=2, padding=1), 64)


@emulated
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_padding_makes_no_nan_on_tensor_cores(dtype):
    """Infinite and NaN weights and gradients meet only what the image holds; inputs go their way."""
    x, w, g = (sixteen(dtype, *shape) for shape in ((2, 16, 6, 7), (32, 16, 3, 3), (2, 32, 6, 7)))
    odd_w, odd_x, odd_g = w.copy(), x.copy(), g.copy()
    odd_w[5, 3, 0, 0], odd_w[9, 2, 2, 2] = np.inf, np.nan
    odd_x[0, 3, 2, 2], odd_x[1, 5, 0, 0] = np.inf, np.nan
    odd_g[0, 5, 0, 3], odd_g[1, 9, 5, 6] = -np.inf, np.nan
    for arrays in ((x, odd_w, g), (odd_x, w, g), (odd_x, odd_w, odd_g)):
        wide = [each.astype(np.float64) for each in arrays]
        with np.errstate(invalid="ignore"):
            expected = [F.conv2d(*wide[:2], padding=1), *F.conv2d_backward(wide[2], *wide[:2], padding=1)[:2]]
        ours = [to_host(F.conv2d(*device(*arrays[:2]), padding=1))]
        ours += to_host(F.conv2d_backward(*device(arrays[2], *arrays[:2]), padding=1))[:2]
        for one, other in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
            np.testing.assert_allclose(one.astype(np.float64), other, rtol=2e-2, atol=2e-1)


@emulated
def test_a_sample_does_not_depend_on_its_batch_on_tensor_cores(schedule):
    x, w = sixteen("float16", 70, 16, 2, 3), sixteen("float16", 24, 16, 2, 2)
    together = to_host(F.conv2d(*device(x, w), padding=1))
    for order, i in zip(ORDERS, (1, 20, 50, 69), strict=True):
        schedule(*order)
        assert to_host(F.conv2d(*device(x[i : i + 1], w), padding=1)).tobytes() == together[i : i + 1].tobytes()


@emulated
def test_a_tiles_sums_do_not_depend_on_the_batch_or_the_order(schedule):
    x, w = normal(5, 16, 5, 5), normal(24, 16, 3, 3)
    together = to_host(F.conv2d(*device(x, w), padding=1))
    for order, i in zip(ORDERS, range(1, 5), strict=True):
        schedule(*order)
        assert to_host(F.conv2d(*device(x[i : i + 1], w), padding=1)).tobytes() == together[i : i + 1].tobytes()


# --- depthwise convolution and other groups of few channels ----------------------------------------------------------


def passes_on(arrays, options):
    """All three passes of a convolution: ``(forward, grad_input, grad_weight)`` of host or device arrays."""
    g, x, w = arrays
    conv, back = {3: (F.conv1d, F.conv1d_backward), 4: (F.conv2d, F.conv2d_backward)}.get(
        x.ndim, (F.conv3d, F.conv3d_backward)
    )
    grads = back(g, x, w, **options)
    return [to_host(each) for each in (conv(x, w, **options), grads.input, grads.weight)]


@emulated
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        ((5,), (3,), {}),
        ((6,), (3,), {"padding": 1}),
        ((5, 7), (3, 3), {"padding": 1}),
        ((8, 9), (5, 5), {"padding": 2}),
        ((7, 7), (7, 7), {"padding": 3}),
        ((9, 8), (3, 3), {"padding": 1, "stride": 2}),
        ((11, 17), (5, 5), {"padding": (2, 1), "stride": (1, 2)}),
        ((9, 10), (2, 2), {"stride": 2}),
        ((9, 10), (3, 3), {"padding": 2, "dilation": 2}),
        ((9, 13), (3, 4), {"padding": 1, "stride": 3}),
        ((9, 14), (2, 1), {"stride": 3}),
        ((3, 4, 6), (2, 3, 3), {"padding": 1}),
    ],
    ids=str,
)
def test_depthwise(schedule, size, kernel, options, multiplier, last):
    """Rows of outputs around a strip's four, kernels with and without a strip of their own, small multipliers."""
    channels = 5
    x, w = normal(2, channels, *size), normal(channels * multiplier, 1, *kernel)
    options = {**options, "groups": channels}
    if last:
        x, options = np.ascontiguousarray(np.moveaxis(x, 1, -1)), {**options, "data_format": "channels_last"}
    dims = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(size)]
    g = normal(*dims(x, w, **options).shape)
    expected = passes_on([each.astype(np.float64) for each in (g, x, w)], options)
    results = []
    for order in ORDERS[::3]:
        schedule(*order)
        results.append(passes_on(device(g, x, w), options))
    for ours, again, theirs in zip(*results, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert ours.tobytes() == again.tobytes()


@emulated
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_depthwise_of_16_bits(dtype):
    x, w = sixteen(dtype, 2, 6, 9, 9), sixteen(dtype, 6, 1, 3, 3)
    g = sixteen(dtype, 2, 6, 9, 9)
    options = {"padding": 1, "groups": 6}
    expected = passes_on([each.astype(np.float64) for each in (g, x, w)], options)
    for ours, theirs in zip(passes_on(device(g, x, w), options), expected, strict=True):
        assert_rounded_once(ours, theirs, 64)


@emulated
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("positions", [31, 32, 33, 63, 65, 2047, 2049, 20000])
def test_runs_of_a_depthwise_weights_gradient(positions, last):
    """Positions around a warp, a run and a chain of a run's sums."""
    x, g = (np.moveaxis(normal(1, 3, size), 1, -1 if last else 1) for size in (positions + 2, positions))
    options = {"groups": 3, **({"data_format": "channels_last"} if last else {})}
    arrays = g, x, np.zeros((3, 1, 3), "f")
    expected = F.conv1d_backward(*(each.astype(np.float64) for each in arrays), **options).weight
    ours = to_host(F.conv1d_backward(*device(*arrays), **options)).weight
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6 * np.sqrt(positions))


@emulated
def test_padding_makes_no_nan_in_a_strip():
    """What is not finite meets inputs only, in all three passes."""
    x, w, g = normal(2, 4, 6, 7), normal(4, 1, 3, 3), normal(2, 4, 6, 7)
    x[0, 1, 2, 2], w[2, 0, 0, 0], w[3, 0, 2, 1], g[0, 2, 0, 3], g[1, 3, 5, 6] = np.inf, np.inf, np.nan, np.inf, np.nan
    options = {"padding": 1, "groups": 4}
    with np.errstate(invalid="ignore"):
        expected = passes_on([each.astype(np.float64) for each in (g, x, w)], options)
    for ours, theirs in zip(passes_on(device(g, x, w), options), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@emulated
def test_groups_of_few_channels():
    """More than one, and fewer than a tile takes: the same strips, which add up channels as well."""
    x, w, g = normal(2, 12, 7, 9), normal(9, 4, 3, 3), normal(2, 9, 4, 5)
    options = {"padding": 1, "stride": 2, "groups": 3}
    expected = passes_on([each.astype(np.float64) for each in (g, x, w)], options)
    for ours, theirs in zip(passes_on(device(g, x, w), options), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)
