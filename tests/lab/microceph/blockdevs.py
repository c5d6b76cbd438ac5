"""This machine's disks: the inventory, what is on them, and wiping."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from lab.microceph import paths
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Row

SYS = Path("/sys/block")
UDEV = Path("/run/udev/data")
MIN_SIZE = 2 << 30
# No file system or partition table known to us keeps its signature further in than this.
SIGNATURES = 128 << 10
WIPE = 10 << 20


def resources() -> Row:
    """`GET /1.0/resources`: the disks as LXD describes them."""
    disks = [_describe(entry) for entry in sorted(SYS.iterdir()) if _is_disk(entry)]
    return {"disks": disks, "total": sum(1 + len(disk["partitions"]) for disk in disks)}


def _is_disk(entry: Path) -> bool:
    return entry.name.startswith(("sd", "vd", "nvme")) and (entry / "dev").exists()


def _read(path: Path, default: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return default


def _number(path: Path) -> int:
    text = _read(path, "0")
    return int(text) if text.isdigit() else 0


def _describe(entry: Path) -> dict[str, Any]:
    device = _read(entry / "dev")
    links, values = _udev(device)
    rotational = _read(entry / "queue/rotational") == "1"
    return {
        "id": entry.name,
        "device": device,
        "model": _read(entry / "device/model"),
        "type": values.get("ID_BUS", "scsi"),
        "read_only": _read(entry / "ro") == "1",
        "mounted": mounted(Path("/dev", entry.name)),
        "size": _number(entry / "size") * 512,
        "removable": _read(entry / "removable") == "1",
        "wwn": values.get("ID_WWN", ""),
        "numa_node": 0,
        "device_path": links.get("by-path", ""),
        "block_size": _number(entry / "queue/logical_block_size"),
        "firmware_version": _read(entry / "device/rev"),
        "rpm": 1 if rotational else 0,
        "serial": values.get("ID_SERIAL_SHORT", ""),
        "device_id": links.get("by-id", ""),
        "partitions": _partitions(entry),
    }


def _udev(device: str) -> tuple[dict[str, str], dict[str, str]]:
    """The links by kind (by-id, by-path) and the variables of udev's database."""
    links: dict[str, str] = {}
    values: dict[str, str] = {}
    for line in _read(UDEV / f"b{device}").splitlines():
        if line.startswith("S:disk/"):
            kind, _, name = line.removeprefix("S:disk/").partition("/")
            links.setdefault(kind, name)
        elif line.startswith("E:"):
            key, _, value = line[2:].partition("=")
            values[key] = value
    return links, values


def _partitions(entry: Path) -> list[Row]:
    found: list[Row] = []
    for child in sorted(entry.glob(f"{entry.name}*")):
        if (child / "partition").exists():
            size, number = _number(child / "size") * 512, _number(child / "partition")
            found.append(
                {
                    "id": child.name,
                    "device": _read(child / "dev"),
                    "size": size,
                    "partition": number,
                }
            )
    return found


def stable_path(path: str, inventory: Row) -> str:
    """The by-id (else by-path) name of a block device; ApiError when the path is none."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ApiError(f"failed to set stable disk path: invalid disk path: {path}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise ApiError(f"failed to set stable disk path: invalid disk path: {path}")
    disk = _disk_of(status.st_rdev, inventory)
    if disk:
        for kind, name in (("by-id", disk["device_id"]), ("by-path", disk["device_path"])):
            candidate = Path("/dev/disk", kind, name)
            if name and candidate.exists():
                return str(candidate)
    return path


def _disk_of(device: int, inventory: Row) -> Row | None:
    number = f"{os.major(device)}:{os.minor(device)}"
    return next((d for d in inventory["disks"] if d["device"] == number), None)


def mounted(path: Path) -> bool:
    """Whether a file system on the device is mounted on this machine."""
    try:
        device = os.stat(path).st_rdev
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        fields = line.split()
        source = fields[fields.index("-") + 2]
        # btrfs shows a number of its own; its source is a device all the same.
        if fields[2] == number or (source.startswith("/dev/") and _same_device(source, device)):
            return True
    return False


def _same_device(source: str, device: int) -> bool:
    try:
        status = os.stat(source)
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and status.st_rdev == device


def check(path: str, inventory: Row, *, wipe: bool, what: str) -> None:
    """ApiError when the device is mounted, or holds something and is not to be wiped."""
    if mounted(Path(path)):
        raise ApiError(f"device {path} is currently mounted and cannot be used - aborting")
    if wipe:
        return
    disk = _disk_of(os.stat(path).st_rdev, inventory)
    if disk and disk["partitions"]:
        raise ApiError(f"{what} device {path} has partitions - use --wipe to override")
    if not pristine(path):
        raise ApiError(
            f"{what} device {path} is not pristine (contains data) - use --wipe to override"
        )


def pristine(path: str) -> bool:
    """Whether nothing is at the device's start."""
    try:
        with open(path, "rb") as device:
            return not any(device.read(SIGNATURES))
    except OSError as error:
        raise ApiError(f"failed to check if data device {path} is pristine: {error}") from error


def wipe(path: str) -> None:
    """Overwrite the device's start; ApiError when it cannot be written."""
    try:
        with open(path, "r+b", buffering=0) as device:
            size = device.seek(0, os.SEEK_END)
            device.seek(0)
            device.write(bytes(min(WIPE, size)))
            os.fsync(device.fileno())
    except OSError as error:
        raise ApiError(f"failed to wipe device {path}: {error}") from error


def used_by_ceph(path: Path) -> bool:
    """Whether an OSD of this machine has the device as its data, WAL or DB."""
    wanted = path.resolve()
    links = (paths.DATA / "osd").glob("ceph-*/block*")
    return any(link.is_symlink() and link.resolve() == wanted for link in links)


def available(inventory: Row, configured: set[str]) -> list[Row]:
    """The disks that could become OSDs: whole, empty of partitions, at least 2 GiB, unused."""
    found: list[Row] = []
    for disk in inventory["disks"]:
        name = disk["device_id"]
        path = f"/dev/disk/by-id/{name}" if name else f"/dev/{disk['id']}"
        busy = disk["read_only"] or disk["partitions"] or disk["mounted"] or path in configured
        if not busy and disk["size"] >= MIN_SIZE and not used_by_ceph(Path(path)):
            found.append({**disk, "path": path})
    return found
