"""Unusual memory, extreme sizes and scarce resources: right answers or clear errors, never a crash or a hang."""

import itertools
import subprocess
import sys
import textwrap

import expected
import fastconv.functional as F
import fuzz
import numpy as np
import pytest
import tolerance
from fastconv import _core
from test_promises import PROBLEMS, as_tuple, everywhere

ORDINARY = (ValueError, TypeError, MemoryError)


def a(*shape):
    """An array of ones."""
    return np.ones(shape, np.float32)


# --- memory that kernels cannot or need not step through -------------------------------------------------------------


def unaligned(array):
    """The array one byte past an aligned address."""
    room = np.empty(array.nbytes + 1, np.uint8)
    result = np.frombuffer(room.data, array.dtype, array.size, 1).reshape(array.shape)
    result[...] = array
    return result


def record_field(array):
    """The array as a field of packed records, whose size is no multiple of the element's."""
    records = np.zeros(array.shape, [("tag", "S3"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


class Subclass(np.ndarray):
    """A subclass whose own elements must not matter."""

    def __getitem__(self, key):
        raise AssertionError("a subclass's own indexing was used")


def subclass(array):
    """The array as a `Subclass`."""
    return array.view(Subclass)


def swapped(array):
    """The array with the other order of bytes."""
    return array.astype(array.dtype.newbyteorder())


MEMORIES = (unaligned, record_field, subclass)


def results_of(call, gradient):
    """``(output, gradients...)`` of a call."""
    output = np.asarray(call.forward())
    call.save()
    return (output, *as_tuple(call.backward(gradient)))


@everywhere
@pytest.mark.parametrize("memory", [*MEMORIES, swapped])
def test_inputs_in_unusual_memory(problem, memory):
    """Any argument may be unaligned, a field of records, of a subclass or of swapped bytes: the bits are the same."""
    call = expected.make_call(problem, np.float32, np.random.default_rng(0))
    if memory is swapped and "running_mean" in call.arrays:
        memory = unaligned  # the running statistics are written, in their own memory
    gradient = np.random.default_rng(1).standard_normal(np.shape(call.forward())).astype("f")
    plain = {name: array.copy() for name, array in call.arrays.items()}
    call.arrays = {name: array.copy() for name, array in plain.items()}
    wanted = results_of(call, gradient)
    call.arrays = {name: memory(array) for name, array in plain.items()}
    output = np.asarray(call.forward())
    call.arrays = {name: memory(array) for name, array in plain.items()}
    call.save()
    call._saved = tuple(memory(np.ascontiguousarray(saved)) for saved in call._saved)
    results = (output, *as_tuple(call.backward(memory(gradient))))
    if problem.op == "step":  # it has no backward pass
        results, wanted = results[:1], wanted[:1]
    for result, want in zip(results, wanted, strict=True):
        assert type(result) is np.ndarray
        tolerance.assert_same_bits(result, want)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_written_arrays_in_unusual_memory(memory, activation, tmp_path):
    """``out=`` and the running statistics are written where they are, whatever memory that is."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 7, 7)).astype("f"), rng.standard_normal((4, 3, 3, 3)).astype("f")
    wanted = F.conv2d(x, w, activation=activation)
    mapped = np.memmap(tmp_path / "result", np.float32, "w+", shape=wanted.shape)
    for out in (memory(np.zeros_like(wanted)), mapped):
        assert F.conv2d(x, w, activation=activation, out=out) is out
        tolerance.assert_same_bits(np.asarray(out), wanted)
    back = F.conv_transpose2d(x, np.swapaxes(w, 0, 1).copy())
    out = memory(np.zeros_like(back))
    assert F.conv_transpose2d(x, np.swapaxes(w, 0, 1).copy(), out=out) is out
    tolerance.assert_same_bits(np.asarray(out), back)
    mean, var = np.zeros(3, "f"), np.ones(3, "f")
    own_mean, own_var = memory(mean), memory(var)
    F.batch_norm(x, mean, var, training=True)
    F.batch_norm(x, own_mean, own_var, training=True)
    tolerance.assert_same_bits(np.asarray(own_mean), mean)
    tolerance.assert_same_bits(np.asarray(own_var), var)
    tolerance.assert_same_bits(F.batch_norm(x, own_mean, own_var), F.batch_norm(x, mean, var))


def test_out_overlaps_an_input():
    """A result written over the input or the weight, or backwards, is what it is elsewhere."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 4, 8, 8)).astype("f"), rng.standard_normal((4, 4, 3, 3)).astype("f")
    wanted = F.conv2d(x, w, padding=1)
    for steps in (slice(None), slice(None, None, -1)):
        room = x.copy()
        F.conv2d(room, w, padding=1, out=room[..., steps])
        tolerance.assert_same_bits(room[..., steps], wanted)
    small = F.conv2d(x[..., :5, :5], w)
    F.conv2d(x[..., :5, :5], w, out=w[:1])
    tolerance.assert_same_bits(w[:1], small)


def test_lazy_tensors():
    """A tensor that PyTorch negates lazily is negated; one that NumPy cannot show is refused by name."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert F.relu(torch._neg_view(-torch.ones(3))).tolist() == [1, 1, 1]
    for tensor in (torch.eye(3).to_sparse(), torch.ones(3, device="meta")):
        with pytest.raises(TypeError, match=r"^x: "):
            F.relu(tensor)


# --- sizes -----------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("axis", ["n", "c", "size"])
def test_empty_axes(problem, axis):
    """No samples, channels or positions give empty arrays of the right shapes, or a clear error; never a hang."""
    call = expected.make_call(problem, np.float32, np.random.default_rng(0))
    full = np.asarray(call.forward())
    emptied = {"n": {"x": 0, "target": 0, "indices": 0}, "c": {"x": 1, "weight": 1}, "size": {"x": -1}}[axis]
    for name, dim in emptied.items():
        if name in call.arrays and call.arrays[name].ndim > dim:
            call.arrays[name] = np.take(call.arrays[name], [], axis=dim)
    try:
        output = np.asarray(call.forward())
    except ValueError:
        if axis == "n":  # an empty batch is no misuse
            raise
        return
    if axis == "n" and full.ndim:
        assert output.shape == (0, *full.shape[1:])
    call.save()
    gradients = as_tuple(call.backward(np.zeros(output.shape, "f")))
    assert gradients[0].shape == call.arrays["x"].shape
    assert not any(np.any(gradient) for gradient in gradients)


def test_no_channels_in_batch_norm():
    """Arrays without channels have statistics without entries."""
    for shape in ((3, 0), (3, 0, 4), (0, 0, 2, 2)):
        y, mean, invstd = F.batch_norm(a(*shape), a(0), a(0), training=True, return_stats=True)
        assert y.shape == shape
        gradients = F.batch_norm_backward(a(*shape), a(*shape), mean, invstd)
        assert [gradient.shape for gradient in gradients] == [shape, (0,), (0,)]


SCRIPT = """
import resource, sys
import numpy as np
import fastconv, fastconv.functional as F
from fastconv import _core
resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2)

def b(*shape):
    return np.broadcast_to(np.float32(1), shape)

def a(*shape):
    return np.ones(shape, np.float32)

def refused(call, *errors):
    try:
        call()
    except errors or (ValueError, TypeError, MemoryError):
        return
    raise AssertionError("not refused")

"""


def run_apart(code):
    """Run code after `SCRIPT` in a process of its own, for which a minute and 4 GiB must do."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


linux = pytest.mark.skipif(
    sys.platform != "linux" or fuzz.SANITIZED, reason="limits the address space, Linux's way; sanitizers need all of it"
)


@linux
def test_empty_batch_of_far_positions():
    """An empty batch takes no time and no memory, however many positions its samples have (fuzzed, seeds 21 and 32)."""
    run_apart(
        """
        many, filters = np.zeros((0, 4, 2**40)), np.zeros((4, 4, 3))
        assert F.conv1d(many, filters).shape == (0, 4, 2**40 - 2)
        assert F.conv_transpose1d(many, filters, stride=2).shape == (0, 4, 2**41 + 1)
        assert not F.conv1d_backward(many, many, filters, padding=1).weight.any()
        x, w, p, g = np.zeros((0, 12, 31)), np.zeros((24, 1, 2)), np.zeros((33, 24, 1)), np.zeros((0, 33, 1431655775))
        window = {"stride": 3, "padding": 2**31, "dilation": 2}
        assert F.separable_conv1d(x, w, p, **window).shape == g.shape
        for gradient in F.separable_conv1d_backward(g, x, w, p, **window):
            assert not gradient.any()
        with open("/proc/self/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        assert peak < 300_000, f"{peak} KiB"
        """
    )


@linux
def test_far_windows():
    """Strides, dilations and pads up to 2**40 are computed without a walk through what lies between."""
    run_apart("""
    for channels, groups in ((1, 1), (3, 3), (4, 2)):
        x, w = a(2, channels, 8), a(channels, channels // groups, 3)
        for stride, dilation, padding in ((2**38, 1, 2**40), (2**33, 2**33, 2**36), (1, 2**38, 2**38), (2**40, 1, 0)):
            y = F.conv1d(x, w, stride=stride, dilation=dilation, padding=padding, groups=groups)
            g = F.conv1d_backward(y, x, w, stride, padding, dilation, groups)
            assert g.input.shape == x.shape and g.weight.shape == w.shape
            z = F.conv2d(x[..., None], w[..., None], None, (stride, 1), ((padding,) * 2, (0, 0)), (dilation, 1), groups)
            assert (z[..., 0] == y).all()
    x, w = a(1, 128, 64, 8), a(128, 128, 3, 3)  # enough of both for every algorithm
    for far in (2**20, 2**38):
        y = F.conv2d(x, w, stride=(1, far), padding=(1, 3 * far // 2))
        assert y.shape == (1, 128, 64, 4)
        g = F.conv2d_backward(y, x, w, (1, far), (1, 3 * far // 2))
        assert g.input.shape == x.shape and g.weight.shape == w.shape
    wide = F.conv_transpose1d(a(1, 1, 3), a(1, 1, 3), stride=2**40, padding=2**40 - 5)
    assert wide.shape == (1, 1, 13) and wide.sum() == 3
    assert F.max_pool1d(a(1, 1, 5), 2**30, stride=2**29, padding=2**29).tolist() == [[[1]]]
    """)


@linux
def test_sizes_beyond_memory_or_64_bits():
    """Problems larger than memory, or than 64 bits can count, are refused, also behind broadcast views."""
    run_apart("""
    refused(lambda: F.conv1d(b(1, 1, 2**24 + 1), b(1, 1, 2**24 + 1), dilation=2**40, padding=2**40), ValueError)
    refused(lambda: F.conv_transpose1d(b(1, 1, 2**60), b(1, 1, 1), stride=2**40), ValueError)
    refused(lambda: F.conv_transpose1d(b(1, 1, 2), b(1, 1, 2**40), dilation=2**40), ValueError)
    refused(lambda: F.conv1d(b(1, 1, 2**40), b(1, 1, 2**40)))
    for channels in (2**34, 2**40, 2**58):
        refused(lambda: F.conv1d(b(1, channels, 1), b(1, channels, 1)))
        refused(lambda: F.conv1d(b(1, 1, 1), b(channels, 1, 1)))
        refused(lambda: F.conv1d(b(1, channels, 1), b(channels, 1, 1), groups=channels))
        refused(lambda: F.conv1d_backward(b(1, 1, channels), b(1, 1, channels), a(1, 1, 1)))
        refused(lambda: F.batch_norm(b(channels, 1), None, None, training=True))
        refused(lambda: F.batch_norm(b(2, channels), None, None, training=True))
        refused(lambda: F.relu(b(channels)))
        refused(lambda: F.softmax(b(2, channels), 1))
        refused(lambda: F.dropout(b(channels)))
        refused(lambda: F.max_pool1d(b(channels, 1, 2), 2))
        refused(lambda: F.linear(b(channels, 1), b(1, 1)))
        refused(lambda: F.cross_entropy(b(channels, 2), np.broadcast_to(np.int64(0), channels)))
    refused(lambda: F.conv_transpose3d(a(1, 1, 5, 5, 5), a(1, 1, 1, 1, 1), stride=2**32), ValueError)
    refused(lambda: F.conv1d_backward(b(0, 2**30, 1), b(0, 2**29, 1), b(2**30, 2**29, 1)))
    refused(lambda: F.avg_pool3d(a(1, 1, 5, 5, 5), 2**30, stride=2**29, padding=2**29), ValueError)
    refused(lambda: F.avg_pool1d_backward(b(2**20, 2**20, 2**20), (2**20, 2**20, 2**21), 2))
    refused(lambda: F.max_pool2d_backward(a(1, 1, 1, 1), np.zeros((1, 1, 1, 1), int), (1, 1, 2**40, 2**40)))
    refused(lambda: F.max_pool2d_backward(a(1, 1, 1, 1), np.zeros((1, 1, 1, 1), int), (1, 1, 0, 2**40)))
    refused(lambda: F.global_avg_pool_backward(b(1, 1), (1, 1, 2**40, 2**40)))
    assert F.conv1d(b(0, 2**40, 1), b(2**20, 2**40, 1)).shape == (0, 2**20, 1)
    assert F.softmax(b(2, 0, 2**30), 1).shape == (2, 0, 2**30)
    assert F.global_avg_pool(b(1, 1, 2**26)).tolist() == [[1]]
    """)


@linux
@pytest.mark.parametrize("megabytes", [360, 380, 400, 420, 440, 480])
@pytest.mark.parametrize("count", [64, 10**6])
def test_threads_that_cannot_start(count, megabytes):
    """More threads than the system can start: fewer work, and the result is the same, if there is memory for it."""
    run_apart(f"""
    x, w = np.random.default_rng(0).standard_normal((500, 2, 20, 20)).astype("f"), a(3, 2, 3, 3)
    fastconv.set_num_threads(1)
    alone = F.conv2d(x, w)
    _core.set_thread_grain(0)
    fastconv.set_num_threads({count})
    resource.setrlimit(resource.RLIMIT_AS, ({megabytes} << 20,) * 2)
    try:
        assert (F.conv2d(x, w) == alone).all()
        assert (F.conv2d(x, w) == alone).all()
    except MemoryError:  # each thread that works reserves a heap
        pass
    """)


# --- the private module ----------------------------------------------------------------------------------------------


def test_private_convolutions_check_again():
    """The compiled module's own checks hold without those of the public functions before them."""
    huge = 2**62
    strides, dilations = ([1], [1, 1], [0], [huge], [-1], []), ([1], [huge], [0])
    pads = ([[0, 0]], [[0, 0]] * 2, [[huge, huge]], [[-9, 2]], [[-(2**63), 0]])
    windows = (strides, pads, dilations, (1, 2, 0, -1, huge), ("zeros", "reflect", "circular"), (False, True))
    images = (a(1, 2, 5), a(1, 2, 5, 5), a(2, 2), a(0, 2, 5), np.ones((1, 2, 5)))
    weights = (a(2, 2, 3), a(3, 2, 3, 3), a(2, 1, 3), a(0, 2, 3))
    sizes = ([7], [1], [3, 3], [0], [huge], [-1], [1] * 9, [])
    for name, arguments in (
        (
            "conv_forward",
            (images, weights, (None, a(3)), *windows, (None, a(1, 3, 3)), (None, "relu"), (0.0,), ("highest",)),
        ),
        ("conv_backward_input", (images, weights, (None, a(2)), sizes, *windows, (None, a(1, 2, 7)), ("highest",))),
        ("conv_backward_weight", (images, images, sizes, *windows, ("highest",))),
    ):
        results = 0
        for each in itertools.islice(itertools.product(*arguments), 0, None, 17):
            try:
                getattr(_core, name)(*each)
                results += 1
            except ORDINARY:
                continue
        assert results, name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("output_size", (5, 2**62, 1, 2**62, 0, 0, False)),
        ("output_size", (-(2**63), 3, 1, 1, 0, 0, False)),
        ("output_size", (5, 1, 0, 1, 0, 0, True)),
        ("transposed_output_size", (2**62, 3, 2**62, 1, 0, 0, 0)),
        ("force_kernel", ("conv",)),
        ("dropout_mask", ([-1], 0.5, 0)),
        ("dropout_mask", ([2**62, 8], 0.5, 0)),
        ("dropout_mask", ([3], float("nan"), 0)),
        ("softmax", (a(2, 2), a(2, 2), 7, False)),
        ("softmax", (a(), a(), 0, False)),
        ("eltwise", ("relu", a(2), a(2), a(2), 0.0)),
        ("eltwise", ("nothing", a(2), None, a(2), 0.0)),
        ("eltwise", ("relu", a(2), None, np.broadcast_to(a(1), 2), 0.0)),
        ("eltwise", ("relu", a(2), None, a(3), 0.0)),
        ("eltwise", ("relu", unaligned(a(2)), None, a(2), 0.0)),
    ],
)
def test_private_functions_refuse(name, arguments):
    """So do those of the other private functions."""
    with pytest.raises(ORDINARY):
        getattr(_core, name)(*arguments)


def test_any_grain(threads):
    """A grain that is no sensible number changes nothing but the threads that work."""
    threads(2)
    x = np.linspace(-3, 3, 100_000).astype("f")
    wanted = F.elu(x)
    for grain in (float("nan"), -1.0, float("inf"), 0.0, 1e-300):
        _core.set_thread_grain(grain)
        tolerance.assert_same_bits(F.elu(x), wanted)


def test_problems_cover_every_op():
    """What is checked `everywhere` includes every op that has a problem line."""
    from fastconv._cli.problem import OPS

    assert {problem.op for problem in PROBLEMS} == set(OPS)
