"""The built CUDA extension keeps the budgets of ``cuda_budgets.csv``, and its code is as expected: see `cuda_gates`."""

import pathlib
import re
import shutil
import subprocess

import cuda_gates
import fastconv
import pytest

BUILT = sorted(pathlib.Path(fastconv.__file__).parent.glob("_cuda.*so"))
NVCC = shutil.which("nvcc")
reads_code = pytest.mark.skipif(
    cuda_gates.disassembler() is None, reason="needs the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm"
)
PLANTED = """
__global__ void sound_kernel(float* y, const float* x) { y[threadIdx.x] = x[threadIdx.x] * 3.0f + y[threadIdx.x]; }
__global__ void atomic_kernel(float* y, const float* x) { atomicAdd(y, x[threadIdx.x]); }
__global__ void order_kernel(int* y, const int* x) { y[threadIdx.x] = atomicAdd(y + 99, x[threadIdx.x]); }
__global__ void highest_kernel(long long* y, const long long* x) { atomicMax(y, x[threadIdx.x]); }
__global__ void stack_kernel(float* y, const int* x) {
  float place[32];
  for (int i = 0; i < 32; ++i) place[i] = y[i];
  for (int i = 0; i < 99; ++i) place[x[i]] += 1;
  y[threadIdx.x] = place[x[threadIdx.x]];
}
"""


@pytest.mark.skipif(not BUILT, reason="the package was built without CUDA kernels")
@reads_code
def test_the_extension_keeps_its_budgets():
    """Registers, stack and shared memory, and machine code, of every kernel, for every target; the file's size."""
    assert not cuda_gates.problems(BUILT[0])


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@reads_code
@pytest.mark.parametrize("target", ["sm_75", "sm_90"])
def test_planted_violations_are_found(tmp_path, target):
    """A stack, atomic operations and a missing opcode, in kernels that nvcc compiles, and nothing else."""
    source, binary = tmp_path / "planted.cu", tmp_path / "planted.cubin"
    source.write_text(PLANTED)
    subprocess.run([NVCC, "-cubin", f"-arch={target}", source, "-o", binary], check=True)
    resources = cuda_gates.largest(cuda_gates.usage(binary))
    assert [name for name, (_, stack, _) in resources.items() if stack] == ["stack_kernel"]
    expected = [("sound_kernel", "", 75, "FFMA"), ("sound_kernel", "", 80, "HMMA"), ("order_kernel", "", 99, "HMMA")]
    found = cuda_gates.opcode_problems(cuda_gates.machine_code(binary, [target]), expected)
    kernels = {line.partition(" ")[0] for line in found if "no HMMA" not in line}
    assert kernels == {"atomic_kernel", "order_kernel", "stack_kernel"}
    missing = [line for line in found if "no HMMA" in line]
    assert missing == ([f"sound_kernel for {target}: no HMMA"] if target == "sm_90" else [])


def test_the_opcode_check():
    """The check itself, on code that was made up; the table, on its own."""
    name = "_ZN8fastconv4cuda11some_kernelI{}EEvPT_"
    code = {("sm_80", name.format("f")): {"FFMA", "STL.64"}, ("sm_80", name.format("NS_8BFloat16E")): {"FFMA.FTZ"}}
    check = cuda_gates.opcode_problems
    found = check(code, [("some_kernel", "float32", 80, "FFMA")])
    assert [line.partition(", ")[0] for line in found] == ["some_kernel of float32 for sm_80: STL.64"]
    del code["sm_80", name.format("f")]
    assert not check(code, [("some_kernel", "bfloat16", 80, "FFMA"), ("some_kernel", "bfloat16", 90, "HMMA")])
    assert check(code, [("some_kernel", "bfloat16", 75, "HMMA")]) == ["some_kernel of bfloat16 for sm_80: no HMMA"]
    assert check(code, [("some_kernel", "bfloat16", 75, "FFM")]) == ["some_kernel of bfloat16 for sm_80: no FFM"]
    assert len(check(code, [("other_kernel", "", 75, "FFMA")])) == 1
    kernels = {kernel for kernel, *_ in cuda_gates.expected_opcodes()}
    assert kernels <= set(cuda_gates.budgets())


@pytest.mark.parametrize(
    ("opcode", "allowed"),
    [
        ("LDL.64", False),
        ("STL", False),
        ("LDG.E", True),
        ("RED.E.ADD.F32.FTZ.RN.STRONG.GPU", False),
        ("REDG.E.MAX.F32", False),
        ("ATOMG.E.ADD.64", False),
        ("ATOMG.E.CAS.STRONG.GPU", False),
        ("ATOMS.EXCH.64", True),
        ("ATOMG.E.EXCH.64.STRONG.GPU", True),
        ("RED.E.MAX.S64.STRONG.GPU", True),
        ("REDUX.SUM", True),
    ],
)
def test_forbidden_opcodes(opcode, allowed):
    """Only exchanges and integer maxima among the atomic operations; no local memory."""
    code = {("sm_80", "_Z11some_kernelPf"): {opcode}}
    assert (not cuda_gates.opcode_problems(code, [])) is allowed


def test_every_kernel_has_a_budget():
    """Also where no extension is built: each kernel of the sources is in the table, and nothing else."""
    sources = pathlib.Path(__file__).parent.parent / "csrc" / "cuda"
    if not sources.is_dir():
        pytest.skip("reads the source tree, which is not here")
    kernels = set()
    for path in [*sources.rglob("*.cu"), *sources.rglob("*.h")]:
        for name in re.findall(r"^__global__ void(?: __launch_bounds__\([^)]*\))?\s+(\w+)\(", path.read_text(), re.M):
            kernels.add(f"{path.stem}/{name}" if path.suffix == ".cu" else name)
    assert kernels == set(cuda_gates.budgets())
    assert all(stack == 0 for _, stack, _ in cuda_gates.budgets().values()), "registers are spilled"
