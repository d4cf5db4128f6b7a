"""Fixtures that every test file shares, and the report of what ran.

``isa`` runs a test once per instruction set usable here (only the one in ``FASTCONV_ISA`` when that is set);
``force_kernel`` runs a block with one kernel row forced by name and fails if that row was not chosen in it.
"""

from __future__ import annotations

import contextlib
import inspect
import os

import fastconv
import fastconv.functional as F
import hypothesis
import pytest
from fastconv import _core

hypothesis.settings.register_profile(
    "fastconv",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("fastconv")

ISAS_TESTED = set()
ON_DEVICE = False


def isas_of_run():
    """The instruction sets this run covers; on a device the CPU's have no part."""
    forced = os.environ.get("FASTCONV_ISA") or (fastconv.get_isa() if ON_DEVICE else None)
    return [forced] if forced else list(fastconv.available_isas())


def runnable_kernels(*ops):
    """The rows of the kernel table that this run can force, of the named ops (all of them without a name)."""
    isas = isas_of_run()
    return [row for row in _core.kernel_table() if row["isa"] in isas and (not ops or row["op"] in ops)]


def pytest_addoption(parser):
    parser.addoption("--problems", type=int, default=None, help="how many random problems each randomized test draws")
    parser.addoption(
        "--device",
        choices=["emulated", "torch", "cupy"],
        help="hand every op's arrays over as device arrays, emulated ones or a library's",
    )


def pytest_configure(config):
    global ON_DEVICE
    name_of_device = config.getoption("--device")
    if name_of_device:
        from device_array import MACHINES, on_device

        ON_DEVICE = True
        machine = MACHINES[name_of_device]()
        for name in F.__all__ if hasattr(F, "__all__") else dir(F):
            function = getattr(F, name)
            if inspect.isfunction(function):
                setattr(F, name, on_device(function, machine))


def pytest_collection_modifyitems(config, items):
    """On a device there are none of the CPU's kernels to force, nor threads to count."""
    if ON_DEVICE:
        from device_array import LOOKS_AT_VALUES

        about_the_cpu = [
            item
            for item in items
            if {"force_kernel", "threads"} & set(item.fixturenames)
            or f"{item.path.name}::{item.originalname}" in LOOKS_AT_VALUES
        ]
        config.hook.pytest_deselected(items=about_the_cpu)
        items[:] = [item for item in items if item not in about_the_cpu]


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", isas_of_run(), indirect=True)


@pytest.fixture
def isa(request):
    """The name of the instruction set that is in force during the test."""
    before = fastconv.get_isa()
    fastconv.set_isa(request.param)
    ISAS_TESTED.add(request.param)
    try:
        yield request.param
    finally:
        fastconv.set_isa(before)


@pytest.fixture
def problem_count(request):
    """How many random problems to draw: ``problem_count(default)`` unless the command line says ``--problems``."""
    asked = request.config.getoption("--problems")
    return lambda default: default if asked is None else asked


@pytest.fixture
def threads():
    """``fastconv.set_num_threads``, restored afterwards; loops too short to be worth it use their threads as well."""
    before = fastconv.get_num_threads()
    grain = _core.set_thread_grain(0)
    try:
        yield fastconv.set_num_threads
    finally:
        _core.set_thread_grain(grain)
        fastconv.set_num_threads(before)


@contextlib.contextmanager
def forced_kernel(name):
    """Run a block with the kernel row ``name`` forced; fails unless the row was chosen at least once in it."""
    before = _core.kernel_counts().get(name, 0)
    _core.force_kernel(name)
    try:
        yield
    finally:
        _core.force_kernel(None)
    assert _core.kernel_counts().get(name, 0) > before, f"kernel {name} was forced but never chosen"


@pytest.fixture
def force_kernel():
    """The context manager ``force_kernel(name)``; nothing stays forced when the test ends."""
    yield forced_kernel
    _core.force_kernel(None)


def pytest_terminal_summary(terminalreporter):
    """Say which instruction sets and kernels this run covered."""
    if terminalreporter.config.option.collectonly or ON_DEVICE:
        return
    write = terminalreporter.write_line
    usable = list(fastconv.available_isas())
    tested = sorted(ISAS_TESTED, key=usable.index)
    terminalreporter.section("fastconv kernels")
    write(f"instruction sets usable here: {', '.join(usable)}; at start: {fastconv.get_isa()}")
    write(f"instruction sets tested: {', '.join(tested) or 'none by the isa fixture'}")
    counts = _core.kernel_counts()
    table = _core.kernel_table()
    ran = [row for row in table if counts.get(row["name"], 0) > 0]
    idle = [row for row in table if row["isa"] in usable and row not in ran]
    barred = [row for row in table if row["isa"] not in usable]
    for row in ran:
        write(f"  ran {counts[row['name']]:>9}  {row['name']}")
    if idle:
        write(f"  usable but not asked for by this run: {', '.join(row['name'] for row in idle)}")
    for isa in sorted({row["isa"] for row in barred}):
        names = ", ".join(row["name"] for row in barred if row["isa"] == isa)
        write(f"  compiled in but not runnable, this machine has no {isa}: {names}")
