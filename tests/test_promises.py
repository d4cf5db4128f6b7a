"""What API.md promises of every op: reproducible bits, footprints of NaN, untouched inputs, bounded memory, no GIL."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import expected
import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference
import tolerance
from fastconv._cli.problem import LOSSES, parse_problem

LINES = """
conv: n=5 c=7 k=19 in=13x11 kernel=3x3 pad=1
conv_1x1: n=5 c=32 k=24 in=9x9 kernel=1x1
conv_large: n=3 c=64 k=48 in=28x28 kernel=3x3 pad=1
conv_small_map: n=5 c=70 k=40 in=5x6 kernel=3x3 pad=1
conv_stride: n=4 c=6 k=10 in=12x15 kernel=5x3 stride=2x3 pad=2:1x0:1 dilation=1x2
conv_groups: n=4 c=12 k=18 in=10x10 kernel=3x3 pad=1 groups=3
conv_stem: n=3 c=3 k=16 in=32x32 kernel=7x7 stride=2 pad=3
conv_whole_window: n=5 c=6 k=20 in=5x4 kernel=5x4
conv_whole_window_3d: n=3 c=33 k=7 in=2x3x2 kernel=2x3x2
depthwise: n=4 c=21 k=21 in=14x17 kernel=3x3 pad=1 groups=21
depthwise_stride: n=4 c=16 k=32 in=14x17 kernel=5x5 stride=2 pad=2 groups=16
conv_over_the_edge: n=5 c=16 k=32 in=9x9 kernel=5x5
conv_over_the_edge_stride: n=5 c=5 k=40 in=11x12 kernel=7x6 stride=2 pad=1:0x0:2
conv_to_one: n=3 c=256 k=1 in=4x5x6 kernel=3x3x3 pad=1
transposed_over_the_edge: op=conv_transpose n=5 c=64 k=7 in=4x3 kernel=5x6
conv_1d: n=5 c=8 k=12 in=101 kernel=7 pad=3
conv_3d: n=3 c=5 k=9 in=7x6x8 kernel=3x3x3 pad=1
transposed: op=conv_transpose n=4 c=10 k=7 in=7x8 kernel=4x4 stride=2 pad=1
transposed_groups: op=conv_transpose n=4 c=8 k=8 in=5x6 kernel=3x3 stride=2 pad=1 groups=4 output_padding=1
transposed_point: op=conv_transpose n=5 c=10 k=7 in=1x1 kernel=4x4
transposed_point_stride: op=conv_transpose n=5 c=9 k=18 in=1x1 kernel=3x2 stride=2
separable: op=separable_conv n=3 c=9 k=14 in=11x11 kernel=3x3 pad=1 multiplier=2
max_pool: op=max_pool n=5 c=9 in=15x14 kernel=3x3 stride=2 pad=1
max_pool_1d: op=max_pool n=5 c=9 in=150 kernel=3 stride=3
min_pool: op=min_pool n=5 c=9 in=15x14 kernel=2x2 stride=2
avg_pool: op=avg_pool n=5 c=9 in=15x14 kernel=3x3 stride=2 pad=1
avg_pool_3d: op=avg_pool n=3 c=4 in=6x7x8 kernel=2x2x2 stride=2
rms_pool: op=rms_pool n=5 c=9 in=15x14 kernel=3x3 stride=2 pad=1
lp_pool_3d: op=lp_pool n=3 c=4 in=6x7x8 kernel=2x2x2 stride=2 norm=3.0
lp_pool_root: op=lp_pool n=5 c=9 in=15x14 kernel=3x3 stride=2 norm=1.5
adaptive_avg_pool: op=adaptive_avg_pool n=5 c=9 in=15x14 out=4x9
adaptive_avg_pool_equal: op=adaptive_avg_pool n=5 c=9 in=15x14 out=5x7
adaptive_max_pool: op=adaptive_max_pool n=5 c=9 in=15x14 out=4x9
max_unpool: op=max_unpool n=5 c=9 in=15x14 kernel=3x3 stride=2
global_avg_pool: op=global_avg_pool n=5 c=19 in=17x13
global_max_pool: op=global_max_pool n=5 c=19 in=17x13
batch_norm: op=batch_norm n=5 c=19 in=17x13
batch_norm_wide: op=batch_norm n=40 c=5 in=64x64
layer_norm: op=layer_norm n=5 c=19 in=17x13
layer_norm_rows: op=layer_norm n=400 c=130
group_norm: op=group_norm n=5 c=24 in=17x13 groups=4
group_norm_small: op=group_norm n=300 c=32 in=3x3 groups=8
group_norm_large: op=group_norm n=3 c=64 in=96x96 groups=2
group_norm_rows: op=group_norm n=37 c=60 groups=6
instance_norm: op=instance_norm n=5 c=19 in=17x13
instance_norm_1d: op=instance_norm n=40 c=5 in=5000
switch_norm: op=switch_norm n=5 c=19 in=17x13
linear: op=linear n=37 c=130 k=45
linear_long: op=linear n=6 c=4099 k=8
relu: op=relu n=5 c=19 in=17x13
leaky_relu: op=leaky_relu n=5 c=19 in=17x13
elu: op=elu n=5 c=19 in=17x13
sigmoid: op=sigmoid n=5 c=19 in=17x13
tanh: op=tanh n=5 c=19 in=17x13
step: op=step n=5 c=19 in=17x13
tanh_large: op=tanh n=5 c=64 in=64x64
softmax: op=softmax n=37 c=101
softmax_pixels: op=softmax n=4 c=11 in=17x13
log_softmax: op=log_softmax n=37 c=101
cross_entropy: op=cross_entropy n=37 c=11
cross_entropy_pixels: op=cross_entropy n=3 c=11 in=33x31
mse_loss: op=mse_loss n=37 c=1001
bce: op=binary_cross_entropy_with_logits n=37 c=1001
dropout: op=dropout n=5 c=19 in=17x13
"""
PROBLEMS = [parse_problem(line) for line in LINES.strip().splitlines()]
everywhere = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
both_formats = pytest.mark.parametrize("data_format", problems.FORMATS)


def as_tuple(result):
    """Gradients as a tuple, whatever the backward function returns."""
    return result if isinstance(result, tuple) else (result,)


def run(problem, dtype, data_format, pick=slice(None), options=None):
    """``(output, gradients)`` of a problem's samples ``pick``, from arrays that are the same every time."""
    rng = np.random.default_rng(0)
    call = expected.make_call(problem, dtype, rng, data_format)
    output = np.asarray(call.forward())
    gradient = np.random.default_rng(1).standard_normal(output.shape).astype(dtype)
    call.options = dict(options or {})
    for name in ("x", "indices", *(("target",) if problem.op in LOSSES else ())):
        if name in call.arrays:
            call.arrays[name] = call.arrays[name][pick]
    gradient = gradient[pick] if gradient.ndim else gradient
    output = np.asarray(call.forward())
    call.save()
    return output, as_tuple(call.backward(gradient))


@everywhere
@both_formats
@pytest.mark.parametrize("dtype", problems.DTYPES)
def test_samples_do_not_depend_on_the_batch(isa, problem, data_format, dtype):
    """One sample alone gives the bits that it gives among others, forward and in the input's gradient."""
    if problem.op in LOSSES:
        options = {"reduction": "none"}
        whole = run_loss(problem, dtype, slice(None), options)
        for i in (0, problem.n - 1):
            tolerance.assert_same_bits(run_loss(problem, dtype, slice(i, i + 1), options)[0], whole[i])
        return
    options = {"training": False} if problem.op in ("batch_norm", "switch_norm") else None
    output, gradients = run(problem, dtype, data_format, options=options)
    picks = [slice(i, i + 1) for i in {0, 1, problem.n // 2, problem.n - 1}] + [slice(1, 3)]
    if problem.op == "dropout":  # a seed's mask goes by positions: only samples after these do not matter
        picks = [slice(0, 1), slice(0, 3)]
    for pick in picks:
        alone, own = run(problem, dtype, data_format, pick, options)
        tolerance.assert_same_bits(alone, output[pick], f"samples {pick}")
        tolerance.assert_same_bits(own[0], gradients[0][pick], f"gradient of samples {pick}")


def run_loss(problem, dtype, pick, options):
    """A loss of the samples ``pick`` without reduction."""
    call = expected.make_call(problem, dtype, np.random.default_rng(0))
    arrays = {name: array[pick] for name, array in call.arrays.items()}
    return getattr(F, problem.op)(arrays["x"], arrays["target"], **options)


@everywhere
@both_formats
@pytest.mark.parametrize("dtype", problems.DTYPES)
def test_threads_do_not_change_bits(isa, problem, data_format, dtype, threads):
    """One, two or three threads give the same bits, forward and in every gradient; so does a second call."""
    results = []
    for count in (1, 2, 3, 2):
        threads(count)
        results.append(run(problem, dtype, data_format))
    for output, gradients in results[1:]:
        tolerance.assert_same_bits(output, results[0][0], "output")
        for i, (gradient, first) in enumerate(zip(gradients, results[0][1], strict=True)):
            tolerance.assert_same_bits(gradient, first, f"gradient {i}")


@everywhere
@both_formats
def test_inputs_are_not_written(isa, problem, data_format):
    """Every input is read-only memory here, and holds the same bits afterwards."""
    rng = np.random.default_rng(0)
    call = expected.make_call(problem, np.float32, rng, data_format)
    running = {"running_mean", "running_var"}
    before = {name: array.copy() for name, array in call.arrays.items() if name not in running}
    for name in before:
        call.arrays[name].flags.writeable = False
    output = np.asarray(call.forward())
    gradient = rng.standard_normal(output.shape).astype(output.dtype)
    kept = gradient.copy()
    gradient.flags.writeable = False
    call.save()
    for saved in call._saved:
        saved.flags.writeable = False
    call.backward(gradient)
    for name, array in before.items():
        tolerance.assert_same_bits(call.arrays[name], array, name)
    tolerance.assert_same_bits(gradient, kept, "grad_output")


@pytest.mark.parametrize(
    "shape", [(4, 24, 5, 2, 2, 32, 4), (16, 16, 5, 2, 1, 32, 3), (8, 12, 3, 2, 1, 32, 6), (128, 130, 3, 1, 1, 9, 8)]
)
def test_signs_of_zeros_are_bits_too(isa, shape, threads):
    """Of sums that underflow: neither the batch nor the threads decide which zeros of the padding are added."""
    inputs, outputs, kernel, dilation, stride, samples, size = shape
    rng = np.random.default_rng(0)
    options = {"padding": dilation * (kernel // 2), "stride": stride, "dilation": dilation}
    for scale in (1, 0.05, 0.0005):
        x = (1e-20 * rng.standard_normal((samples, inputs, size, size))).astype(np.float32)
        w = (1e-19 * scale * rng.standard_normal((outputs, inputs, kernel, kernel))).astype(np.float32)
        threads(1)
        batch = F.conv2d(x, w, **options)
        single = np.concatenate([F.conv2d(x[i : i + 1], w, **options) for i in range(samples)])
        threads(8)
        assert batch.tobytes() == single.tobytes()
        assert batch.tobytes() == F.conv2d(x, w, **options).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias", "grad_output"])
@pytest.mark.parametrize("name", [p.name for p in PROBLEMS if p.op in expected.PRODUCT_OPS and p.name != "conv_large"])
def test_not_finite_values_reach_what_they_touch(isa, name, where, value):
    """A NaN or an infinity shows exactly where the definition has it, and nothing else changes."""
    problem = next(p for p in PROBLEMS if p.name == name)
    rng = np.random.default_rng(0)
    call = expected.make_call(problem, np.float32, rng)
    output = call.forward()
    gradient = rng.standard_normal(output.shape).astype("f")
    target = gradient if where == "grad_output" else call.arrays[where]
    flat = target.reshape(-1)
    for position in {0, flat.size // 2, flat.size - 1}:
        kept, flat[position] = flat[position], value
        with np.errstate(invalid="ignore"):
            results = (call.forward(), *call.backward(gradient))
            wanted = expected.expect(call, gradient)
        for result, each in zip(results, wanted, strict=True):
            finite = np.isfinite(each.value)
            np.testing.assert_array_equal(np.isnan(result), np.isnan(each.value), err_msg=f"{each.name}: NaNs")
            np.testing.assert_array_equal(result[np.isinf(each.value)], each.value[np.isinf(each.value)])
            error = np.abs(result[finite] - each.value[finite])
            assert (error <= np.broadcast_to(each.bound, each.value.shape)[finite]).all(), each.name
        flat[position] = kept


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_makes_no_nan(isa, axes):
    """A padded tap is skipped, not multiplied by zero: an infinite weight meets only what is there."""
    x = np.ones((1, 1, *(3,) * axes), "f")
    for channels, groups in ((1, 1), (8, 1), (8, 8)):
        x = np.ones((1, channels, *(3,) * axes), "f")
        w = np.full((8, channels // groups, *(3,) * axes), np.inf, "f")
        y = getattr(F, f"conv{axes}d")(x, w, padding=1, groups=groups)
        assert np.isposinf(y).all()
        g = getattr(F, f"conv{axes}d_backward")(np.ones_like(y), x, w, padding=1, groups=groups)
        assert np.isposinf(g.input).all()
        assert np.isfinite(g.weight).all()


def test_not_finite_values_in_pools(isa):
    """A NaN wins a maximum and a minimum, the first of equals is taken, a window of infinities has an index."""
    rng = np.random.default_rng(3)
    kernel, stride, pads, dilation = (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)
    for fill in (np.nan, np.inf, -np.inf, 0.0):
        x = rng.integers(-2, 3, (2, 3, 17, 35)).astype("f")
        x[rng.random(x.shape) < 0.3] = fill
        for op in ("max_pool", "min_pool"):
            y, indices = getattr(F, f"{op}2d")(x, 3, 2, 1, return_indices=True)
            wanted, places = getattr(reference, op)(x, kernel, stride=stride, pads=pads, dilation=dilation)
            np.testing.assert_array_equal(y, wanted)
            np.testing.assert_array_equal(indices, places)
            np.testing.assert_array_equal(getattr(F, f"{op}2d")(x, 3, 2, 1), wanted)
        y = F.avg_pool2d(x, 3, 2, 1)
        wanted = reference.avg_pool(x, kernel, stride=stride, pads=pads)
        np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)


def test_floating_point_mode_is_restored(isa):
    """A kernel may flush subnormals; the caller's arithmetic still has them."""
    subnormal = np.float32(1e-40)
    for problem in PROBLEMS:
        run(problem, np.float32, "channels_first")
        assert subnormal * np.float32(0.5) != 0, problem.name


@pytest.mark.parametrize("count", [1, 2])
def test_subnormals_take_no_slow_path(isa, threads, count):
    """Arithmetic on float32 has subnormal numbers as zeros, in every thread, which is why they cost nothing."""
    threads(count)
    x, w = np.full((2, 8, 12, 12), 1e-40, "f"), np.full((8, 8, 3, 3), 1e-40, "f")
    one_x, one_w = np.ones_like(x), np.ones_like(w)
    results = [F.conv2d(x, one_w), F.conv2d(one_x, w), F.conv2d(x, one_w[:, :1], groups=8)]
    results += [F.conv_transpose2d(x, one_w), *F.conv2d_backward(x[:, :, 2:, 2:], one_x, one_w)[:2]]
    results += [F.linear(x[..., 0, 0], one_w[..., 0, 0]), F.avg_pool2d(x, 3), F.global_avg_pool(x), F.rms_pool2d(x, 3)]
    for result in results:
        assert not result.any()


def test_calls_from_many_threads(isa, threads):
    """Every op may run at once in eight Python threads, each with two of its own, and gives the bits it gives alone."""
    threads(2)
    kinds = [(dtype, data_format) for dtype in (*problems.DTYPES, np.float16) for data_format in problems.FORMATS]
    calls = [(problem, *kinds[i % len(kinds)]) for i, problem in enumerate(PROBLEMS * 2)]
    alone = [(call, *run(*call)) for call in calls]
    failures = []

    def work(turn):
        try:
            for call, output, gradients in alone[turn::8] + alone[: turn + 8]:
                problem = call[0]
                again, own = run(*call)
                tolerance.assert_same_bits(again, output, problem.name)
                for a, b in zip(own, gradients, strict=True):
                    tolerance.assert_same_bits(a, b, problem.name)
        except BaseException as error:  # an assertion in a thread is lost otherwise
            failures.append(error)

    workers = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures, failures[0]


@pytest.mark.parametrize("backward", [False, True])
def test_the_gil_is_released(backward, threads):
    """Another Python thread runs while a kernel does."""
    threads(1)
    x, w = np.ones((8, 64, 56, 56), "f"), np.ones((128, 64, 3, 3), "f")
    g = np.ones((8, 128, 54, 54), "f")
    span = []

    def work():
        start = time.perf_counter()
        F.conv2d_backward(g, x, w) if backward else F.conv2d(x, w)
        span.extend((start, time.perf_counter()))

    thread = threading.Thread(target=work)
    thread.start()
    ticks = []
    while thread.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.001)
    thread.join()
    middle = [t for t in ticks if span[0] + 0.1 * (span[1] - span[0]) < t < span[1] - 0.1 * (span[1] - span[0])]
    assert len(middle) >= 3, f"the call took {span[1] - span[0]:.3f} s and let the other thread run {len(middle)} times"


MEMORY_SCRIPT = """
import json, sys
import numpy as np
import fastconv
from fastconv._cli.calls import Call, make_arrays, to_format
from fastconv._cli.problem import parse_problem

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

line, dtype, pass_name, data_format = json.loads(sys.argv[1])
fastconv.set_num_threads(2)
fastconv._core.set_thread_grain(0)
small = parse_problem(line.replace("n=16", "n=1"))
problem = parse_problem(line)
for warm in (True, False):
    chosen = small if warm else problem
    arrays = make_arrays(chosen, dtype, np.random.default_rng(0))
    arrays["x"] = to_format(arrays["x"], data_format)
    call = Call(chosen, arrays, data_format)
    gradient = np.ones(call.forward().shape, dtype)
    call.save()
    fastconv.release_memory()  # so that it is not there before the call
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = status("VmRSS")
    result = call.run(pass_name, gradient)
    extra = status("VmHWM") - before - result.nbytes
print(extra)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the resident memory is read from Linux's /proc")
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize(
    "line",
    [
        "conv: n=16 c=32 k=32 in=112x112 kernel=3x3 pad=1",
        "winograd: n=16 c=64 k=64 in=56x56 kernel=3x3 pad=1",
        "winograd_wide: n=2 c=640 k=512 in=28x28 kernel=3x3 pad=1",
        "winograd_many: n=2 c=4000 k=64 in=6x6 kernel=3x3 pad=1",
        "winograd_3d: n=4 c=64 k=64 in=12x14x14 kernel=3x3x3 pad=1",
        "conv_7x7: n=16 c=16 k=16 in=64x64 kernel=7x7 pad=3",
        "one_block: n=1 c=512 k=1024 in=15x15 kernel=3x3 stride=2 pad=1",
        "few_outputs: n=2 c=700 k=500 in=8x8 kernel=5x5",
        "conv_1d: n=16 c=64 k=32 in=4000 kernel=11 pad=5",
        "conv_3d: n=16 c=16 k=16 in=16x16x16 kernel=3x3x3 pad=1",
        "depthwise: n=16 c=64 k=64 in=64x64 kernel=5x5 pad=2 groups=64",
        "grouped: n=2 c=16384 k=512 in=4x20 kernel=3x3 pad=1 groups=32",
        "far_taps: n=1 c=1 k=2 in=2000x16 kernel=1900x1 dilation=1000x1 pad=949500x0",
        "narrow: n=2 c=8192 k=4 in=3x600 kernel=3x1 pad=1:1x0:0",
        "transposed: op=conv_transpose n=16 c=32 k=32 in=32x32 kernel=4x4 stride=2 pad=1",
        "patches: op=conv_transpose n=4 c=256 k=500 in=32x32 kernel=4x4 stride=4",
        "over_the_edge: n=16 c=300 k=128 in=20x20 kernel=13x13",
        "over_the_edge_1d: n=16 c=48 k=256 in=500 kernel=400",
        "to_one: n=16 c=1000 k=1 in=8x12x12 kernel=3x3x3 pad=1",
        "joined_groups: n=8 c=64 k=320 in=100x7 kernel=1000x1 dilation=20x1 pad=9950x0 groups=64",
        "many_outputs: n=1 c=16 k=32000 in=513 kernel=2 groups=16",
        "max_pool: op=max_pool n=16 c=64 in=64x64 kernel=3x3 stride=2 pad=1",
        "avg_pool: op=avg_pool n=16 c=64 in=64x64 kernel=3x3 stride=2 pad=1",
        "rms_pool: op=rms_pool n=16 c=64 in=64x64 kernel=3x3 stride=2 pad=1",
        "adaptive_avg_pool: op=adaptive_avg_pool n=16 c=64 in=64x64 out=30x30",
        "batch_norm: op=batch_norm n=16 c=64 in=64x64",
        "layer_norm: op=layer_norm n=16 c=64 in=64x64",
        "group_norm: op=group_norm n=16 c=64 in=64x64 groups=8",
        "group_norm_small: op=group_norm n=4096 c=256 in=2x2 groups=32",
        "instance_norm: op=instance_norm n=16 c=64 in=64x64",
        "switch_norm: op=switch_norm n=16 c=64 in=64x64",
        "bce: op=binary_cross_entropy_with_logits n=16 c=64 in=64x64",
        "softmax: op=softmax n=16 c=64 in=64x64",
    ],
    ids=lambda line: line.split(":")[0],
)
def test_peak_memory(line, data_format):
    """A call takes less than 32 MiB a thread beyond its result, whatever the batch (an im2col would take hundreds)."""
    product = "op=" not in line or "transpose" in line
    for pass_name in ("forward", "backward_input", "backward_weight") if product else ("forward", "backward"):
        assert_little_memory(line, "float32", pass_name, data_format)


def assert_little_memory(*arguments):
    """The memory of one call, in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(MEMORY_SCRIPT), json.dumps(arguments)]
    # What glibc would keep for the next call must not hide in what was there before it.
    memory = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    extra = int(subprocess.run(command, check=True, capture_output=True, text=True, env=memory).stdout)
    assert extra < 2 * 32 * 2**20, f"{arguments}: {extra / 2**20:.0f} MiB beyond the result, with two threads"


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the resident memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("line", "data_format"),
    [
        ("rms_pool: op=rms_pool n=16 c=8 in=400x400 kernel=3x3 stride=2 pad=1", "channels_first"),
        ("global_avg_pool: op=global_avg_pool n=1 c=1 in=5000x4000", "channels_first"),
        ("batch_norm: op=batch_norm n=16 c=8 in=400x400", "channels_last"),
    ],
    ids=lambda value: value.split(":")[0],
)
def test_peak_memory_of_sixteen_bit_arrays(line, data_format):
    """No copy of an array in float32 is made, which would take 80 MB."""
    for pass_name in ("forward", "backward"):
        assert_little_memory(line, "float16", pass_name, data_format)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_torch_tensors_come_back_as_tensors(kind):
    """A PyTorch CPU tensor works as an array does, without a copy of its values changing, and comes back as one."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.randn(2, 3, 8, 8, dtype=getattr(torch, kind))
    w = torch.randn(4, 3, 3, 3, dtype=x.dtype)
    y = F.conv2d(x, w, padding=1)
    assert isinstance(y, torch.Tensor)
    assert y.dtype == x.dtype
    tolerance.assert_same_bits(y.numpy(), F.conv2d(x.numpy(), w.numpy(), padding=1))
    for gradient in F.conv2d_backward(y, x, w, padding=1):
        assert isinstance(gradient, torch.Tensor)
    for result in (F.relu(x), F.max_pool2d(x, 2), F.softmax(x, 1), F.global_avg_pool(x)):
        assert isinstance(result, torch.Tensor)
