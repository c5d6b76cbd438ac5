"""A machine's disks as its programs see them: /dev/sdX, by-id links, sysfs, udev's database.

Each disk is a loop device of the host. Inside the machine it has the name of an ordinary disk,
and /sys/block, /sys/class/block, /sys/dev/block and /proc/partitions show this machine's disks
only. There is no udev, so PID 1 does what udev would: it watches for a program closing a disk
that it wrote to, looks for a file system, and keeps /dev/disk/by-uuid and the database current.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.host import syscalls as sc

SYS_VIEWS = ("/sys/block", "/sys/class/block", "/sys/dev/block")
# Where the disks' own directories are; a plausible place for disks of a SCSI controller.
CONTROLLER = Path("/sys/devices/pci0000:00/0000:00:04.0")
UDEV = Path("/run/udev/data")
_QUEUE = (
    "add_random",
    "discard_granularity",
    "discard_max_bytes",
    "hw_sector_size",
    "io_poll",
    "logical_block_size",
    "max_hw_sectors_kb",
    "max_sectors_kb",
    "minimum_io_size",
    "nr_requests",
    "optimal_io_size",
    "physical_block_size",
    "read_ahead_kb",
    "rotational",
    "scheduler",
    "wbt_lat_usec",
    "write_cache",
    "zoned",
    "dax",
)


@dataclass(frozen=True)
class DiskRecord:
    """A disk as the machine's directory records it; ``minor`` is that of its loop device."""

    name: str
    device: str
    file: str
    size: int
    model: str
    vendor: str
    serial: str
    rotational: bool
    removable: bool
    minor: int = -1

    @property
    def id_link(self) -> str:
        """The name of its link in /dev/disk/by-id."""
        return f"scsi-0{self.vendor}_{self.model}_{self.serial}".replace(" ", "_")

    @property
    def number(self) -> int:
        """Its place on the controller: sda is 0."""
        return ord(self.device[2]) - ord("a")


def read_records(path: Path) -> list[DiskRecord]:
    """Return the disks recorded in a machine's ``disks.json``; none if there is no such file."""
    try:
        loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [DiskRecord(**record) for record in loaded]


class DeviceTree:
    """Keeps a machine's view of its disks current. Lives in the machine's PID 1."""

    def __init__(self, records: Path) -> None:
        self._file = records
        self._shown: dict[str, DiskRecord] = {}
        self._watches: dict[int, str] = {}
        self._filesystems: dict[str, str] = {}
        self.descriptor = sc.inotify_open()

    def start(self) -> None:
        """Cover the host's disks in sysfs and show this machine's."""
        _cover_devices()
        for view in SYS_VIEWS:
            sc.mount("disks", view, "tmpfs", data="mode=755,size=4m")
        # Loop devices can still be looked up by number (losetup does), but not listed as disks.
        for entry in os.scandir("/run/.clean/sys/block"):
            if entry.name.startswith("loop"):
                number = Path(entry.path, "dev").read_text().strip()
                os.symlink(f"../../devices/virtual/block/{entry.name}", f"/sys/dev/block/{number}")
        Path("/run/lab/partitions").write_text("")
        sc.bind("/run/lab/partitions", "/proc/partitions")
        self.refresh()

    def refresh(self) -> dict[str, Any]:
        """Show the disks that are recorded now, and no others."""
        wanted = {record.device: record for record in read_records(self._file)}
        for device, record in list(self._shown.items()):
            if wanted.get(device) != record:
                self._hide(record)
        for device, record in wanted.items():
            if device not in self._shown:
                self._show(record)
        lines = ["major minor  #blocks  name\n\n"]
        lines += [f"   7 {r.minor:8} {r.size // 1024:10} {d}\n" for d, r in sorted(wanted.items())]
        Path("/run/lab/partitions").write_text("".join(lines))
        return {"disks": sorted(self._shown)}

    def written(self) -> None:
        """Handle inotify events: look again at each disk that somebody wrote to."""
        data = os.read(self.descriptor, 4096)
        position = 0
        while position < len(data):
            watch, _, _, length = struct.unpack_from("iIII", data, position)
            position += 16 + length
            device = self._watches.get(watch)
            if device in self._shown:
                self._probe(self._shown[device])

    # ---- one disk ---------------------------------------------------------------------------

    def _show(self, record: DiskRecord) -> None:
        node = f"/dev/{record.device}"
        os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(7, record.minor))
        os.chmod(node, 0o660)
        os.symlink(f"../../{record.device}", f"/dev/disk/by-id/{record.id_link}")
        os.symlink(f"../../{record.device}", f"/dev/disk/by-path/{_path_link(record)}")
        place = _sysfs_directory(record)
        _fill_sysfs(record, place)
        for view in SYS_VIEWS:
            name = f"7:{record.minor}" if view == "/sys/dev/block" else record.device
            link = Path(view, name)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(place, view))
        self._shown[record.device] = record
        self._watches[sc.inotify_add(self.descriptor, node, sc.IN_CLOSE_WRITE)] = record.device
        self._probe(record)

    def _hide(self, record: DiskRecord) -> None:
        del self._shown[record.device]
        self._link_uuid(record, "")
        for path in (
            Path("/dev/disk/by-id", record.id_link),
            Path("/dev/disk/by-path", _path_link(record)),
            Path("/sys/block", record.device),
            Path("/sys/class/block", record.device),
            Path("/sys/dev/block", f"7:{record.minor}"),
            UDEV / f"b7:{record.minor}",
            Path("/dev", record.device),
        ):
            path.unlink(missing_ok=True)
        shutil.rmtree(_sysfs_directory(record).parent.parent)

    def _probe(self, record: DiskRecord) -> None:
        kind, identity = probe(Path("/dev", record.device))
        self._link_uuid(record, identity)
        self._filesystems[record.device] = identity
        lines = [
            f"S:disk/by-id/{record.id_link}",
            f"S:disk/by-path/{_path_link(record)}",
            "I:1000000",
            "E:ID_BUS=scsi",
            "E:ID_TYPE=disk",
            f"E:ID_VENDOR={record.vendor}",
            f"E:ID_MODEL={record.model.replace(' ', '_')}",
            f"E:ID_MODEL_ENC={record.model.replace(' ', chr(92) + 'x20')}",
            f"E:ID_SERIAL={record.id_link.removeprefix('scsi-')}",
            f"E:ID_SERIAL_SHORT={record.serial}",
            f"E:ID_SCSI_SERIAL={record.serial}",
            f"E:ID_PATH={_path_link(record)}",
        ]
        if kind:
            lines += [f"E:ID_FS_TYPE={kind}", "E:ID_FS_USAGE=filesystem"]
        if identity:
            lines += [f"S:disk/by-uuid/{identity}", f"E:ID_FS_UUID={identity}"]
        (UDEV / f"b7:{record.minor}").write_text("\n".join(lines) + "\n")

    def _link_uuid(self, record: DiskRecord, identity: str) -> None:
        links = Path("/dev/disk/by-uuid")
        old = self._filesystems.get(record.device, "")
        if old and old != identity:
            (links / old).unlink(missing_ok=True)
        if identity and not (links / identity).is_symlink():
            (links / identity).symlink_to(f"../../{record.device}")


def probe(device: Path) -> tuple[str, str]:
    """Return type and UUID of the file system on a device; empty strings if there is none."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "", ""  # being detached
    try:
        start = os.pread(descriptor, 4096, 0)
        btrfs = os.pread(descriptor, 128, 0x10000)
    except OSError:
        return "", ""
    finally:
        os.close(descriptor)
    if btrfs[0x40:0x48] == b"_BHRfS_M":
        return "btrfs", str(uuid.UUID(bytes=btrfs[0x20:0x30]))
    if start[0x438:0x43A] == b"\x53\xef":
        return "ext4", str(uuid.UUID(bytes=start[0x468:0x478]))
    if start[:4] == b"XFSB":
        return "xfs", str(uuid.UUID(bytes=start[32:48]))
    if start.startswith(b"bluestore block device"):
        return "ceph_bluestore", ""
    return "", ""


def _cover_devices() -> None:
    """Replace /sys/devices by a directory that can be added to, with the real ones in it.

    Also makes the empty ``rbd`` directory in which a mapped Ceph image would be announced.
    """
    target = "/sys/devices"
    clean = "/run/.clean/sys/devices"
    sc.mount("devices", target, "tmpfs", data="mode=755,size=8m")
    for entry in os.scandir(clean):
        if entry.is_dir() and entry.name != "pci0000:00":
            os.mkdir(f"{target}/{entry.name}")
            sc.bind(entry.path, f"{target}/{entry.name}")
    os.mkdir(f"{target}/rbd")
    os.makedirs(CONTROLLER)


def _sysfs_directory(record: DiskRecord) -> Path:
    address = f"0:0:0:{record.number}"
    return CONTROLLER / f"host0/target0:0:0/{address}/block/{record.device}"


def _path_link(record: DiskRecord) -> str:
    return f"pci-0000:00:04.0-scsi-0:0:0:{record.number}"


def _fill_sysfs(record: DiskRecord, place: Path) -> None:
    """Write the attributes of a SCSI disk; the queue's are those of the loop device."""
    real = Path(f"/run/.clean/sys/devices/virtual/block/loop{record.minor}")
    (place / "queue").mkdir(parents=True)
    for name in _QUEUE:
        if (real / "queue" / name).exists():
            _copy_attribute(real / "queue" / name, place / "queue" / name)
    (place / "queue/rotational").write_text(f"{int(record.rotational)}\n")
    for name in ("holders", "slaves"):
        (place / name).mkdir()
    attributes = {
        "dev": f"7:{record.minor}",
        "size": str(record.size // 512),
        "ro": "0",
        "removable": str(int(record.removable)),
        "range": "16",
        "ext_range": "256",
        "stat": "0 " * 16 + "0",
        "uevent": f"MAJOR=7\nMINOR={record.minor}\nDEVNAME={record.device}\nDEVTYPE=disk",
    }
    for name, value in attributes.items():
        (place / name).write_text(f"{value}\n")
    device = place.parent.parent
    for name, value in (
        ("model", record.model),
        ("vendor", record.vendor),
        ("rev", "2.5+"),
        ("type", "0"),
        ("state", "running"),
        ("serial", record.serial),
    ):
        (device / name).write_text(f"{value}\n")
    (place / "device").symlink_to("../..")
    (place / "subsystem").symlink_to(os.path.relpath("/sys/class/block", place))
    bus = CONTROLLER / "bus/scsi"
    bus.mkdir(parents=True, exist_ok=True)
    (device / "subsystem").symlink_to(os.path.relpath(bus, device))


def _copy_attribute(source: Path, target: Path) -> None:
    try:
        target.write_text(source.read_text())
    except OSError:
        return  # some attributes can only be written
