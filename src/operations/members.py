"""The actions list-members and remove-member: who belongs to the cloud, by all that know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import drain
import juju
from errors import CharmError

if TYPE_CHECKING:
    from view import Member, View
    from world import World


def listing(world: World) -> list[dict[str, Any]]:
    """Every machine that a service has as member, or a unit is on; ready for JSON."""
    view = world.view
    known = juju.units()
    names = {name for service in view.services.values() for name in service.names}
    names |= {bag.identity.name for bag in view.units.values() if bag.identity}
    return [_describe(view, name, known) for name in sorted(names)]


def _describe(view: View, name: str, known: frozenset[str]) -> dict[str, Any]:
    found = _found(view, name)
    unit = _unit(view, name)
    inside = found.get("lxd")
    return {
        "member": name,
        "unit": unit,
        "juju": _juju(view, unit, known),
        "failure-domain": inside.domain if inside else "",
        "in-maintenance": bool(inside and inside.evacuated),
        "leaving": bool(inside and inside.leaving),
        "services": {
            service: {
                "online": member.online,
                "address": member.address,
                "roles": list(member.roles),
                "message": member.message,
            }
            for service, member in found.items()
        },
        "missing": [service for service in view.services if service not in found],
    }


def _found(view: View, name: str) -> dict[str, Member]:
    """The member of this name in each service that has one."""
    return {
        service: member
        for service, state in view.services.items()
        for member in state.members
        if member.name == name
    }


def _unit(view: View, name: str) -> str:
    for unit, bag in view.units.items():
        if bag.identity and bag.identity.name == name:
            return unit
    inside = _found(view, name).get("lxd")
    return inside.unit if inside else ""


def _juju(view: View, unit: str, known: frozenset[str]) -> str:
    if unit in view.units:
        return "present"
    return "being removed" if unit in known else "gone"


def remove(world: World, params: Mapping[str, Any]) -> dict[str, Any]:
    """Take a member out that Juju no longer knows.

    Raises:
        CharmError: it is none, Juju knows it, it still runs, or things would be lost with it.
    """
    name, force = str(params["name"]), bool(params.get("force"))
    view = world.view
    found = _check(view, name)
    lost = drain.lost_with(world.lxd, name) if "lxd" in found else ()
    if lost and not force:
        raise CharmError(
            f"{name} has the only copy of {', '.join(map(str, lost))}; power it on and move "
            "them, or give them up by force=true"
        )
    for service in view.services:
        if service in found:
            world.forget(service, name, force=force)
    return {"removed": name, "from": list(found), "lost": [str(item) for item in lost]}


def _check(view: View, name: str) -> dict[str, Member]:
    found = _found(view, name)
    if not found:
        names = sorted({one for service in view.services.values() for one in service.names})
        raise CharmError(f"no service has a member {name}; there are {', '.join(names)}")
    unit = _unit(view, name)
    if unit in view.units or unit in juju.units():
        raise CharmError(
            f"{name} is the machine of {unit}, which Juju knows: juju remove-unit {unit}, with "
            "--force if the machine is gone for good"
        )
    online = [service for service, member in found.items() if member.online]
    if online:
        raise CharmError(
            f"{name} still runs, as {', '.join(online)} can tell; power it off first, so that "
            "it does not go on as if it were a member"
        )
    return found
