"""The health of OVN as this unit sees it, for the action `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from errors import CharmError
from services.microovn import connections

if TYPE_CHECKING:
    from services.microovn import Microovn
    from view import ServiceView
    from world import World

NB_RAFT, SB_PORT = 6643, 6642


def describe(world: World) -> dict[str, Any]:
    """Centrals, databases, northd and chassis; `faults` are sentences, none if all is well."""
    driver, service = world.microovn, world.view.services["microovn"]
    try:
        centrals = driver.centrals()
        told: dict[str, Any] = {
            "centrals": list(centrals),
            "chassis": {chassis.name: chassis.encap for chassis in driver.chassis()},
            "southbound-here": driver.remote(),
        }
        faults = _chassis_faults(world, told["chassis"])
        faults += _remote_faults(driver, service, centrals)
        if world.view.name in centrals:
            told["northd-here"] = driver.northd_state()
            told |= _databases(driver, service, centrals, faults)
            if told["northd-here"] not in ("active", "standby"):
                faults.append(f"northd on {world.view.name} does not run")
    except CharmError as fault:
        return {"faults": [str(fault)]}
    return {**told, "faults": faults}


def _chassis_faults(world: World, chassis: dict[str, str]) -> list[str]:
    """Each member is a chassis, and its tunnels end where its unit has said."""
    view = world.view
    service = view.services["microovn"]
    faults = [f"{name} is no chassis" for name in sorted(service.names - chassis.keys())]
    faults += [f"chassis {name} is no member" for name in sorted(chassis.keys() - service.names)]
    for bag in view.units.values():
        identity = bag.identity
        if identity is None or identity.name not in chassis:
            continue
        wanted = identity.underlay or identity.address
        if chassis[identity.name] != wanted:
            faults.append(
                f"the tunnels of {identity.name} end at {chassis[identity.name]}, not at {wanted}"
            )
    return faults


def _remote_faults(driver: Microovn, service: ServiceView, centrals: tuple[str, ...]) -> list[str]:
    told, wanted = driver.remote(), connections(service.members, centrals, SB_PORT)
    if set(told.split(",")) == set(wanted) or driver.external_centrals():
        return []
    where = ",".join(wanted)
    return [f"OVN's controller here knows the databases at {told or 'none'}, not {where}"]


def _databases(
    driver: Microovn, service: ServiceView, centrals: tuple[str, ...], faults: list[str]
) -> dict[str, Any]:
    """The servers of both databases' clusters, which only a central can tell."""
    told: dict[str, Any] = {}
    for name, port in (("nb", NB_RAFT), ("sb", NB_RAFT + 1)):
        servers, wanted = driver.raft(name), connections(service.members, centrals, port)
        told[f"{name}-servers"] = list(servers)
        lost = sorted(set(servers) - set(wanted))
        if lost:
            faults.append(f"OVN's {name} database still counts on {', '.join(lost)}")
        if set(wanted) - set(servers):
            missing = sorted(set(wanted) - set(servers))
            faults.append(f"OVN's {name} database does not have {', '.join(missing)}")
    return told
