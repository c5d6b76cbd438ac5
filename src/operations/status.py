"""The action `status`: the cloud as this unit sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cloud
import formation
from errors import CharmError
from view import Presence, ServiceView, View

if TYPE_CHECKING:
    from world import World


def describe(world: World) -> dict[str, Any]:
    """Members, services, pools and networks, and what is waited for; ready for JSON."""
    view = world.view
    rest = formation.look_only(view)
    told: dict[str, Any] = {
        "unit": view.me,
        "member": view.name,
        "status": rest.status,
        "message": rest.message,
        "initiator": view.formation.initiator,
        "issuer": view.formation.issuer,
        "services": {
            name: {
                "state": service.presence.value,
                "detail": service.detail,
                "cluster": service.cluster,
                "members": [
                    {
                        "name": member.name,
                        "address": member.address,
                        "online": member.online,
                        "roles": list(member.roles),
                        "message": member.message,
                    }
                    for member in service.members
                ],
            }
            for name, service in view.services.items()
        },
        "units": {
            unit: {
                "member": bag.identity.name if bag.identity else "",
                "joined": list(bag.report.joined),
                "problems": list(bag.report.problems),
                "failure": bag.report.failure.error if bag.report.failure else "",
            }
            for unit, bag in view.units.items()
        },
        "matrix": matrix(view),
    }
    if view.services["lxd"].presence is Presence.MEMBER:
        told.update(_inside(world))
    if "microceph" in view.joined:
        from operations import ceph

        told["ceph"] = ceph.describe(world)
    if "microovn" in view.joined:
        from operations import ovn

        told["ovn"] = ovn.describe(world)
    return told


def matrix(view: View) -> dict[str, dict[str, str]]:
    """How each machine stands to each cluster, as this machine's daemons tell.

    Of its own machine a unit knows `absent`, `alone`, `pending` (a join that was begun), `member`
    and `broken`; of the others `member`, `offline`, `pending` (the cluster has a place for it
    that it does not fill yet) and `absent`. Nothing is told by a daemon that is no member.
    """
    names = {bag.identity.name for bag in view.units.values() if bag.identity}
    for service in view.services.values():
        names |= service.names
    return {
        name: {
            title: _own(service) if name == view.name else _other(service, name)
            for title, service in view.services.items()
        }
        for name in sorted(names | {view.name})
    }


def _own(service: ServiceView) -> str:
    if service.joining and service.presence is not Presence.MEMBER:
        return "pending"
    return service.presence.value


def _other(service: ServiceView, name: str) -> str:
    if service.presence is not Presence.MEMBER:
        return "unknown"
    member = next((member for member in service.members if member.name == name), None)
    if member is None:
        return "absent"
    if "pending" in (word.lower() for word in (*member.roles, member.message)):
        return "pending"
    return "member" if member.online else "offline"


def _inside(world: World) -> dict[str, Any]:
    try:
        facts = cloud.facts(world.lxd)
    except CharmError as fault:
        return {"fault": str(fault)}
    pools = facts.pools.values()
    networks = (network for network in facts.networks.values() if network.managed)
    return {
        "storage-pools": {pool.name: _entity(pool) for pool in pools},
        "networks": {network.name: _entity(network) for network in networks},
        "default-profile": facts.profile["devices"],
    }


def _entity(entity: cloud.Entity) -> dict[str, Any]:
    return {"kind": entity.kind, "status": entity.status, "members": list(entity.locations)}
