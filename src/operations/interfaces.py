"""The action `list-interfaces`: this unit's interfaces, and what each is fit for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import preflight_ovn
from errors import CharmError
from view import Presence

if TYPE_CHECKING:
    from world import World


def describe(world: World) -> list[dict[str, object]]:
    """All interfaces but the loopback, ready for JSON; raises CharmError."""
    from machine.interfaces import to_json

    managed = _managed(world)
    found = preflight_ovn.interfaces(managed)
    juju = world.juju_addresses()
    return [to_json(interface, juju_addresses=juju) for interface in found]


def _managed(world: World) -> list[str]:
    """The networks that LXD made here; none where LXD does not run yet."""
    if world.view.services["lxd"].presence not in (Presence.ALONE, Presence.MEMBER):
        return []
    try:
        networks = world.lxd.get("/1.0/networks?recursion=1")
    except CharmError:
        return []
    return [network["name"] for network in networks if network["managed"]]
