"""Run test files on a modelled Sapphire Rapids (Bochs, with Linux): ``python tests/machine/run.py --help``.

README.md beside this file says what it needs and how to build the model.
"""

from __future__ import annotations

import argparse
import compileall
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

import fastconv

REPOSITORY = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = ("numpy", "scipy", "pytest", "hypothesis")
ABSENT = ("test", "tests", "site-packages", "idlelib", "ensurepip", "tkinter", "lib2to3", "config-*", "__pycache__")
MODULES = ("scsi_common", "scsi_mod", "libata", "ata_piix", "sd_mod")

BOOT = """SERIAL 0 115200
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL /vmlinuz
  INITRD /initrd.gz
  APPEND console=ttyS0 quiet loglevel=1 nosmp noapic mitigations=off clearcpuid=580 tsc=reliable apparmor=0 rdinit=/init
"""

INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in {modules}; do insmod /$module.ko; done
until [ -e /dev/sda ]; do sleep 1; done
mount -t ext4 /dev/sda /root
for each in proc sys dev; do mount --bind /$each /root/$each; done
chroot /root /bin/sh /job
echo "the machine stops"; sync; sleep 1; poweroff -f
"""

JOB = """cd /repository
export HOME=/tmp PYTHONHOME=/python LD_LIBRARY_PATH=/python/lib OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
grep -o -w 'avx512f\\|amx_tile' /proc/cpuinfo
FASTCONV_ISA={isa} /python/bin/python -m pytest -p no:cacheprovider --color=no {arguments}
echo "pytest's exit status: $?"
"""

MACHINE = """cpu: model=sapphire_rapids, count=1, ips=200000000, reset_on_triple_fault=0
memory: guest=2048, host=2048
romimage: file={bochs}/bios/BIOS-bochs-latest
vgaromimage: file={bochs}/bios/VGABIOS-lgpl/VGABIOS-lgpl-latest.bin
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={out}/boot.iso, status=inserted
ata0-slave: type=disk, path={out}/disk, mode=flat
com1: enabled=1, mode=file, dev={out}/console
display_library: nogui
clock: sync=none
log: {out}/log
"""


def run(*command: str | Path, **options) -> str:
    """A command's output; one that fails ends the run."""
    return subprocess.run([*map(str, command)], check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def required(names: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """The installed distributions of these names and of what they require without extras."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.match(r"[\w.-]+", waiting.pop()).group().lower()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform or an older Python
            continue
        if name not in found:
            found[name] = distribution
            waiting += [line for line in distribution.requires or () if ";" not in line]
    return found


def copy_python(root: Path) -> None:
    """This Python, the distributions that tests need, and fastconv from where it is imported."""
    library = Path(sysconfig.get_path("stdlib"))
    target = root / "python" / "lib" / library.name
    shutil.copytree(library, target, ignore=shutil.ignore_patterns(*ABSENT), symlinks=False)
    (root / "python" / "bin").mkdir()
    shutil.copy(os.path.realpath(sys.executable), root / "python" / "bin" / "python")
    packages = target / "site-packages"
    for distribution in required(DISTRIBUTIONS).values():
        for file in distribution.files or ():
            source = Path(distribution.locate_file(file))
            if ".." not in file.parts and "__pycache__" not in file.parts and source.is_file():
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, packages / file)
    without_cache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastconv.__file__).parent, packages / "fastconv", ignore=without_cache)
    for folder in ("tests", "bench", "csrc"):
        shutil.copytree(REPOSITORY / folder, root / "repository" / folder, ignore=without_cache)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / file, root / "repository")
    compileall.compile_dir(root, quiet=2)


def copy_shared_libraries(root: Path) -> None:
    """What the dynamic linker would load for the files in `root`, at the same paths."""
    for file in (root / "python").rglob("*"):
        if not (file.is_file() and (".so" in file.name or file.parent.name == "bin")):
            continue
        listing = subprocess.run(["ldd", str(file)], text=True, capture_output=True, check=False).stdout
        for library in re.findall(r"(/\S+\.so\S*)", listing):
            wanted = root / ("python/lib/" + Path(library).name if "libpython" in library else library[1:])
            if not library.startswith(str(root)) and not wanted.exists():
                wanted.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(os.path.realpath(library), wanted)


def make_disk(out: Path, isa: str, arguments: list[str]) -> None:
    """The file system of the machine, with the job that it runs."""
    root = out / "root"
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("bin", "proc", "sys", "dev", "tmp", "repository"):
        (root / folder).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin" / "busybox")
    for name in ("sh", "grep"):
        (root / "bin" / name).symlink_to("busybox")
    copy_python(root)
    copy_shared_libraries(root)
    (root / "job").write_text(JOB.format(isa=isa, arguments=shlex.join(arguments)))
    (out / "disk").unlink(missing_ok=True)
    run("/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, out / "disk", "1G")


def make_boot_medium(out: Path) -> None:
    """A CD image with the boot loader, Debian's kernel for virtual machines and the modules that find the disk."""
    kernel, iso, memory = out / "kernel", out / "iso", out / "memory"
    for folder in (iso, memory):
        shutil.rmtree(folder, ignore_errors=True)
    (iso / "isolinux").mkdir(parents=True)
    if not kernel.exists():
        depends = run("apt-cache", "depends", "linux-image-cloud-amd64")
        kernel.mkdir()
        run("apt-get", "download", re.search(r"Depends: (linux-image\S+)", depends).group(1), cwd=kernel)
        run("dpkg", "-x", *kernel.glob("*.deb"), kernel)
    for folder in ("bin", "proc", "sys", "dev", "root"):
        (memory / folder).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), memory / "bin" / "busybox")
    for name in ("sh", "insmod", "mount", "chroot", "poweroff", "sleep", "sync"):
        (memory / "bin" / name).symlink_to("busybox")
    for module in MODULES:
        shutil.copy(next(kernel.rglob(f"{module}.ko")), memory)
    (memory / "init").write_text(INIT.format(modules=" ".join(MODULES)))
    (memory / "init").chmod(0o755)
    run("sh", "-c", f"find . | cpio -o -H newc --quiet | gzip -1 > {iso}/initrd.gz", cwd=memory)
    shutil.copy(glob.glob(f"{kernel}/boot/vmlinuz*")[0], iso / "vmlinuz")
    shutil.copy("/usr/lib/ISOLINUX/isolinux.bin", iso / "isolinux")
    shutil.copy("/usr/lib/syslinux/modules/bios/ldlinux.c32", iso / "isolinux")
    (iso / "isolinux" / "isolinux.cfg").write_text(BOOT)
    boot = ("-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4")
    run("xorriso", "-as", "mkisofs", "-quiet", "-o", out / "boot.iso", *boot, "-boot-info-table", iso)


def start(bochs: Path, out: Path, minutes: float) -> str:
    """Run the machine until it is switched off or time is up, showing its console; returns what that said."""
    (out / "machine").write_text(MACHINE.format(bochs=bochs, out=out))
    (out / "disk.lock").unlink(missing_ok=True)
    console = out / "console"
    console.write_bytes(b"")
    with open(out / "bochs.out", "wb") as log:
        command = [str(bochs / "bochs"), "-q", "-f", str(out / "machine")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        shown, end = 0, time.monotonic() + 60 * minutes
        while process.poll() is None or shown < console.stat().st_size:
            text = console.read_bytes()[shown:]
            shown += len(text)
            sys.stdout.write(text.decode(errors="replace").replace("\r", ""))
            sys.stdout.flush()
            time.sleep(1)
            if time.monotonic() > end:
                process.kill()
    return console.read_text(errors="replace")


def main() -> int:
    """The command line; the exit status is pytest's, or 1 if the machine did not come to its end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bochs", type=Path, required=True, help="folder of a built Bochs, with its bios/")
    parser.add_argument("--isa", choices=("avx2", "avx512", "amx"), default="amx", help="FASTCONV_ISA on the machine")
    parser.add_argument("--out", type=Path, default=Path("build/machine"), help="folder for the machine's files")
    parser.add_argument("--minutes", type=float, default=600, help="after which the machine is switched off")
    parser.add_argument("arguments", nargs="+", help="of pytest, after --")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    make_disk(out, options.isa, options.arguments)
    make_boot_medium(out)
    status = re.search(
        r"^pytest's exit status: (\d+)", start(options.bochs.resolve(), out, options.minutes), re.MULTILINE
    )
    return int(status.group(1)) if status else 1


if __name__ == "__main__":
    sys.exit(main())
