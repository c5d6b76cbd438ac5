"""Disks are found by lists of filters as MicroCloud finds them, and none is found twice."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.disks import Disk
from machine.filters import FilterError, parse
from machine.selection import DiskFilter, Kind, matching, miscounts, parse_list

GIB = 1024**3


def disk(name: str, size: int = 10) -> Disk:
    raw = {"id": name, "size": size * GIB, "type": "scsi"}
    return Disk(id=name, path=f"/dev/{name}", device="", size=size * GIB, raw=raw)


THREE = [disk("sda", 5), disk("sdb", 10), disk("sdc", 20)]


def by(find: str, low: int = 1, high: int = 0) -> DiskFilter:
    return DiskFilter(parse(find), low, high)


def ids(found: tuple[tuple[Disk, ...], ...]) -> list[list[str]]:
    return [[disk.id for disk in disks] for disks in found]


def test_a_filter_finds_every_match_that_no_earlier_one_has() -> None:
    filters = [by("size == 10GiB"), by("size > 1GiB"), by("size > 10GiB")]
    assert ids(matching(filters, THREE)) == [["sdb"], ["sda", "sdc"], []]


def test_disks_with_partitions_are_no_candidates() -> None:
    disks = [replace(THREE[0], partitions=("sda1",)), *THREE[1:]]
    assert ids(matching([by("size > 1GiB")], disks)) == [["sdb", "sdc"]]


def test_no_filters_find_nothing() -> None:
    assert matching([], THREE) == ()
    assert miscounts([], [(), ()]) == ()


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        (by("size > 30GiB"), 'Failed to find at least 1 disks for filter "size > 30GiB"'),
        (by("size > 1GiB", 1, 8), 'Found more than 8 disks for filter "size > 1GiB"'),
        (by("size > 1GiB", 10), 'Failed to find at least 10 disks for filter "size > 1GiB"'),
        (by("size > 1GiB", 9, 9), ""),
        (by("size > 15GiB", 3, 3), ""),
    ],
)
def test_counts_are_over_all_machines(wanted: DiskFilter, fault: str) -> None:
    found = [len(disks) for disks in matching([wanted], THREE)]
    assert miscounts([wanted], [found] * 3) == (((fault,) if fault else ()),)


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


PRESEED = """
- find: size > 10GiB && size < 50GiB && type == nvme
  find_min: 1
  find_max: 2
- find: size > 10GiB && size < 50GiB && type == hdd && block_size == 512 && model == 'Samsung %'
  find_min: 3
  find_max: 8
  wipe: false
  encrypt: true
"""


def test_a_list_as_a_preseed_has_it() -> None:
    first, second = parse_list(PRESEED, "ceph")
    assert (first.find_min, first.find_max, first.wipe, first.encrypt) == (1, 2, False, False)
    assert (second.find_min, second.find_max, second.wipe, second.encrypt) == (3, 8, False, True)
    nvme = {"size": 20 * GIB, "type": "nvme"}
    assert first.filter.matches(nvme)
    assert not first.filter.matches({**nvme, "size": 50 * GIB})
    disk = {"size": 20 * GIB, "type": "hdd", "block_size": 512, "model": "Samsung %"}
    assert second.filter.matches(disk)
    assert not second.filter.matches({**disk, "model": "Samsung 870"})


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


@given(LISTS, st.lists(st.sampled_from(["sda", "sdb", "sdc", "sdd"]), unique=True))
def test_no_disk_is_found_twice(filters: list[DiskFilter], names: list[str]) -> None:
    disks = [disk(name, 8 + number) for number, name in enumerate(names)]
    found = [name for names in ids(matching(filters, disks)) for name in names]
    assert len(found) == len(set(found))
    assert set(found) <= set(names)
