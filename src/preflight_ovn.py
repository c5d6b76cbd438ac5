"""Whether this machine is fit for OVN: the interface of its uplink, the address of its tunnels."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from errors import CharmError, Findings
from record import Record

if TYPE_CHECKING:
    from cloud import Facts
    from machine.interfaces import Interface
    from services.microovn import Microovn
    from settings import Settings
    from view import View

UPLINK = "UPLINK"
NETWORKS = (UPLINK, "default")
# Bytes. A packet of the instances (1442) with Geneve's headers has to fit.
MIN_MTU = 1500


class Underlay(Record):
    """Where a machine's tunnels end; `mtu` in bytes, 0 if no interface has the address."""

    address: str
    mtu: int = 0


def interfaces(managed: Collection[str] = ()) -> tuple[Interface, ...]:
    """This machine's interfaces; raises CharmError."""
    from machine import interfaces as machine

    try:
        return machine.inventory(machine.HostProbe(), managed)
    except machine.ProbeError as fault:
        raise CharmError(str(fault)) from fault


def underlay(subnet: str, cluster: str, bound: str) -> Underlay:
    """Where this machine's tunnels end: its address in `subnet`, else the one that is bound.

    `cluster` is the address of the cluster's binding, `bound` that of the tunnels'.

    Raises:
        Findings: this machine has no such address.
    """
    import ipaddress

    from machine import interfaces as machine

    found = interfaces()
    address = bound or cluster
    if subnet:
        network = ipaddress.ip_network(subnet, strict=False)
        ips = [ip.partition("/")[0] for ip in machine.addresses_of(found)]
        inside = [ip for ip in ips if ipaddress.ip_address(ip) in network]
        if not inside:
            has = ", ".join(ips) or "none"
            raise Findings([f"ovn-underlay: no address here is in {network}; there are {has}"])
        address = inside[0]
    holder = machine.with_address(address, found)
    if holder is not None and holder.mtu < MIN_MTU:
        raise Findings(
            [
                f"{holder.name} has {address}, where OVN's tunnels would end, and an MTU of "
                f"{holder.mtu}; they need {MIN_MTU}"
            ]
        )
    return Underlay(address, holder.mtu if holder else 0)


def beside(view: View) -> Iterator[str]:
    """What does not fit between this unit's tunnels and those of the others."""
    mine = view.mine.identity
    if mine is None:
        return
    for unit, bag in view.units.items():
        other = bag.identity
        if unit == view.me or other is None:
            continue
        address = other.underlay or other.address
        if address == (mine.underlay or mine.address):
            yield f"{view.me} and {unit} have the same address for OVN's tunnels, {address}"
        if 0 < mine.mtu < other.mtu and "microovn" in bag.report.joined:
            yield (
                f"OVN's tunnels have an MTU of {other.mtu} on {other.name} and of {mine.mtu} on "
                f"{mine.name}; make {mine.name}'s as large, or large packets are lost"
            )


def needs_uplink(wanted: Settings, facts: Facts, name: str) -> bool:
    """Whether this member has still to have its part of the network `UPLINK`."""
    if wanted.uplink is None:
        return False
    network = facts.networks.get(UPLINK)
    return network is None or name not in network.locations


def uplink_parent(
    wanted: Settings,
    name: str,
    ovn: Microovn,
    juju: Collection[str] = (),
    managed: Collection[str] = (),
) -> str:
    """This machine's uplink interface, "" if there is to be no uplink.

    `juju` are the addresses at which Juju reaches this machine, `managed` LXD's networks.

    Raises:
        Findings: it names none for this machine, or it is not fit.
    """
    if wanted.uplink is None:
        return ""
    from machine import interfaces as machine
    from machine.uplink import check_members

    found = interfaces(managed)
    wrong = [
        f"an interface of this machine is called {one.name}, as the network of LXD is to be; "
        "rename or remove it"
        for one in found
        if one.name in NETWORKS and one.name not in managed
    ]
    wrong += check_members(
        wanted.uplink.settings, {name: [ip for one in found for ip in one.addresses]}
    )
    parent = wanted.uplink.interfaces.get(name)
    if parent is None:
        raise Findings([*wrong, f"ovn-uplink-interface names no interface for {name}; add one"])
    try:
        interface = machine.find(parent, found)
        # A join of LXD that failed may have left the interface in the bridge that LXD made.
        kept = interface.master == "ovs-system" and ovn.uplink_bridge(parent).startswith("lxdovn")
        reasons = machine.unfit_uplink(interface, juju_addresses=juju, wired=kept)
        wrong += [f"ovn-uplink-interface: {reason}" for reason in reasons]
    except machine.InterfaceNotFoundError as fault:
        wrong.append(f"ovn-uplink-interface: {fault}")
    if wrong:
        raise Findings(wrong)
    return parent
