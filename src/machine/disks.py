"""The disks of one machine: what they are, what is on them, and whether they may be taken.

LXD lists disks; what it does not tell (data without a partition, LVM, MD, swap, an old OSD) is
asked from the machine through a Probe. Looking at a disk never writes to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

MIN_OSD_SIZE = 2 * 1024**3


class Probe(Protocol):
    """What is asked from the machine. Names are the kernel's, such as `sdb` or `sdb1`."""

    def links(self) -> Mapping[str, str]:
        """Stable links, such as `/dev/disk/by-id/x`, with the name each leads to."""
        ...

    def resolve(self, path: str) -> str | None:
        """The name of the block device at a path, None if there is none."""
        ...

    def facts(self, name: str) -> Mapping[str, object] | None:
        """A device that LXD does not list, described as LXD would; None if there is none."""
        ...

    def partitions(self, name: str) -> Sequence[str]:
        """The partitions of a disk that the kernel knows."""
        ...

    def uses(self, name: str) -> Sequence[str]:
        """What the disk or partition serves right now: `is mounted on /srv`."""
        ...

    def signatures(self, name: str) -> Sequence[str]:
        """What data the device holds: `an ext4 file system`."""
        ...


class DiskNotFoundError(ValueError):
    """A path or name does not lead to one whole disk; `str()` of it is a sentence."""


@dataclass(frozen=True)
class Disk:
    """One whole disk of this machine; `size` is in bytes.

    `path` is the most stable one it has. `uses` says what the disk or its partitions serve
    right now, which no wipe may end; `signatures` what data is on it. `owner` is what LXD or
    the cloud has it for.
    """

    id: str
    path: str
    device: str
    size: int
    model: str = ""
    serial: str = ""
    type: str = ""
    removable: bool = False
    read_only: bool = False
    mounted: bool = False
    partitions: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    owner: str = ""
    links: tuple[str, ...] = ()
    raw: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)


def inventory(
    resources: Mapping[str, object], probe: Probe, owners: Mapping[str, str] | None = None
) -> tuple[Disk, ...]:
    """All disks that LXD lists, with what the machine tells about them.

    `resources` is the metadata of LXD's `GET /1.0/resources`, or its `storage`. `owners` says
    what paths are used for that only their daemon knows: `{"/dev/disk/by-id/x": "osd.3"}`.
    """
    storage = cast("Mapping[str, object]", resources.get("storage", resources))
    listed = cast("Sequence[Mapping[str, object]]", storage.get("disks") or ())
    links = probe.links()
    disks = [_disk(raw, probe, links) for raw in listed]
    by_name = {probe.resolve(path): owner for path, owner in (owners or {}).items()}
    return tuple(
        replace(disk, owner=by_name.get(disk.id) or disk.owner) if by_name else disk
        for disk in sorted(disks, key=lambda disk: disk.id)
    )


def _disk(raw: Mapping[str, object], probe: Probe, links: Mapping[str, str]) -> Disk:
    name = str(raw.get("id", ""))
    listed = cast("Sequence[Mapping[str, object]]", raw.get("partitions") or ())
    partitions = sorted({str(part.get("id", "")) for part in listed} | set(probe.partitions(name)))
    uses = [*probe.uses(name)]
    uses += [f"has {part}, which {use}" for part in partitions for use in probe.uses(part)]
    mounted = bool(raw.get("mounted")) or any(part.get("mounted") for part in listed)
    return Disk(
        id=name,
        path=_stable_path(raw, links),
        device=str(raw.get("device") or ""),
        size=int(str(raw.get("size") or 0)),
        model=str(raw.get("model") or ""),
        serial=str(raw.get("serial") or ""),
        type=str(raw.get("type") or ""),
        removable=bool(raw.get("removable")),
        read_only=bool(raw.get("read_only")),
        mounted=mounted,
        partitions=tuple(partitions),
        uses=tuple(uses),
        signatures=tuple(probe.signatures(name)),
        owner=str(raw.get("used_by") or ""),
        links=tuple(sorted(link for link, target in links.items() if target == name)),
        raw=raw,
    )


def _stable_path(raw: Mapping[str, object], links: Mapping[str, str]) -> str:
    """The path that MicroCloud would use, or one that leads there if LXD knows none."""
    name = str(raw.get("id", ""))
    for folder, key in (("by-id", "device_id"), ("by-path", "device_path")):
        if raw.get(key):
            return f"/dev/disk/{folder}/{raw[key]}"
    for folder in ("by-id", "by-path"):
        for link in sorted(links):
            if links[link] == name and link.startswith(f"/dev/disk/{folder}/"):
                return link
    return f"/dev/{name}"


def find(text: str, disks: Iterable[Disk], probe: Probe) -> Disk:
    """The disk that a path, kernel name or serial number means.

    Any path that leads to a whole disk will do, also the location of a Juju storage; a device
    that LXD does not list (a loop device, say) is described from what the machine tells.

    Raises:
        DiskNotFoundError: there is none, or it is not one whole disk.
    """
    disks = tuple(disks)
    name = probe.resolve(text) if text.startswith("/") else None
    same = [disk for disk in disks if text in (disk.id, disk.path) or text in disk.links]
    same += [disk for disk in disks if name is not None and disk.id == name]
    same = same or [disk for disk in disks if text and disk.serial == text]
    if len({disk.id for disk in same}) == 1:
        return same[0]
    if same:
        ids = ", ".join(disk.id for disk in same)
        raise DiskNotFoundError(f"{text!r} is the serial number of {ids}; name one by its path")
    for disk in disks:
        if name in disk.partitions or text in disk.partitions:
            raise DiskNotFoundError(f"{text} is a partition of {disk.id}; give a whole disk")
    facts = probe.facts(name) if name else None
    if facts:
        return _disk(facts, probe, probe.links())
    raise DiskNotFoundError(f"{text or 'nothing'} is no disk of this machine; {_listing(disks)}")


def _listing(disks: Sequence[Disk]) -> str:
    if not disks:
        return "it has none that LXD lists"
    listed = (f"{disk.id} ({disk.path}, {human(disk.size)})" for disk in disks)
    return f"there are {', '.join(listed)}"


def unfit(
    disk: Disk,
    *,
    minimum: int = MIN_OSD_SIZE,
    what: str = "an OSD",
    wipe: bool = False,
    option: str = "wipe",
) -> tuple[str, ...]:
    """Every reason why a disk may not be taken; none if it may.

    Each reads on from the disk's name: `is read-only`. `minimum` is in bytes, for `what`. With
    `wipe`, data is no reason; what is in use, read-only or owned stays one. `option` is what the
    user would have to set for that.
    """
    reasons = [*_unusable(disk, minimum, what)]
    if disk.owner:
        return (*reasons, f"is used by {disk.owner}")
    reasons += disk.uses
    if disk.mounted and not any("mounted" in use for use in disk.uses):
        reasons.append("is mounted, or a partition of it is")
    if wipe:
        return tuple(reasons)
    remedy = f"set {option} to use it all the same"
    if disk.partitions:
        reasons.append(f"has partitions {', '.join(disk.partitions)}; {remedy}")
    # A partition table is no news where partitions have been named.
    kept = [s for s in disk.signatures if not (disk.partitions and "partition table" in s)]
    reasons += [f"holds {signature}; {remedy}" for signature in kept]
    return tuple(reasons)


def _unusable(disk: Disk, minimum: int, what: str) -> Iterable[str]:
    if disk.type == "cdrom" or disk.id.startswith("sr"):
        yield "is a CD-ROM"
        return
    if disk.read_only:
        yield "is read-only"
    if disk.size < minimum:
        yield f"is {human(disk.size)}; {what} needs at least {human(minimum)}"


def human(size: int) -> str:
    """A number of bytes for a person: `10.0 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        # 1023.96 MiB would read "1024.0 MiB".
        if value < 1023.95:
            return f"{int(value)} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def to_json(disk: Disk, ceph: Sequence[str], local: Sequence[str]) -> dict[str, object]:
    """A disk as the action `list-disks` shows it, with the reasons against each use of it."""
    return {
        "id": disk.id,
        "path": disk.path,
        "size": disk.size,
        "human-size": human(disk.size),
        "type": disk.type,
        "model": disk.model,
        "serial": disk.serial,
        "removable": disk.removable,
        "partitions": list(disk.partitions),
        "holds": list(disk.signatures),
        "used-by": disk.owner or None,
        "ceph": {"eligible": not ceph, "reasons": list(ceph)},
        "local": {"eligible": not local, "reasons": list(local)},
    }
