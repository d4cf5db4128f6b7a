"""Choosing instruction sets and kernels, and proving which ones ran."""

import os
import subprocess
import sys

import fastconv
import fastconv.functional as F
import numpy as np
import pytest
from conftest import isas_of_run
from fastconv import _core

LEVELS = ("baseline", "avx2", "avx512", "amx")


def start(isa, code="import fastconv; print(fastconv.get_isa())"):
    """Run Python with ``FASTCONV_ISA`` set."""
    environment = dict(os.environ, FASTCONV_ISA=isa)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_available_isas():
    """Known names, each once, ``baseline`` first and the best last, which is the one in use unless another is set."""
    names = list(fastconv.available_isas())
    assert names
    assert names[0] == "baseline"
    assert names == sorted(set(names), key=LEVELS.index)
    assert fastconv.get_isa() == os.environ.get("FASTCONV_ISA", names[-1])


def test_set_isa(isa):
    """The ISA that was set is the one in force."""
    assert fastconv.get_isa() == isa


@pytest.mark.parametrize("name", LEVELS)
def test_environment_variable(name):
    """``FASTCONV_ISA`` sets the ISA at start; one that this machine lacks makes the import fail and say why."""
    done = start(name)
    if name in fastconv.available_isas():
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == name
    else:
        assert done.returncode != 0
        assert name in done.stderr
        assert "FASTCONV_ISA" in done.stderr
        with pytest.raises(ValueError, match=name):
            fastconv.set_isa(name)


def test_unknown_environment_variable():
    """A name that is no ISA makes the import fail with the names that are."""
    done = start("neon9000")
    assert done.returncode != 0
    assert "neon9000" in done.stderr
    assert "baseline" in done.stderr


def test_kernel_table():
    """Every row has a name of its own, a known ISA and dtype, and a tile."""
    table = _core.kernel_table()
    names = [row["name"] for row in table]
    assert names
    assert len(set(names)) == len(names)
    for row in table:
        assert row["isa"] in LEVELS
        assert row["op"]
        assert row["level"] in ("highest", "high", "medium")
        assert row["isa"] in row["name"], f"{row['name']} does not say its ISA"
        np.dtype(row["dtype"])
        assert all(int(t) >= 0 for t in np.atleast_1d(row["tile"]))
    for op in {row["op"] for row in table} - {"tiles"}:  # which stand in for another op's
        covered = {(row["dtype"]) for row in table if row["op"] == op and row["isa"] == "baseline"}
        assert {"float32", "float64"} <= covered, f"{op} has no baseline kernel for some dtype: {covered}"


def test_only_the_isa_in_force_and_lower_ones_run(isa):
    """Dispatch never chooses a row above the ISA that is set, and takes the ISA's own rows where it has some."""
    x, w = np.ones((2, 64, 14, 14), "f"), np.ones((64, 64, 3, 3), "f")
    before = _core.kernel_counts()
    y = F.conv2d(x, w)
    F.conv2d_backward(y, x, w)
    F.max_pool2d(x, 2)
    F.relu(x)
    counts = _core.kernel_counts()
    ran = [row for row in _core.kernel_table() if counts.get(row["name"], 0) > before.get(row["name"], 0)]
    allowed = LEVELS[: LEVELS.index(isa) + 1]
    assert ran
    assert all(row["isa"] in allowed for row in ran)
    assert any(row["isa"] == isa for row in ran), f"no kernel of {isa} ran: {[row['name'] for row in ran]}"


def test_forcing():
    """An unknown row is refused, a row above the machine is refused, and releasing returns to the free choice."""
    with pytest.raises(ValueError, match="no_such_kernel"):
        _core.force_kernel("no_such_kernel")
    for row in _core.kernel_table():
        if row["isa"] not in fastconv.available_isas():
            with pytest.raises(ValueError, match=row["name"]):
                _core.force_kernel(row["name"])
    x, w = np.ones((1, 3, 8, 8), "f"), np.ones((4, 3, 3, 3), "f")
    _core.force_kernel(None)
    np.testing.assert_array_equal(F.conv2d(x, w), np.full((1, 4, 6, 6), 27, "f"))


def test_counts():
    """``reset_kernel_counts`` starts from zero in a process of its own, and calls are counted one by one."""
    code = """
import numpy as np, fastconv, fastconv.functional as F
from fastconv import _core
F.relu(np.ones(5, "f"))
_core.reset_kernel_counts()
assert not any(_core.kernel_counts().values())
for _ in range(3):
    F.max_pool2d(np.ones((1, 1, 4, 4), "f"), 2)
counts = {name: count for name, count in _core.kernel_counts().items() if count}
assert list(counts.values()) == [3], counts
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_show_config(capsys):
    """The configuration names the version, the ISA and the threads."""
    fastconv.show_config()
    printed = capsys.readouterr().out
    assert fastconv.__version__ in printed
    assert fastconv.get_isa() in printed
    assert "thread" in printed.lower()
    assert "compiler" in printed.lower()


def test_threads(threads):
    """The number of threads is what was set."""
    for count in (1, 2, 3):
        threads(count)
        assert fastconv.get_num_threads() == count
    done = subprocess.run(
        [sys.executable, "-c", "import fastconv; print(fastconv.get_num_threads())"],
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"


def test_this_run_covers_what_was_asked():
    """``FASTCONV_ISA`` narrows the suite to one ISA, else it covers all."""
    assert isas_of_run()
    assert set(isas_of_run()) <= set(fastconv.available_isas())
