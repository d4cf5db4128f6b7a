"""What the compiler made of the CUDA kernels, and the limits that it must keep: ``python tests/cuda_gates.py MODULE``.

Reads the resource usage of every kernel for every target from the built extension (``cuobjdump``, of the package
nvidia-cuda-cuobjdump), and compares it with ``cuda_budgets.csv``: for each kernel the most registers, bytes of stack
(spilled registers and arrays without a place in them) and bytes of static shared memory that any dtype and target may
use. ``--write`` writes the table anew.
"""

from __future__ import annotations

import argparse
import collections
import csv
import pathlib
import re
import shutil
import subprocess
import sys

TABLE = pathlib.Path(__file__).with_name("cuda_budgets.csv")
COLUMNS = ("registers", "stack", "shared")
MEGABYTES = 30
"""What the extension may add to the wheel."""


def disassembler():
    """The program cuobjdump, on the path or in the Python package that has it; ``None`` without one."""
    found = shutil.which("cuobjdump")
    beside = [pathlib.Path(folder) / "nvidia" for folder in sys.path]
    inside = [path for folder in beside if folder.is_dir() for path in folder.glob("*/bin/cuobjdump")]
    return found or (str(inside[0]) if inside else None)


def usage(module):
    """``{(target, mangled name): (registers, stack, shared)}`` of every kernel in the extension."""
    command = [disassembler(), "-res-usage", str(module)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
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
    return wrong


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
