"""Whether this machine is fit for its part, found out before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cloud import CREATED, Facts
from errors import Findings, JoinFailed
from record import EMPTY
from settings import Backing, LocalStorage, Settings, parse

if TYPE_CHECKING:
    from machine.disks import Disk, Probe
    from machine.filters import Filter
    from services.lxd import Lxd

    Claimed = Callable[[tuple[Disk, ...], Probe], Iterable[Disk]]

ROOM = 512  # MiB; for a service's database and what it logs while it joins
SNAP_DATA = Path("/var/snap")
FAN = Path("/proc/sys/net/fan")
INTERFACES = Path("/sys/class/net")


def settings(config: Mapping[str, object]) -> Settings:
    """The configuration, if it is valid and fits this machine; else raises Findings."""
    parsed = parse(config)
    fault = _network_fault(parsed)
    if fault:
        raise Findings([fault])
    return parsed


def _network_fault(wanted: Settings) -> str:
    network = wanted.instance_network
    if network == "fan" and not FAN.exists():
        return "instance-network=fan: this machine's kernel has no fan; choose bridge or none"
    if network == "none" or wanted.managed_network:
        return ""
    if not (INTERFACES / network / "bridge").exists():
        return (
            f"instance-network={network}: this machine has no bridge of that name; "
            "make one, or choose bridge, fan or none"
        )
    return ""


def room(services: Iterable[str], name: str) -> None:
    """Whether there is room for the data of services that are to come.

    Without it a daemon does not start, or hangs in its join, and tells nobody why.

    Raises:
        Findings: a file system is full, or nearly.
    """
    full: dict[int, str] = {}
    for service in services:
        path = SNAP_DATA / service / "common"
        while not path.exists():
            path = path.parent
        system = os.statvfs(path)
        free = (system.f_bavail * system.f_frsize) >> 20
        if free < ROOM:
            full.setdefault(
                path.stat().st_dev,
                f"{path} on {name} has {free} MiB free, and {service} needs {ROOM} MiB to start "
                "with; free some or make it larger",
            )
    if full:
        raise Findings(full.values())


def needs_local(wanted: Settings, facts: Facts, name: str) -> bool:
    """Whether this member still has to make its part of the pool `local`."""
    if wanted.local.backing is Backing.NONE or facts.local_is_in_use:
        return False
    pool = facts.pools.get("local")
    return pool is None or (pool.status != CREATED and name not in pool.locations)


def local_config(
    wanted: LocalStorage, lxd: Lxd, name: str, storages: list[str], claimed: Claimed
) -> Mapping[str, str]:
    """This member's configuration of the pool `local` (LXD's member-specific pool keys).

    `storages` are the locations of the attached Juju storage `local`; `claimed` names Ceph as
    the owner of its disks, also of those it is still to have.

    Raises:
        Findings: there is no such disk, or it is not fit.
    """
    if wanted.backing is Backing.STORAGE and not storages:
        raise Findings(
            ["local-storage=storage: no Juju storage `local` is attached; use juju add-storage"]
        )
    if wanted.backing is Backing.STORAGE or (wanted.backing is Backing.AUTO and storages):
        return _disk_config(wanted, storages[0])
    if wanted.backing is Backing.DISK and wanted.disks is not None:
        path = wanted.disks.get(name)
        if path is None:
            raise Findings([f"local-storage names no disk for {name}"])
        return _disk_config(wanted, _fit(path, wanted, lxd, claimed).path)
    if wanted.backing is Backing.FILTER and wanted.filter is not None:
        return _disk_config(wanted, _matching(wanted.filter, wanted, lxd, claimed).path)
    return {"size": wanted.size} if wanted.size else {}


def _fit(path: str, wanted: LocalStorage, lxd: Lxd, claimed: Claimed) -> Disk:
    from machine import diskprobe, disks

    probe = diskprobe.HostProbe()
    found = tuple(claimed(disks.inventory(_resources(lxd), probe), probe))
    try:
        disk = disks.find(path, found, probe)
    except disks.DiskNotFoundError as fault:
        raise Findings([f"local-storage: {fault}"]) from fault
    reasons = disks.unfit(disk, minimum=0, wipe=wanted.wipe, option="local-wipe=true")
    if reasons:
        raise Findings(f"local-storage: {disk.path} {reason}" for reason in reasons)
    return disk


def _matching(wish: Filter, wanted: LocalStorage, lxd: Lxd, claimed: Claimed) -> Disk:
    from machine import diskprobe, disks

    unfit: list[str] = []
    probe = diskprobe.HostProbe()
    for disk in claimed(disks.inventory(_resources(lxd), probe), probe):
        if not wish.matches(disk.raw):
            continue
        reasons = disks.unfit(disk, minimum=0, wipe=wanted.wipe, option="local-wipe=true")
        if not reasons:
            return disk
        unfit.append(f"{disk.path} {' and '.join(reasons)}")
    tail = f": {'; '.join(unfit)}" if unfit else "; see the action list-disks"
    raise Findings([f"local-storage: no free disk matches {wish.text!r}{tail}"])


def _resources(lxd: Lxd) -> Mapping[str, object]:
    return lxd.get("/1.0/resources")["storage"]


def _disk_config(wanted: LocalStorage, path: str) -> Mapping[str, str]:
    config = {"source": path}
    if wanted.wipe:
        config["source.wipe"] = "true"
    return config


def member_config(
    wanted: Iterable[Mapping[str, str]],
    pools: Mapping[str, Mapping[str, str]],
    networks: Mapping[str, Mapping[str, str]] = EMPTY,
) -> tuple[Mapping[str, str], ...]:
    """The answers to what LXD wants to be told of a joiner: those that there is a value for.

    Raises:
        JoinFailed: a network needs an interface of this machine, and none is configured.
    """
    known = {"storage-pool": pools, "network": networks}
    answers: list[Mapping[str, str]] = []
    for item in wanted:
        entity, name, key = item["entity"], item["name"], item["key"]
        value = known.get(entity, EMPTY).get(name, EMPTY).get(key, "")
        if value:
            answers.append({**item, "value": value})
        elif (entity, name, key) == ("network", "UPLINK", "parent"):
            raise JoinFailed(
                "the cloud has a network UPLINK, and ovn-uplink-interface names no interface "
                "for this machine; set it"
            )
    return tuple(answers)
