"""The actions enter-maintenance and exit-maintenance: a member does without its instances.

That a member is in maintenance is LXD's state `Evacuated`, which a reboot does not change; that
Ceph does not spread its data anew meanwhile is Ceph's flag `noout`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from errors import CharmError, Findings
from view import Presence

if TYPE_CHECKING:
    from view import Member
    from world import World

logger = logging.getLogger(__name__)

TIMEOUT = 3600.0  # seconds; instances on local pools are copied
NOOUT = "Ceph: set the flag noout"


def enter(world: World, params: Mapping[str, Any]) -> dict[str, Any]:
    """Move this member's instances away and prepare Ceph for its absence.

    Raises:
        Findings: the others would not do without it, and `force` was not given.
        CharmError: a daemon refuses.
    """
    me = _me(world)
    wrong = tuple(_against(world, me))
    told = {"member": me.name, "against": list(wrong), "done": []}
    plan = [] if me.evacuated else [f"LXD: evacuate {name}" for name in _instances(world, me)]
    plan += [] if me.evacuated else ["LXD: take no new instances"]
    plan += [NOOUT] if "microceph" in world.view.joined else []
    if params.get("dry-run"):
        return {**told, "plan": plan}
    if wrong and not params.get("force"):
        raise Findings(f"{me.name} cannot be spared: {fault}" for fault in wrong)
    if not me.evacuated:
        world.lxd.post(f"cluster/members/{me.name}/state", {"action": "evacuate"}, timeout=TIMEOUT)
    if NOOUT in plan:
        world.microceph.enter_maintenance(me.name)
    return {**told, "done": plan}


def leave(world: World) -> dict[str, Any]:
    """Take the instances back, and let Ceph see to its data again; raises CharmError."""
    me = _me(world)
    done: list[str] = []
    if me.evacuated:
        world.lxd.post(f"cluster/members/{me.name}/state", {"action": "restore"}, timeout=TIMEOUT)
        done.append("LXD: restore instances")
    if "microceph" in world.view.joined:
        others = [m.name for m in world.lxd.members() if m.evacuated and m.name != me.name]
        if others:
            done.append(f"Ceph: the flag noout stays for {', '.join(others)}")
        else:
            world.microceph.exit_maintenance(me.name)
            done.append("Ceph: take the flag noout away")
    return {"member": me.name, "done": done}


def _me(world: World) -> Member:
    view = world.view
    for member in view.services["lxd"].members:
        if member.name == view.name:
            return member
    raise CharmError(f"{view.name} is no member of the cloud")


def _instances(world: World, me: Member) -> list[str]:
    found = world.lxd.get("/1.0/instances?recursion=1&all-projects=true")
    return [one["name"] for one in found if one["location"] == me.name]


def _against(world: World, me: Member) -> Iterator[str]:
    """Why the others cannot do without this member."""
    members = world.view.services["lxd"].members
    away = [m.name for m in members if m.name != me.name and not m.is_available]
    if away:
        yield f"{', '.join(away)} is away already; one at a time"
    if len(members) == 1:
        yield "it is the only member"
    ovn = world.view.services.get("microovn")
    if ovn is not None and ovn.presence is Presence.MEMBER:
        centrals = world.microovn.centrals()
        online = {m.name for m in ovn.members if m.online}
        rest = [name for name in centrals if name in online and name != me.name]
        if me.name in centrals and 2 * len(rest) <= len(centrals):
            yield (
                f"of OVN's {len(centrals)} databases {len(rest)} would run, which is no "
                "majority: networks could not be changed, nor instances started"
            )
    if "microceph" in world.view.joined:
        yield from world.microceph.against_maintenance(me.name)
