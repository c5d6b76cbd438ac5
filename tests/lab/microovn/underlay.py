"""Userspace Geneve on a NIC that keeps its name, its address and its kernel networking.

Without the kernel's openvswitch module, OVS ends and starts a tunnel only at the LOCAL port of a
userspace bridge that has the encapsulation address. Moving the NIC into such a bridge would
change the machine's interfaces and break connections: it stays as it is. A bridge `lab-encap` gets
a LOCAL port with the NIC's MAC and address (scope host, no ARP, no route: the kernel goes on
using the NIC) and a veth towards the kernel; two nftables chains carry Geneve and ARP or ND
between that veth and the NIC.

    wire -- NIC --(udp 6081 moved, ARP/ND copied)--> lab-encap-k = lab-encap-o -- bridge lab-encap
    wire <- NIC <--(udp 6081, ARP, ND moved)-------- lab-encap-k = lab-encap-o -- bridge lab-encap
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import time
from dataclasses import dataclass

from lab.microcluster.rest import ApiError
from lab.microovn import ovs

BRIDGE, OVS_SIDE, KERNEL_SIDE = "lab-encap", "lab-encap-o", "lab-encap-k"
TABLE = "lab_encap"


@dataclass(frozen=True)
class Nic:
    """The NIC that has the encapsulation address."""

    name: str
    mac: str
    mtu: int
    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface


def find(ip: str) -> Nic | None:
    """The NIC with this address, or None."""
    for link in json.loads(_ip("-j", "address", "show") or "[]"):
        if link["ifname"] == BRIDGE:
            continue
        for info in link.get("addr_info", []):
            if info.get("local") == ip:
                address = ipaddress.ip_interface(f"{ip}/{info['prefixlen']}")
                return Nic(link["ifname"], link["address"], link["mtu"], address)
    return None


def setup(ip: str) -> bool:
    """Let tunnels end at `ip`; False when no NIC has it. Idempotent; needs a running switch."""
    nic = find(ip)
    if nic is None:
        return False
    links(nic)
    ovs.vsctl(
        "--may-exist", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev",
        f'other-config:hwaddr="{nic.mac}"', "--", "--may-exist", "add-port", BRIDGE, OVS_SIDE,
    )  # fmt: skip
    _local_port(nic)
    _carry(nic)
    _routes(nic)
    return True


def remove() -> None:
    """Undo what `setup` did outside of OVS's database."""
    subprocess.run(["nft", "delete", "table", "netdev", TABLE], capture_output=True, timeout=10)
    _delete(KERNEL_SIDE)


def remove_taps() -> None:
    """Delete what a userspace OVS that does not run any more has left: its taps are persistent."""
    remove()
    for link in json.loads(_ip("-j", "-d", "link", "show") or "[]"):
        info = link.get("linkinfo", {})
        if info.get("info_kind") == "tun" and info.get("info_data", {}).get("persist"):
            _delete(link["ifname"])


def _delete(link: str) -> None:
    subprocess.run(["ip", "link", "delete", link], capture_output=True, timeout=10)


def links(nic: Nic) -> None:
    """Make the veth between OVS and the kernel, before ovs-vswitchd looks for its ports."""
    if not _exists(KERNEL_SIDE):
        _ip("link", "add", KERNEL_SIDE, "type", "veth", "peer", "name", OVS_SIDE)
    for side in (KERNEL_SIDE, OVS_SIDE):
        _no_ipv6(side)
        _ip("link", "set", side, "mtu", str(nic.mtu), "arp", "off", "up")


def _local_port(nic: Nic) -> None:
    # A bridge that the database knows already is made by a starting ovs-vswitchd in its own time.
    deadline = time.monotonic() + 15
    while not _exists(BRIDGE):
        if time.monotonic() > deadline:
            raise ApiError(f"ovs-vswitchd did not make the bridge {BRIDGE} within 15 seconds")
        time.sleep(0.05)
    if nic.address.version == 4:
        _no_ipv6(BRIDGE)
    _ip("link", "set", BRIDGE, "mtu", str(nic.mtu), "arp", "off", "up")
    _ip(
        "address",
        "replace",
        nic.address.with_prefixlen,
        "dev",
        BRIDGE,
        "scope",
        "host",
        "noprefixroute",
    )


def _carry(nic: Nic) -> None:
    neighbour = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"
    rules = f"""
    table netdev {TABLE} {{}}
    delete table netdev {TABLE}
    table netdev {TABLE} {{
      chain in {{
        type filter hook ingress device "{nic.name}" priority 0;
        udp dport 6081 fwd to "{KERNEL_SIDE}"
        ether type arp dup to "{KERNEL_SIDE}"
        {neighbour} dup to "{KERNEL_SIDE}"
      }}
      chain out {{
        type filter hook ingress device "{KERNEL_SIDE}" priority 0;
        udp dport 6081 fwd to "{nic.name}"
        ether type arp fwd to "{nic.name}"
        {neighbour} fwd to "{nic.name}"
        drop
      }}
    }}"""
    done = subprocess.run(
        ["nft", "-f", "-"], input=rules, text=True, capture_output=True, timeout=10
    )
    if done.returncode:
        raise ApiError(
            f"The lab's Geneve path over {nic.name} cannot be made: {done.stderr.strip()}"
        )


def _routes(nic: Nic) -> None:
    """Tell OVS that the tunnels' peers are behind the bridge, whatever the kernel's routes say."""
    routes = [(str(nic.address.network), "")]
    family = f"-{nic.address.version}"
    for route in json.loads(_ip("-j", family, "route", "show", "default") or "[]"):
        if route.get("dev") == nic.name and "gateway" in route:
            routes.append(("0.0.0.0/0" if family == "-4" else "::/0", route["gateway"]))
    for network, gateway in routes:
        ovs.appctl(
            "ovs-vswitchd", "ovs/route/add", network, BRIDGE, *([gateway] if gateway else [])
        )


def _exists(link: str) -> bool:
    return (
        subprocess.run(["ip", "link", "show", link], capture_output=True, timeout=10).returncode
        == 0
    )


def _no_ipv6(link: str) -> None:
    subprocess.run(
        ["sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1"], capture_output=True, timeout=10
    )


def _ip(*args: str) -> str:
    done = subprocess.run(["ip", *args], capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise ApiError(f"ip {' '.join(args)} failed: {done.stderr.strip()}")
    return done.stdout
