"""The emulator that runs CUDA kernels on the host finds the faults that it is there to find.

``tests/emu/faults.cpp`` has one kernel for each kind of fault, and the same kernel without it. Whatever the order of
threads, the sound one gives the right result; the faulty one must be found out in at least the schedules named here.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
SCHEDULES = ("forward", "reverse", "random", "late", "early")
FAULTS = {
    "missing_barrier": ("wrong result: -?nan", SCHEDULES),
    "wrong_wait_count": ("wrong result: -?nan", ("late",)),
    "divergent_barrier": ("divergent barrier: 96 threads wait at faults.cpp:[0-9]+, 32 have left", SCHEDULES),
    "two_barriers": ("divergent barrier: threads wait at faults.cpp:[0-9]+ and at faults.cpp:[0-9]+", SCHEDULES),
    "out_of_bounds": ("AddressSanitizer: heap-buffer-overflow", SCHEDULES),
    "shared_overrun": ("a write past the end of shared memory", SCHEDULES),
    "half_a_warp": ("deadlock: thread [0-9]+ waits for its warp", SCHEDULES),
    "hang": ("hang: thread [0-9]+ waits at line [0-9]+", SCHEDULES),
}
"""Each fault's message, and the schedules in which it must be found."""

pytestmark = [
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="compiles the source tree, which is not here"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(platform.system() != "Linux", reason="needs AddressSanitizer"),
]


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """The program of faulty kernels, under AddressSanitizer: its output and exit status for given arguments."""
    program = tmp_path_factory.mktemp("emulation") / "faults"
    sources = [ROOT / "tests/emu/faults.cpp", ROOT / "tests/emu/emu.cpp", ROOT / "csrc/core/error.cpp"]
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    include = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/emu'}"]
    subprocess.run([COMPILER, *flags, *include, *sources, "-o", program], check=True)

    def run(*arguments):
        # A kernel that is stopped half-way frees nothing.
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", FAULTS)
def test_a_sound_kernel_passes(faults, name, schedule):
    """Without the fault each kernel gives the right result in every schedule."""
    assert faults(name, "sound", schedule) == (0, "sound\n")


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(faults, name):
    """With the fault the emulator stops the kernel, or its result is wrong, and it says how."""
    message, schedules = FAULTS[name]
    for schedule in schedules:
        status, said = faults(name, "faulty", schedule)
        assert status != 0, f"{schedule}: not found"
        assert re.search(message, said), f"{schedule}: {said}"


def test_one_schedule_is_not_enough(faults):
    """A copy that arrives at once hides that nobody waited for it: only the late schedule shows the wrong count."""
    assert faults("wrong_wait_count", "faulty", "early")[0] == 0
    assert faults("wrong_wait_count", "faulty", "late")[0] != 0
