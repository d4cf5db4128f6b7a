"""The built CUDA extension keeps the budgets of ``cuda_budgets.csv``: see `cuda_gates`."""

import pathlib
import re

import cuda_gates
import fastconv
import pytest

BUILT = sorted(pathlib.Path(fastconv.__file__).parent.glob("_cuda.*so"))


@pytest.mark.skipif(not BUILT, reason="the package has no CUDA kernels: nvcc was not found when it was built")
@pytest.mark.skipif(cuda_gates.disassembler() is None, reason="needs the package nvidia-cuda-cuobjdump")
def test_the_extension_keeps_its_budgets():
    """Registers, stack and shared memory of every kernel, for every target, and the size of the file."""
    assert not cuda_gates.problems(BUILT[0])


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
