"""``lab fault``: the ways to break things that :mod:`lab.juju.faults` offers, as sub-commands.

Every public function of that module whose first parameter is the lab is a fault: ``kill_hook``
becomes ``lab fault kill-hook``, its positional parameters become arguments and its keyword-only
ones options. The function's docstring is the help.
"""

from __future__ import annotations

import importlib.util
import inspect
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

from lab.errors import LabError
from lab.layout import Lab

MODULE = "lab.juju.faults"
TRUE = ("1", "on", "yes", "true")


def _module() -> ModuleType:
    if importlib.util.find_spec("lab.juju") is None or not importlib.util.find_spec(MODULE):
        raise LabError(f"`lab fault` needs {MODULE}, which this copy of the lab does not have")
    return importlib.import_module(MODULE)


def faults() -> dict[str, Callable[..., Any]]:
    """Return the faults by the names of their sub-commands.

    Raises:
        LabError: the module is missing.
    """
    module = _module()
    found: dict[str, Callable[..., Any]] = {}
    for name, function in inspect.getmembers(module, inspect.isfunction):
        parameters = list(inspect.signature(function).parameters)
        local = function.__module__ == module.__name__ and not name.startswith("_")
        if local and parameters[:1] == ["lab"]:
            found[name.replace("_", "-")] = function
    return found


def usage() -> str:
    """Return one line for each fault."""
    lines: list[str] = []
    for name, function in faults().items():
        words = [f"lab fault {name}"]
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            label = parameter.name.replace("_", "-")
            if parameter.kind is parameter.KEYWORD_ONLY:
                words.append(f"[--{label} VALUE]")
            elif parameter.default is parameter.empty:
                words.append(label.upper())
            else:
                words.append(f"[{label.upper()}]")
        summary = (inspect.getdoc(function) or "").split("\n")[0]
        lines.append(f"{' '.join(words)}\n    {summary}")
    return "\n".join(lines)


def call(lab: Lab, name: str, words: list[str]) -> Any:
    """Cause a fault; return what the function returns.

    Raises:
        LabError: there is no such fault, or the arguments do not fit it.
    """
    known = faults()
    if name not in known:
        raise LabError(f"there is no fault {name!r}; there are: {', '.join(known)}")
    function = known[name]
    positional, options = _split(words)
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    by_place = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    arguments = [
        _convert(word, hints.get(p.name, str), p.name)
        for word, p in zip(positional, by_place, strict=False)
    ]
    arguments += positional[len(by_place) :]
    keywords = {k: _convert(v, hints.get(k, str), k) for k, v in options.items()}
    try:
        inspect.signature(function).bind(lab, *arguments, **keywords)
    except TypeError as error:
        raise LabError(f"lab fault {name}: {error}") from error
    return function(lab, *arguments, **keywords)


def _split(words: list[str]) -> tuple[list[str], dict[str, str]]:
    positional: list[str] = []
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            key, found, value = word[2:].partition("=")
            options[key.replace("-", "_")] = value if found else next(rest, "true")
        else:
            positional.append(word)
    return positional, options


def _convert(word: str, wanted: Any, name: str) -> Any:
    kinds = typing.get_args(wanted) or (wanted,)
    try:
        if bool in kinds:
            return word.lower() in TRUE
        for kind in (int, float):
            if kind in kinds:
                return kind(word)
    except ValueError as error:
        raise LabError(f"{name}: {word!r} is no number") from error
    return word
