"""What the compiler made of the CUDA kernels, and the limits that it must keep: ``python tests/cuda_gates.py MODULE``.

Reads the built extension with ``cuobjdump`` and ``nvdisasm`` (packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm).

- The resource usage of every kernel for every target, compared with ``cuda_budgets.csv``: for each kernel the most
  registers, bytes of stack (spilled registers and arrays without a place in them) and bytes of shared memory (static,
  and the 1024 that newer devices keep for themselves) that any dtype and target may use. ``--write`` writes the table
  anew.
- The machine code of every kernel for the targets of `READ`. None has an instruction of `FORBIDDEN`, and each has those
  that ``cuda_opcodes.csv`` expects of it: the row's opcode, or one that goes on after a dot, in every variant of the
  kernel with that dtype as its first template argument, for the targets from ``since`` on.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import csv
import os
import pathlib
import re
import shutil
import subprocess
import sys

TABLE = pathlib.Path(__file__).with_name("cuda_budgets.csv")
OPCODES = TABLE.with_name("cuda_opcodes.csv")
COLUMNS = ("registers", "stack", "shared")
MEGABYTES = 30
"""What the extension may add to the wheel."""
READ = ("sm_75", "sm_80", "sm_120")
"""Targets whose machine code is read, which takes half a minute for each: the first with each PTX, and the newest."""

FORBIDDEN = {
    r"(LDL|STL)\b.*": "local memory, which is a spilled register or an array without a place",
    r"(ATOM|RED)[GS]?(?!.*\.(EXCH|MAX)\b)(\..*)?": "an atomic operation other than an exchange and a maximum",
    r"(ATOM|RED)[GS]?\..*\bB?F(16|32|64)\b.*": "a floating-point atomic operation",
}
"""Patterns of whole instructions' opcodes, and what they are."""

ALLOWED = {("primitives/primitive_kernel", "ATOMS.CAST.SPIN.64")}
"""Kernels and forbidden opcodes that they may have: an integer maximum in shared memory is a loop of exchanges."""

DTYPES = {"f": "float32", "d": "float64", "7Float16": "float16", "8BFloat16": "bfloat16"}
"""A template's first argument, as names are mangled."""


def program(name):
    """``cuobjdump`` or ``nvdisasm``, on the path or in the Python package that has it; ``None`` without one."""
    found = shutil.which(name)
    beside = [pathlib.Path(folder) / "nvidia" for folder in sys.path]
    inside = [path for folder in beside if folder.is_dir() for path in folder.glob(f"*/bin/{name}")]
    return found or (str(inside[0]) if inside else None)


def disassembler():
    """The program that reads resource usage and, with its neighbour ``nvdisasm``, machine code; ``None`` without."""
    return program("cuobjdump") if program("nvdisasm") else None


def dumped(*arguments):
    """What ``cuobjdump`` prints."""
    path = os.pathsep.join([str(pathlib.Path(program("nvdisasm")).parent), os.environ.get("PATH", "")])
    command = [disassembler(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}).stdout


def usage(module):
    """``{(target, mangled name): (registers, stack, shared)}`` of every kernel in the extension."""
    text = dumped("-res-usage", module)
    kernels, target, name = {}, "", ""
    for line in text.splitlines():
        if found := re.match(r"arch = (\w+)", line):
            target = found[1]
        elif found := re.match(r"\s*Function\s*:?\s*(\w+)", line):
            name = found[1]
        elif found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            kernels[target, name] = tuple(map(int, found.groups()))
    return kernels


def short_name(mangled):
    """The kernel's name with its file's, such as ``forward/forward_kernel``."""
    found = re.search(r"_GLOBAL__N__[0-9a-f]{8}_\d+_(\w+?)_cu_[0-9a-f]{8}(\d+)", mangled)
    if found:
        rest = mangled[found.end(2) :]
        for digits in (2, 1):  # the hash before the length ends in digits as well
            length = int(found[2][-digits:])
            if re.match(r"[a-z_]+_kernel$", rest[:length]):
                return f"{found[1]}/{rest[:length]}"
    plain = re.search(r"\d+([a-z_]+?_kernel)", mangled)
    return plain[1] if plain else mangled


def dtype_of(mangled):
    """The dtype that a kernel's first template argument says; "" where it says none."""
    found = re.search(r"_kernelI(?:N\w*?(7Float16|8BFloat16)E|([fd]))", mangled)
    return DTYPES[found[1] or found[2]] if found else ""


def opcodes_in(text):
    """``{mangled name: opcodes}`` of a disassembly."""
    parts = (part.partition("\n") for part in text.split("Function : ")[1:])
    return {name: set(re.findall(r"\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*)", code)) for name, _, code in parts}


def machine_code(module, targets):
    """``{(target, mangled name): opcodes}`` of every kernel in the extension."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        texts = pool.map(lambda target: opcodes_in(dumped("-sass", "-arch", target, module)), targets)
        return {
            (target, name): opcodes
            for target, of_target in zip(targets, texts, strict=True)
            for name, opcodes in of_target.items()
        }


def expected_opcodes():
    """The checked-in table."""
    with OPCODES.open(newline="") as file:
        return [(row["kernel"], row["dtype"], int(row["since"]), row["opcode"]) for row in csv.DictReader(file)]


def opcode_problems(code, expected):
    """What is in the kernels' code and must not be, and what is not and must be."""
    wrong = []
    rows = collections.defaultdict(list)
    for kernel, dtype, since, opcode in expected:
        rows[kernel, dtype].append((since, opcode))
    met = set()
    for (target, mangled), opcodes in sorted(code.items()):
        variant = short_name(mangled), dtype_of(mangled)
        met.add(variant)
        what = f"{' of '.join(filter(None, variant))} for {target}"
        for pattern, meaning in FORBIDDEN.items():
            found = {each for each in opcodes if re.fullmatch(pattern, each) and (variant[0], each) not in ALLOWED}
            if found:
                wrong.append(f"{what}: {' '.join(sorted(found))}, {meaning}")
        for since, opcode in rows[variant]:
            there = any(each == opcode or each.startswith(f"{opcode}.") for each in opcodes)
            if int(re.sub(r"\D", "", target)) >= since and not there:
                wrong.append(f"{what}: no {opcode}")
    absent = (" of ".join(filter(None, variant)) for variant in sorted(rows.keys() - met))
    return wrong + [f"{variant}: in {OPCODES.name}, but not in the extension" for variant in absent]


def largest(kernels):
    """``{short name: (registers, stack, shared)}``, the most over dtypes and targets."""
    result = collections.defaultdict(lambda: (0, 0, 0))
    for (_, mangled), numbers in kernels.items():
        name = short_name(mangled)
        result[name] = tuple(map(max, result[name], numbers))
    return dict(sorted(result.items()))


def budgets():
    """The checked-in table."""
    with TABLE.open(newline="") as file:
        return {row["kernel"]: tuple(int(row[column]) for column in COLUMNS) for row in csv.DictReader(file)}


def problems(module):
    """What of the extension is beyond its budget."""
    kernels = usage(module)
    found, allowed = largest(kernels), budgets()
    wrong = [f"{name}: not in {TABLE.name}" for name in found if name not in allowed]
    wrong += [f"{name}: in {TABLE.name}, but not in the extension" for name in allowed if name not in found]
    for name in found.keys() & allowed.keys():
        for column, is_, may in zip(COLUMNS, found[name], allowed[name], strict=True):
            if is_ > may:
                wrong.append(f"{name}: {is_} {column}, may have {may}")
    targets = {target for target, _ in kernels}
    for name in found:
        of_name = {target for target, mangled in kernels if short_name(mangled) == name}
        if of_name != targets:
            wrong.append(f"{name}: only for {sorted(of_name)} of {sorted(targets)}")
    size = module.stat().st_size
    if size > MEGABYTES * 2**20:
        wrong.append(f"{module.name}: {size / 2**20:.1f} MB, may have {MEGABYTES}")
    return wrong + opcode_problems(machine_code(module, sorted(targets & set(READ))), expected_opcodes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="write the table from what is there")
    arguments = parser.parse_args()
    kernels = usage(arguments.module)
    if arguments.write:
        with TABLE.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("kernel", *COLUMNS))
            for name, (registers, stack, shared) in largest(kernels).items():
                # Room for another version of the compiler; the stack has none.
                writer.writerow((name, min(255, -(-registers // 8) * 8 + 8), stack, shared))
    wrong = problems(arguments.module)
    print("\n".join(wrong))
    targets = sorted({target for target, _ in kernels})
    size = arguments.module.stat().st_size / 2**20
    print(f"{len(kernels)} kernels, {', '.join(targets)}, {size:.1f} MB: {len(wrong)} problems")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
