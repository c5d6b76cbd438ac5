"""The command line that the stand-ins share: cluster commands, waitready, tables, errors."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from lab.microcluster import certs, rest
from lab.microcluster.app import App
from lab.microcluster.daemon import common_dir, fail
from lab.microcluster.rest import ApiError


class UsageError(Exception):
    """A command line that the command does not understand."""


class Parser(ArgumentParser):
    """argparse that raises instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


@dataclass(frozen=True)
class Client:
    """The daemon's socket, for a command."""

    app: App
    socket: Path

    def call(self, method: str, url: str, body: object = None, timeout: float = 300) -> Any:
        """Ask the local daemon; ApiError with its text, or that it does not run."""
        try:
            return rest.call_unix(self.socket, method, url, body, timeout)
        except OSError as error:
            raise ApiError(
                f'{method.title()} "http://control.socket{url}": dial unix {self.socket}: '
                f"{error.strerror or error}"
            ) from error

    def core(self, method: str, url: str, body: object = None, timeout: float = 300) -> Any:
        """`call`, below /core."""
        return self.call(method, f"/core{url}", body, timeout)


@dataclass(frozen=True)
class Command:
    """One command: `arguments` fills its parser, `run` does it and prints."""

    run: Callable[[Client, Namespace], None]
    arguments: Callable[[Parser], None] = lambda parser: None
    help: str = ""


Commands = Mapping[tuple[str, ...], Command]


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with ruled cells, as the real commands print it."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(headers), *cells]) for i in range(len(headers))]
    rule = "+" + "+".join("-" * (w + 2) for w in widths) + "+"
    head = "|" + "|".join(f" {h.center(w)} " for h, w in zip(headers, widths, strict=True)) + "|"
    body = [
        "|" + "|".join(f" {c:<{w}} " for c, w in zip(r, widths, strict=True)) + "|" for r in cells
    ]
    return "\n".join([rule, head, rule, *(line for b in body for line in (b, rule))])


def render(
    kind: str, headers: Sequence[str], rows: Sequence[Sequence[object]], raw: object
) -> str:
    """`-f csv|json|table|yaml|compact`; UsageError for another format."""
    if kind == "json":
        return json.dumps(raw)
    if kind == "yaml":
        return yaml.safe_dump(raw, sort_keys=False).rstrip()
    if kind == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue().rstrip("\n")
    if kind == "compact":
        widths = [max(len(str(r[i])) for r in [headers, *rows]) for i in range(len(headers))]
        lines = [headers, *rows]
        return "\n".join(
            "  " + "  ".join(f"{c!s:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip()
            for r in lines
        )
    if kind == "table":
        return table(headers, rows)
    raise UsageError(f'invalid format "{kind}"')


def format_argument(parser: Parser) -> None:
    """Add `-f FORMAT`."""
    parser.add_argument("-f", "--format", default="table")


def default_address(app: App) -> str:
    """The first global address of this machine, with the application's port."""
    import subprocess

    done = subprocess.run(
        ["ip", "-j", "address", "show", "scope", "global"],
        capture_output=True,
        text=True,
        timeout=10,
    )
    for link in json.loads(done.stdout or "[]"):
        for info in link.get("addr_info", []):
            if info.get("scope") == "global" and info["family"] == "inet":
                return f"{info['local']}:{app.default_port}"
    raise ApiError("No global address on this machine: give it one first")


def _bootstrap(client: Client, _: Namespace) -> None:
    _control(client, {"bootstrap": True})


def _join(client: Client, args: Namespace) -> None:
    _control(client, {"join_token": args.token})


def _control(client: Client, body: dict[str, Any]) -> None:
    body |= {"name": socket.gethostname(), "address": default_address(client.app)}
    client.core("POST", "/control", body)


def _add(client: Client, args: Namespace) -> None:
    body = {"name": args.name, "expire_after": int(args.timeout * 1e9)}
    print(client.core("POST", "/control/tokens", body))


def seconds(text: str) -> float:
    """`90`, `90.5`, `3h`, `10m`, `30s` in seconds; ValueError otherwise."""
    factors = {"s": 1, "m": 60, "h": 3600}
    return float(text[:-1]) * factors[text[-1]] if text and text[-1] in factors else float(text)


def _add_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-t", "--timeout", type=seconds, default=10800.0)


def _list(client: Client, args: Namespace) -> None:
    members = client.core("GET", "/1.0/cluster")
    rows = [
        [m["name"], m["address"], m["role"], certs.fingerprint(m["certificate"]), m["status"]]
        for m in members
    ]
    print(render(args.format, ["NAME", "ADDRESS", "ROLE", "FINGERPRINT", "STATUS"], rows, members))


def _remove(client: Client, args: Namespace) -> None:
    client.core("DELETE", f"/1.0/cluster/{args.name}" + ("?force=1" if args.force else ""))


def _remove_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-f", "--force", action="store_true")


def _sql(client: Client, args: Namespace) -> None:
    result = client.core("POST", "/control/sql", {"query": args.query})
    if result["type"] == "select":
        print(table(result["columns"], result["rows"]))
    else:
        print(f"Rows affected: {result['rows_affected']}")


def _waitready(client: Client, args: Namespace) -> None:
    deadline = time.monotonic() + args.timeout if args.timeout else None
    while True:
        try:
            client.core("GET", "/1.0/ready", timeout=10)
            return
        except ApiError as error:
            if deadline and time.monotonic() > deadline:
                raise ApiError(
                    f"Daemon not ready after {args.timeout:g} seconds: {error}; see the log of "
                    f"the service {client.app.name}.daemon"
                ) from error
            time.sleep(0.2)


def _waitready_arguments(parser: Parser) -> None:
    parser.add_argument("-t", "--timeout", type=float, default=0.0)


def _refuse(client: Client, _: Namespace) -> None:
    raise UsageError(
        f"{client.app.name} init asks questions and is not supported by this stand-in: "
        f"use `{client.app.name} cluster bootstrap` or `cluster join`"
    )


COMMON: dict[tuple[str, ...], Command] = {
    ("init",): Command(_refuse, help="not supported: interactive"),
    ("cluster", "bootstrap"): Command(_bootstrap, help="make a cluster of one"),
    ("cluster", "add"): Command(_add, _add_arguments, "print a join token for NAME"),
    ("cluster", "join"): Command(
        _join, lambda p: void(p.add_argument("token")), "join with TOKEN"
    ),
    ("cluster", "list"): Command(_list, format_argument, "list the members"),
    ("cluster", "remove"): Command(_remove, _remove_arguments, "remove a member"),
    ("cluster", "sql"): Command(
        _sql, lambda p: void(p.add_argument("query")), "run an SQL statement"
    ),
    ("waitready",): Command(_waitready, _waitready_arguments, "wait for the daemon"),
}


def void(_: object) -> None:
    """Let a lambda return nothing."""


def main(app: App, extra: Commands, argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Errors go to stderr as `Error: TEXT`."""
    args = list(sys.argv[1:] if argv is None else argv)
    while args and args[0] in ("-d", "-v", "--debug", "--verbose"):
        args.pop(0)
    if args[:1] == ["--version"]:
        print(app.version)
        return 0
    commands = {**COMMON, **extra}
    found = next((words for words in _prefixes(args) if words in commands), None)
    if found is None:
        return _unknown(app, commands, args)
    if os.geteuid():
        return fail("This must be run as root")
    command = commands[found]
    parser = Parser(prog=" ".join([app.name, *found]), description=command.help)
    command.arguments(parser)
    client = Client(app, common_dir(app) / "state" / "control.socket")
    try:
        command.run(client, parser.parse_args(args[len(found) :]))
    except (ApiError, UsageError) as error:
        return fail(str(error))
    return 0


def _prefixes(args: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(args[:n]) for n in (3, 2, 1) if len(args) >= n]


def _unknown(app: App, commands: Commands, args: Sequence[str]) -> int:
    groups = {words[: len(args)] for words in commands}
    if args in ([], ["help"], ["-h"], ["--help"]) or tuple(args) in groups:
        print(f"Usage: {app.name} COMMAND\n\nCommands:")
        shown = [
            w
            for w in sorted(commands)
            if args in ([], ["help"], ["-h"], ["--help"]) or w[: len(args)] == tuple(args)
        ]
        for words in shown:
            print(f"  {' '.join(words):<28}{commands[words].help}")
        return 0
    return fail(f'unknown command "{" ".join(args[:2])}" for "{app.name}" in this stand-in')
