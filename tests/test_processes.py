"""What API.md promises of a process: threads beside a call, fork, default threads, company, and bounded memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from fastconv._cli.calls import Call, make_arrays
from fastconv._cli.problem import OPS, parse_problem
from fuzz import SANITIZED

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc or uses its calls")


def run_apart(code, *command, **environment):
    """Run code in a process of its own, for which two minutes must do; returns what it printed."""
    done = subprocess.run(
        [*command, sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | environment,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


# --- the GIL ---------------------------------------------------------------------------------------------------------

BUSY = {
    "conv": "n=2 c=32 k=32 in=56x56 kernel=3x3 pad=1",
    "conv_transpose": "n=2 c=32 k=32 in=56x56 kernel=3x3 pad=1",
    "separable_conv": "n=2 c=32 k=64 in=56x56 kernel=5x5 pad=2",
    "linear": "n=512 c=512 k=512",
    "group_norm": "n=8 c=32 in=128x128 groups=4",
    "adaptive_avg_pool": "n=8 c=32 in=128x128 out=100x100",
    "adaptive_max_pool": "n=8 c=32 in=128x128 out=100x100",
    **{f"{kind}_pool": "n=8 c=32 in=128x128 kernel=5x5 stride=1" for kind in ("max", "min", "avg", "rms", "lp")},
    "max_unpool": "n=8 c=32 in=128x128 kernel=2x2 stride=2",
}
"""Problems that keep a kernel busy for milliseconds; other ops take 8 x 32 x 128 x 128 numbers."""


@pytest.mark.parametrize("op", OPS)
def test_other_threads_run_during_a_call(op, threads):
    """With a switch interval of an hour, a thread that holds the GIL keeps it: another one runs in a call only because
    the call lets go of it.
    """
    threads(1)
    problem = parse_problem(f"busy: op={op} {BUSY.get(op, 'n=8 c=32 in=128x128')}")
    call = Call(problem, make_arrays(problem, np.float32, np.random.default_rng(0)))
    spans, ticks, done = [], [], threading.Event()

    def work():
        for _ in range(300):
            began = time.perf_counter()
            call.forward()
            spans.append((began, time.perf_counter()))
            time.sleep(0.001)
            if done.is_set():
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    worker = threading.Thread(target=work)
    try:
        worker.start()
        while worker.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.0002)
            if len(ticks) % 64 == 0 and any(a < tick < b for a, b in spans[-8:] for tick in ticks[-500:]):
                done.set()
    finally:
        sys.setswitchinterval(interval)
        worker.join()
    inside = sum(a < tick < b for a, b in spans for tick in ticks)
    assert inside, f"{len(spans)} calls, and no other thread ran in any of them"


# --- fork ------------------------------------------------------------------------------------------------------------

FORK = """
import os, signal, sys, threading
import numpy as np
import fastconv, fastconv.functional as F

signal.alarm(100)  # a hang ends here
fastconv.set_num_threads({threads})
fastconv._core.set_thread_grain(0)
x = np.random.default_rng(0).standard_normal((8, 4, 20, 20)).astype("f")
w = np.random.default_rng(1).standard_normal((8, 4, 3, 3)).astype("f")

def work():
    y = F.conv2d(x, w)
    return b"".join(a.tobytes() for a in (y, *F.conv2d_backward(y, x, w), F.max_pool2d(x, 2), F.softmax(x, 1)))

def in_child(check):
    pid = os.fork()
    if pid == 0:
        signal.alarm(50)
        os._exit(0 if check() else 1)
    assert os.waitpid(pid, 0)[1] == 0

wanted = work()
"""


@linux
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_fork(threads):
    """An op in the parent, then in a child, in a child's child, and in the parent again."""
    run_apart(
        FORK.format(threads=threads)
        + textwrap.dedent("""
        def grandchild():
            if work() != wanted:
                return False
            in_child(lambda: work() == wanted)
            return work() == wanted

        for _ in range(3):
            in_child(grandchild)
            assert work() == wanted
        """)
    )


@linux
@pytest.mark.skipif(SANITIZED, reason="a sanitizer's own locks may be held by a thread that fork leaves behind")
def test_fork_while_another_thread_works():
    """The child has one thread, whatever the others were doing."""
    run_apart(
        FORK.format(threads=2)
        + textwrap.dedent("""
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                assert work() == wanted
        others = [threading.Thread(target=busy) for _ in range(2)]
        for thread in others:
            thread.start()
        for _ in range(15):
            in_child(lambda: work() == wanted)
        stop.set()
        for thread in others:
            thread.join()
        """)
    )


@linux
def test_multiprocessing_pool():
    """A pool of forked workers, after the parent used two threads."""
    run_apart(
        FORK.format(threads=2)
        + textwrap.dedent("""
        import multiprocessing
        def again(_):
            return work() == wanted
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(again, range(4)) == [True] * 4
        """)
    )


# --- default threads -------------------------------------------------------------------------------------------------

COUNT = "import fastconv; print(fastconv.get_num_threads())"


@linux
def test_default_threads_follow_affinity():
    """One processor allowed: one thread."""
    one = min(os.sched_getaffinity(0))
    counted = run_apart(f"import os; os.sched_setaffinity(0, {{{one}}})\n{COUNT}")
    assert int(counted) == 1
    assert 1 <= int(run_apart(COUNT)) <= len(os.sched_getaffinity(0))


def own_file_system():
    """Whether a process may have mounts of its own here."""
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@linux
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_default_threads_follow_the_quota(files, expected):
    """A container's quota of processors, in both forms that Linux has; without one, the affinity counts."""
    if not own_file_system():
        pytest.skip("no mounts of one's own here (unshare -rm), so the quota cannot be set")
    write = "; ".join(f"mkdir -p $(dirname {name}) && echo {text} > {name}" for name, text in files.items())
    script = f'mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup && {write or "true"} && cd / && exec "$@"'
    counted = int(run_apart(COUNT, "unshare", "-rm", "sh", "-c", script, "sh"))
    assert counted == (expected or len(os.sched_getaffinity(0)))


# --- company ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["torch sklearn fastconv", "fastconv torch sklearn", "sklearn fastconv torch"])
def test_with_pytorch_and_scikit_learn(order):
    """Each brings an OpenMP of its own: all three work in turn, with two threads, in one process."""
    imports = {
        "torch": "import torch; torch.set_num_threads(2)",
        "sklearn": "from sklearn.cluster import KMeans",
        "fastconv": "import fastconv, fastconv.functional as F; fastconv.set_num_threads(2)",
    }
    run_apart(
        "import numpy as np\n"
        + "\n".join(imports[name] for name in order.split())
        + textwrap.dedent("""
        fastconv._core.set_thread_grain(0)
        x = np.random.default_rng(0).standard_normal((4, 8, 32, 32)).astype("f")
        w = np.random.default_rng(1).standard_normal((8, 8, 3, 3)).astype("f")
        first = None
        for _ in range(3):
            y = F.conv2d(x, w, padding=1)
            z = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1).numpy()
            assert np.allclose(y, z, atol=1e-4)
            assert first is None or (y == first).all()
            first = y
            KMeans(3, n_init=1).fit(y.reshape(32, -1)[:, :8])
        assert fastconv.get_num_threads() == 2 and torch.get_num_threads() == 2
        """),
        KMP_DUPLICATE_LIB_OK="FALSE",
    )


def test_ml_dtypes_is_not_needed():
    """Without the package all but bfloat16 works, and what needs it says so."""
    run_apart("""
    import sys
    sys.modules["ml_dtypes"] = None  # as if it were not installed
    import numpy as np, torch
    import fastconv.functional as F
    from fastconv import nn
    for dtype in (np.float16, np.float32, np.float64):
        layer = nn.Conv2d(2, 3, 3, dtype=dtype)
        assert layer(np.ones((1, 2, 5, 5), dtype)).dtype == dtype
        assert F.relu(np.ones(3, dtype)).dtype == dtype
    try:
        F.relu(torch.ones(3, dtype=torch.bfloat16))
    except TypeError as error:
        assert "pip install ml_dtypes" in str(error), error
    else:
        raise AssertionError("bfloat16 without ml_dtypes")
    """)


# --- memory ----------------------------------------------------------------------------------------------------------


@linux
@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps freed memory for a while")
def test_memory_does_not_grow_with_shapes():
    """Thousands of calls of every op in ever new shapes leave the process as large as the first thousand did."""
    grown = run_apart(
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})"
        + textwrap.dedent("""
        import gc, os
        import numpy as np
        import expected, fuzz, problems
        from fastconv._cli.problem import OPS

        def resident():
            gc.collect()
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

        np.seterr(all="ignore")
        for i in range(6000):
            source = fuzz.Quick(5, i)
            problem = fuzz.random_problem(source, OPS[i % len(OPS)])
            call = expected.make_call(problem, np.float32, source.rng, source.choice(problems.FORMATS))
            try:
                output = call.forward()
                call.save()
                call.backward(np.ones_like(output))
            except ValueError:
                continue
            if i == 2000:
                before = resident()
        print(resident() - before)
        """)
    )
    assert float(grown) < 10, f"{grown} MB"


@linux
@pytest.mark.skipif(SANITIZED, reason="a sanitizer needs the address space")
def test_offsets_beyond_32_bits():
    """Rows of more than 2**31 numbers. Untouched zeros take no memory, so that only the address space must be there."""
    printed = run_apart("""
    import numpy as np
    import fastconv.functional as F

    size = 2**31 + 2**20
    try:
        x = np.zeros((1, 1, size), "f")
    except MemoryError:
        print("no room")
        raise SystemExit
    last = size - 3
    x[0, 0, last] = 2
    x[0, 0, 7] = 1
    y, indices = F.max_pool1d(x, 2**20, return_indices=True)
    assert y.shape == (1, 1, 2049) and indices[0, 0, -1] == last and indices[0, 0, 0] == 7
    assert y[0, 0, -1] == 2 and y[0, 0, 0] == 1 and y.sum() == 3
    assert F.global_max_pool(x).item() == 2
    y = F.conv1d(x, np.array([[[1, 10, 100]]], "f"), stride=2**12)
    assert y.shape == (1, 1, 2**19 + 2**8) and not y.any()
    near = (last // 2**12) * 2**12
    x[0, 0, near] = 3
    x[0, 0, near + 2] = 5
    y = F.conv1d(x, np.array([[[1, 10, 100]]], "f"), stride=2**12)
    assert y[0, 0, near // 2**12] == 503 and np.count_nonzero(y) == 1
    g = np.zeros_like(y)
    g[0, 0, near // 2**12] = 1
    weight = F.conv1d_backward(g, x, np.ones((1, 1, 3), "f"), 2**12, output_mask=(False, True, False)).weight
    assert weight.ravel().tolist() == [3, 0, 5]
    assert abs(float(F.global_avg_pool(x)[0, 0]) * size - 11) < 1e-3
    rows = x[0, 0, : 2**31 + 64].reshape(-1, 64)
    top = F.max_pool1d(rows[:, None, :], 64)
    assert top.shape == (2**25 + 1, 1, 1) and top.sum() == 1
    print("done")
    """)
    if "no room" in printed:
        pytest.skip("the system does not give 9 GB of address space")
    assert "done" in printed


# --- how long threads wait -------------------------------------------------------------------------------------------


@linux
@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else True, reason="one processor"
)
def test_threads_leave_a_shared_processor():
    """A worker on the caller's processor moves to another one it may run on, and may run where it might before."""
    run_apart(
        textwrap.dedent("""
        import os
        import numpy as np, fastconv, fastconv.functional as F
        fastconv.set_num_threads(2)
        x, w = np.ones((1, 64, 56, 56), np.float32), np.ones((64, 64, 1, 1), np.float32)
        main, allowed = os.getpid(), os.sched_getaffinity(0)
        one = min(allowed)
        def threads():
            return {int(t) for t in os.listdir("/proc/self/task")}
        before = threads()                          # NumPy's among them
        wanted = F.conv2d(x, w)
        others = sorted(threads() - before)
        def masks():
            return [os.sched_getaffinity(t) for t in others]
        def seats():
            for t in others:
                with open(f"/proc/self/task/{t}/stat") as file:
                    yield int(file.read().rsplit(")", 1)[1].split()[36])
        assert masks() == [allowed] * len(others) and others
        for t in (main, *others):
            os.sched_setaffinity(t, {one})
        assert (F.conv2d(x, w) == wanted).all()     # where there is no other, they share it
        assert masks() == [{one}] * len(others) and set(seats()) == {one}
        for t in others:
            os.sched_setaffinity(t, allowed)
        for _ in range(50):
            assert (F.conv2d(x, w) == wanted).all()
            assert masks() == [allowed] * len(others)
            if any(seat != one for seat in seats()):
                break
        else:
            raise AssertionError("the worker stays with its caller")
        """)
    )


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "active"}])
def test_waiting_threads_spin_briefly(own):
    """OpenMP is loaded with a short spin unless the user says otherwise, and the environment stays as it was."""
    code = """
        import os
        before = dict(os.environ)
        import fastconv
        assert dict(os.environ) == before
        assert os.popen("echo $GOMP_SPINCOUNT").read().strip() == before.get("GOMP_SPINCOUNT", "")
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment | own | {"OMP_DISPLAY_ENV": "verbose"},
    )
    shown = [line.split("=")[1].strip(" '") for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not shown:
        pytest.skip("this OpenMP does not show how long its threads spin")
    assert ("3000" in shown) == (not own)
    assert ("77" in shown) == ("GOMP_SPINCOUNT" in own)
