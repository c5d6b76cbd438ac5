"""Options that have one value for all machines, or a value for each host name.

`enp6s0` is the same interface everywhere; `{micro1: enp6s0, micro2: eno2}` (YAML) names one for
each host. Where several values are allowed (disks), a value is a list or split at commas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from record import EMPTY, Record


class PerHostError(ValueError):
    """The text of an option is neither a value nor a map; `str()` of it is a sentence."""


class PerHost(Record):
    """The values of one option: `common` to all hosts, or `by_host`; never both."""

    common: tuple[str, ...] = ()
    by_host: Mapping[str, tuple[str, ...]] = EMPTY

    def get(self, hostname: str) -> str | None:
        """The (first) value for a host, None if it has none."""
        values = self.get_all(hostname)
        return values[0] if values else None

    def get_all(self, hostname: str) -> tuple[str, ...]:
        """All values for a host."""
        return self.by_host.get(hostname, ()) if self.by_host else self.common

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that are named; none if one value is common to all."""
        return tuple(self.by_host)

    def missing(self, hostnames: Iterable[str]) -> tuple[str, ...]:
        """Those of the hosts that have no value."""
        return tuple(name for name in hostnames if not self.get_all(name))

    def __bool__(self) -> bool:
        return bool(self.common or self.by_host)


def parse(text: str, *, many: bool = False) -> PerHost:
    """Read an option's text; an empty one has no value for any host.

    With `many`, a host may have several values.

    Raises:
        PerHostError: it cannot be read.
    """
    text = text.strip()
    # Most values are one word; only what looks like YAML is worth loading its parser for.
    if not re.search(r"[{}\[\]\n]|:(\s|$)", text):
        return PerHost(common=_values(text, "the value", many))
    data = _load(text)
    if isinstance(data, dict):
        return PerHost(by_host=_by_host(data, many))
    return PerHost(common=_values(data, "the value", many))


def _by_host(data: dict[Any, Any], many: bool) -> dict[str, tuple[str, ...]]:
    by_host: dict[str, tuple[str, ...]] = {}
    for host, value in data.items():
        if not isinstance(host, str) or not re.fullmatch(r"[A-Za-z0-9.-]+", host):
            raise PerHostError(f"{host!r} is no host name; write {{micro1: value, ...}}")
        by_host[host] = _values(value, f"the value for {host}", many)
        if not by_host[host]:
            raise PerHostError(f"{host} has no value; give it one or leave the host out")
    return by_host


def _values(data: object, what: str, many: bool) -> tuple[str, ...]:
    items: list[object] = data if isinstance(data, list) else [data]
    if not all(isinstance(item, str) for item in items):
        raise PerHostError(f"{what} must be plain text, not a map or a list in a list")
    texts = [str(item) for item in items]
    if many:
        texts = [part for item in texts for part in re.split(r"[,\s]+", item)]
    values = tuple(stripped for item in texts if (stripped := item.strip()))
    if len(values) > 1 and not many:
        raise PerHostError(f"{what} is a list of {len(values)}; it must be one")
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise PerHostError(f"{what} names {', '.join(twice)} twice")
    return values


def _load(text: str) -> object:
    """The YAML with every scalar as text, so that `on`, `010` and `1e3` stay what they are."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
        )
    except json.JSONDecodeError:
        pass
    except RecursionError:
        raise PerHostError("the value is nested too deeply to be a map of hosts") from None
    import yaml

    class Loader(yaml.BaseLoader):
        """YAML's plainest loader, which here refuses a key that is given twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            pairs = [(self.construct_object(key), value) for key, value in node.value]
            _no_duplicates([(str(key), value) for key, value in pairs])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506 - BaseLoader makes nothing but text
    except yaml.YAMLError as fault:
        line = " ".join(str(fault).split())
        raise PerHostError(
            f"{text!r} is neither one value nor a YAML map from host name to value: {line}"
        ) from None
    except RecursionError:
        raise PerHostError("the value is nested too deeply to be a map of hosts") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise PerHostError(f"{', '.join(twice)} is named twice")
    return dict(pairs)
