"""The rules of the source tree and of the built package that nobody would notice being broken."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import fastconv
import fastconv.functional
import fastconv.nn
import numpy as np
import pytest
from fastconv import _core

ROOT = pathlib.Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
ISAS = ("baseline", "avx2", "avx512", "amx")
LONGEST = 600

if not CSRC.is_dir():
    pytest.skip("these tests read the source tree, which is not here", allow_module_level=True)

SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh"))
ISA_FILES = [path for path in SOURCES if path.suffix == ".cpp" and path.stem in ISAS]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def relative(path):
    """A path as the parameter of a test shows it."""
    return str(path.relative_to(ROOT))


def output_of(*command):
    """What a command prints; one that fails shows what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- ISA files export nothing that the linker may share --------------------------------------------------------------


def flags_of(isa):
    """The flags of an ISA's kernel files, read from the CMake file that the build uses."""
    text = (ROOT / "cmake" / "isa.cmake").read_text()

    def value(name):
        # The last row of a name is the one for x86-64, without emulation.
        return re.findall(rf"set\({name}\s+([^)]*)\)", text)[-1].split()

    flags = value(f"FASTCONV_ISA_FLAGS_{isa}")
    while any(flag.startswith("${") for flag in flags):
        flags = [each for flag in flags for each in (value(flag[2:-1]) if flag.startswith("${") else [flag])]
    return [*value("FASTCONV_COMMON_FLAGS"), *value("FASTCONV_KERNEL_FLAGS"), *flags]


@pytest.mark.skipif(COMPILER is None or shutil.which("nm") is None, reason="needs a C++ compiler and nm")
@pytest.mark.skipif(os.uname().machine not in ("x86_64", "amd64"), reason="the flags are those of x86-64")
@pytest.mark.parametrize("path", ISA_FILES, ids=relative)
def test_isa_files_export_no_weak_symbols(path, tmp_path):
    """Of functions compiled with an ISA's flags the linker may keep the copy of any file: there must be none."""
    flags = flags_of(path.stem)
    assert any(flag.startswith("-m") for flag in flags), flags
    compiled = tmp_path / "kernels.o"
    isa = f"-DFASTCONV_HAVE_{path.stem.upper()}=1"
    output_of(COMPILER, "-std=c++17", "-fPIC", *flags, isa, f"-I{CSRC}", "-c", path, "-o", compiled)
    listing = output_of("nm", "-C", compiled)
    defined = [line.split(maxsplit=2)[1:] for line in listing.splitlines() if line[:1] != " "]
    weak = [name for kind, name in defined if kind in "WVwvu"]
    assert not weak, f"{relative(path)} defines weak symbols: {weak[:10]}"
    exported = [name for kind, name in defined if kind.isupper()]
    assert exported, f"{relative(path)} defines nothing"
    assert all(path.stem in name for name in exported), f"{relative(path)} exports more than its tables: {exported}"
    constructors = [name for _, name in defined if "_GLOBAL__sub_I" in name]
    assert not constructors, f"{relative(path)} has static constructors: {constructors}"


def compiled_amx(tmp_path):
    """The machine code of the kernels on tile registers, function by function."""
    compiled = tmp_path / "amx.o"
    command = (COMPILER, "-std=c++17", "-fPIC", *flags_of("amx"), "-DFASTCONV_HAVE_AMX=1", f"-I{CSRC}", "-c")
    command += (CSRC / "cpu" / "conv" / "amx.cpp", "-o", compiled)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if "amx" in done.stderr and done.returncode != 0:
        pytest.skip("the compiler or its assembler does not know the tile instructions")
    assert done.returncode == 0, done.stderr
    listing = output_of("objdump", "-d", "-C", "--no-show-raw-insn", compiled)
    return {part.split(">:\n")[0]: part.split(">:\n")[1] for part in re.split(r"\n[0-9a-f]+ <", listing)[1:]}


@pytest.mark.skipif(COMPILER is None or shutil.which("objdump") is None, reason="needs a C++ compiler and objdump")
@pytest.mark.skipif(os.uname().machine not in ("x86_64", "amd64"), reason="the instructions are those of x86-64")
def test_loads_of_tiles(tmp_path):
    """A full tile's step loads each tile of parts once for two products or more, and sums stay in their registers."""
    code = compiled_amx(tmp_path)
    counts = {"Highest": (24, 14), "Exact16": (16, 10), "High": (12, 8), "Medium": (4, 4)}
    for pairs, (products, loads) in counts.items():
        (block,) = (text for name, text in code.items() if "tile_block<" in name and f"::{pairs}, 2, 2>" in name)
        assert block.count("tdpbf16ps") == products
        assert block.count("tileloadd") == loads + 4  # the four sums, before the loop
        assert block.count("tilestored") == 4
        (driver,) = (text for name, text in code.items() if "tile_gemm<" in name and f"::{pairs}>" in name)
        assert driver.count("ldtilecfg") == driver.count("tilerelease") == 1


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
@pytest.mark.skipif(os.uname().machine not in ("x86_64", "amd64"), reason="the registers are those of x86-64")
def test_no_mmx_registers():
    """They are those of the x87 unit: one use without an EMMS makes a NaN of the process's next long double."""
    code = output_of("objdump", "-d", "--no-show-raw-insn", _core.__file__)
    assert "%xmm0" in code
    assert re.findall(r".*%mm[0-7].*", code) == []


# --- the shape of the source tree ------------------------------------------------------------------------------------


def written_files():
    """Every text file that people write."""
    folders = ("csrc", "python", "tests", "bench", "cmake")
    kinds = (".h", ".cpp", ".cu", ".cuh", ".py", ".pyi", ".cmake")
    return [p for f in folders for p in sorted((ROOT / f).rglob("*")) if p.suffix in kinds]


def test_no_file_is_long():
    """No source file has more than 600 lines."""
    lengths = {relative(path): len(path.read_text().splitlines()) for path in written_files()}
    assert not {path: length for path, length in lengths.items() if length > LONGEST}


def test_nothing_is_left_to_do():
    """No marks of unfinished work."""
    marks = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")) + r")\b")
    found = [
        f"{relative(path)}:{number}"
        for path in written_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


LAYERS = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "ops": {"core", "cpu", "ops"},
    "cuda": {"core", "cuda"},
    "bindings": {"core", "cpu", "ops", "cuda", "bindings"},
}
"""What each layer may include: bindings -> ops -> (core, cpu), cuda -> core."""


def includes_of(path):
    """The quoted includes of a file, as paths below csrc."""
    names = re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE)
    for name in names:
        beside = (path.parent / name).resolve()
        yield relative(beside).removeprefix("csrc/") if beside.exists() else name


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_layer_rule(path):
    """A file includes only what its layer may, and an ISA file only core types, its vectors and its folder's files."""
    parts = path.relative_to(CSRC).parts
    for name in includes_of(path):
        layer = name.split("/")[0]
        assert layer in LAYERS[parts[0]], f"{relative(path)} includes {name}: {parts[0]} must not know {layer}"
        assert (CSRC / name).exists(), f"{relative(path)} includes {name}, which is not in csrc"
    if path in ISA_FILES:
        for name in includes_of(path):
            allowed = name.startswith(("core/", "cpu/simd/")) or name.startswith("/".join(parts[:-1]) + "/")
            assert allowed, f"{relative(path)} includes {name}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_who_knows_what(path):
    """Only the bindings know Python, only ``cpu/parallel`` knows OpenMP, only ``cpu/isa`` asks the processor."""
    text, parts = path.read_text(), path.relative_to(CSRC).parts
    if parts[0] != "bindings":
        assert not re.search(r"#\s*include\s*[<\"](pybind11|Python\.h|numpy)", text), "knows Python"
    if path.stem != "parallel" or parts[0] != "cpu":
        assert not re.search(r"#\s*pragma\s+omp\s+(parallel|for)|#\s*include\s*<omp\.h>", text), "knows OpenMP"
    if path.stem != "isa":
        assert not re.search(r"__get_cpuid|__cpuid|xgetbv|__builtin_cpu_supports", text), "asks the processor"
    if path.suffix in (".h", ".cuh"):
        assert "#pragma once" in text


def test_no_flag_ties_the_build_to_its_machine():
    """``-march=native`` is nowhere in the build files."""
    for path in (ROOT / "CMakeLists.txt", ROOT / "pyproject.toml", *(ROOT / "cmake").rglob("*.cmake")):
        assert "march=native" not in path.read_text()


# --- the package -----------------------------------------------------------------------------------------------------

OPTIONAL = (
    "torch",
    "safetensors",
    "ml_dtypes",
    "matplotlib",
    "sklearn",
    "mlxtend",
    "tqdm",
    "scipy",
    "PIL",
    "hypothesis",
    "pytest",
    "cupy",
    "jax",
)


def test_import_needs_numpy_alone():
    """``import fastconv`` and its submodules load no optional package."""
    code = (
        "import sys, fastconv, fastconv.functional, fastconv.nn, fastconv.optim, fastconv.models, fastconv.testing\n"
        "import fastconv.train, fastconv.kernels, fastconv.analysis, fastconv.datasets\n"
        f"print([name for name in {OPTIONAL!r} if name in sys.modules])"
    )
    assert output_of(sys.executable, "-c", code).strip() == "[]"


def test_import_is_quick():
    """``import fastconv`` adds less than 50 ms to ``import numpy`` (the best of a few tries)."""
    code = "import numpy, time; t = time.perf_counter(); import fastconv; print(time.perf_counter() - t)"
    seconds = [float(output_of(sys.executable, "-c", code)) for _ in range(5)]
    # An editable install's import hook may rebuild first; what is promised is the installed package.
    limit = 0.05 if "site-packages" in fastconv.__file__ else 0.5
    assert min(seconds) < limit, f"import took {1e3 * min(seconds):.0f} ms beyond NumPy"


def test_package_is_typed():
    """The package says that it is typed, and its extension has stubs."""
    package = ROOT / "python" / "fastconv"
    assert (package / "py.typed").exists()
    stubs = (package / "_core.pyi").read_text()
    missing = [n for n in dir(fastconv._core) if not n.startswith("_") and not re.search(rf"\b{n}\b", stubs)]
    assert not missing, f"_core.pyi lacks {missing}"


def test_public_names_are_documented():
    """Every function of ``fastconv.functional`` and class of ``fastconv.nn`` has a docstring."""
    for module in (fastconv, fastconv.functional, fastconv.nn):
        names = getattr(module, "__all__", [name for name in dir(module) if not name.startswith("_")])
        public = {name: getattr(module, name) for name in names}
        bare = [name for name, value in public.items() if callable(value) and not value.__doc__]
        assert not bare, f"{module.__name__}: {bare}"


WHEELS = sorted((ROOT / "dist").glob("fastconv-*.whl"))


@pytest.mark.skipif(not WHEELS, reason="no wheel in dist/ (pip wheel --no-deps -w dist .)")
def test_wheel():
    """The newest wheel is small and holds the package, its types and its licence, and nothing else."""
    wheel = max(WHEELS, key=lambda path: path.stat().st_mtime)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert sum(info.file_size for info in archive.infolist()) < 20 * 2**20
    assert any(re.fullmatch(r"fastconv/_core\..*so", name) for name in names)
    assert {"fastconv/py.typed", "fastconv/_core.pyi", "fastconv/__init__.py"} <= set(names)
    assert any("LICENSE" in name for name in names)
    strangers = [n for n in names if not n.startswith(("fastconv/", "fastconv-")) or n.endswith((".cpp", ".h", ".pyc"))]
    assert not strangers


def test_arrays_of_one_call_keep_no_memory_alive():
    """A result is an array of its own: it neither shares memory with an input nor keeps one alive."""
    x = np.ones((1, 2, 6, 6), "f")
    for y in (fastconv.functional.relu(x), fastconv.functional.max_pool2d(x, 1), fastconv.functional.softmax(x, 1)):
        assert not np.shares_memory(x, y)
