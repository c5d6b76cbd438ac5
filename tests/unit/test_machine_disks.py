"""Every reason against taking a disk is found, and every name of a disk leads to it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from machine import diskprobe, disks
from machine.disks import Disk, DiskNotFoundError, find, human, inventory, to_json, unfit
from unit.fake_probe import FakeProbe

GIB = 1024**3
WIPE = "; set wipe to use it all the same"


RESOURCES = {
    "storage": {
        "disks": [
            {
                "id": "sdb",
                "device": "8:16",
                "size": 10 * GIB,
                "type": "scsi",
                "model": "QEMU HARDDISK",
                "serial": "osd0",
                "device_id": "scsi-osd0",
                "device_path": "pci-0000:01",
                "partitions": [],
            },
            {
                "id": "sda",
                "device": "8:0",
                "size": 20 * GIB,
                "device_path": "pci-0000:00",
                "partitions": [{"id": "sda1", "mounted": True}, {"id": "sda2"}],
            },
            {"id": "vdc", "size": 4 * GIB, "serial": "same"},
            {"id": "vdd", "size": 4 * GIB, "serial": "same"},
        ]
    }
}
PROBE = FakeProbe(
    link_map={
        "/dev/disk/by-id/scsi-osd0": "sdb",
        "/dev/disk/by-id/wwn-0x1": "sdb",
        "/dev/disk/by-path/pci-0000:01": "sdb",
        "/dev/disk/by-id/virtio-x": "vdc",
    },
    nodes={f"/dev/{name}": name for name in ("sda", "sda1", "sdb", "vdc", "vdd", "loop3")}
    | {"/dev/mapper/../sdb": "sdb"},
    extra={"loop3": {"id": "loop3", "size": 3 * GIB}},
    parts={"sda": ["sda1", "sda3"]},
    use_map={"sda1": ["is mounted on /"], "sda3": ["is held by dm-0 (device mapper vg-root)"]},
    data={"sda": ["a partition table (gpt)"], "vdc": ["a btrfs file system labelled x"]},
)
DISKS = inventory(RESOURCES, PROBE, {"/dev/vdd": "osd.3"})
SDA, SDB, VDC, VDD = DISKS


def test_inventory() -> None:
    assert [disk.id for disk in DISKS] == ["sda", "sdb", "vdc", "vdd"]
    assert [disk.path for disk in DISKS] == [
        "/dev/disk/by-path/pci-0000:00",
        "/dev/disk/by-id/scsi-osd0",
        "/dev/disk/by-id/virtio-x",
        "/dev/vdd",
    ]
    assert SDA.partitions == ("sda1", "sda2", "sda3")
    assert SDB.raw["type"] == "scsi"
    assert inventory(RESOURCES["storage"], PROBE) == (SDA, SDB, VDC, replace(VDD, owner=""))
    assert inventory({}, PROBE) == ()


@pytest.mark.parametrize(
    ("disk", "reasons", "wiped"),
    [
        (SDB, (), ()),
        (VDC, (f"holds a btrfs file system labelled x{WIPE}",), ()),
        (VDD, ("is used by osd.3",), ("is used by osd.3",)),
        (
            SDA,
            (
                "has sda1, which is mounted on /",
                "has sda3, which is held by dm-0 (device mapper vg-root)",
                f"has partitions sda1, sda2, sda3{WIPE}",
            ),
            (
                "has sda1, which is mounted on /",
                "has sda3, which is held by dm-0 (device mapper vg-root)",
            ),
        ),
        (
            replace(SDB, size=GIB, read_only=True),
            ("is read-only", "is 1.0 GiB; an OSD needs at least 2.0 GiB"),
            ("is read-only", "is 1.0 GiB; an OSD needs at least 2.0 GiB"),
        ),
        (replace(SDB, type="cdrom"), ("is a CD-ROM",), ("is a CD-ROM",)),
        (replace(SDB, id="sr0"), ("is a CD-ROM",), ("is a CD-ROM",)),
        (
            replace(SDB, mounted=True),
            ("is mounted, or a partition of it is",),
            ("is mounted, or a partition of it is",),
        ),
        (
            replace(SDB, mounted=True, uses=("is mounted on /srv",)),
            ("is mounted on /srv",),
            ("is mounted on /srv",),
        ),
        (
            replace(SDB, uses=("is swap space in use",), signatures=("swap space",)),
            ("is swap space in use", f"holds swap space{WIPE}"),
            ("is swap space in use",),
        ),
        (
            replace(SDB, signatures=("a partition table (dos)",)),
            (f"holds a partition table (dos){WIPE}",),
            (),
        ),
    ],
)
def test_unfit(disk: Disk, reasons: tuple[str, ...], wiped: tuple[str, ...]) -> None:
    assert unfit(disk) == reasons
    assert unfit(disk, wipe=True) == wiped


def test_minimum_is_the_purpose_s() -> None:
    assert unfit(SDB, minimum=11 * GIB, what="the pool local") == (
        "is 10.0 GiB; the pool local needs at least 11.0 GiB",
    )


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("/dev/sdb", SDB),
        ("sdb", SDB),
        ("osd0", SDB),
        ("/dev/disk/by-id/scsi-osd0", SDB),
        ("/dev/disk/by-id/wwn-0x1", SDB),
        ("/dev/disk/by-path/pci-0000:01", SDB),
        ("/dev/mapper/../sdb", SDB),
        ("/dev/vdc", VDC),
    ],
)
def test_find(text: str, disk: Disk) -> None:
    assert find(text, DISKS, PROBE) is disk


def test_find_what_lxd_does_not_list() -> None:
    loop = find("/dev/loop3", DISKS, PROBE)
    assert (loop.id, loop.path, loop.size) == ("loop3", "/dev/loop3", 3 * GIB)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("/dev/sda1", "/dev/sda1 is a partition of sda; give a whole disk"),
        ("sda2", "sda2 is a partition of sda; give a whole disk"),
        ("same", "'same' is the serial number of vdc, vdd; name one by its path"),
        ("", "nothing is no disk of this machine"),
        ("/dev/sdz", "/dev/sdz is no disk of this machine; there are sda (/dev/disk/by-path/"),
    ],
)
def test_not_found(text: str, fault: str) -> None:
    with pytest.raises(DiskNotFoundError) as caught:
        find(text, DISKS, PROBE)
    assert fault in str(caught.value)


def test_not_found_where_nothing_is() -> None:
    with pytest.raises(DiskNotFoundError, match="it has none that LXD lists"):
        find("sdb", (), FakeProbe())


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2 * GIB, "2.0 GiB"),
        (GIB - 1, "1.0 GiB"),
        (1536 * GIB, "1.5 TiB"),
        (5000 * 1024 * GIB, "5000.0 TiB"),
    ],
)
def test_human(size: int, text: str) -> None:
    assert human(size) == text


def test_json() -> None:
    shown = json.loads(json.dumps(to_json(VDC, unfit(VDC), ())))
    reason = f"holds a btrfs file system labelled x{WIPE}"
    assert shown["ceph"] == {"eligible": False, "reasons": [reason]}
    assert shown["local"] == {"eligible": True, "reasons": []}


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ({"type": "ext4", "label": "root"}, "an ext4 file system labelled root"),
        ({"type": "xfs", "label": None}, "an xfs file system"),
        ({"type": "btrfs"}, "a btrfs file system"),
        ({"type": "gpt"}, "a partition table (gpt)"),
        ({"type": "LVM2_member"}, "an LVM physical volume"),
        ({"type": "zfs_member", "label": "tank"}, "a member of a ZFS pool labelled tank"),
        ({}, "an unknown data file system"),
    ],
)
def test_describe(signature: dict[str, str], text: str) -> None:
    assert diskprobe.describe(signature) == text


def test_bluestore() -> None:
    fsid = b"0b1c2d3e-0000-4000-8000-123456789abc"
    head = b"bluestore block device\n" + fsid + b"\n\2\1" + b"\x09\0\0\0ceph_fsid\x24\0\0\0" + fsid
    head += b"\6\0\0\0whoami\2\0\0\0" + b"12"
    text = f"Ceph BlueStore data of osd.12 in the Ceph cluster {fsid.decode()}"
    assert diskprobe.describe_bluestore(head) == text
    assert diskprobe.describe_bluestore(head[:60]) == "Ceph BlueStore data"
    assert diskprobe.describe_bluestore(b"\0" * 4096) is None


class Machine:
    """A tree of files in the place of /sys, /proc and /dev."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("sys/class/block", "proc/self", "dev/disk/by-id"):
            (root / name).mkdir(parents=True)

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def probe(self, timeout: float = 5) -> diskprobe.HostProbe:
        root = self.root
        return diskprobe.HostProbe(
            timeout=timeout, sys=root / "sys", proc=root / "proc", dev=root / "dev"
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for name, number in (("sdb", "8:16"), ("sdc", "8:32"), ("dm-0", "252:0")):
        made.write(f"sys/class/block/{name}/dev", f"{number}\n")
        made.write(f"sys/class/block/{name}/size", "8388608\n")
        made.write(f"sys/class/block/{name}/ro", "0\n")
    return made


def test_mounts_and_holders_are_read(machine: Machine) -> None:
    machine.write("sys/class/block/sdb/holders/dm-0/dev", "252:0\n")
    machine.write("sys/class/block/dm-0/dm/name", "vg-data\n")
    machine.write(
        "proc/self/mountinfo",
        "30 1 8:32 / /srv/a\\040b rw - ext4 /dev/sdc rw\n"
        "31 1 252:0 / /data rw - ext4 /dev/mapper/vg-data rw\n"
        "32 1 0:5 / /proc rw - proc proc rw\nrubbish\n",
    )
    probe = machine.probe()
    assert list(probe.uses("sdc")) == ["is mounted on /srv/a b"]
    assert list(probe.uses("sdb")) == ["is held by dm-0 (device mapper vg-data, mounted on /data)"]


def test_facts_and_partitions_are_read(machine: Machine) -> None:
    machine.write("sys/class/block/sdb/sdb1/partition", "1\n")
    machine.write("sys/class/block/sdb1/partition", "1\n")
    probe = machine.probe()
    assert list(probe.partitions("sdb")) == ["sdb1"]
    facts = probe.facts("sdb") or {}
    assert (facts["size"], facts["device"], facts["read_only"]) == (4 * GIB, "8:16", False)
    assert probe.facts("sdb1") is None
    assert probe.facts("sdz") is None


def test_what_is_no_block_device_is_none(machine: Machine) -> None:
    machine.write("dev/sdb", "a plain file")
    probe = machine.probe()
    assert probe.resolve(str(machine.root / "dev/sdb")) is None
    assert probe.resolve("/nowhere") is None
    assert probe.resolve("a\0b") is None
    assert not probe.links()


def test_real_file_systems_are_recognised(machine: Machine) -> None:
    """The wipefs of this host reads images as it reads disks."""
    for name in ("sdb", "sdc"):
        with (machine.root / "dev" / name).open("wb") as image:
            image.truncate(16 * 1024**2)
    image = str(machine.root / "dev" / "sdb")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "old", image], check=True)
    probe = machine.probe()
    assert list(probe.signatures("sdb")) == ["an ext4 file system labelled old"]
    assert list(probe.signatures("sdc")) == []
    assert disks.unfit(replace(SDB, signatures=tuple(probe.signatures("sdb"))))


def test_no_answer_is_a_reason(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = machine.probe()
    assert "cannot be told" in probe.signatures("sdz")[0]

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("wipefs", 5)

    monkeypatch.setattr(subprocess, "run", hang)
    assert probe.signatures("sdb") == ("what cannot be told: wipefs did not answer in 5 s",)
