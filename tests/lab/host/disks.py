"""The host's side of a machine's disks: image files, loop devices, and the record of both.

Loop devices belong to the whole host. They are found by what they are attached to, never by a
remembered number, so a lab that was killed can still be cleaned up.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lab.errors import LabError
from lab.host.blockdev import DiskRecord, read_records
from lab.host.commands import run
from lab.shape import DiskShape, check_disk_name

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ASK_TIMEOUT = 5.0  # seconds; for a loop device to say what is behind it


@dataclass(frozen=True)
class Disk:
    """A disk of a machine, by the paths that are valid inside it; ``size`` is in bytes."""

    name: str
    device: str
    by_id: str
    size: int
    serial: str
    model: str

    @classmethod
    def of(cls, record: DiskRecord) -> Disk:
        """Describe a recorded disk."""
        return cls(
            name=record.name,
            device=f"/dev/{record.device}",
            by_id=f"/dev/disk/by-id/{record.id_link}",
            size=record.size,
            serial=record.serial,
            model=record.model,
        )


@dataclass(frozen=True)
class Loop:
    """A loop device in use: its number and the path of what it is attached to."""

    minor: int
    backing: str


def loops() -> list[Loop]:
    """Return all loop devices of the host that are attached to something."""
    found: list[Loop] = []
    for entry in Path("/sys/block").glob("loop*"):
        try:
            backing = (entry / "loop/backing_file").read_text().rstrip("\n")
        except OSError:
            continue  # not attached
        found.append(Loop(int(entry.name.removeprefix("loop")), backing))
    return found


def detach(loop: Loop) -> None:
    """Detach a loop device.

    Raises:
        LabError: it cannot be, for example because it is mounted somewhere.
    """
    run(["losetup", "-d", f"/dev/loop{loop.minor}"])


class DiskShelf:
    """The disks of one machine. ``home`` is the machine's directory."""

    def __init__(self, home: Path) -> None:
        self._file = home / "disks.json"
        self._images = home / "disks"

    def records(self) -> list[DiskRecord]:
        """Return what is recorded, whether attached or not."""
        return read_records(self._file)

    def add(self, shape: DiskShape, serial: str) -> DiskRecord:
        """Make a new disk: an empty sparse file, attached to a loop device.

        Raises:
            LabError: the machine has a disk of that name, or no letter is left.
        """
        check_disk_name(shape.name)
        records = self.records()
        if any(r.name == shape.name for r in records):
            raise LabError(f"the machine already has a disk called {shape.name!r}")
        free = [x for x in LETTERS if f"sd{x}" not in {r.device for r in records}]
        if not free:
            raise LabError("the machine has 26 disks already; the lab names no more than sdz")
        self._images.mkdir(exist_ok=True)
        image = self._images / f"{shape.name}.img"
        with open(image, "wb") as handle:
            handle.truncate(shape.size)
        record = DiskRecord(
            name=shape.name,
            device=f"sd{free[0]}",
            file=str(image),
            size=shape.size,
            model=shape.model,
            vendor=shape.vendor,
            serial=shape.serial or serial,
            rotational=shape.rotational,
            removable=shape.removable,
        )
        record = _attach(record, {})
        self._save([*records, record])
        return record

    def remove(self, name: str) -> DiskRecord:
        """Forget a disk; the caller then tells the machine and calls :meth:`discard`.

        Raises:
            LabError: there is none of that name.
        """
        records = self.records()
        for record in records:
            if record.name == name:
                self._save([r for r in records if r is not record])
                return record
        raise LabError(f"the machine has no disk called {name!r}")

    def discard(self, record: DiskRecord) -> None:
        """Detach a removed disk's loop device and delete its file."""
        for loop in loops():
            if loop.backing.removesuffix(" (deleted)") == record.file:
                detach(loop)
        Path(record.file).unlink(missing_ok=True)

    def attach_all(self) -> None:
        """Attach every recorded disk that is not attached, as after a restart of the host."""
        attached = {loop.backing: loop.minor for loop in loops()}
        self._save([_attach(record, attached) for record in self.records()])

    def detach_all(self) -> None:
        """Detach all of the machine's loop devices, keeping files and records."""
        for loop in loops():
            if loop.backing.startswith(f"{self._images}/"):
                detach(loop)

    def _save(self, records: Iterable[DiskRecord]) -> None:
        partial = self._file.with_suffix(".new")
        partial.write_text(json.dumps([asdict(r) for r in records], indent=1), encoding="utf-8")
        partial.replace(self._file)


def _attach(record: DiskRecord, attached: dict[str, int]) -> DiskRecord:
    minor = attached.get(record.file)
    if minor is None:
        shown = run(["losetup", "--find", "--show", record.file]).stdout.strip()
        match = re.fullmatch(r"/dev/loop(\d+)", shown)
        if not match:
            raise LabError(f"losetup gave {shown!r} for {record.file}, not a loop device")
        minor = int(match[1])
    return replace(record, minor=minor)


def mount_devices(pid: int | str) -> set[str]:
    """Device numbers (``major:minor``) of all file systems mounted for a process."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as table:
        return {line.split()[2] for line in table}


@dataclass(frozen=True)
class _Backing:
    """The file behind a loop device: the device it is on, its inode, its last name."""

    device: str
    inode: int
    name: str


def mount_points(pid: int | str) -> set[str]:
    """Where a process has something mounted; a file system may be mounted on a single file."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as table:
        return {line.split()[4] for line in table}


def _backing(loop: Loop) -> _Backing | None:
    device = f"/dev/loop{loop.minor}"
    asked = subprocess.Popen(
        ["losetup", "-nO", "BACK-MAJ:MIN,BACK-INO", device],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        shown = asked.communicate(timeout=ASK_TIMEOUT)[0].split()
    except subprocess.TimeoutExpired:
        # Another lab's, whose file's file system hangs (a mapped image of a Ceph that has gone);
        # what asks it cannot even be killed, so it is not waited for.
        return None
    if len(shown) != 2:
        return None  # detached meanwhile
    name = Path(loop.backing.removesuffix(" (deleted)")).name
    return _Backing(shown[0], int(shown[1]), name)


def stray_loops(directory: Path, devices: set[str], mounted: Collection[str]) -> list[Loop]:
    """Return loop devices that programs inside a machine have made.

    They show a path that is the machine's, so they are found by inode: those of files below
    ``directory``, and those on ``devices`` (``major:minor``), file systems only it has mounted.
    Files that a program serves are not asked: they are those that are in ``mounted`` themselves.
    """
    strange = [x for x in loops() if not Path(x.backing).exists()]
    if not strange:
        return []
    mine = _names_by_inode(directory)
    found = [loop for loop in strange if loop.backing in mounted]
    for loop in strange:
        if loop in found:
            continue
        backing = _backing(loop)
        if backing and (backing.device in devices or backing.name in mine.get(backing.inode, ())):
            found.append(loop)
    return found


def _names_by_inode(directory: Path) -> dict[int, set[str]]:
    names: dict[int, set[str]] = {}
    pending = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        names.setdefault(entry.inode(), set()).add(entry.name)
        except OSError:
            continue  # removed while we look
    return names
