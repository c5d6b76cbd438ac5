"""The ``snap`` command inside a machine. What it does not know it refuses by name."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lab.errors import LabError
from lab.snapd import catalog, changes, config, interfaces, services, state

VERSION = "2.63+lab"
Arguments = argparse.Namespace
Command = Callable[[Arguments], int]


class _Parser(argparse.ArgumentParser):
    """An argument parser that fails as snapd's does: one line, status 1."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise LabError(f"the lab's snap command does not support this: {message}")


def note(text: str) -> None:
    """Say something that is no error, where snapd says it."""
    print(text, file=sys.stderr)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print columns as snapd does: two blanks between, none at the end."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


# ---- install, refresh, remove -------------------------------------------------------------------


def _done(installed: state.Installed, verb: str) -> None:
    shown = "" if installed.channel == "latest/stable" else f" ({installed.channel})"
    print(f"{installed.name}{shown} {installed.version} from Canonical✓ {verb}")


def _one_name(args: Arguments) -> None:
    if len(args.names) > 1 and (args.channel or args.cohort or args.revision):
        raise LabError("a single snap name is needed to specify channel flags")


def _channel(args: Arguments) -> str:
    if args.risk:
        if args.channel:
            raise LabError("Please specify a single channel")
        return str(args.risk)
    return str(args.channel or "")


def install(args: Arguments) -> int:
    """``snap install``."""
    _one_name(args)
    for name in args.names:
        if name.startswith((".", "/")) or name.endswith(".snap"):
            raise LabError(f"cannot install {name!r}: the lab's snapd installs no snap files")
        done = changes.install(name, _channel(args), args.cohort or "", args.revision or "")
        if done:
            _done(done, "installed")
        else:
            note(f"snap \"{name}\" is already installed, see 'snap help refresh'")
    return 0


def refresh(args: Arguments) -> int:
    """``snap refresh``, also with --hold, --unhold, --list, --time."""
    if args.time or args.list:
        print("timer: 00:00~24:00/4" if args.time else "All snaps up to date.")
        return 0
    if args.hold is not None or args.unhold:
        return _hold(args)
    _one_name(args)
    if not args.names:
        return _refresh_all()
    for name in args.names:
        done = changes.refresh(name, _channel(args), args.cohort or "", args.leave_cohort)
        if done:
            _done(done, "refreshed")
        else:
            note(f'snap "{name}" has no updates available')
    return 0


def _refresh_all() -> int:
    found = [n for n, s in state.load().snaps.items() if s.enabled and not s.held]
    done = [d for d in (changes.refresh(n, "", "", False) for n in found) if d]
    for installed in done:
        _done(installed, "refreshed")
    if not done:
        note("All snaps up to date.")
    return 0


def _hold(args: Arguments) -> int:
    quoted = ", ".join(f'"{name}"' for name in args.names)
    if args.unhold:
        changes.hold(args.names, "")
        kind = "general refresh" if args.names else "auto-refresh"
        print(f"Removed {kind} hold of {quoted or 'all snaps'}")
        return 0
    until = _until(args.hold)
    changes.hold(args.names, until)
    words = "indefinitely" if until == "forever" else f"until {until}"
    what = f"General refreshes of {quoted}" if args.names else "Auto-refresh of all snaps"
    print(f"{what} held {words}")
    return 0


def _until(duration: str) -> str:
    if duration == "forever":
        return duration
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", duration)
    if not match or not duration:
        raise LabError(
            f'hold value must be a number of hours, minutes or seconds, or "forever", '
            f"not {duration!r}"
        )
    hours, minutes, seconds = (int(x or 0) for x in match.groups())
    later = datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
    end = datetime.datetime.now(datetime.timezone.utc) + later
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def remove(args: Arguments) -> int:
    """``snap remove``. Data goes with or without --purge: the lab keeps no snapshots."""
    for name in args.names:
        if changes.remove(name):
            print(f"{name} removed")
        else:
            note(f'snap "{name}" is not installed')
    return 0


def enable(args: Arguments) -> int:
    """``snap enable`` and ``snap disable``."""
    for name in args.names:
        changes.set_enabled(name, args.command == "enable")
        print(f"{name} {args.command}d")
    return 0


# ---- looking ------------------------------------------------------------------------------------


def show_list(args: Arguments) -> int:
    """``snap list``."""
    snaps = {n: s for n, s in state.load().snaps.items() if not n.startswith(".")}
    if args.names:
        snaps = {n: s for n, s in snaps.items() if n in args.names}
        if not snaps:
            raise LabError("no matching snaps installed")
    if not snaps:
        note("No snaps are installed yet. Try 'snap install hello-world'.")
        return 0
    rows = [["Name", "Version", "Rev", "Tracking", "Publisher", "Notes"]]
    for name, snap in sorted(snaps.items()):
        notes = [
            word
            for word, there in (
                ("disabled", not snap.enabled),
                ("held", snap.held),
                ("in-cohort", snap.cohort),
            )
            if there
        ]
        rows.append(
            [name, snap.version, snap.revision, snap.channel, "canonical✓", ",".join(notes) or "-"]
        )
    table(rows)
    return 0


def info(args: Arguments) -> int:
    """``snap info``."""
    for name in args.names:
        snap = catalog.find(name)
        print(f"name:      {name}\nsummary:   {snap.summary}\npublisher: Canonical✓")
        installed = state.load().snaps.get(name)
        if installed:
            print(f"tracking:     {installed.channel}")
        print("channels:")
        for track, release in snap.channels.items():
            print(f"  {track + '/stable:':16} {release.version} ({release.revision})")
        if installed:
            print(f"installed:          {installed.version} ({installed.revision})")
    return 0


def show_services(args: Arguments) -> int:
    """``snap services``."""
    rows = [["Service", "Startup", "Current", "Notes"]]
    current = state.load()
    for wanted in args.names or [n for n in sorted(current.snaps) if not n.startswith(".")]:
        name = wanted.partition(".")[0]
        current.get(name)
        snap = catalog.find(name)
        found = services.status(snap)
        for service, _ in services.select(snap, wanted) if snap.services else []:
            rows.append([f"{name}.{service}", *found[service], "-"])
    if len(rows) == 1:
        note("There are no services provided by installed snaps.")
        return 0
    table(rows)
    return 0


def version(_args: Arguments) -> int:
    """``snap version``."""
    release = platform.freedesktop_os_release()
    print(f"snap    {VERSION}\nsnapd   {VERSION}\nseries  16")
    print(f"{release.get('ID', 'linux'):7} {release.get('VERSION_ID', '-')}")
    print(f"kernel  {platform.release()}")
    return 0


def wait(args: Arguments) -> int:
    """``snap wait system seed.loaded``: always so here."""
    if args.names != ["system", "seed.loaded"]:
        raise LabError("the lab's snap waits for `system seed.loaded` only")
    return 0


def create_cohort(args: Arguments) -> int:
    """``snap create-cohort``."""
    print("cohorts:")
    for name in args.names:
        catalog.find(name)
        print(f"  {name}:\n    cohort-key: lab-{name}-cohort")
    return 0


# ---- services -----------------------------------------------------------------------------------


def control(args: Arguments) -> int:
    """``snap start``, ``stop`` and ``restart``."""
    current = state.load()
    for wanted in args.names:
        name = wanted.partition(".")[0]
        current.get(name)
        snap = catalog.find(name)
        chosen = services.select(snap, wanted)
        for service, _ in reversed(chosen) if args.command == "stop" else chosen:
            if args.enable or args.disable:
                services.act("enable" if args.enable else "disable", snap, service)
            services.act(args.command, snap, service, reload=args.reload)
    print({"start": "Started.", "stop": "Stopped.", "restart": "Restarted."}[args.command])
    return 0


# ---- interfaces and options ---------------------------------------------------------------------


def connect(args: Arguments) -> int:
    """``snap connect``."""
    interfaces.connect(interfaces.resolve(args.plug, args.slot or ""), manual=True)
    return 0


def disconnect(args: Arguments) -> int:
    """``snap disconnect``."""
    if args.slot:
        interfaces.disconnect(interfaces.resolve(args.plug, args.slot))
        return 0
    snap, _, plug = args.plug.partition(":")
    state.load().get(snap)
    found = [c for c in state.load().connections if (c.plug_snap, c.plug) == (snap, plug)]
    if not found:
        raise LabError(f"no connections found for {args.plug}")
    for connection in found:
        interfaces.disconnect(connection)
    return 0


def connections(args: Arguments) -> int:
    """``snap connections``."""
    current = state.load()
    for name in args.names:
        current.get(name)
    rows: list[list[str]] = []
    for c in current.connections:
        if not args.names or {c.plug_snap, c.slot_snap} & set(args.names):
            plug = catalog.find(c.plug_snap).plugs[c.plug]
            kind = plug.interface + (f"[{plug.content}]" if plug.content else "")
            manual = "manual" if f"{c.plug_snap}:{c.plug}" in current.manual else "-"
            rows.append([kind, f"{c.plug_snap}:{c.plug}", f"{c.slot_snap}:{c.slot}", manual])
    connected = {row[1] for row in rows} | {row[2] for row in rows}
    for name in args.names or (current.snaps if args.all else []):
        if name.startswith("."):
            continue
        snap = catalog.find(name)
        rows += [
            [plug.interface, f"{name}:{p}", "-", "-"]
            for p, plug in snap.plugs.items()
            if f"{name}:{p}" not in connected
        ]
        rows += [
            [slot.interface, "-", f"{name}:{s}", "-"]
            for s, slot in snap.slots.items()
            if f"{name}:{s}" not in connected
        ]
    if rows:
        table([["Interface", "Plug", "Slot", "Notes"], *sorted(rows)])
    return 0


def set_options(args: Arguments) -> int:
    """``snap set`` and ``snap unset``."""
    unset = args.command == "unset"
    words = [(w, None) for w in args.words] if unset else [config.parse(w) for w in args.words]
    config.change(args.name, dict(words))
    return 0


def get_options(args: Arguments) -> int:
    """``snap get``."""
    found: dict[str, Any] = config.get(args.name, args.words)
    if args.document:
        print(json.dumps(found, indent="\t"))
    elif len(args.words) == 1 and not isinstance(found[args.words[0]], dict):
        print(config.show(found[args.words[0]]))
    else:
        rows = [[k, "{...}" if isinstance(v, dict) else config.show(v)] for k, v in found.items()]
        table([["Key", "Value"], *rows])
    return 0


# ---- the command line ---------------------------------------------------------------------------

# These change the machine, so they go on when their caller is killed: the real ones run in snapd.
DETACHED = (
    "install",
    "refresh",
    "remove",
    "enable",
    "disable",
    "start",
    "stop",
    "restart",
    "connect",
    "disconnect",
    "set",
    "unset",
)
KNOWN = (
    *DETACHED,
    "list",
    "info",
    "services",
    "version",
    "wait",
    "create-cohort",
    "connections",
    "get",
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = _Parser(prog="snap", add_help=False)
    commands = top.add_subparsers(dest="command", parser_class=_Parser)

    def add(name: str, run: Command, names: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, add_help=False)
        sub.set_defaults(run=run)
        if names:
            sub.add_argument("names", nargs=names)
        return sub

    _add_changes(add)
    _add_looks(add)
    for name in ("start", "stop", "restart"):
        sub = add(name, control, "+")
        sub.set_defaults(enable=False, disable=False, reload=False)
        flag = {"start": "--enable", "stop": "--disable", "restart": "--reload"}[name]
        sub.add_argument(flag, action="store_true")
    for name, run in (("connect", connect), ("disconnect", disconnect)):
        sub = add(name, run, "")
        sub.add_argument("plug")
        sub.add_argument("slot", nargs="?")
    for name, run in (("set", set_options), ("unset", set_options), ("get", get_options)):
        sub = add(name, run, "")
        sub.add_argument("name")
        sub.add_argument("words", nargs="*" if name == "get" else "+")
        if name == "get":
            sub.add_argument("-d", dest="document", action="store_true")
    return top


Add = Callable[[str, Command, str], argparse.ArgumentParser]


def _add_changes(add: Add) -> None:
    for name, run in (("install", install), ("refresh", refresh)):
        sub = add(name, run, "+" if name == "install" else "*")
        for option in ("--channel", "--cohort", "--revision"):
            sub.add_argument(option)
        for risk in catalog.RISKS:
            sub.add_argument(f"--{risk}", dest="risk", action="store_const", const=risk)
        for flag in ("--classic", "--leave-cohort"):
            sub.add_argument(flag, action="store_true")
        sub.set_defaults(hold=None, unhold=False, list=False, time=False)
        if name == "refresh":
            sub.add_argument("--hold")
            for flag in ("--unhold", "--list", "--time"):
                sub.add_argument(flag, action="store_true")
    add("remove", remove, "+").add_argument("--purge", action="store_true")
    add("enable", enable, "+")
    add("disable", enable, "+")


def _add_looks(add: Add) -> None:
    add("list", show_list, "*").add_argument("--all", action="store_true")
    add("info", info, "+")
    add("services", show_services, "*").add_argument("--global", action="store_true")
    add("version", version, "")
    add("wait", wait, "*")
    add("create-cohort", create_cohort, "+")
    add("connections", connections, "*").add_argument("--all", action="store_true")


def _run(args: Arguments) -> int:
    try:
        return int(args.run(args))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Run a command line; return its exit status."""
    # An option whose value may be left out takes it after "=" only, never from the next word.
    if argv and argv[0] not in KNOWN:
        print(f"error: the lab's snap does not support the command {argv[0]!r}", file=sys.stderr)
        return 1
    argv = ["--hold=forever" if word == "--hold" else word for word in argv]
    try:
        args = parser().parse_args(argv)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.command is None:
        print(__doc__)
        return 0
    if args.command not in DETACHED:
        return _run(args)
    return _run_detached(args)


def _run_detached(args: Arguments) -> int:
    """Run a command in a process that nobody's death ends, and pass on what it says."""
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_run(args))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file, stream in ((out, sys.stdout), (err, sys.stderr)):
            file.seek(0)
            stream.write(file.read().decode(errors="replace"))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
