"""Which of this machine's addresses lie in Ceph's networks."""

from __future__ import annotations

import ipaddress
import json
import subprocess

from lab.microcluster.rest import ApiError

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def local() -> list[Interface]:
    """This machine's global addresses with their networks."""
    done = subprocess.run(
        ["ip", "-j", "address", "show", "scope", "global"],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    return [
        ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}")
        for link in json.loads(done.stdout or "[]")
        for info in link.get("addr_info", [])
        if info.get("scope") == "global"
    ]


def subnets(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """`CIDR[,CIDR]` as networks; ApiError for anything else."""
    try:
        return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",")]
    except ValueError as error:
        raise ApiError(f"failed to parse subnet {text}: {error}") from error


def network_of(address: str) -> str:
    """The network that a local address lies in; ApiError when this machine does not have it."""
    for interface in local():
        if str(interface.ip) == address:
            return str(interface.network)
    raise ApiError(f"provided address {address} does not belong to any suitable network")


def address_in(network: str) -> str:
    """This machine's address in the first network where it has one; ApiError without any."""
    wanted = subnets(network)
    for subnet in wanted:
        for interface in local():
            if interface.version == subnet.version and interface.ip in subnet:
                return str(interface.ip)
    shown = " ".join(str(subnet) for subnet in wanted)
    raise ApiError(f"no local IP belongs to any of the listed subnets [{shown}]")


def contains(network: str, address: str) -> bool:
    """Whether an address lies in one of the networks."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as error:
        raise ApiError(f"invalid IP address {address!r}") from error
    return any(ip.version == subnet.version and ip in subnet for subnet in subnets(network))
