"""The action verify: an instance on a member, or on each, and whether all works that it needs.

What is made for it is taken away again whatever comes of it. What an interrupted run left a later
one takes away, once it is so old that the run cannot be going on.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cloud import MARK
from errors import CharmError, DaemonError
from record import Record

if TYPE_CHECKING:
    from services.lxd import Lxd
    from world import World

logger = logging.getLogger(__name__)

NOTE = f"{MARK}.verify"  # in the configuration of the action's instances: of which run they are
STALE = 6 * 3600  # seconds since a run began after which its instances are nobody's any more
IMAGE = "ubuntu:24.04"
LAUNCH_TIMEOUT = 600.0  # seconds; the image may have to come from far away
ADDRESS_TIMEOUT = 60.0  # seconds
PATIENCE = 30.0  # seconds in which what fails is tried again
COMMAND_TIMEOUT = 60.0  # seconds
SERVERS = {
    "ubuntu": "https://cloud-images.ubuntu.com/releases",
    "ubuntu-daily": "https://cloud-images.ubuntu.com/daily",
    "ubuntu-minimal": "https://cloud-images.ubuntu.com/minimal/releases",
    "images": "https://images.lxd.canonical.com",
}
_WORD = re.compile(r"[A-Za-z0-9.:_-]+")


class Probe(Record):
    """An instance of the action's."""

    name: str
    member: str
    address: str = ""


def run(world: World, params: Mapping[str, Any]) -> dict[str, Any]:
    """Launch, check, clean up; by member what came of it.

    Raises:
        CharmError: it cannot be begun, or something does not work; the sentence says all of it.
    """
    egress = str(params.get("egress") or "")
    if egress and not _WORD.fullmatch(egress):
        raise CharmError(f"egress={egress!r} is neither a host name nor an address")
    members = _members(world, str(params.get("member") or ""))
    source = image_source(str(params.get("image") or IMAGE))
    tag = f"{int(time.time())}-{secrets.token_hex(3)}"
    _clean_up(world.lxd, _is_stale)
    try:
        told: dict[str, dict[str, str]] = {}
        probes = [_launch(world.lxd, tag, name, source) for name in members]
        for probe in probes:
            told[probe.member] = dict(_checks(world.lxd, probe, probes, egress))
    finally:
        _clean_up(world.lxd, lambda note: note == tag)
    wrong = [
        f"{member}: {name}: {said}"
        for member, checks in told.items()
        for name, said in checks.items()
        if name != "address" and said != "ok"
    ]
    if wrong:
        raise CharmError("; ".join(wrong))
    return told


def _members(world: World, wanted: str) -> list[str]:
    members = world.view.services["lxd"].members
    if not members:
        raise CharmError(f"{world.view.name} is no member of the cloud")
    if not wanted:
        return [member.name for member in members if member.is_available]
    for member in members:
        if member.name == wanted and member.is_available:
            return [wanted]
    names = ", ".join(member.name for member in members if member.is_available)
    raise CharmError(f"there is no member {wanted} that takes instances; there are {names}")


def image_source(image: str) -> dict[str, str]:
    """Where LXD gets an image from: `ubuntu:24.04`, or an alias in the cluster."""
    remote, found, alias = image.partition(":")
    if not found:
        return {"type": "image", "alias": image}
    if remote not in SERVERS:
        raise CharmError(
            f"image={image!r}: there is no server {remote}; there are {', '.join(SERVERS)}, and "
            "the images of the cluster, by their alias alone"
        )
    server = {"server": SERVERS[remote], "protocol": "simplestreams"}
    return {"type": "image", "mode": "pull", "alias": alias, **server}


def _launch(lxd: Lxd, tag: str, member: str, source: Mapping[str, str]) -> Probe:
    name = f"verify-{tag.rpartition('-')[2]}-{member}"
    body = {"name": name, "source": source, "type": "container", "config": {NOTE: tag}}
    try:
        lxd.post("instances", body, target=member, timeout=LAUNCH_TIMEOUT)
        lxd.put(f"instances/{name}/state", {"action": "start", "timeout": 30})
    except DaemonError as fault:
        raise CharmError(
            f"no instance can be launched on {member} from image {source['alias']}: {fault}; "
            "an image of the cluster can be named by image=ALIAS"
        ) from fault
    return Probe(name, member, _address(lxd, name))


def _address(lxd: Lxd, name: str) -> str:
    """The instance's first address that others reach, "" if it gets none in time."""
    deadline = time.monotonic() + ADDRESS_TIMEOUT
    while True:
        network = lxd.get(f"/1.0/instances/{name}/state").get("network") or {}
        for interface, state in network.items():
            for address in state["addresses"] if interface != "lo" else ():
                if address["scope"] == "global":
                    return address["address"]
        if time.monotonic() > deadline:
            return ""
        time.sleep(0.5)


def _checks(lxd: Lxd, probe: Probe, probes: list[Probe], egress: str) -> Iterator[tuple[str, str]]:
    def tries(command: str) -> str:
        return _try(lambda: _execute(lxd, probe.name, command))

    yield "address", probe.address
    word = secrets.token_hex(8)
    yield "storage", tries(f"echo {word} >/root/verify && sync && grep -q {word} /root/verify")
    if not probe.address:
        yield "network", f"{probe.name} got no address within {ADDRESS_TIMEOUT:.0f} s"
        return
    other = probes[(probes.index(probe) + 1) % len(probes)]
    if other is not probe and other.address:
        yield "network", tries(f"ping -c 3 -W 3 {other.address}")
    yield "name-resolution", tries(f"ping -c 3 -W 3 {other.name}.lxd")
    if egress:
        yield "egress", tries(f"ping -c 3 -W 3 {egress}")


def _try(command: Callable[[], None]) -> str:
    """Networks and name servers learn of a new instance a moment after it has its address."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            command()
            return "ok"
        except CharmError as fault:
            if time.monotonic() > deadline:
                return str(fault)
        time.sleep(0.5)


def _execute(lxd: Lxd, name: str, command: str) -> None:
    """Run a shell command in the instance; raises CharmError if it fails."""
    body = {
        "command": ["sh", "-c", command],
        "wait-for-websocket": False,
        "record-output": False,
        "interactive": False,
    }
    started = lxd.begin(f"instances/{name}/exec", body)
    path = f"/1.0/operations/{started['id']}/wait?timeout={COMMAND_TIMEOUT:.0f}"
    done = lxd.get(path, timeout=COMMAND_TIMEOUT + 10)
    code = (done.get("metadata") or {}).get("return")
    if code != 0:
        why = f"exit code {code}" if code is not None else done.get("err") or "no end in time"
        raise CharmError(f"`{command}` failed: {why}")


def _is_stale(note: str) -> bool:
    began = note.partition("-")[0]
    return not began.isdigit() or int(began) < time.time() - STALE


def _clean_up(lxd: Lxd, is_over: Callable[[str], bool]) -> None:
    """Take the action's instances away, those of runs that are over."""
    for one in lxd.get("/1.0/instances?recursion=1"):
        if NOTE not in one["config"] or not is_over(one["config"][NOTE]):
            continue
        try:
            if one["status"] != "Stopped":
                stop = {"action": "stop", "force": True, "timeout": 30}
                lxd.put(f"instances/{one['name']}/state", stop)
            lxd.delete(f"instances/{one['name']}")
        except DaemonError as fault:
            logger.warning("%s stays: %s", one["name"], fault)
