"""The ``lab`` command: bring a lab up and down, look at it, and break it on purpose.

The lab is the one that the environment variable LAB names (default: lab).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

from lab import faults, image, shape, status
from lab.errors import LabError
from lab.host import networks, teardown
from lab.host.machine import Machine, machines
from lab.layout import Lab

EPILOG = """examples:
  lab up                                  networks, router, Juju controller
  lab up --shape shape.yaml               with other networks and disks
  lab status                              machines, power, addresses, memory
  lab machine add 3                       three machines without Juju, for experiments
  lab exec 0 -- lxc list                  a command on machine 0 (also by host name)
  lab shell micro2
  lab link cut 1                          pull machine 1's cable to mgmt
  lab power cycle 2
  lab disk add 0 osd2 10GiB
  lab fault kill-hook UNIT ...            `lab fault` alone lists what there is
  lab down                                remove everything, even what is half there
"""


def _juju() -> ModuleType | None:
    """The Juju stand-in's controller, if this copy of the lab has one."""
    if importlib.util.find_spec("lab.juju") is None:
        return None
    if importlib.util.find_spec("lab.juju.controller") is None:
        return None
    return importlib.import_module("lab.juju.controller")


def _machine(lab: Lab, word: str) -> Machine:
    for machine in machines(lab):
        if word in (machine.id, machine.hostname):
            return machine
    known = ", ".join(f"{m.id} ({m.hostname})" for m in machines(lab)) or "none"
    raise LabError(f"lab {lab.name} has no machine {word!r}; it has: {known}")


def up(lab: Lab, args: argparse.Namespace) -> int:
    """Bring the lab up; doing it again changes nothing."""
    wanted = shape.load(lab)
    if args.shape:
        try:
            wanted = shape.parse(Path(args.shape).read_text(encoding="utf-8"))
        except OSError as error:
            raise LabError(f"cannot read the shape {args.shape}: {error.strerror}") from error
    if args.shape and wanted.networks != shape.load(lab).networks and machines(lab):
        raise LabError("the networks of a lab with machines cannot change: run `lab down` first")
    shape.save(lab, wanted)
    networks.ensure(lab, wanted)
    controller = _juju()
    if controller and not args.no_juju:
        try:
            controller.start(lab, **({"version": args.juju_version} if args.juju_version else {}))
        except RuntimeError as error:
            raise LabError(f"networks are up, but Juju's controller is not: {error}") from error
    print(f"lab {lab.name} is up in {lab.root}")
    return 0


def down(lab: Lab, _args: argparse.Namespace) -> int:
    """Take the lab away; say what is left."""
    controller = _juju()
    if controller and lab.root.exists():
        try:
            controller.stop(lab)
        except (LabError, OSError, RuntimeError) as error:
            print(f"the controller did not stop by itself: {error}", file=sys.stderr)
    problems = teardown.remove(lab)
    for problem in problems:
        print(f"left behind: {problem}", file=sys.stderr)
    if not problems:
        print(f"lab {lab.name} is down")
    return 1 if problems else 0


def show_status(lab: Lab, args: argparse.Namespace) -> int:
    """Show what there is."""
    found = status.collect(lab)
    print(json.dumps(found, indent=2) if args.json else status.text(found))
    return 0


def machine(lab: Lab, args: argparse.Namespace) -> int:
    """Add machines that Juju knows nothing of, or remove one."""
    if args.action == "remove":
        _machine(lab, args.what).destroy()
        return 0
    if not args.what.isdigit():
        raise LabError(f"lab machine add: {args.what!r} is no number of machines")
    taken = {m.id for m in machines(lab)}
    free = [str(i) for i in range(200) if str(i) not in taken]
    for machine_id in free[: int(args.what)]:
        added = Machine.create(lab, machine_id)
        added.power_on()
        print(f"machine {machine_id}: {added.hostname}")
    return 0


def power(lab: Lab, args: argparse.Namespace) -> int:
    """Switch machines on or off, as hard as the plug does."""
    for word in args.machines:
        chosen = _machine(lab, word)
        if args.action in ("off", "cycle"):
            chosen.power_off()
        if args.action in ("on", "cycle"):
            chosen.power_on()
    return 0


def link(lab: Lab, args: argparse.Namespace) -> int:
    """Pull or plug a network cable."""
    _machine(lab, args.machine).set_link(args.network, up=args.action == "heal")
    return 0


def disk(lab: Lab, args: argparse.Namespace) -> int:
    """Add, remove or list disks."""
    chosen = _machine(lab, args.machine)
    if args.action == "add":
        if not args.name or not args.size:
            raise LabError("lab disk add needs MACHINE NAME SIZE")
        added = chosen.attach_disk(args.name, shape.parse_size(args.size))
        print(f"{added.device} {added.by_id}")
    elif args.action == "remove":
        chosen.detach_disk(args.name or "")
    else:
        for found in chosen.disks():
            print(f"{found.name:12} {found.device}  {found.size:>14}  {found.by_id}")
    return 0


def execute(lab: Lab, args: argparse.Namespace) -> int:
    """Become a command on a machine."""
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if args.command == "shell":
        if words:
            raise LabError("lab shell takes no command: `lab exec MACHINE -- COMMAND`")
        words = ["/bin/bash", "-l"]
    if not words:
        raise LabError("lab exec: which command? `lab exec MACHINE -- COMMAND`")
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    argv = _machine(lab, args.machine).argv(*words, env=terminal)
    os.execvp(argv[0], argv)


def log(lab: Lab, args: argparse.Namespace) -> int:
    """Print a service's log, or the names of the services."""
    chosen = _machine(lab, args.machine)
    if not args.service:
        for name, state in sorted(chosen.services().items()):
            print(f"{name:32} {state}")
        return 0
    try:
        print(chosen.log_file(args.service).read_text(errors="replace"), end="")
    except FileNotFoundError as error:
        raise LabError(f"machine {chosen.id} has no log of {args.service!r}") from error
    return 0


def make_image(lab: Lab, _args: argparse.Namespace) -> int:
    """Build the small container image for tests and print its path."""
    print(image.build(lab))
    return 0


def fault(lab: Lab, args: argparse.Namespace) -> int:
    """Cause a fault in the Juju stand-in."""
    if not args.name:
        print(faults.usage())
        return 0
    try:
        result = faults.call(lab, args.name, args.words)
    except (RuntimeError, OSError) as error:  # the controller's own sentences
        raise LabError(f"lab fault {args.name}: {error}") from error
    if result is not None:
        print(result if isinstance(result, str) else json.dumps(result))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="lab",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sub = commands.add_parser("up", help="networks, router and the Juju controller")
    sub.add_argument("--shape", help="a YAML file; see lab/shape.py")
    sub.add_argument("--juju-version", default="", help="the version that Juju says it is")
    sub.add_argument("--no-juju", action="store_true", help="start no controller")
    sub.set_defaults(run=up)

    sub = commands.add_parser("down", help="remove the lab, whatever state it is in")
    sub.set_defaults(run=down)

    sub = commands.add_parser("status", help="machines, power, addresses, memory")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(run=show_status)

    sub = commands.add_parser("machine", help="machines without Juju, for experiments")
    sub.add_argument("action", choices=["add", "remove"])
    sub.add_argument("what", nargs="?", default="1", help="how many, or which one")
    sub.set_defaults(run=machine)

    sub = commands.add_parser("power", help="switch machines on or off, hard")
    sub.add_argument("action", choices=["on", "off", "cycle"])
    sub.add_argument("machines", nargs="+", metavar="MACHINE")
    sub.set_defaults(run=power)

    sub = commands.add_parser("link", help="pull or plug a network cable")
    sub.add_argument("action", choices=["cut", "heal"])
    sub.add_argument("machine", metavar="MACHINE")
    sub.add_argument("network", nargs="?", default="mgmt", metavar="NETWORK")
    sub.set_defaults(run=link)

    sub = commands.add_parser("disk", help="add, remove or list a machine's disks")
    sub.add_argument("action", choices=["add", "remove", "list"])
    sub.add_argument("machine", metavar="MACHINE")
    sub.add_argument("name", nargs="?", metavar="NAME")
    sub.add_argument("size", nargs="?", metavar="SIZE")
    sub.set_defaults(run=disk)

    for name, words in (("exec", argparse.REMAINDER), ("shell", argparse.REMAINDER)):
        sub = commands.add_parser(name, help=f"{name} on a machine, as root")
        sub.add_argument("machine", metavar="MACHINE")
        sub.add_argument("words", nargs=words, metavar="COMMAND")
        sub.set_defaults(run=execute)

    sub = commands.add_parser("log", help="a machine's services, or the log of one")
    sub.add_argument("machine", metavar="MACHINE")
    sub.add_argument("service", nargs="?", metavar="SERVICE")
    sub.set_defaults(run=log)

    sub = commands.add_parser("image", help="build a small container image, print its path")
    sub.set_defaults(run=make_image)

    sub = commands.add_parser("fault", help="break something in Juju; alone: list the faults")
    sub.add_argument("name", nargs="?", metavar="FAULT")
    sub.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    sub.set_defaults(run=fault)
    return top


def main(argv: list[str]) -> int:
    """Run a command line; return its exit status."""
    args = parser().parse_args(argv)
    try:
        if os.geteuid() != 0:
            raise LabError("the lab makes namespaces, mounts and loop devices: run it as root")
        return int(args.run(Lab.from_environment(), args))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
