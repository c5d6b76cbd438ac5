"""Command lines and output formats of hook tools, in the manner of Go's flag packages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class ToolError(Exception):
    """A hook tool's failure: 1 for a refused request, 2 for a wrong command line."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


_BOOLS = {
    "1": True,
    "t": True,
    "T": True,
    "true": True,
    "TRUE": True,
    "True": True,
    "0": False,
    "f": False,
    "F": False,
    "false": False,
    "FALSE": False,
    "False": False,
}


@dataclass
class Parsed:
    """Flags by name and the other arguments in order."""

    flags: dict[str, Any] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        return str(self.flags.get(name, ""))

    def on(self, name: str) -> bool:
        return bool(self.flags.get(name, False))


def parse(argv: list[str], spec: Mapping[str, str]) -> Parsed:
    """Flags may stand anywhere until `--`. `spec` maps a flag to "bool", "str" or another name."""
    found = Parsed()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.args += rest
            break
        if not word.startswith("-") or word == "-":
            found.args.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        kind = spec.get(name)
        if kind is not None and kind not in ("bool", "str"):
            name, kind = kind, spec[kind]
        if kind is None:
            raise ToolError(f"option provided but not defined: {word.partition('=')[0]}", 2)
        if kind == "bool":
            if equals and value not in _BOOLS:
                raise ToolError(f'invalid boolean value "{value}" for --{name}', 2)
            found.flags[name] = _BOOLS[value] if equals else True
            continue
        if not equals:
            if not rest:
                raise ToolError(f"option needs an argument: {word}", 2)
            value = rest.pop(0)
        found.flags[name] = value
    return found


FORMAT = {"format": "str", "o": "str", "output": "o"}


def render(value: Any, style: str) -> str:
    """A value as json, yaml, or "smart": plain text for scalars and lists of them."""
    if style == "json":
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"
    if style == "yaml":
        return as_yaml(value)
    if style not in ("", "smart"):
        raise ToolError(
            f'invalid value "{style}" for option --format: unknown format "{style}"', 2
        )
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"{value}\n"
    if isinstance(value, (str, int, float)):
        text = str(value)
        return text if text.endswith("\n") or not text else text + "\n"
    if isinstance(value, list):
        return "".join(f"{item}\n" for item in value)
    return as_yaml(value)


def as_yaml(value: Any) -> str:
    import yaml  # only here: it takes longer to import than most tools run

    return yaml.safe_dump(value, default_flow_style=False)


def load_map(text: str) -> dict[str, str]:
    """A YAML (or JSON) map of strings, as `--file` takes it."""
    try:
        doc = json.loads(text)
    except ValueError:
        import yaml

        try:
            doc = yaml.safe_load(text)
        except yaml.YAMLError as err:
            raise ToolError(f"cannot parse the file: {err}") from err
    if doc is None:
        return {}
    if not isinstance(doc, dict):
        raise ToolError("cannot parse the file: a map of keys and values is expected")
    return {str(k): "" if v is None else str(v) for k, v in doc.items()}


def pairs(args: list[str]) -> dict[str, str]:
    """`key=value` arguments."""
    found: dict[str, str] = {}
    for arg in args:
        key, equals, value = arg.partition("=")
        if not equals or not key:
            raise ToolError(f'expected "key=value", got "{arg}"', 2)
        found[key] = value
    return found
