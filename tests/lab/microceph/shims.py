"""What LXD's daemon needs around it on a kernel without the rbd and ceph modules.

`rbd` in front of its PATH serves `rbd map` by a userspace block device (`rbd_map.py`), and
`cephmount` (a small C program, compiled once per lab) serves mount(2) of the type `ceph` by
ceph-fuse. LXD itself is not changed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lab.errors import LabError
from lab.layout import PACKAGE_PARENT, Lab
from lab.snapd.catalog import Shim

SOURCE = Path(__file__).with_name("cephmount.c")
_RBD = """#!/bin/sh
# Only what maps images is served here; all else is for the real program.
for word in "$@"; do
  case $word in
  map|unmap|showmapped|resize) exec {python} -I {script} "$@" ;;
  esac
done
exec /usr/bin/rbd "$@"
"""


def _kernel_has(filesystem: str) -> bool:
    return any(
        line.split()[-1] == filesystem
        for line in Path("/proc/filesystems").read_text().splitlines()
    )


def for_lxd() -> Shim:
    """The wrapper of LXD's daemon; LabError when cephmount cannot be compiled."""
    lab = Lab.from_environment()
    directory = lab.root / "shims" / "ceph"
    with lab.lock("shims"):
        directory.mkdir(parents=True, exist_ok=True)
        _write_rbd(directory / "rbd")
        program = _compile(lab.root / "shims" / "cephmount")
    return Shim(path=[str(directory)], prefix=[] if _kernel_has("ceph") else [str(program)])


def _write_rbd(path: Path) -> None:
    script = PACKAGE_PARENT / "lab/microceph/rbd_map.py"
    text = _RBD.format(python=sys.executable, script=script)
    if not path.exists() or path.read_text() != text:
        partial = path.with_name(".rbd.new")
        partial.write_text(text)
        partial.chmod(0o755)
        partial.replace(path)


def _compile(program: Path) -> Path:
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    partial = program.with_name(".cephmount.new")
    done = subprocess.run(
        ["gcc", "-O2", "-Wall", "-o", str(partial), str(SOURCE)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise LabError(f"cannot compile {SOURCE}: {done.stderr.strip()}; is gcc installed?")
    partial.replace(program)
    return program
