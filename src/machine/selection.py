"""The choice of disks by lists of filters, as a MicroCloud preseed has them.

How many disks a filter must and may find is counted as MicroCloud counts, over all machines.
One thing differs on purpose: a disk that one filter has found is never given to another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from machine.filters import Filter, FilterError, parse, quote

if TYPE_CHECKING:
    from machine.disks import Disk

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


def parse_list(
    text: str, kind: Kind, *, wipe: bool = False, encrypt: bool = False
) -> tuple[DiskFilter, ...]:
    """Read a list of filters: YAML or JSON as in a MicroCloud preseed, or one plain filter.

    `wipe` and `encrypt` are for the plain one, which cannot say it itself.

    Raises:
        FilterError: something is wrong in one or more of them; every finding is in it.
    """
    text = text.strip()
    if not text:
        return ()
    if not re.match(r"[\[{]|- |-\n|find\s*:", text):
        return (DiskFilter(parse(text), wipe=wipe, encrypt=encrypt),)
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


def matching(filters: Sequence[DiskFilter], disks: Iterable[Disk]) -> tuple[tuple[Disk, ...], ...]:
    """What each filter finds among the disks of one machine.

    Disks with partitions are no candidates, and what one filter has found no later one finds.
    """
    rest = [disk for disk in disks if not disk.partitions]
    found: list[tuple[Disk, ...]] = []
    for wanted in filters:
        found.append(tuple(disk for disk in rest if wanted.filter.matches(disk.raw)))
        rest = [disk for disk in rest if disk not in found[-1]]
    return tuple(found)


def miscounts(
    filters: Sequence[DiskFilter], counts: Iterable[Sequence[int]]
) -> tuple[tuple[str, ...], ...]:
    """For each filter what is wrong with how many disks it finds; `counts` are by machine."""
    totals = [sum(column) for column in zip(*counts, strict=True)]
    return tuple(_miscount(wanted, total) for wanted, total in zip(filters, totals, strict=True))


def _miscount(wanted: DiskFilter, count: int) -> tuple[str, ...]:
    text = quote(wanted.filter.text)
    if count < wanted.find_min:
        return (f"Failed to find at least {wanted.find_min} disks for filter {text}",)
    if 0 < wanted.find_max < count:
        return (f"Found more than {wanted.find_max} disks for filter {text}",)
    return ()
