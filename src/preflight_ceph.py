"""Whether this machine is fit for Ceph: its addresses in Ceph's networks, and its zone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from errors import Findings
from record import Record
from view import Presence

if TYPE_CHECKING:
    from peers import Identity
    from services.microceph import Microceph
    from settings import Settings
    from view import ServiceView, View

BINDINGS = {"public": "ceph-public", "internal": "ceph-internal"}
OPTIONS = {"public": "ceph-public-network", "internal": "ceph-internal-network"}

_ZONE = re.compile(r"[a-zA-Z0-9_.-]+")  # what a bucket of Ceph's may be called
_APART = (Presence.ABSENT, Presence.ALONE)


class Networks(Record):
    """Ceph's networks as they are wanted, subnets split at commas; "" for MicroCeph's choice.

    Clients and monitors use the public one, disks copy to each other over the internal one.
    """

    public: str = ""
    internal: str = ""

    def options(self) -> Mapping[str, str]:
        """What the first member tells MicroCeph."""
        wanted = {"PublicNet": self.public, "ClusterNet": self.internal}
        return {key: value for key, value in wanted.items() if value}


def networks(wanted: Settings, bound: Callable[[str], str]) -> Networks:
    """The networks of the configuration, else those that Juju has bound.

    `bound` gives the subnet of a binding, "" if it is the one of the cluster.
    """
    return Networks(
        wanted.ceph_public or bound(BINDINGS["public"]),
        wanted.ceph_internal or bound(BINDINGS["internal"]),
    )


def check(wanted: Networks, name: str) -> None:
    """Raise Findings unless this machine has an address in each of the networks."""
    if not wanted.options():
        return
    import preflight_ovn
    from machine import interfaces

    own = interfaces.addresses_of(preflight_ovn.interfaces())
    found = [
        finding
        for network, option in OPTIONS.items()
        for finding in _outside(option, getattr(wanted, network), name, own)
    ]
    if found:
        raise Findings(found)


def _outside(option: str, subnets: str, name: str, own: tuple[str, ...]) -> tuple[str, ...]:
    from machine.uplink import check_subnet

    findings = [check_subnet(option, subnet, {name: own}) for subnet in subnets.split(",")]
    return () if not all(findings) else sum(findings, ())


def unchanged(wanted: Networks, driver: Microceph) -> None:
    """Raise Findings if Ceph, which runs, has other networks: moving it is not for a charm."""
    if not wanted.options():
        return
    found = list(_moved(wanted, driver.networks()))
    if found:
        raise Findings(found)


def _moved(wanted: Networks, has: Mapping[str, str]) -> Iterator[str]:
    for network, option in OPTIONS.items():
        value = getattr(wanted, network)
        if value and has.get(network) and _plain(value) != _plain(has[network]):
            yield (
                f"{option}={value} cannot be, as Ceph's {network} network is {has[network]} since "
                "it was made, and a running cluster is not moved; set it back"
            )


def _plain(subnets: str) -> set[str]:
    import ipaddress

    parts = (part.strip() for part in subnets.split(","))
    return {str(ipaddress.ip_network(part, strict=False)) for part in parts if part}


def zone(wanted: Settings, ceph: ServiceView | None, known: Identity | None) -> str:
    """The zone with which this machine starts or joins Ceph, or has done so; "" for none."""
    if known is not None and ceph is not None and ceph.presence not in _APART:
        return known.zone
    return os.environ.get("JUJU_AVAILABILITY_ZONE", "") if wanted.ceph_zones else ""


def against_zone(view: View, mine: Identity | None) -> Iterator[str]:
    """What is wrong with Ceph's zones: MicroCeph takes a zone of every member, or of none."""
    ceph = view.services.get("microceph")
    if ceph is None or mine is None or view.settings is None:
        return
    wanted, apart = view.settings.ceph_zones, ceph.presence in _APART
    bags = view.units.values()
    others = (bag.identity for bag in bags if bag.identity and "microceph" in bag.report.joined)
    first = next(others, None) if apart else mine
    if first is not None and bool(first.zone) != wanted:
        how = "with" if first.zone else "without"
        yield (
            f"ceph-zones={str(wanted).lower()} cannot be, as {first.name} is in Ceph {how} a "
            "zone, and all machines have to be so; set it back"
        )
    elif wanted and apart and not mine.zone:
        yield (
            f"ceph-zones=true: Juju knows no availability zone of {view.name}; use a machine that "
            "has one, or set it to false before Ceph is started"
        )
    elif wanted and apart and not _ZONE.fullmatch(mine.zone):
        yield (
            f"ceph-zones=true: {view.name} is in the availability zone {mine.zone!r}; Ceph takes "
            "letters, digits and _.- only"
        )
