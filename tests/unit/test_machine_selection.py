"""Disks are chosen by lists of filters as MicroCloud chooses them, and none is chosen twice."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.filters import FilterError, parse
from machine.selection import DiskFilter, Kind, parse_list, select

GIB = 1024**3


def disk(name: str, size: int = 10, **more: object) -> dict[str, object]:
    return {"id": name, "size": size * GIB, "type": "scsi", **more}


THREE = {f"m{n}": [disk("sda", 5), disk("sdb", 10), disk("sdc", 20)] for n in (1, 2, 3)}


def by(find: str, low: int = 1, high: int = 0) -> DiskFilter:
    return DiskFilter(parse(find), low, high)


def test_ceph_takes_every_match_and_local_the_first() -> None:
    chosen = select([by("size >= 10GiB", 6, 6)], [by("size > 1GiB", 3)], THREE)
    assert {m: [c.disk["id"] for c in cs] for m, cs in chosen.ceph.items()} == {
        name: ["sdb", "sdc"] for name in THREE
    }
    assert {m: c.disk["id"] for m, c in chosen.local.items()} == dict.fromkeys(THREE, "sda")


def test_the_first_filter_that_finds_one_serves_a_member() -> None:
    mixed = {"m1": [disk("nvme0n1")], "m2": [disk("sda")]}
    chosen = select([], [by("id == nvme.*"), by("size > 1GiB")], mixed)
    assert [c.disk["id"] for c in chosen.local.values()] == ["nvme0n1", "sda"]


@pytest.mark.parametrize(
    ("ceph", "local", "fault"),
    [
        ([by("size > 30GiB")], [], 'Failed to find at least 1 disks for filter "size > 30GiB"'),
        ([by("size > 1GiB", 1, 8)], [], 'Found more than 8 disks for filter "size > 1GiB"'),
        ([by("size > 1GiB", 10)], [], "Failed to find at least 10 disks for filter"),
        ([by("size > 1GiB")], [by("size > 1GiB")], "Failed to find at least 1 disks for filter"),
        ([], [by("size > 1GiB", 4)], "Failed to find at least 4 disks for filter"),
        ([], [by("size > 1GiB", 1, 2)], "Found more than 2 disks for filter"),
    ],
)
def test_counts(ceph: list[DiskFilter], local: list[DiskFilter], fault: str) -> None:
    with pytest.raises(FilterError, match=fault):
        select(ceph, local, THREE)


def test_local_needs_a_disk_on_each_machine() -> None:
    with pytest.raises(FilterError, match=r"at least 1 disk on each machine .* on m2"):
        select([], [by("id == sda")], {"m1": [disk("sda")], "m2": [disk("sdb")]})


def test_partitioned_and_taken_disks_are_no_candidates() -> None:
    disks = {"m1": [disk("sda", partitions=[{"id": "sda1"}]), disk("sdb"), disk("sdc")]}
    chosen = select([by("size > 1GiB")], [], disks, taken=[("m1", "sdb")])
    assert [choice.disk["id"] for choice in chosen.ceph["m1"]] == ["sdc"]


def test_no_filters_choose_nothing() -> None:
    chosen = select([], [], THREE)
    assert not chosen.ceph
    assert not chosen.local


@pytest.mark.parametrize(
    "text",
    [
        '[{"find": "size > 10GiB", "find_min": 3, "find_max": 6, "wipe": true, "encrypt": true}]',
        "- find: size > 10GiB\n  find_min: 3\n  find_max: 6\n  wipe: true\n  encrypt: true\n",
        "[{find: size > 10GiB, find_min: 3, find_max: 6, wipe: true, encrypt: true}]",
        "find: size > 10GiB\nfind_min: 3\nfind_max: 6\nwipe: true\nencrypt: true",
    ],
)
def test_forms_of_a_list(text: str) -> None:
    assert parse_list(text, "ceph") == (DiskFilter(parse("size > 10GiB"), 3, 6, True, True),)


def test_plain_and_short_forms() -> None:
    one = DiskFilter(parse("size > 10GiB"))
    assert parse_list("size > 10GiB", "local") == (one,)
    assert parse_list("['size > 10GiB']", "ceph") == (one,)
    assert parse_list("[{find: size > 10GiB, find_min: 0}]", "local") == (one,)
    assert parse_list("  ", "ceph") == parse_list("[]", "ceph") == ()


@pytest.mark.parametrize(
    ("kind", "text", "fault"),
    [
        ("ceph", "[{find: ''}]", "Received empty remote disk filter"),
        ("local", "[{wipe: true}]", "Received empty local disk filter"),
        (
            "ceph",
            "[{find: size > 1, find_min: 3, find_max: 2}]",
            "Invalid remote storage filter constraints find_max (2) must be larger than "
            "find_min (3)",
        ),
        (
            "local",
            "[{find: size > 1, find_min: 3, find_max: 2}]",
            "Invalid local storage filter constraints find_max (2) larger than find_min (3)",
        ),
        (
            "ceph",
            "[{find: size > 1, find_min: 0}]",
            "Remote storage filter cannot be defined with find_min less than 1",
        ),
        ("ceph", "[{find: size > 1, min: 0}]", 'unknown key "min"'),
        ("ceph", "[{find: size > 1, wipe: 1}]", "wipe is 1 and must be true or false"),
        ("ceph", "[{find: size > 1, find_max: many}]", "find_max is 'many'"),
        ("ceph", "[{find: size > x}]", "Failed to parse value"),
        ("ceph", "[3]", "3 is no map"),
        ("ceph", "[{", "no YAML list"),
        ("ceph", "[!!int '']", "no YAML list"),
    ],
)
def test_faults_of_a_list(kind: Kind, text: str, fault: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_list(text, kind)
    assert fault in str(caught.value)


def test_all_faults_of_a_list_at_once() -> None:
    with pytest.raises(FilterError) as caught:
        parse_list("[{find: ''}, {find: size >}, {find: a == b, find_min: 0}]", "ceph")
    assert len(caught.value.findings) == 4


@given(st.text(alphabet="[]{}-:,'\"!&*| \nfindsze>10", max_size=40))
def test_any_list_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(FilterError):
        assert all(found.find_min >= 1 for found in parse_list(text, "ceph"))


FINDS = st.sampled_from(["size > 1GiB", "size > 9GiB", "id == sda", "id != sdc", "type == x"])
LISTS = st.lists(st.builds(lambda find: DiskFilter(parse(find), 0), FINDS), max_size=3)


@given(LISTS, LISTS, st.lists(st.sampled_from(["sda", "sdb", "sdc", "sdd"]), unique=True))
def test_no_disk_is_chosen_twice(
    ceph: list[DiskFilter], local: list[DiskFilter], names: list[str]
) -> None:
    disks = {"m1": [disk(name, 8 + number) for number, name in enumerate(names)]}
    chosen = select(ceph, local, disks)
    ids = [choice.disk["id"] for choice in chosen.ceph.get("m1", ())]
    ids += [choice.disk["id"] for choice in chosen.local.values()]
    assert len(ids) == len(set(ids))
