"""The settings of the uplink, the underlay and Ceph's networks, checked before anyone uses them.

All of it is pure: texts and addresses in, findings out. MicroCloud's rules hold; where it does
not look (ranges outside of the gateway's network, members that come later), this does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from record import Record

Address = IPv4Address | IPv6Address
Gateway = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

INGRESS_MODES = ("l2proxy", "routed")


class UplinkError(ValueError):
    """Settings are wrong; `findings` has a sentence for each fault, `str()` all of them."""

    def __init__(self, findings: Iterable[str]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(self.findings))


class AddressRange(Record):
    """Addresses from `first` to `last`, both included; `str()` of it is `first-last`."""

    first: Address
    last: Address

    def __contains__(self, address: Address) -> bool:
        if address.version != self.first.version:
            return False
        return int(self.first) <= int(address) <= int(self.last)

    def __len__(self) -> int:
        return min(int(self.last) - int(self.first) + 1, 2**62)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def overlaps(self, other: AddressRange) -> bool:
        """Whether an address is in both."""
        return other.first in self or self.first in other


class UplinkSettings(Record):
    """What the network `UPLINK` is told, valid. `ingress` "" leaves it to LXD."""

    gateway4: IPv4Interface | None = None
    ranges4: tuple[AddressRange, ...] = ()
    gateway6: IPv6Interface | None = None
    ranges6: tuple[AddressRange, ...] = ()
    dns: tuple[Address, ...] = ()
    ingress: str = ""

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        """Both gateways, as far as there are."""
        return tuple(gateway for gateway in (self.gateway4, self.gateway6) if gateway)

    @property
    def ranges(self) -> tuple[AddressRange, ...]:
        """The ranges of both families."""
        return self.ranges4 + self.ranges6

    @property
    def nameservers(self) -> tuple[Address, ...]:
        """The name servers; where none are given the gateways, as MicroCloud proposes."""
        return self.dns or tuple(gateway.ip for gateway in self.gateways)

    def lxd_config(self) -> dict[str, str]:
        """The keys of the LXD network `UPLINK`; what is not set is not in it."""
        values = {
            "ipv4.gateway": str(self.gateway4 or ""),
            "ipv4.ovn.ranges": ",".join(map(str, self.ranges4)),
            "ipv6.gateway": str(self.gateway6 or ""),
            "ipv6.ovn.ranges": ",".join(map(str, self.ranges6)),
            "dns.nameservers": ",".join(map(str, self.nameservers)),
            "ovn.ingress_mode": self.ingress,
        }
        return {key: value for key, value in values.items() if value}


def parse(
    *,
    gateway4: str = "",
    ranges4: str = "",
    gateway6: str = "",
    ranges6: str = "",
    dns: str = "",
    ingress: str = "",
) -> UplinkSettings:
    """Read the settings of an uplink. Lists are split at commas.

    Raises:
        UplinkError: something is wrong with them; every finding is in it.
    """
    wrong: list[str] = []
    four, six = _Family(4, wrong), _Family(6, wrong)
    given4, given6 = four.gateway(gateway4), six.gateway(gateway6)
    parsed4, parsed6 = four.ranges(ranges4, given4), six.ranges(ranges6, given6)
    if not gateway4.strip() and not gateway6.strip():
        wrong.append("Either the IPv4 or IPv6 gateway has to be set on the uplink network")
    if gateway4.strip() and not ranges4.strip():
        wrong.append(
            "the uplink has an IPv4 gateway but no IPv4 range; "
            "name the addresses that OVN may use, such as 10.0.0.100-10.0.0.200"
        )
    servers = _nameservers(dns, wrong)
    ingress = ingress.strip()
    if ingress and ingress not in INGRESS_MODES:
        wrong.append(f"the ingress mode {ingress!r} is none of {', '.join(INGRESS_MODES)}")
    if wrong:
        raise UplinkError(wrong)
    return UplinkSettings(
        given4 if isinstance(given4, IPv4Interface) else None,
        parsed4,
        given6 if isinstance(given6, IPv6Interface) else None,
        parsed6,
        servers,
        ingress,
    )


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text.strip() else []


def _nameservers(text: str, wrong: list[str]) -> tuple[Address, ...]:
    servers: list[Address] = []
    for item in _items(text):
        server = _address(item)
        if server is None:
            wrong.append(f"Invalid dns.nameservers: Invalid IP {item!r}")
        elif server in servers:
            wrong.append(f"the name server {server} is given twice")
        elif server.is_unspecified or server.is_multicast or server.is_loopback:
            wrong.append(f"the name server {server} is not an address that instances can reach")
        else:
            servers.append(server)
    return tuple(servers)


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A zone (fe80::1%eth0) means something on one machine only.
    return None if "%" in text else address


class _Family:
    """The checks that are alike for both families; findings go to `wrong`."""

    def __init__(self, version: int, wrong: list[str]) -> None:
        self._version = version
        self._name = f"IPv{version}"
        self._wrong = wrong

    def gateway(self, text: str) -> Gateway | None:
        text = text.strip()
        if not text:
            return None
        example = "10.0.0.1/24" if self._version == 4 else "2001:db8::1/64"
        if "/" not in text:
            self._wrong.append(
                f"the {self._name} gateway {text!r} has no prefix length; "
                f"write the gateway's address in CIDR notation, such as {example}"
            )
            return None
        try:
            gateway = ipaddress.ip_interface(text)
        except ValueError:
            gateway = None
        if gateway is None or gateway.version != self._version or "%" in text:
            self._wrong.append(
                f"Invalid ipv{self._version}.gateway {text!r}; it must be an {self._name} "
                f"address in CIDR notation, such as {example}"
            )
            return None
        return gateway if self._is_host(gateway) else None

    def _is_host(self, gateway: Gateway) -> bool:
        fault = ""
        address, network = gateway.ip, gateway.network
        if address.is_unspecified or address.is_multicast or address.is_loopback:
            fault = "is not the address of a gateway"
        elif network.num_addresses == 1:
            fault = "leaves no other address in its network; give the network's prefix length"
        elif network.num_addresses > 2 and address == network.network_address:
            fault = f"is the address of its network {network}, not of a gateway in it"
        elif network.num_addresses > 2 and _is_broadcast(address, network):
            fault = f"is the broadcast address of its network {network}"
        if fault:
            self._wrong.append(f"the {self._name} gateway {gateway} {fault}")
        return not fault

    def ranges(self, text: str, gateway: Gateway | None) -> tuple[AddressRange, ...]:
        ranges: list[AddressRange] = []
        for item in _items(text):
            found = self._range(item)
            if found is None:
                continue
            if gateway is not None:
                self._wrong += self._misplaced(found, gateway)
            self._wrong += [
                f"the {self._name} ranges {other} and {found} overlap"
                for other in ranges
                if other.overlaps(found)
            ]
            ranges.append(found)
        # What is wrong with a gateway has been said where it was read.
        if ranges and gateway is None and not self._says_gateway():
            self._wrong.append(f"Cannot specify {self._name} range without {self._name} gateway")
        return tuple(ranges)

    def _says_gateway(self) -> bool:
        marks = (f"{self._name} gateway", f"ipv{self._version}.gateway")
        return any(mark in finding for finding in self._wrong for mark in marks)

    def _range(self, text: str) -> AddressRange | None:
        ends = [_address(end.strip()) for end in text.split("-")]
        first, last = ends if len(ends) == 2 else (None, None)
        if first is None or last is None:
            self._wrong.append(
                f"Invalid {self._name} range {text!r} (must be of the form <ip>-<ip>)"
            )
            return None
        if {first.version, last.version} != {self._version}:
            self._wrong.append(f"the {self._name} range {text} is not one of {self._name}")
            return None
        if int(first) > int(last):
            self._wrong.append(f"the {self._name} range {text} ends before it begins")
            return None
        return AddressRange(first, last)

    def _misplaced(self, found: AddressRange, gateway: Gateway) -> Iterable[str]:
        network = gateway.network
        if found.first not in network or found.last not in network:
            yield (
                f"the {self._name} range {found} is not inside of {network}, "
                f"the network of the gateway {gateway}"
            )
        if gateway.ip in found:
            yield (
                f"UPLINK ipv{self._version} ipv{self._version}.ovn.ranges must not include "
                f"gateway address {gateway.ip}; {found} does"
            )
        if network.num_addresses > 2 and network.network_address in found:
            yield f"the {self._name} range {found} includes the network's own address"
        broadcast = network.broadcast_address
        if network.num_addresses > 2 and _is_broadcast(broadcast, network) and broadcast in found:
            yield f"the {self._name} range {found} includes the broadcast address"


def _is_broadcast(address: Address, network: Network) -> bool:
    return network.version == 4 and address == network.broadcast_address


def check_members(
    settings: UplinkSettings, addresses: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """What speaks against the settings on these members, given each one's addresses.

    An address may have a prefix length. To be asked again whenever a member is added.
    """
    findings: list[str] = []
    for member, texts in addresses.items():
        for text in texts:
            address = _address(text.partition("/")[0])
            if address is None:
                findings.append(f"Invalid address {text!r} for system {member!r}")
                continue
            key = f"ipv{address.version}"
            findings += [
                f"UPLINK {key} {key}.ovn.ranges must not include system address {address}; "
                f"{found} does, and {member} has it"
                for found in settings.ranges
                if address in found
            ]
            if any(gateway.ip == address for gateway in settings.gateways):
                findings.append(f"the uplink's gateway {address} is an address of {member}")
    return tuple(findings)


def used_outside(new_ranges: Sequence[AddressRange], used: Iterable[str]) -> tuple[str, ...]:
    """The addresses in use that new ranges would leave out, in order.

    Raises:
        ValueError: a used address is none.
    """
    known = {ipaddress.ip_address(address.partition("/")[0]) for address in used}
    left = [address for address in known if not any(address in found for found in new_ranges)]
    return tuple(str(address) for address in sorted(left, key=lambda a: (a.version, int(a))))


def check_underlay(
    ips: Mapping[str, str], members: Collection[str], addresses: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """What is wrong with the underlay IPs: one for each member, its own, all of one family.

    `addresses` are the members' addresses as far as they are known. None for all is right too.
    """
    if not ips:
        return ()
    findings = [f"Underlay IP is not defined for {name!r}" for name in members if name not in ips]
    findings += [f"{name} has an underlay IP but is no member" for name in ips.keys() - members]
    owners: dict[Address, str] = {}
    for name, text in sorted(ips.items()):
        ip = _address(text.strip())
        if ip is None:
            findings.append(f"Invalid underlay IP {text!r} of {name}")
            continue
        if ip in owners:
            findings.append(f"{owners[ip]} and {name} have the same underlay IP {ip}")
        owners.setdefault(ip, name)
        if name in addresses and ip not in _plain(addresses[name]):
            findings.append(f"No available interface found for OVN underlay IP {ip} on {name}")
    if len({ip.version for ip in owners}) > 1:
        findings.append("underlay IPs are of both families; OVN's tunnels need one for all")
    return tuple(findings)


def _plain(addresses: Iterable[str]) -> set[Address]:
    found = (_address(address.partition("/")[0]) for address in addresses)
    return {address for address in found if address}


def check_subnet(
    option: str, cidr: str, addresses: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """What is wrong with a subnet of Ceph: each member needs an address in it.

    `option` names the setting in the findings. `addresses` are each member's.
    """
    cidr = cidr.strip()
    if not cidr:
        return ()
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return (f"Invalid {option} subnet {cidr!r}; 10.0.0.0/24 would be one",)
    if "/" not in cidr or network.num_addresses == 1:
        return (f"Invalid {option} subnet {cidr!r}: it must be larger than one address",)
    return tuple(
        "Not enough network interfaces found with an IP within the given CIDR subnet on "
        f"{member!r}: {option} is {network}, and {member} has {', '.join(sorted(own)) or 'none'}"
        for member, own in sorted(addresses.items())
        if not any(ip.version == network.version and ip in network for ip in _plain(own))
    )
