"""Taking a whole lab away, whatever state it is in, and saying what could not be removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from lab.errors import LabError
from lab.host import cgroups, networks
from lab.host import syscalls as sc
from lab.host.commands import run
from lab.host.disks import loops
from lab.host.machine import Machine
from lab.layout import Lab


def remove(lab: Lab) -> list[str]:
    """Remove the lab; return a sentence for everything that is left. Works on half a lab."""
    problems: list[str] = []
    _kill_controllers(lab)
    _destroy_machines(lab, problems)
    # From here on by what the kernel has, not by what is on disk: that may be gone.
    for name in cgroups.of_lab(f"{lab.name}-m"):
        left = cgroups.kill(name)
        problems += [f"process {pid} of cgroup {name} cannot be killed" for pid in sorted(left)]
        problems += [f"cgroup {path} cannot be removed" for path in cgroups.remove(name)]
    for netns in networks.namespaces(lab):
        problems += [f"process {pid} in {netns} cannot be killed" for pid in _kill_in(netns)]
        _attempt(problems, ["ip", "netns", "del", netns])
    problems += _unmount_below(lab.root)
    for loop in loops():
        if loop.backing.startswith(f"{lab.root}/"):
            _attempt(problems, ["losetup", "-d", f"/dev/loop{loop.minor}"])
    try:
        if lab.root.exists():
            shutil.rmtree(lab.root)
    except OSError as error:
        problems.append(f"directory {lab.root}: {error}")
    return problems


def _kill_controllers(lab: Lab) -> None:
    """Kill a Juju controller of this lab whose record of itself is gone."""
    module, root = b"lab.juju.controller", f"LAB_ROOT={lab.base}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[1:4] == [b"-m", module, lab.name.encode()] and root in (
                entry / "environ"
            ).read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue  # it ended while we looked


def _destroy_machines(lab: Lab, problems: list[str]) -> None:
    for directory in sorted(lab.machines_dir.glob("*")):
        if directory.name.isdigit():
            try:
                Machine(lab, directory.name).destroy()
            except (LabError, OSError) as error:
                problems.append(f"machine {directory.name}: {error}")


def _attempt(problems: list[str], argv: list[str]) -> None:
    try:
        run(argv)
    except LabError as error:
        problems.append(str(error))


def _kill_in(netns: str) -> list[int]:
    """Kill what still runs in a network namespace; return what survives 3 s of it."""
    end = time.monotonic() + 3
    while (found := _processes_in(netns)) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return found


def _processes_in(netns: str) -> list[int]:
    try:
        wanted = os.stat(networks.NETNS_DIR / netns).st_ino
    except FileNotFoundError:
        return []
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.stat(entry / "ns/net").st_ino == wanted:
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended while we looked
    return found


def _unmount_below(root: Path) -> list[str]:
    problems: list[str] = []
    with open("/proc/self/mounts", encoding="utf-8") as table:
        targets = [line.split()[1] for line in table]
    for target in reversed(targets):
        if target.startswith(f"{root}/"):
            try:
                sc.unmount(target)
            except OSError as error:
                problems.append(str(error))
    return problems
