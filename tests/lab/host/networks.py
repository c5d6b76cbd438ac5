"""The lab's networks: bridges in a switch namespace, a router, and cables to the machines.

All of it lives in named network namespaces, so nothing appears among the host's own links and
two labs may use the same addresses. The veth ends in the switch are the cables' far ends:
setting one down is what pulling the cable is for the machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lab.host.commands import run
from lab.layout import Lab
from lab.shape import CONTROLLER_HOST, FIRST_MACHINE_HOST, ROUTER_HOST, Network, Shape

NETNS_DIR = Path("/run/netns")


@dataclass(frozen=True)
class Nic:
    """A machine's network card: its name, where it is plugged in, and its addresses."""

    name: str
    network: str
    mac: str
    port: str
    mtu: int = 1500
    addresses: tuple[str, ...] = ()


def exists(netns: str) -> bool:
    """Whether there is a network namespace of that name."""
    return (NETNS_DIR / netns).exists()


def enter(netns: str, *argv: str) -> list[str]:
    """Return the argv that runs a host command in a network namespace (and no other one)."""
    return ["nsenter", f"--net={NETNS_DIR / netns}", "--", *argv]


def batch(netns: str, lines: list[str]) -> None:
    """Run ``ip`` commands in a network namespace, stopping at the first that fails."""
    run(["ip", "-n", netns, "-batch", "-"], stdin="\n".join(lines) + "\n")


def machine_nics(lab: Lab, shape: Shape, machine_id: str) -> list[Nic]:
    """Return the network cards that the shape gives to a machine."""
    nics: list[Nic] = []
    number = FIRST_MACHINE_HOST + int(machine_id)
    for name in shape.machine(machine_id).networks:
        network = shape.network(name)
        index = shape.networks.index(network)
        addresses = [network.host(number)] if network.addresses else []
        if network.addresses and network.ipv6 and network.cidr6:
            addresses.append(network.host6(number))
        mac = f"52:54:00:{index:02x}:{int(machine_id) >> 8:02x}:{int(machine_id) & 255:02x}"
        port = f"m{machine_id}n{index}"
        nics.append(Nic(shape.nic_name(name), name, mac, port, network.mtu, tuple(addresses)))
    return nics


def ensure(lab: Lab, shape: Shape) -> None:
    """Make the switch, the router and the controller's namespace, whatever of it is missing."""
    with lab.lock("net"):
        if not exists(lab.switch_netns):
            run(["ip", "netns", "add", lab.switch_netns])
            batch(lab.switch_netns, ["link set lo up"])
        bridges = _links(lab.switch_netns)
        for network in shape.networks:
            if f"br-{network.name}" not in bridges:
                batch(lab.switch_netns, _bridge(network))
        _ensure_host(lab, lab.router_netns, shape.networks, "rt", ROUTER_HOST)
        _ensure_host(lab, lab.controller_netns, shape.networks[:1], "ctl", CONTROLLER_HOST)
        # The file belongs to the namespace of the process that opens it: hence the shell inside.
        forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; "
        forward += "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
        run(enter(lab.router_netns, "sh", "-c", forward))


def _bridge(network: Network) -> list[str]:
    name = f"br-{network.name}"
    return [
        f"link add {name} mtu {network.mtu} type bridge mcast_snooping 0",
        f"link set {name} up",
    ]


def _links(netns: str) -> set[str]:
    shown = run(["ip", "-n", netns, "-o", "link"]).stdout
    return {line.split(": ")[1].split("@")[0] for line in shown.splitlines()}


def _ensure_host(
    lab: Lab, netns: str, networks: tuple[Network, ...], prefix: str, number: int
) -> None:
    """Give the router or the controller a leg in each of the networks."""
    if not exists(netns):
        run(["ip", "netns", "add", netns])
        batch(netns, ["link set lo up"])
    present = _links(netns)
    for network in networks:
        if network.name in present:
            continue
        nic = Nic(network.name, network.name, "", f"{prefix}-{network.name}", network.mtu)
        _plug(lab, netns, nic)
        lines = [f"address add {network.host(number)} dev {network.name}"]
        if network.cidr6:
            lines.append(f"address add {network.host6(number)} dev {network.name} nodad")
        if number != ROUTER_HOST:
            lines.append(f"route replace default via {network.router}")
        batch(netns, lines)


def _plug(lab: Lab, netns: str, nic: Nic) -> None:
    """Lay a cable between the switch and a namespace.

    Transmit checksums are off at the inner end: userspace Open vSwitch forwards packets with
    partial checksums as they are, and TCP through it would hang.
    """
    mac = f"address {nic.mac} " if nic.mac else ""
    batch(
        lab.switch_netns,
        [
            f"link add {nic.port} mtu {nic.mtu} type veth peer name {nic.name} {mac}"
            f"mtu {nic.mtu} netns {netns}",
            f"link set {nic.port} master br-{nic.network} up",
        ],
    )
    batch(netns, [f"link set {nic.name} up"])
    run(enter(netns, "ethtool", "-K", nic.name, "tx", "off"))


def plug_machine(lab: Lab, shape: Shape, machine_id: str, cut: set[str]) -> None:
    """Make a machine's network namespace anew with all its network cards.

    Anew, because the last boot may have left links, addresses and routes in it (the taps of
    userspace Open vSwitch outlive their daemon). ``cut`` names the networks whose cable is out.
    """
    netns = lab.machine_netns(machine_id)
    unplug_machine(lab, machine_id)
    run(["ip", "netns", "add", netns])
    batch(netns, ["link set lo up"])
    for nic in machine_nics(lab, shape, machine_id):
        _plug(lab, netns, nic)
        lines = [
            f"address add {address} dev {nic.name}{' nodad' if ':' in address else ''}"
            for address in nic.addresses
        ]
        if nic.network == shape.networks[0].name:
            lines.append(f"route replace default via {shape.networks[0].router}")
        if lines:
            batch(netns, lines)
        if nic.network in cut:
            set_cable(lab, nic.port, up=False)


def unplug_machine(lab: Lab, machine_id: str) -> None:
    """Remove a machine's cables and its network namespace; nothing happens if it has none."""
    if exists(lab.switch_netns):
        # By hand and first: namespaces are taken apart asynchronously, the names must be free.
        for link in _links(lab.switch_netns):
            if link.startswith(f"m{machine_id}n"):
                run(["ip", "-n", lab.switch_netns, "link", "del", link], check=False)
    netns = lab.machine_netns(machine_id)
    if exists(netns):
        run(["ip", "netns", "del", netns])


def set_cable(lab: Lab, port: str, *, up: bool) -> None:
    """Pull or plug the switch end of a cable."""
    batch(lab.switch_netns, [f"link set {port} {'up' if up else 'down'}"])


def namespaces(lab: Lab) -> list[str]:
    """All network namespaces that belong to this lab."""
    if not NETNS_DIR.is_dir():
        return []
    return sorted(n for n in os.listdir(NETNS_DIR) if n.startswith(f"{lab.name}-"))
