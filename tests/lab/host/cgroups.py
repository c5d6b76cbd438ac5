"""Control groups of a machine: one of its own in every hierarchy of the host.

Works on hosts with version 1 or hybrid hierarchies and on hosts with version 2 only. In the
latter a group with processes cannot hand controllers to children, so there the machine's own
processes live in a leaf called ``init.scope``, as under systemd.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

ROOT = Path("/sys/fs/cgroup")
LEAF = "init.scope"


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy: where, which type, and with which controllers or name."""

    path: Path
    kind: str
    options: str

    @property
    def only(self) -> bool:
        """Whether this is the single version 2 hierarchy of a host without version 1."""
        return self.path == ROOT


def hierarchies() -> list[Hierarchy]:
    """Return the host's hierarchies below ``/sys/fs/cgroup``.

    Raises:
        LabError: the host has none mounted.
    """
    found: dict[Path, Hierarchy] = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        for line in table:
            left, right = line.split(" - ")
            path = Path(left.split()[4])
            kind, _, options = right.split()[:3]
            if kind in ("cgroup", "cgroup2") and (path == ROOT or path.parent == ROOT):
                words = [w for w in options.split(",") if w not in ("rw", "ro", "relatime")]
                found[path] = Hierarchy(path, kind, ",".join(words))
    if not found:
        raise LabError(f"no cgroups are mounted below {ROOT}: the lab needs them for machines")
    return list(found.values())


def create(name: str) -> list[Path]:
    """Make the group in every hierarchy; return the ``cgroup.procs`` files that join it."""
    joins: list[Path] = []
    for hierarchy in hierarchies():
        group = hierarchy.path / name
        group.mkdir(exist_ok=True)
        for knob in ("cpuset.cpus", "cpuset.mems"):
            # A version 1 cpuset that names no CPU takes no process.
            if hierarchy.kind == "cgroup" and (group / knob).exists():
                (group / knob).write_text((hierarchy.path / knob).read_text())
        if hierarchy.only:
            (group / LEAF).mkdir(exist_ok=True)
        joins.append(group / "cgroup.procs")
    return joins


def joins(name: str) -> list[Path]:
    """The ``cgroup.procs`` files that a process entering the running machine writes to."""
    found: list[Path] = []
    for hierarchy in hierarchies():
        group = hierarchy.path / name
        found.append((group / LEAF if hierarchy.only else group) / "cgroup.procs")
    return found


def delegate(group: Path) -> None:
    """Version 2 only: move the group's own processes to the leaf, then hand on controllers."""
    for pid in (group / "cgroup.procs").read_text().split():
        (group / LEAF / "cgroup.procs").write_text(pid)
    for controller in (group / "cgroup.controllers").read_text().split():
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def processes(name: str) -> set[int]:
    """Host ids of all processes in the group and its children, in any hierarchy."""
    pids: set[int] = set()
    for hierarchy in hierarchies():
        for group in _tree(hierarchy.path / name):
            try:
                pids.update(map(int, (group / "cgroup.procs").read_text().split()))
            except OSError:
                continue  # gone between the listing and the look
    return pids


def kill(name: str, deadline: float = 5.0) -> set[int]:
    """Kill everything in the group; return what still lives after ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while (left := processes(name)) and time.monotonic() < end:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
    return left


def remove(name: str, deadline: float = 2.0) -> list[Path]:
    """Remove the group everywhere; return what could not be removed in ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while True:
        left = [h.path / name for h in hierarchies() if (h.path / name).is_dir()]
        for top in left:
            for group in reversed(list(_tree(top))):
                try:
                    group.rmdir()
                except OSError:
                    continue  # its last process is still on its way out: the next round
        left = [top for top in left if top.is_dir()]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


def of_lab(prefix: str) -> set[str]:
    """Names of top-level groups that start with ``prefix``."""
    return {p.name for h in hierarchies() for p in h.path.glob(f"{prefix}*") if p.is_dir()}


def _tree(top: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(top):
        yield Path(directory)
