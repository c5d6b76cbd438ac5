"""The network interfaces of one machine, and what each of them may be used for.

An *uplink* joins the cloud's networks to the outside: it belongs to no one else and has no
address. An interface for the *underlay* or for Ceph has addresses. What MicroCloud asks of them
is asked here too, and what it does not ask but people have stumbled over.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recall import recall

UPLINK_KINDS = ("physical", "bond", "vlan", "bridge", "ovs")
# Open vSwitch's own devices, and those that LXD and OVN make: no one's uplink.
_RESERVED = ("ovs-system", "br-int", "genev_sys", "lxdovn", "incusovn")
_KINDS = {"openvswitch": "ovs"}


class ProbeError(Exception):
    """The machine could not tell of its interfaces; `str()` of it is a sentence."""


class InterfaceNotFoundError(ValueError):
    """There is no such interface; `str()` of it is a sentence."""


class Probe(Protocol):
    """What is asked from the machine, as `ip -json` tells it."""

    def links(self) -> Sequence[Mapping[str, Any]]:
        """`ip -json -details address show`."""
        ...

    def default_routes(self) -> Sequence[Mapping[str, Any]]:
        """`ip -json route show default` of both families."""
        ...


@dataclass(frozen=True)
class Interface:
    """One interface. `addresses` are of global scope, such as `10.0.0.7/24`.

    `kind` is physical, bridge, bond, vlan, ovs, loopback or the kernel's word for it. `members`
    are the interfaces whose master it is. `mtu` is in bytes. `managed` is true of a network
    that LXD made.
    """

    name: str
    kind: str = "physical"
    up: bool = True
    carrier: bool = True
    broadcast: bool = True
    addresses: tuple[str, ...] = ()
    mtu: int = 1500
    mac: str = ""
    master: str = ""
    members: tuple[str, ...] = ()
    parent: str = ""
    default_route: bool = False
    managed: bool = False

    @property
    def state(self) -> str:
        """`up`, `down`, or `no-carrier` if it is up and nothing is at its other end."""
        return "down" if not self.up else "up" if self.carrier else "no-carrier"

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses without their prefix lengths."""
        return tuple(address.partition("/")[0] for address in self.addresses)


class HostProbe:
    """The machine this runs on; `timeout` in seconds is for one command."""

    def __init__(self, timeout: float = 10) -> None:
        self._timeout = timeout

    def links(self) -> Sequence[Mapping[str, Any]]:
        """All interfaces with their addresses.

        Raises:
            ProbeError: the command `ip` failed.
        """
        return self._ip("-details", "address", "show")

    def default_routes(self) -> Sequence[Mapping[str, Any]]:
        """The default routes of both families.

        Raises:
            ProbeError: the command `ip` failed.
        """
        return [
            *self._ip("-4", "route", "show", "default"),
            *self._ip("-6", "route", "show", "default"),
        ]

    def _ip(self, *arguments: str) -> list[Mapping[str, Any]]:
        return recall(("ip", *arguments), lambda: self._ask("ip", "-json", *arguments))

    def _ask(self, *command: str) -> list[Mapping[str, Any]]:
        what = f"`{' '.join(command)}`"
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self._timeout, check=True
            )
            return json.loads(done.stdout or "[]")
        except subprocess.TimeoutExpired:
            raise ProbeError(f"{what} did not end within {self._timeout:g} s") from None
        except subprocess.CalledProcessError as fault:
            raise ProbeError(f"{what} failed: {fault.stderr.strip()}") from None
        except (OSError, ValueError) as fault:
            raise ProbeError(f"{what} failed: {fault}") from None


def inventory(probe: Probe, managed: Collection[str] = ()) -> tuple[Interface, ...]:
    """All interfaces but the loopback, by name. `managed` are the networks that LXD made.

    Raises:
        ProbeError: the machine could not tell.
    """
    links = [link for link in probe.links() if link.get("ifname")]
    routed: set[str] = set()
    for route in probe.default_routes():
        hops = (route, *route.get("nexthops", ()))
        routed |= {hop["dev"] for hop in hops if hop.get("dev")}
    found = (_interface(link, links, routed, managed) for link in links)
    kept = (interface for interface in found if interface.kind != "loopback")
    return tuple(sorted(kept, key=lambda interface: interface.name))


def _interface(
    link: Mapping[str, Any],
    links: Iterable[Mapping[str, Any]],
    routed: Collection[str],
    managed: Collection[str],
) -> Interface:
    name, flags = link["ifname"], link.get("flags", ())
    members = sorted(other["ifname"] for other in links if other.get("master") == name)
    return Interface(
        name=name,
        kind=_kind(link),
        up="UP" in flags,
        carrier="NO-CARRIER" not in flags and link.get("operstate") != "LOWERLAYERDOWN",
        broadcast="BROADCAST" in flags,
        addresses=tuple(
            f"{address['local']}/{address['prefixlen']}"
            for address in link.get("addr_info", ())
            if address.get("scope") == "global" and "local" in address
        ),
        mtu=int(link.get("mtu", 0)),
        mac=link.get("address", "") if link.get("link_type") == "ether" else "",
        master=link.get("master", ""),
        members=tuple(members),
        parent=link.get("link") or "",
        default_route=name in routed,
        managed=name in managed,
    )


def _kind(link: Mapping[str, Any]) -> str:
    if link.get("link_type") == "loopback":
        return "loopback"
    kind = link.get("linkinfo", {}).get("info_kind", "")
    # In a container the machine's own interface is one end of a pair whose other end is outside.
    if not kind or (kind == "veth" and "link_netnsid" in link):
        return "physical"
    return _KINDS.get(kind, kind)


def find(name: str, interfaces: Iterable[Interface]) -> Interface:
    """The interface of a name.

    Raises:
        InterfaceNotFoundError: the machine has none.
    """
    known = tuple(interfaces)
    for interface in known:
        if interface.name == name:
            return interface
    listed = ", ".join(interface.name for interface in known) or "none"
    raise InterfaceNotFoundError(f"{name} does not exist on this machine; there are {listed}")


def with_address(address: str, interfaces: Iterable[Interface]) -> Interface | None:
    """The interface that has an IP address, None if none has."""
    wanted = ipaddress.ip_address(address)
    for interface in interfaces:
        if wanted in map(ipaddress.ip_address, interface.ips):
            return interface
    return None


def unfit_uplink(
    interface: Interface, *, juju_addresses: Collection[str] = (), wired: bool = False
) -> tuple[str, ...]:
    """Every reason why an interface cannot be an uplink, as sentences; none if it can.

    A bridge may have addresses and the default route: LXD ties a port to it, and it stays the
    host's. Any other interface is taken from the host altogether. `juju_addresses` are those
    that the controller reaches this machine at. `wired` says that the cloud uses it as its
    uplink already: LXD has then made it a port of an Open vSwitch bridge, as it should be.
    """
    name, reasons = interface.name, list[str]()
    if interface.kind not in UPLINK_KINDS or name.startswith(_RESERVED):
        kinds = ", ".join(UPLINK_KINDS[:-1])
        reasons.append(f"{name} is of the kind {interface.kind}; an uplink is one of {kinds}")
    if interface.managed:
        reasons.append(f"{name} is a network that LXD manages; an uplink interface must be free")
    if interface.master and not wired:
        reasons.append(_enslaved(interface))
    if not interface.broadcast:
        reasons.append(f"{name} cannot broadcast; an uplink needs ARP")
    reasons += _down(interface)
    if interface.kind not in ("bridge", "ovs"):
        reasons += _is_needed(interface, juju_addresses)
    return tuple(reasons)


def _is_needed(interface: Interface, juju_addresses: Collection[str]) -> Iterable[str]:
    """What the host itself has the interface for."""
    name = interface.name
    if interface.addresses:
        listed, es = ", ".join(interface.addresses), "es" if len(interface.addresses) > 1 else ""
        yield f"{name} has address{es} {listed}; an uplink interface must have none"
    if interface.default_route:
        yield f"{name} carries the default route"
    juju = [ip for ip in interface.ips if _same_ip(ip, juju_addresses)]
    if juju:
        yield f"{name} has the address {juju[0]}, at which Juju reaches this machine"


def unfit_addressed(interface: Interface) -> tuple[str, ...]:
    """Every reason why an interface cannot carry the underlay or Ceph's traffic."""
    reasons = list[str]()
    if interface.managed:
        reasons.append(f"{interface.name} is a network that LXD manages")
    reasons += _down(interface)
    if not interface.addresses:
        reasons.append(f"{interface.name} has no address; give it one in the network's subnet")
    return tuple(reasons)


def _down(interface: Interface) -> Iterable[str]:
    name = interface.name
    if not interface.up:
        yield f"{name} is down; bring it up: ip link set {name} up"
    elif not interface.carrier:
        below = "see its members" if interface.members else "see its cable or switch port"
        yield f"{name} is up but has no carrier; {below}"


def _enslaved(interface: Interface) -> str:
    name, master = interface.name, interface.master
    if master == "ovs-system":
        return f"{name} is a port of an Open vSwitch bridge; take it out or name the bridge"
    return f"{name} is a member of {master}; name {master} instead"


def _same_ip(ip: str, others: Collection[str]) -> bool:
    # Juju may name a host here instead; texts are enough, since both write addresses one way.
    return ip in {other.partition("/")[0] for other in others}


def addresses_of(interfaces: Iterable[Interface]) -> tuple[str, ...]:
    """All addresses (with prefix lengths) of interfaces fit to carry Ceph or the underlay."""
    return tuple(
        address
        for interface in interfaces
        if not unfit_addressed(interface)
        for address in interface.addresses
    )


def to_json(interface: Interface, *, juju_addresses: Collection[str] = ()) -> dict[str, object]:
    """An interface as the action `list-interfaces` shows it."""
    addressed = unfit_addressed(interface)
    uplink = unfit_uplink(interface, juju_addresses=juju_addresses)
    return {
        "name": interface.name,
        "kind": interface.kind,
        "state": interface.state,
        "addresses": list(interface.addresses),
        "mtu": interface.mtu,
        "mac": interface.mac,
        "master": interface.master or None,
        "members": list(interface.members),
        "default-route": interface.default_route,
        "uplink": {"eligible": not uplink, "reasons": list(uplink)},
        "underlay": {"eligible": not addressed, "reasons": list(addressed)},
        "ceph": {"eligible": not addressed, "reasons": list(addressed)},
    }
