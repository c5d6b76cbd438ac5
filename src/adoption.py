"""Clusters that were there before Juju: whether this unit's is that of the others. Pure.

A daemon that is a member of a cluster is taken as it is, whoever made it one. Machines whose
daemons are in different clusters cannot become one cloud: the unit that is not in the issuer's
changes nothing and says so.
"""

from __future__ import annotations

from view import Presence, View


def apart(view: View, unit: str) -> str:
    """The service of which the unit is in another cluster than this one is, "" if of none."""
    bag = view.units[unit]
    for name, service in view.services.items():
        theirs = bag.report.clusters.get(name, "")
        # Its report may be older than a new certificate of the cluster that both are in.
        known = bag.identity is not None and bag.identity.name in service.names
        if service.cluster and theirs not in ("", service.cluster) and not known:
            return name
    return ""


def refusal(view: View, first: str) -> str:
    """Why this unit cannot be in one cloud with the unit that is in it already; "" if it can."""
    name = apart(view, first)
    if not name:
        return ""
    mine, theirs = view.services[name].cluster, view.units[first].report.clusters[name]
    here = ", ".join(sorted(view.services[name].names))
    beside = (bag for bag in view.units.values() if bag.report.clusters.get(name) == theirs)
    there = ", ".join(sorted(bag.identity.name for bag in beside if bag.identity is not None))
    return (
        f"{view.name} is in the {name} cluster {mine} ({here}), {first} in the {name} cluster "
        f"{theirs} ({there}), and one cloud is one cluster; remove this unit, or take "
        f"{view.name} out of its cluster"
    )


def unsure(view: View) -> bool:
    """Whether this unit's LXD is in a cluster that may turn out to be another than the first's.

    A member that bears its unit's name was found to be in the right one before.
    """
    first = view.draft.issuer or view.draft.initiator
    lxd = view.services["lxd"]
    if first == view.me or not lxd.cluster:
        return False
    mine = next((member for member in lxd.members if member.name == view.name), None)
    if mine is None or mine.unit:
        return False
    return first not in view.units or "lxd" not in view.units[first].report.clusters


def misnamed(view: View) -> str:
    """The service whose cluster knows this machine by another name than its own; "" if none."""
    for name, service in view.services.items():
        member = service.presence is Presence.MEMBER and service.members
        if member and view.name not in service.names:
            return (
                f"{name} on this machine is a member of a cluster ({', '.join(service.names)}), "
                f"but not by the machine's host name, {view.name}; give the machine that name"
            )
    return ""
