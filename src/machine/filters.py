"""MicroCloud's disk filter language, and the choice of disks by such filters.

A filter is a line such as `size > 10GiB && type == nvme`. What a filter means is what
MicroCloud (that is, LXD's filter engine) makes of it, oddities included, so that filters which
users know work the same here: no parentheses, no precedence, strings as regular expressions.
Two things differ on purpose. Faults are found when a filter is read, not when it first meets a
disk; and a disk that one filter has taken is never given to another.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, cast

Raw = Mapping[str, object]
Kind = Literal["ceph", "local"]

_TEXT_FIELDS = (
    *("id", "device", "device_id", "device_path", "device_fs_uuid", "wwn", "serial"),
    *("model", "type", "firmware_version", "pci_address", "usb_address", "used_by"),
)
_FIELDS: dict[str, type] = {
    **dict.fromkeys(_TEXT_FIELDS, str),
    **dict.fromkeys(("read_only", "mounted", "removable"), bool),
    **dict.fromkeys(("size", "numa_node", "block_size", "rpm"), int),
}
FIELDS = tuple(sorted(_FIELDS))

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}
_TRUTH = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_UNITS = {"": 1, "B": 1, "bytes": 1}
_UNITS |= {f"{p}B": 1000 ** (n + 1) for n, p in enumerate("kMGTPE")}
_UNITS |= {f"{p}iB": 1024 ** (n + 1) for n, p in enumerate("KMGTPE")}
_LARGEST = 2**64 - 1

# MicroCloud's regular expressions are Go's. What Go refuses and Python takes must be a literal
# here as it is there; what Go takes and Python does not know is spelled out.
_NOT_GO = re.compile(r"\\[1-9]|\(\?[=!<>#(]|\(\?P[=>]|[*+?}]\+")
_CLASSES = {
    "[:alpha:]": "a-zA-Z",
    "[:digit:]": "0-9",
    "[:alnum:]": "a-zA-Z0-9",
    "[:upper:]": "A-Z",
    "[:lower:]": "a-z",
    "[:xdigit:]": "0-9A-Fa-f",
    "[:space:]": r"\s",
    "[:word:]": r"\w",
}


class FilterError(ValueError):
    """A filter is wrong, or a choice by filters cannot be made.

    `findings` has a sentence for each fault; `str()` of it is all of them.
    """

    def __init__(self, *findings: str) -> None:
        self.findings = findings
        super().__init__("; ".join(findings))


def quote(text: str) -> str:
    """The text in double quotes, as MicroCloud's messages have it."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class Clause:
    """One comparison; `joint` says how it is joined to all that stands left of it."""

    joint: Literal["&&", "||"]
    negated: bool
    field: str
    operator: str
    value: str

    def holds(self, disk: Raw) -> bool:
        """Whether the comparison is true of a disk; a field that it lacks is empty."""
        kind = _FIELDS[self.field]
        actual = disk.get(self.field)
        if kind is str:
            equal = self._same_text(str(actual or ""))
            result = equal if self.operator == "==" else not equal
        else:
            result = _COMPARE[self.operator](kind(actual or 0), self._number)
        return result is not self.negated

    @cached_property
    def _number(self) -> int | bool:
        if _FIELDS[self.field] is bool:
            return _truth(self.value)
        return _size(self.value) if self.field == "size" else _unsigned(self.value)

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return _regexp(self.value)

    def _same_text(self, actual: str) -> bool:
        if self._pattern is None:
            return actual.casefold() == self.value.casefold()
        return self._pattern.search(actual) is not None

    def check(self) -> str | None:
        """What is wrong with the clause by itself, None if nothing is."""
        kind = _FIELDS.get(self.field)
        if kind is None:
            return (
                f'Invalid type "invalid" for field {quote(self.field)}; '
                f"a disk has the fields {', '.join(FIELDS)}"
            )
        if self.operator not in _COMPARE:
            return (
                f"Unsupported operation {quote(self.operator)} for field {quote(self.field)}; "
                f"operators are {' '.join(_COMPARE)}, and words stand between spaces"
            )
        if kind is not int and self.operator not in ("==", "!="):
            return (
                f"Invalid operator {quote(self.operator)} for field {quote(self.field)}; "
                "only == and != compare it"
            )
        if kind is str:
            return None
        try:
            _ = self._number
        except ValueError as fault:
            return f"Failed to parse value of field {quote(self.field)}: {fault}"
        return None


@dataclass(frozen=True)
class Filter:
    """A filter that has been read and is valid."""

    text: str
    clauses: tuple[Clause, ...]

    def matches(self, disk: Raw) -> bool:
        """Whether it matches a disk, given as LXD's `GET /1.0/resources` describes one."""
        result = True
        for clause in self.clauses:
            holds = clause.holds(disk)
            result = result and holds if clause.joint == "&&" else result or holds
        return result


def parse(text: str) -> Filter:
    """Read a filter.

    Raises:
        FilterError: it is none; the sentence names the filter and the fault.
    """
    try:
        clauses = _clauses(text.split())
    except _GrammarError as fault:
        raise FilterError(f"disk filter {quote(text)}: {fault}") from None
    faults = [fault for clause in clauses if (fault := clause.check())]
    if not clauses:
        faults = ["is empty; `size > 10GiB` would be one"]
    if faults:
        raise FilterError(*(f"disk filter {quote(text)}: {fault}" for fault in faults))
    return Filter(text, clauses)


class _GrammarError(Exception):
    """A fault of grammar, in MicroCloud's words."""


class _Words:
    """The words of a filter, taken from the left."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._words)

    def take(self, otherwise: str) -> str:
        if not self:
            raise _GrammarError(otherwise)
        self._next += 1
        return self._words[self._next - 1]


def _clauses(words: Sequence[str]) -> tuple[Clause, ...]:
    rest = _Words(words)
    clauses: list[Clause] = []
    joint: Literal["&&", "||"] = "&&"
    while rest:
        field = rest.take("")
        negated = field == "!"
        if negated:
            field = rest.take("incomplete not clause")
        operator = rest.take("clause has no operator")
        value = _value(rest)
        clauses.append(Clause(joint, negated, field, operator, value))
        if rest:
            word = rest.take("")
            if word not in ("&&", "||"):
                raise _GrammarError(
                    f"invalid clause composition: {quote(word)} stands where && or || must"
                )
            joint = cast('Literal["&&", "||"]', word)
            if not rest:
                raise _GrammarError("unterminated compound clause")
    return tuple(clauses)


def _value(rest: _Words) -> str:
    """The value of a clause. A quoted one goes on to a later word that ends in the quote.

    The word that opens the quote is not looked at for its end: a quoted single word is an
    unterminated quote, in MicroCloud as well.
    """
    value = rest.take("clause has no value")
    for mark in ('"', "'"):
        if not value.startswith(mark):
            continue
        words = [value[1:]]
        while True:
            word = rest.take("unterminated quote: quote only a value that has a space in it")
            if word.endswith(mark):
                break
            words.append(word)
        value = " ".join((*words, word[:-1]))
    return value


def _truth(value: str) -> bool:
    if value not in _TRUTH:
        raise ValueError(f"{quote(value)} is neither true nor false")
    return _TRUTH[value]


def _unsigned(value: str) -> int:
    # More digits than any 64 bit number has are not even tried: Python refuses very long ones.
    if not re.fullmatch("[0-9]{1,40}", value) or int(value) > _LARGEST:
        raise ValueError(f"{quote(value)} is not a whole number from 0 to {_LARGEST}")
    return int(value)


def _size(value: str) -> int:
    parts = re.fullmatch("([0-9]{1,40})([A-Za-z]*)", value)
    if parts is None or parts[2] not in _UNITS:
        units = " ".join(unit for unit in _UNITS if unit not in ("", "bytes"))
        raise ValueError(f"{quote(value)} is no size; 100GiB is one, and units are {units}")
    return _unsigned(str(int(parts[1]) * _UNITS[parts[2]]))


def _regexp(value: str) -> re.Pattern[str] | None:
    """The regular expression a value is, None if it is to be taken literally."""
    if _NOT_GO.search(value):
        return None
    for name, members in _CLASSES.items():
        value = value.replace(name, members)
    if "^" not in value and "$" not in value:
        # To Go, `^*x` repeats the ^ and so is anything that ends in x. People rely on it.
        if value.startswith(("*", "?")):
            value = ".*" + value[1:]
        value = f"^{value}$"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(value, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError):
        return None


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
