"""Snap options: ``snap get``, ``set`` and ``unset``, with dotted names for nested ones."""

from __future__ import annotations

import json
from typing import Any

from lab.errors import LabError
from lab.snapd import catalog, interfaces, state

SYSTEM = ("system", "core")


def _options(current: state.State, name: str) -> dict[str, Any]:
    if name in SYSTEM:
        holder = current.snaps.setdefault(
            ".system", state.Installed(".system", "", "", "", enabled=False)
        )
        return holder.options
    return current.get(name).options


def change(name: str, assignments: dict[str, Any]) -> None:
    """Set options (None unsets one), then run the snap's configure hook.

    Raises:
        LabError: the snap is not installed, or its hook refuses.
    """
    with state.change() as current:
        options = _options(current, name)
        for key, value in assignments.items():
            _assign(options, key.split("."), value)
    if name not in SYSTEM:
        catalog.find(name).hooks.configure(interfaces.context(state.load().get(name)))


def parse(word: str) -> tuple[str, Any]:
    """Read ``key=value`` or ``key!``; a value that is JSON is stored as what it means.

    Raises:
        LabError: it is neither.
    """
    if word.endswith("!") and "=" not in word:
        return word[:-1], None
    key, found, text = word.partition("=")
    if not found or not key:
        raise LabError(f'invalid configuration: "{word}" (want key=value)')
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def get(name: str, keys: list[str]) -> dict[str, Any]:
    """Return options by key, all top-level ones if no key is given.

    Raises:
        LabError: with snapd's words, if one is not set.
    """
    options = _options(state.load(), name)
    if not keys:
        if not options:
            raise LabError(f'snap "{name}" has no configuration')
        return options
    return {key: _lookup(name, options, key) for key in keys}


def _assign(options: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = options.setdefault(part, {})
        if not isinstance(inner, dict):
            raise LabError(f'option "{".".join(path)}" cannot be set: "{part}" is not a map')
        options = inner
    if value is None:
        options.pop(path[-1], None)
    else:
        options[path[-1]] = value


def _lookup(name: str, options: dict[str, Any], key: str) -> Any:
    value: Any = options
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise LabError(f'snap "{name}" has no "{key}" configuration option')
        value = value[part]
    return value


def show(value: Any) -> str:
    """Return a value as ``snap get`` prints it."""
    return value if isinstance(value, str) else json.dumps(value)
