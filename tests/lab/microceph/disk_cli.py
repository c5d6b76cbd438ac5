"""`microceph disk ...`."""

from __future__ import annotations

import json
import socket
from argparse import Namespace
from typing import Any

from lab.microceph import blockdevs
from lab.microcluster import cli
from lab.microcluster.cli import Client, Command, Commands, Parser, UsageError
from lab.microcluster.rest import ApiError

MATCHERS = ("osd-match", "wal-match", "db-match", "wal-size", "db-size")


def _add_arguments(parser: Parser) -> None:
    parser.add_argument("specs", nargs="*")
    for flag in ("wipe", "encrypt", "all-available", "dry-run", "json"):
        parser.add_argument(f"--{flag}", action="store_true")
    for role in ("wal", "db"):
        parser.add_argument(f"--{role}-device", default="")
        parser.add_argument(f"--{role}-wipe", action="store_true")
        parser.add_argument(f"--{role}-encrypt", action="store_true")
    for flag in MATCHERS:
        parser.add_argument(f"--{flag}", default="")


def _add(client: Client, args: Namespace) -> None:
    matchers = {flag.replace("-", "_"): getattr(args, flag.replace("-", "_")) for flag in MATCHERS}
    if args.dry_run and not args.osd_match:
        raise UsageError("--dry-run requires --osd-match")
    specs = list(args.specs)
    if args.all_available:
        specs = [disk["path"] for disk in _available(client)]
    elif not specs and not any(matchers.values()):
        raise UsageError("either disk spec or --all-available has to be specified")
    body: dict[str, Any] = {
        "path": specs, "wipe": args.wipe, "encrypt": args.encrypt, "dry_run": args.dry_run,
        **matchers,
    }  # fmt: skip
    for role in ("wal", "db"):
        if getattr(args, f"{role}_device"):
            body[f"{role}dev"] = getattr(args, f"{role}_device")
            body[f"{role}wipe"] = getattr(args, f"{role}_wipe")
            body[f"{role}encrypt"] = getattr(args, f"{role}_encrypt")
    answer = client.call("POST", "/1.0/disks", body, timeout=600)
    rows = [[report["path"], report["report"]] for report in answer["report"]]
    if rows:
        print("\n" + cli.table(["Path", "Status"], rows))
    errors = [answer["validation_error"], *(report["error"] for report in answer["report"])]
    if any(errors):
        raise ApiError("; ".join(error for error in errors if error))


def _available(client: Client) -> list[dict[str, Any]]:
    configured = {
        disk["path"]
        for disk in client.call("GET", "/1.0/disks")
        if disk["location"] == socket.gethostname()
    }
    return blockdevs.available(client.call("GET", "/1.0/resources"), configured)


def _iec(size: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024  # pyright: ignore[reportAssignmentType]
    return f"{size}B" if unit == "B" else f"{size:.2f}{unit}"


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--host-only", action="store_true")


def _list(client: Client, args: Namespace) -> None:
    configured = client.call("GET", "/1.0/disks")
    if args.host_only:
        configured = [disk for disk in configured if disk["location"] == socket.gethostname()]
    free = [
        {"Model": d["model"], "Size": _iec(d["size"]), "Type": d["type"], "Path": d["path"]}
        for d in _available(client)
    ]
    if args.json:
        print(json.dumps({"ConfiguredDisks": configured, "AvailableDisks": free}))
        return
    if configured:
        print("Disks configured in MicroCeph:")
        rows = [[d["osd"], d["location"], d["path"]] for d in configured]
        print(cli.table(["OSD", "LOCATION", "PATH"], rows))
    if free:
        print("\nAvailable unpartitioned disks on this system:")
        rows = [[d["Model"], d["Size"], d["Type"], d["Path"]] for d in free]
        print(cli.table(["MODEL", "CAPACITY", "TYPE", "PATH"], rows))


def _remove_arguments(parser: Parser) -> None:
    parser.add_argument("osd")
    parser.add_argument("--timeout", type=int, default=1800)
    parser.add_argument("--bypass-safety-checks", action="store_true")
    parser.add_argument("--confirm-failure-domain-downgrade", action="store_true")
    parser.add_argument("--prohibit-crush-scaledown", action="store_true")


def _remove(client: Client, args: Namespace) -> None:
    text = args.osd.removeprefix("osd.")
    if not text.isdigit():
        raise UsageError(f"Error: osd input must be either 'osd.$id' or '$id', got {args.osd!r}")
    number = int(text)
    found = [d for d in client.call("GET", "/1.0/disks") if d["osd"] == number]
    if not found:
        raise ApiError(f"osd.{number} not found")
    print(f"Removing osd.{number}, timeout {args.timeout}s")
    body = {
        "osdid": number,
        "bypass_safety": args.bypass_safety_checks,
        "confirm_downgrade": args.confirm_failure_domain_downgrade,
        "prohibit_crush_scaledown": args.prohibit_crush_scaledown,
        "timeout": args.timeout,
    }
    url = f"/1.0/disks/{number}?target={found[0]['location']}"
    client.call("DELETE", url, body, timeout=args.timeout + 30)


COMMANDS: Commands = {
    ("disk", "add"): Command(_add, _add_arguments, "make OSDs of disks or loop,SIZE,NUMBER"),
    ("disk", "list"): Command(_list, _list_arguments, "list configured and available disks"),
    ("disk", "remove"): Command(_remove, _remove_arguments, "remove an OSD"),
}
