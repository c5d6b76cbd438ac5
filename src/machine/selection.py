"""The choice of disks by lists of filters, for Ceph and for the pool `local`.

How many disks a list must and may find is counted as MicroCloud counts. One thing differs on
purpose: a disk that one filter has taken is never given to another, so that Ceph and `local`
cannot meet on one disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, cast

from machine.filters import Filter, FilterError, Raw, parse, quote

Kind = Literal["ceph", "local"]


@dataclass(frozen=True)
class DiskFilter:
    """A filter with how many disks it must and may find, and what to do with them.

    `find_max` 0 is no limit.
    """

    filter: Filter
    find_min: int = 1
    find_max: int = 0
    wipe: bool = False
    encrypt: bool = False


_CALLED = {"ceph": "remote", "local": "local"}
_KEYS = ("find", "find_min", "find_max", "wipe", "encrypt")


def parse_list(text: str, kind: Kind) -> tuple[DiskFilter, ...]:
    """Read a list of filters: YAML or JSON as in a MicroCloud preseed, or one plain filter.

    Raises:
        FilterError: something is wrong in one or more of them; every finding is in it.
    """
    text = text.strip()
    if not text:
        return ()
    if not re.match(r"[\[{]|- |-\n|find\s*:", text):
        return (DiskFilter(parse(text)),)
    entries = _load(text, kind)
    faults: list[str] = []
    filters = [_disk_filter(entry, kind, faults) for entry in entries]
    if faults:
        raise FilterError(*faults)
    return tuple(found for found in filters if found)


def _load(text: str, kind: Kind) -> list[object]:
    import yaml  # Only read when a filter is given in this form.

    try:
        data: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as fault:
        # The latter four are what a tagged value that is not of its type makes PyYAML raise.
        line = " ".join(str(fault).split())
        raise FilterError(f"{kind} disk filters are no YAML list: {line}") from None
    if isinstance(data, dict):
        return [data]
    if not isinstance(data, list):
        raise FilterError(f"{kind} disk filters must be a list such as [{{find: size > 10GiB}}]")
    return cast("list[object]", data)


def _disk_filter(entry: object, kind: Kind, faults: list[str]) -> DiskFilter | None:
    called = _CALLED[kind]
    if isinstance(entry, str):
        entry = {"find": entry}
    if not isinstance(entry, dict):
        faults.append(f"{kind} disk filter {entry!r} is no map with the key find")
        return None
    given = {str(key): value for key, value in cast("dict[object, object]", entry).items()}
    before = len(faults)
    faults += [
        f"{kind} disk filter has the unknown key {quote(key)}; keys are {', '.join(_KEYS)}"
        for key in given
        if key not in _KEYS
    ]
    find = given.get("find")
    parsed = None
    if not isinstance(find, str) or not find.strip():
        faults.append(f"Received empty {called} disk filter")
    else:
        try:
            parsed = parse(find)
        except FilterError as fault:
            faults += fault.findings
    find_min, find_max = _bounds(given, kind, faults)
    wipe, encrypt = (_flag(given, key, kind, faults) for key in ("wipe", "encrypt"))
    if parsed is None or len(faults) > before:
        return None
    return DiskFilter(parsed, find_min, find_max, wipe, encrypt)


def _bounds(given: Mapping[str, object], kind: Kind, faults: list[str]) -> tuple[int, int]:
    low, high = (_count(given, key, kind, faults) for key in ("find_min", "find_max"))
    if low is None:
        low = 1
    if kind == "ceph" and low < 1:
        faults.append("Remote storage filter cannot be defined with find_min less than 1")
    if kind == "local":
        low = max(low, 1)
    high = high or 0
    if 0 < high < low:
        must_be = "must be larger" if kind == "ceph" else "larger"
        faults.append(
            f"Invalid {_CALLED[kind]} storage filter constraints "
            f"find_max ({high}) {must_be} than find_min ({low})"
        )
    return low, high


def _count(given: Mapping[str, object], key: str, kind: Kind, faults: list[str]) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        faults.append(f"{kind} disk filter: {key} is {value!r} and must be a number from 0")
        return None
    return value


def _flag(given: Mapping[str, object], key: str, kind: Kind, faults: list[str]) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        faults.append(f"{kind} disk filter: {key} is {value!r} and must be true or false")
    return value is True


D = TypeVar("D")


@dataclass(frozen=True)
class Choice(Generic[D]):
    """A disk that a filter has chosen."""

    disk: D
    by: DiskFilter


@dataclass(frozen=True)
class Selection(Generic[D]):
    """The disks chosen for each purpose, by member."""

    ceph: Mapping[str, tuple[Choice[D], ...]]
    local: Mapping[str, Choice[D]]


def raw_of(disk: object) -> Raw:
    """LXD's description of a disk: the mapping itself, or the attribute `raw` of a Disk."""
    return cast("Raw", disk if isinstance(disk, Mapping) else getattr(disk, "raw"))  # noqa: B009


def select(
    ceph: Sequence[DiskFilter],
    local: Sequence[DiskFilter],
    disks_by_member: Mapping[str, Sequence[D]],
    taken: Iterable[tuple[str, str]] = (),
) -> Selection[D]:
    """Choose disks on all members, for Ceph first, as MicroCloud does.

    Ceph takes every match, and `find_min`/`find_max` count over all members. The local pool
    takes the first match of each member. Disks with partitions are not candidates. No disk is
    chosen twice; `taken` (member, id of the disk) are not candidates either.

    Raises:
        FilterError: a filter found too few or too many disks, or a member has none for local.
    """
    used = set(taken)
    faults: list[str] = []
    chosen_ceph = _select_ceph(ceph, disks_by_member, used, faults)
    chosen_local = _select_local(local, disks_by_member, used, faults)
    if faults:
        raise FilterError(*faults)
    return Selection(chosen_ceph, chosen_local)


def _candidates(
    wanted: DiskFilter, member: str, disks: Iterable[D], used: set[tuple[str, str]]
) -> Iterable[tuple[str, D]]:
    for disk in disks:
        raw = raw_of(disk)
        identity = str(raw.get("id", ""))
        if raw.get("partitions") or (member, identity) in used:
            continue
        if wanted.filter.matches(raw):
            yield identity, disk


def _select_ceph(
    filters: Sequence[DiskFilter],
    disks_by_member: Mapping[str, Sequence[D]],
    used: set[tuple[str, str]],
    faults: list[str],
) -> dict[str, tuple[Choice[D], ...]]:
    chosen: dict[str, tuple[Choice[D], ...]] = {}
    for wanted in filters:
        count = 0
        for member, disks in disks_by_member.items():
            found = tuple(_candidates(wanted, member, disks, used))
            used |= {(member, identity) for identity, _ in found}
            count += len(found)
            if found:
                choices = tuple(Choice(disk, wanted) for _, disk in found)
                chosen[member] = chosen.get(member, ()) + choices
        faults += _miscounts(wanted, count)
    return chosen


def _select_local(
    filters: Sequence[DiskFilter],
    disks_by_member: Mapping[str, Sequence[D]],
    used: set[tuple[str, str]],
    faults: list[str],
) -> dict[str, Choice[D]]:
    chosen: dict[str, Choice[D]] = {}
    counts = [0] * len(filters)
    for member, disks in disks_by_member.items():
        for number, wanted in enumerate(filters):
            found = next(iter(_candidates(wanted, member, disks, used)), None)
            if found:
                used.add((member, found[0]))
                chosen[member] = Choice(found[1], wanted)
                counts[number] += 1
                break
    for wanted, count in zip(filters, counts, strict=True):
        faults += _miscounts(wanted, count)
    missing = [member for member in disks_by_member if member not in chosen]
    if chosen and missing:
        faults.append(
            "Failed to find at least 1 disk on each machine for local storage pool "
            f"configuration; none matches on {', '.join(missing)}"
        )
    return chosen


def _miscounts(wanted: DiskFilter, count: int) -> list[str]:
    text = quote(wanted.filter.text)
    if count < wanted.find_min:
        return [f"Failed to find at least {wanted.find_min} disks for filter {text}"]
    if 0 < wanted.find_max < count:
        return [f"Found more than {wanted.find_max} disks for filter {text}"]
    return []
