"""Which disks become OSDs: each wish against a machine, and a sentence for each bad disk."""

from __future__ import annotations

from typing import Any

import pytest

from machine import osds
from machine.filters import parse
from machine.osds import Choice, Survey, Wish, choose
from machine.selection import DiskFilter
from unit.fake_probe import FakeProbe

ID = "/dev/disk/by-id/scsi-"
SET = "; set ceph-wipe=true to use it all the same"


def machine() -> Survey:
    """Eight disks, of which `sdb` and `sdc` are fit."""
    probe = FakeProbe(
        use_map={"sdd": ["is mounted on /srv"], "sdg": ["is in use: something has opened it"]},
        parts={"sde": ["sde1"]},
        data={"sdd": ["an ext4 file system"], "sdh": ["an xfs file system"]},
    )
    disks: list[dict[str, Any]] = [
        probe.disk("sda", 8),
        probe.disk("sdb", 10),
        probe.disk("sdc", 20),
        probe.disk("sdd", 30),
        probe.disk("sde", 30, partitions=[{"id": "sde1"}]),
        probe.disk("sdf", 1),
        probe.disk("sdg", 30),
        probe.disk("sdh", 40),
        probe.disk("sdi", 50),
    ]
    probe.nodes["/dev/loop7"] = "loop7"
    probe.extra["loop7"] = {"id": "loop7", "size": 4 << 30}
    owners = {ID + "sda": "the storage pool local", ID + "sdi": "osd.4", "/dev/loop7": "osd.9"}
    return osds.survey({"disks": disks}, probe, owners)


def wish(*paths: str, **more: Any) -> Wish:
    return Wish("ceph-storage", "ceph-wipe=true", paths, **more)


def find(text: str, **more: Any) -> Wish:
    return wish(filters=(DiskFilter(parse(text), **more),))


def chosen(wanted: Wish, *unencryptable: str) -> Choice:
    return choose(wanted, machine(), lambda: unencryptable)


def names(choice: Choice) -> list[str]:
    return [take.path.removeprefix(ID) for take in choice.takes]


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (wish(), []),
        (wish(ID + "sdb", "/dev/sdc"), ["sdb", "sdc"]),
        (wish(ID + "sdb", ID + "sdi"), ["sdb"]),  # the other is an OSD already
        (wish("/dev/loop7"), []),  # so is this one, which LXD does not list
        (wish(ID + "sdh", wipe=True), ["sdh"]),
        (wish(ID + "sdb", ID + "sdc", attached=("sdc",)), ["sdb"]),
        (wish(ID + "sdb", ID + "sdc", released=("sdb",)), ["sdc"]),
        (find("size == 10GiB || size == 20GiB"), ["sdb", "sdc"]),
        (find("size == 20GiB || size == 8GiB"), ["sdc"]),  # not the pool local's
        (find("size == 40GiB", wipe=True), ["sdh"]),
        (find("size >= 50GiB"), []),  # an OSD already
        (find("size == 30GiB && id == sde"), []),  # partitioned: no candidate
    ],
)
def test_taken(wanted: Wish, taken: list[str]) -> None:
    choice = chosen(wanted)
    assert choice.findings == ()
    assert names(choice) == taken


@pytest.mark.parametrize(
    ("path", "reasons"),
    [
        ("sda", ["is used by the storage pool local"]),
        ("sdd", ["is mounted on /srv", f"holds an ext4 file system{SET}"]),
        ("sde", [f"has partitions sde1{SET}"]),
        ("sdf", ["is 1.0 GiB; an OSD needs at least 2.0 GiB"]),
        ("sdg", ["is in use: something has opened it"]),
        ("sdh", [f"holds an xfs file system{SET}"]),
    ],
)
def test_bad_disks_have_their_sentences_and_nothing_is_taken(path: str, reasons: list[str]):
    choice = chosen(wish(ID + "sdb", ID + path))
    assert choice.findings == tuple(f"ceph-storage: {ID}{path} {reason}" for reason in reasons)
    assert choice.takes == ()


@pytest.mark.parametrize("path", ["sda", "sdd", "sdf", "sdg"])
def test_wiping_allows_for_data_only(path: str) -> None:
    assert chosen(wish(ID + path, wipe=True)).findings


def test_all_findings_at_once() -> None:
    bad = (ID + "sdd", "/dev/nothing", ID + "sdb", "/dev/sdb", ID + "sdf", "/dev/sde1")
    choice = chosen(wish(*bad))
    assert len(choice.findings) == 6
    text = " | ".join(choice.findings)
    assert "/dev/nothing is no disk of this machine; there are sda (" in text
    assert f"ceph-storage: {ID}sdb and /dev/sdb are the same disk" in text
    assert choice.takes == ()


def test_a_filter_that_finds_a_disk_with_data_says_so() -> None:
    choice = chosen(find("size == 20GiB || size == 40GiB"))
    assert choice.findings == (f"ceph-storage: {ID}sdh holds an xfs file system{SET}",)
    assert choice.takes == ()


def test_what_a_filter_finds_is_counted_whoever_has_it_now() -> None:
    assert chosen(find("size == 10GiB || size == 50GiB")).matches == (2,)


@pytest.mark.parametrize(
    "wanted", [wish(ID + "sdb", encrypt=True), find("id == sdb", encrypt=True)]
)
def test_encryption_is_asked_for_before_any_disk_is_taken(wanted: Wish) -> None:
    assert [take.encrypt for take in chosen(wanted).takes] == [True]
    choice = chosen(wanted, "no device mapper")
    assert choice == Choice((), ("ceph-storage: no device mapper",), choice.matches)
