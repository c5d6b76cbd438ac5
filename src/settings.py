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

DRIVERS = ("zfs", "btrfs", "lvm", "dir")
MANAGED_NETWORKS = {"bridge": "lxdbr0", "fan": "lxdfan0"}
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


class Settings(Record):
    """The whole configuration, valid."""

    channels: Mapping[str, str]
    local: LocalStorage
    instance_network: str
    join_timeout: int

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
    settings = Settings(
        channels={"lxd": _channel(config, "lxd-channel", wrong)},
        local=_local_storage(config, wrong),
        instance_network=_instance_network(config, wrong),
        join_timeout=_join_timeout(config, wrong),
    )
    if wrong:
        raise Findings(wrong)
    return settings


def _text(config: Mapping[str, object], option: str) -> str:
    return str(config.get(option, "")).strip()


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

        if value.startswith(("/", "{")) or "\n" in value or re.match(r"[\w.-]+:\s", value):
            disks = perhost.parse(value)
            return LocalStorage(Backing.DISK, driver, wipe, disks=disks)
        return LocalStorage(Backing.FILTER, driver, wipe, filter=filters.parse(value))
    except ValueError as fault:
        wrong.append(f"local-storage: {fault}")
    return LocalStorage(Backing.NONE, driver, wipe)


def _instance_network(config: Mapping[str, object], wrong: list[str]) -> str:
    network = _text(config, "instance-network") or "none"
    if not _INTERFACE.fullmatch(network):
        wrong.append(
            f"instance-network={network!r} is no interface name; "
            "use bridge, fan, none or the name of a bridge on the hosts"
        )
    return network


def _join_timeout(config: Mapping[str, object], wrong: list[str]) -> int:
    value = config.get("join-timeout", 300)
    seconds = value if isinstance(value, int) else 0
    if not 10 <= seconds <= 3600:
        wrong.append(f"join-timeout={value} is not between 10 and 3600 seconds")
    return seconds
