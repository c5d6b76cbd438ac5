"""The charm's configuration, parsed and checked into one frozen Settings.

Nothing else reads `config.yaml` options: what is wrong with them is found here, all at once,
and said in sentences that name the option, its value and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from errors import Findings
from record import Record

if TYPE_CHECKING:
    from machine.filters import Filter
    from machine.perhost import PerHost
    from machine.selection import DiskFilter
    from machine.uplink import UplinkSettings

DRIVERS = ("zfs", "btrfs", "lvm", "dir")
ON_REMOVAL = ("refuse", "move")
MANAGED_NETWORKS = {"bridge": "lxdbr0", "fan": "lxdfan0", "ovn": "default"}
_SIZE = re.compile(r"[1-9][0-9]*(MiB|GiB|TiB|MB|GB|TB)")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")
_CHANNEL = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}")


class Backing(str, Enum):
    """What a member's part of the pool `local` is made of."""

    AUTO = "auto"
    NONE = "none"
    LOOP = "loop"
    STORAGE = "storage"
    DISK = "disk"
    FILTER = "filter"


class LocalStorage(Record):
    """The pool `local`: its backing on each member, its driver, and whether to wipe disks."""

    backing: Backing = Backing.AUTO
    driver: str = "zfs"
    wipe: bool = False
    size: str = ""
    disks: PerHost | None = None
    filter: Filter | None = None


class CephStorage(Record):
    """The disks for Ceph: the attached Juju storage `osd` (unless `none`), and those named.

    `wipe` and `encrypt` are for all but those of `filters`, each of which has its own.
    """

    wipe: bool = False
    encrypt: bool = False
    none: bool = False
    disks: PerHost | None = None
    filters: tuple[DiskFilter, ...] = ()


class Uplink(Record):
    """The way out of OVN's networks: each machine's interface, and what `UPLINK` is told."""

    interfaces: PerHost
    settings: UplinkSettings


class Settings(Record):
    """The whole configuration, valid.

    `underlay` is the subnet of OVN's tunnels, "" if Juju's binding chooses their addresses;
    `ceph_public` and `ceph_internal` are Ceph's networks in the same way; `ceph_zones`: it
    knows each machine's availability zone.
    `on_removal`: what becomes of the instances of a member that is removed.
    """

    channels: Mapping[str, str]
    local: LocalStorage
    instance_network: str
    join_timeout: int
    uplink: Uplink | None = None
    underlay: str = ""
    on_removal: str = ON_REMOVAL[0]
    ceph_public: str = ""
    ceph_internal: str = ""
    ceph_zones: bool = False
    ceph: CephStorage = CephStorage()

    @property
    def services(self) -> tuple[str, ...]:
        """The services of the cloud in the order in which a member joins them: LXD last."""
        return tuple(self.channels)

    @property
    def managed_network(self) -> str | None:
        """The LXD network that the charm makes for instances; None if it makes none."""
        return MANAGED_NETWORKS.get(self.instance_network)


def parse(config: Mapping[str, object]) -> Settings:
    """Read the options.

    Raises:
        Findings: something is wrong with one or more of them; it has a sentence for each.
    """
    wrong: list[str] = []
    uplink = _uplink(config, wrong)
    settings = Settings(
        channels=_channels(config, wrong),
        local=_local_storage(config, wrong),
        instance_network=_instance_network(config, wrong),
        join_timeout=_join_timeout(config, wrong),
        uplink=uplink,
        underlay=_underlay(config, wrong),
        on_removal=_on_removal(config, wrong),
        ceph_public=_ceph_network(config, "ceph-public-network", wrong),
        ceph_internal=_ceph_network(config, "ceph-internal-network", wrong),
        ceph_zones=bool(config.get("ceph-zones", False)),
        ceph=_ceph_storage(config, wrong),
    )
    if wrong:
        raise Findings(wrong)
    return settings


def _text(config: Mapping[str, object], option: str) -> str:
    return str(config.get(option, "")).strip()


def _channels(config: Mapping[str, object], wrong: list[str]) -> Mapping[str, str]:
    """Each service's channel, in the order in which a member joins; LXD needs the others."""
    channels: dict[str, str] = {}
    if _text(config, "microceph-channel"):
        channels["microceph"] = _channel(config, "microceph-channel", wrong)
    if _text(config, "microovn-channel"):
        channels["microovn"] = _channel(config, "microovn-channel", wrong)
    channels["lxd"] = _channel(config, "lxd-channel", wrong)
    return channels


def _channel(config: Mapping[str, object], option: str, wrong: list[str]) -> str:
    channel = _text(config, option)
    if not _CHANNEL.fullmatch(channel):
        wrong.append(f"{option}={channel!r} is no snap channel; 5.21/stable is one")
    return channel


def _local_storage(config: Mapping[str, object], wrong: list[str]) -> LocalStorage:
    driver = _text(config, "local-driver")
    if driver not in DRIVERS:
        wrong.append(f"local-driver={driver!r} is none of {', '.join(DRIVERS)}")
    wipe = bool(config.get("local-wipe", False))
    value = _text(config, "local-storage") or "none"
    if value in ("auto", "none", "loop", "storage"):
        return LocalStorage(Backing(value), driver, wipe)
    if value.startswith("loop:"):
        size = value.removeprefix("loop:")
        if not _SIZE.fullmatch(size):
            wrong.append(f"local-storage={value!r} has no size that can be read; loop:20GiB has")
        elif driver == "dir":
            wrong.append(f"local-storage={value!r} cannot be: the driver dir has no size")
        return LocalStorage(Backing.LOOP, driver, wipe, size=size)
    if driver == "dir":
        wrong.append(f"local-storage={value!r} cannot be: the driver dir takes no disk")
    try:
        from machine import filters, perhost  # only where they are needed: they cost milliseconds

        if _names_disks(value):
            disks = perhost.parse(value)
            return LocalStorage(Backing.DISK, driver, wipe, disks=disks)
        return LocalStorage(Backing.FILTER, driver, wipe, filter=filters.parse(value))
    except ValueError as fault:
        wrong.append(f"local-storage: {fault}")
    return LocalStorage(Backing.NONE, driver, wipe)


def _names_disks(value: str) -> bool:
    """Whether a text is a path, or a map from host to path, and no disk filter."""
    if re.match(r"\{?\s*['\"]?find['\"]?\s*:", value):
        return False
    return re.match(r"/|\{|[\w.-]+\s*:(\s|$)", value) is not None


def _ceph_storage(config: Mapping[str, object], wrong: list[str]) -> CephStorage:
    wipe, encrypt = (bool(config.get(f"ceph-{key}", False)) for key in ("wipe", "encrypt"))
    value = _text(config, "ceph-storage")
    if value in ("", "auto", "none"):
        return CephStorage(wipe, encrypt, none=value == "none")
    if not _text(config, "microceph-channel"):
        wrong.append(f"ceph-storage={value!r} cannot be: microceph-channel is empty, no Ceph")
    from machine import perhost, selection
    from machine.filters import FilterError

    try:
        if _names_disks(value) or re.match(r"(\[|-)\s*['\"]?/", value):
            return CephStorage(wipe, encrypt, disks=perhost.parse(value, many=True))
        found = selection.parse_list(value, "ceph", wipe=wipe, encrypt=encrypt)
        return CephStorage(wipe, encrypt, filters=found)
    except FilterError as fault:
        wrong.extend(f"ceph-storage: {finding}" for finding in fault.findings)
    except ValueError as fault:
        wrong.append(f"ceph-storage: {fault}")
    return CephStorage(wipe, encrypt)


def _instance_network(config: Mapping[str, object], wrong: list[str]) -> str:
    network = _text(config, "instance-network") or "none"
    if network == "auto":
        return "ovn" if _has_uplink(config) else "bridge"
    if network == "ovn" and not _has_uplink(config):
        wrong.append(
            "instance-network=ovn needs an uplink: set ovn-uplink-interface and "
            "ovn-ipv4-gateway with ovn-ipv4-range, or ovn-ipv6-gateway"
        )
    if not _INTERFACE.fullmatch(network):
        wrong.append(
            f"instance-network={network!r} is no interface name; "
            "use auto, ovn, bridge, fan, none or the name of a bridge on the hosts"
        )
    return network


def _join_timeout(config: Mapping[str, object], wrong: list[str]) -> int:
    value = config.get("join-timeout", 300)
    seconds = value if isinstance(value, int) else 0
    if not 10 <= seconds <= 3600:
        wrong.append(f"join-timeout={value} is not between 10 and 3600 seconds")
    return seconds


def _on_removal(config: Mapping[str, object], wrong: list[str]) -> str:
    value = _text(config, "on-removal") or ON_REMOVAL[0]
    if value not in ON_REMOVAL:
        wrong.append(f"on-removal={value!r} is none of {', '.join(ON_REMOVAL)}")
    return value


_UPLINK_OPTIONS = {
    "gateway4": "ovn-ipv4-gateway",
    "ranges4": "ovn-ipv4-range",
    "gateway6": "ovn-ipv6-gateway",
    "ranges6": "ovn-ipv6-range",
    "dns": "ovn-dns-servers",
    "ingress": "ovn-ingress-mode",
}


def _has_uplink(config: Mapping[str, object]) -> bool:
    return bool(_text(config, "ovn-uplink-interface"))


def _uplink(config: Mapping[str, object], wrong: list[str]) -> Uplink | None:
    values = {key: _text(config, option) for key, option in _UPLINK_OPTIONS.items()}
    given = [_UPLINK_OPTIONS[key] for key, value in values.items() if value]
    if _has_uplink(config):
        given.insert(0, "ovn-uplink-interface")
    if not given:
        return None
    if not _text(config, "microovn-channel"):
        wrong.append(f"{', '.join(given)} cannot be: microovn-channel is empty, there is no OVN")
    elif not _has_uplink(config):
        wrong.append(
            f"{', '.join(given)} cannot be without ovn-uplink-interface; the action "
            "list-interfaces tells which interfaces are fit"
        )
    from machine import perhost, uplink  # only where they are needed: they cost milliseconds

    try:
        interfaces = perhost.parse(_text(config, "ovn-uplink-interface"))
    except perhost.PerHostError as fault:
        wrong.append(f"ovn-uplink-interface: {fault}")
        interfaces = perhost.PerHost()
    names = {name for host in (interfaces.hosts or ("",)) for name in interfaces.get_all(host)}
    wrong += [
        f"ovn-uplink-interface: {name!r} is no interface name"
        for name in sorted(names)
        if not _INTERFACE.fullmatch(name)
    ]
    try:
        return Uplink(interfaces, uplink.parse(**values))
    except uplink.UplinkError as fault:
        wrong.extend(fault.findings)
    return None


def _underlay(config: Mapping[str, object], wrong: list[str]) -> str:
    subnet = _text(config, "ovn-underlay")
    if not subnet:
        return ""
    if not _text(config, "microovn-channel"):
        wrong.append(f"ovn-underlay={subnet} cannot be: microovn-channel is empty, no OVN")
    from machine import uplink

    wrong.extend(uplink.check_subnet("ovn-underlay", subnet, {}))
    return subnet


def _ceph_network(config: Mapping[str, object], option: str, wrong: list[str]) -> str:
    subnets = _text(config, option)
    if not subnets:
        return ""
    if not _text(config, "microceph-channel"):
        wrong.append(f"{option}={subnets} cannot be: microceph-channel is empty, no Ceph")
    from machine import uplink

    for subnet in subnets.split(","):
        wrong.extend(uplink.check_subnet(option, subnet, {}) or ())
    return subnets
