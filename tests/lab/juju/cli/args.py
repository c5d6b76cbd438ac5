"""Command lines of `juju`: flags anywhere, unknown ones refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.juju.clock import duration


class UsageError(Exception):
    """A wrong command line (exit code 2)."""


class Unsupported(Exception):
    """Something real Juju has and the lab's has not; never pretended."""


@dataclass
class Args:
    """Positional arguments and flags; list flags gather every occurrence."""

    words: list[str] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)
    rest: list[str] | None = None  # what stood after "--"

    def text(self, name: str) -> str:
        return str(self.flags.get(name, ""))

    def on(self, name: str) -> bool:
        return bool(self.flags.get(name, False))

    def many(self, name: str) -> list[str]:
        return list(self.flags.get(name, []))

    def number(self, name: str, default: int) -> int:
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise UsageError(f'invalid value "{text}" for option --{name}: not a number') from None

    def seconds(self, name: str, default: float) -> float:
        try:
            return duration(self.text(name)) if self.text(name) else default
        except ValueError as err:
            raise UsageError(f"--{name}: {err}") from None

    def commas(self, name: str) -> list[str]:
        return [part for text in self.many(name) for part in text.split(",") if part]

    def word(self, number: int, what: str) -> str:
        if len(self.words) <= number:
            raise UsageError(f"no {what} specified")
        return self.words[number]


COMMON = {
    "model": "str",
    "m": "model",
    "B": "bool",
    "no-browser-login": "bool",
    "debug": "bool",
    "verbose": "bool",
    "v": "verbose",
    "quiet": "bool",
    "q": "quiet",
    "show-log": "bool",
    "logging-config": "str",
    "color": "bool",
    "no-color": "bool",
    "c": "controller",
    "controller": "str",
    "h": "help",
    "help": "bool",
}


def parse(command: str, argv: list[str], spec: Mapping[str, str], stop: bool = False) -> Args:
    """`spec` maps a flag to bool, str, list, "no" (known but not supported) or another's name.

    With `stop`, flags end at the second positional argument (`juju ssh`).
    """
    known = {**COMMON, **spec}
    found = Args()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.rest = rest
            break
        if not word.startswith("-") or word == "-":
            found.words.append(word)
            if stop and len(found.words) > 1:
                found.words += rest
                break
            continue
        if stop and found.words:
            found.words += [word, *rest]
            break
        _flag(command, word, rest, known, found)
    return found


def _flag(command: str, word: str, rest: list[str], known: Mapping[str, str], found: Args) -> None:
    name, equals, value = word.lstrip("-").partition("=")
    kind = known.get(name)
    if kind is not None and kind not in ("bool", "str", "list", "no"):
        name, kind = kind, known[kind]
    if kind is None:
        raise UsageError(f"option provided but not defined: {word.partition('=')[0]}")
    if kind == "no":
        raise Unsupported(f"{command} --{name}")
    if kind == "bool":
        found.flags[name] = value.lower() not in ("false", "0", "f") if equals else True
        return
    if not equals:
        if not rest:
            raise UsageError(f"option needs an argument: {word}")
        value = rest.pop(0)
    if kind == "list":
        found.flags.setdefault(name, []).append(value)
    else:
        found.flags[name] = value


def pairs(words: list[str]) -> dict[str, str]:
    """`key=value` words; `key=@file` reads a file."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f'expected "key=value", got "{word}"')
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text()
            except OSError as err:
                raise UsageError(f"cannot read {value[1:]}: {err}") from None
        found[key] = value
    return found
