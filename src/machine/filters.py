"""MicroCloud's disk filter language.

A filter is a line such as `size > 10GiB && type == nvme`. What a filter means is what
MicroCloud (that is, LXD's filter engine) makes of it, oddities included, so that filters which
users know work the same here: no parentheses, no precedence, strings as regular expressions.
One thing differs on purpose: faults are found when a filter is read, not when it meets a disk.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

Raw = Mapping[str, object]

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
