"""The shape of a lab: its networks, and what each machine looks like.

A shape file is YAML (or JSON, which is YAML too). Everything may be left out:

.. code-block:: yaml

    networks:                  # in this order the NICs are called enp5s0, enp6s0, ...
      mgmt: {cidr: 10.71.0.0/24, cidr6: "fd42:71::/64"}
      uplink: {cidr: 10.72.0.0/24, cidr6: "fd42:72::/64", addresses: false}
      storage: {cidr: 10.74.0.0/24, mtu: 9000}
    defaults:
      hostname: "micro{number}"            # also {id}; number is id + 1
      networks: [mgmt, uplink, storage]    # default: all
      disks:
        data: 8GiB
        osd0: {size: 6GiB, model: "QEMU HARDDISK", rotational: true}
    machines:
      "1": {disks: {data: 8GiB}}           # replaces the default list of disks
    snap-delay: 0                          # seconds that a snap takes to download

``addresses: false`` leaves the machines' NICs on that network without an address.
``ipv6: true`` on a network gives the machines an IPv6 address as well.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.errors import LabError
from lab.layout import Lab

FIRST_MACHINE_HOST = 10
ROUTER_HOST = 1
CONTROLLER_HOST = 2
FIRST_SLOT = 5
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Network:
    """An Ethernet segment with a router at its first address."""

    name: str
    cidr: str
    cidr6: str = ""
    addresses: bool = True
    ipv6: bool = False
    mtu: int = 1500

    def host(self, number: int) -> str:
        """Return ``address/prefix`` of the given host on this network."""
        net = ipaddress.IPv4Network(self.cidr)
        return f"{net[number]}/{net.prefixlen}"

    def host6(self, number: int) -> str:
        """As :meth:`host`, for IPv6; the host's number is read as hexadecimal digits."""
        net = ipaddress.IPv6Network(self.cidr6)
        return f"{net[int(str(number), 16)]}/{net.prefixlen}"

    @property
    def router(self) -> str:
        """The router's address, without prefix."""
        return self.host(ROUTER_HOST).split("/")[0]


@dataclass(frozen=True)
class DiskShape:
    """A disk as it is delivered: size in bytes and what it says about itself."""

    name: str
    size: int
    model: str = "QEMU HARDDISK"
    vendor: str = "QEMU"
    serial: str = ""
    rotational: bool = False
    removable: bool = False


@dataclass(frozen=True)
class MachineShape:
    """What a machine is made from."""

    hostname: str
    networks: tuple[str, ...]
    disks: tuple[DiskShape, ...]


@dataclass(frozen=True)
class Shape:
    """A whole lab's shape."""

    networks: tuple[Network, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    machines: Mapping[str, Any] = field(default_factory=dict[str, Any])
    snap_delay: float = 0.0

    def network(self, name: str) -> Network:
        """Return the network of that name.

        Raises:
            LabError: there is none.
        """
        for network in self.networks:
            if network.name == name:
                return network
        known = ", ".join(n.name for n in self.networks)
        raise LabError(f"the lab has no network {name!r}; it has: {known}")

    def nic_name(self, network: str) -> str:
        """The name of a machine's NIC on that network, the same on every machine."""
        return f"enp{FIRST_SLOT + self.networks.index(self.network(network))}s0"

    def machine(self, machine_id: str) -> MachineShape:
        """Return what the machine of that id is to look like."""
        settings: dict[str, Any] = {**self.defaults, **self.machines.get(machine_id, {})}
        names: list[str] = settings.get("networks", [n.name for n in self.networks])
        disks: Mapping[str, Any] = settings.get("disks", DEFAULT_DISKS)
        template = str(settings.get("hostname", "micro{number}"))
        return MachineShape(
            hostname=template.format(id=machine_id, number=int(machine_id) + 1),
            networks=tuple(n.name for n in self.networks if n.name in names),
            disks=tuple(_disk(name, value) for name, value in disks.items()),
        )


DEFAULT_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "mgmt": {"cidr": "10.71.0.0/24", "cidr6": "fd42:71::/64"},
    "uplink": {"cidr": "10.72.0.0/24", "cidr6": "fd42:72::/64", "addresses": False},
}
DEFAULT_DISKS: Mapping[str, Any] = {"data": "8GiB", "osd0": "6GiB", "osd1": "6GiB"}


def parse_size(text: str | int) -> int:
    """Return a size in bytes: ``8GiB``, ``8G``, ``512M`` (powers of 1024) or a number.

    Raises:
        LabError: it is none of these.
    """
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", str(text).strip())
    if not match:
        raise LabError(f"{text!r} is no size: write for example 8GiB or 512MiB")
    return int(match[1]) * _UNITS[match[2]]


def check_disk_name(name: str) -> None:
    """Refuse what cannot be a file name and part of a serial number.

    Raises:
        LabError: with the rule.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", name):
        raise LabError(f"{name!r} is no name for a disk: use up to 20 of a-z, 0-9 and '-'")


def _disk(name: str, value: Any) -> DiskShape:
    check_disk_name(name)
    given: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {"size": value}
    unknown = given.keys() - {"size", "model", "vendor", "serial", "rotational", "removable"}
    if unknown or "size" not in given:
        raise LabError(f"disk {name!r}: unknown or missing keys; size is needed, got {given}")
    return DiskShape(name=name, size=parse_size(given.pop("size")), **given)


def _network(name: str, given: Mapping[str, Any]) -> Network:
    if not re.fullmatch(r"[a-z][a-z0-9]{0,10}", name):
        raise LabError(f"{name!r} is no name for a network: use up to 11 letters and digits")
    unknown = given.keys() - {"cidr", "cidr6", "addresses", "ipv6", "mtu"}
    if unknown:
        raise LabError(f"network {name!r}: unknown keys {', '.join(sorted(unknown))}")
    try:
        network = Network(name=name, **given)
        network.host(FIRST_MACHINE_HOST)
        if network.cidr6:
            network.host6(FIRST_MACHINE_HOST)
    except (TypeError, ValueError, IndexError) as error:
        raise LabError(f"network {name!r}: {error}") from error
    return network


def parse(text: str) -> Shape:
    """Read a shape from YAML text.

    Raises:
        LabError: it is not a shape; the message names the part that is wrong.
    """
    try:
        loaded: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise LabError(f"the shape is not YAML: {error}") from error
    if not isinstance(loaded, Mapping):
        raise LabError("the shape must be a mapping with networks, defaults, machines")
    unknown = loaded.keys() - {"networks", "defaults", "machines", "snap-delay"}
    if unknown:
        raise LabError(f"the shape has unknown keys: {', '.join(sorted(map(str, unknown)))}")
    shape = Shape(
        networks=tuple(
            _network(n, v or {}) for n, v in (loaded.get("networks") or DEFAULT_NETWORKS).items()
        ),
        defaults=loaded.get("defaults") or {},
        machines={str(k): v or {} for k, v in (loaded.get("machines") or {}).items()},
        snap_delay=float(loaded.get("snap-delay") or 0),
    )
    _check(shape)
    return shape


def _check(shape: Shape) -> None:
    if shape.networks[0].name != "mgmt" or not shape.networks[0].addresses:
        raise LabError("the first network must be mgmt, with addresses: Juju talks over it")
    for machine_id in ["0", *shape.machines]:
        settings: dict[str, Any] = {**shape.defaults, **shape.machines.get(machine_id, {})}
        unknown = settings.keys() - {"hostname", "networks", "disks"}
        if unknown:
            raise LabError(f"machine {machine_id}: unknown keys {', '.join(sorted(unknown))}")
        for name in settings.get("networks", []):
            shape.network(name)
        shape.machine(machine_id)


def load(lab: Lab) -> Shape:
    """Return the shape the lab was brought up with, or the default one if it is not up."""
    try:
        return parse(lab.shape_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return parse("")


def save(lab: Lab, shape: Shape) -> None:
    """Remember the shape for later commands on this lab."""
    networks = {n.name: asdict(n) for n in shape.networks}
    for network in networks.values():
        del network["name"]
    document = {
        "networks": networks,
        "defaults": shape.defaults,
        "machines": shape.machines,
        "snap-delay": shape.snap_delay,
    }
    lab.root.mkdir(parents=True, exist_ok=True)
    partial = Path(f"{lab.shape_file}.new")
    partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    partial.replace(lab.shape_file)
