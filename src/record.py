"""Frozen records: what `dataclass(frozen=True)` gives, without its price at import.

A dataclass writes and compiles its methods when the class is made, about 0.4 ms each; the
forty of this charm would cost every hook more than all that it looks at. A Record is made in
microseconds. Defaults are plain values and shared, so they must not be mutable: `EMPTY`
stands for an empty mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object):  # noqa: ANN201, D103 - for the type checker only
        return lambda cls: cls


EMPTY: Mapping[str, Any] = MappingProxyType({})
R = TypeVar("R", bound="Record")


@dataclass_transform(frozen_default=True)
class Record:
    """Base of a record: annotated names are its fields, in order."""

    _fields: tuple[str, ...] = ()  # not a field, as it is written before any subclass is made

    def __init_subclass__(cls) -> None:
        # `inspect` has a function for this, and takes milliseconds to import.
        annotations = cls.__dict__.get("__annotations__", ())  # noqa: RUF063
        own = (name for name in annotations if name[0] != "_")
        cls._fields = (*cls._fields, *own)

    if not TYPE_CHECKING:

        def __init__(self, *values: Any, **named: Any) -> None:
            if len(values) > len(self._fields):
                raise TypeError(f"{type(self).__name__} takes {len(self._fields)} values")
            given = dict(zip(self._fields, values, strict=False))
            if not named.keys() <= set(self._fields) - given.keys():
                raise TypeError(f"{type(self).__name__}: {sorted(named)} do not fit")
            given |= named
            for name in self._fields:
                if name in given:
                    object.__setattr__(self, name, given[name])
                elif not hasattr(type(self), name):
                    raise TypeError(f"{type(self).__name__} needs {name}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and values(other) == values(self)

    def __hash__(self) -> int:
        return hash((type(self), tuple(values(self).values())))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in values(self).items())
        return f"{type(self).__name__}({inside})"


def values(record: Any) -> dict[str, Any]:
    """The fields and their values."""
    return {name: getattr(record, name) for name in record._fields}


def replace(record: R, **changes: Any) -> R:
    """The record with some fields changed."""
    return type(record)(**{**values(record), **changes})


def plain(value: Any) -> Any:
    """Records in it as dictionaries, all the way down: ready for JSON."""
    if isinstance(value, Record):
        return {name: plain(field) for name, field in values(value).items()}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
