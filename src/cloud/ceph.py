"""Ceph inside LXD: the pools `remote` and `remote-fs`, and how many copies they keep.

The issuer makes both as soon as there is a disk; who joins later brings its part along. How
many copies the charm has seen to is kept in LXD's configuration, so that Ceph is asked only
when there are more disks to spread them over. It never takes copies away by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from cloud import CREATED, MARK, Cloud, Entity, Task
from cloud.pools import REMOTE, REMOTE_FS
from errors import CharmError
from record import EMPTY, Record
from services.microceph import OK, Health, Osd

if TYPE_CHECKING:
    from services.lxd import Lxd
    from services.microceph import Microceph
    from view import ServiceView

DRIVERS = {REMOTE: "ceph", REMOTE_FS: "cephfs"}
OSD_POOL, FILE_SYSTEM = "lxd_remote", "lxd_cephfs"
META, DATA = f"{FILE_SYSTEM}_meta", f"{FILE_SYSTEM}_data"
OURS = (".mgr", OSD_POOL, META, DATA)
SOURCES = {REMOTE: OSD_POOL, REMOTE_FS: FILE_SYSTEM}
COPIES = 3  # as many as MicroCloud keeps, where there are as many disks
COPIES_KEY = f"{MARK}.copies"
PLACEMENT_GROUPS = "32"  # for each pool, as LXD makes its own
FEATURES = "layering,striping,exclusive-lock,object-map,fast-diff,deep-flatten"
ERRORED = "Errored"  # LXD's word for what it failed to make
REASONS = 3  # of Ceph's for not being well, as many as a status line bears


class Ceph(Record):
    """Ceph as this member sees it; a part of `Cloud`.

    `members` are names. Only the issuer asks for the `osds`; `health` is None where nobody has.
    `lacking`: a service that too few members run, and who may run it; looked for only in some
    hooks. `zones` are those that Ceph was told, by member.
    """

    driver: Microceph
    members: frozenset[str]
    osds: tuple[Osd, ...] = ()
    health: Health | None = None
    lacking: tuple[str, str] | None = None
    zones: Mapping[str, str] = EMPTY

    @property
    def is_well(self) -> bool:
        """Whether Ceph has said so, or has not been asked."""
        return self.health is None or self.health.status == OK


def look(
    driver: Microceph,
    service: ServiceView,
    *,
    issuer: bool,
    deep: bool,
    fit: Collection[str] = (),
    zones: Mapping[str, str] = EMPTY,
) -> Ceph:
    """What an issuer asks MicroCeph; `deep`: and Ceph how it is, which takes a while.

    `fit` are members that may run what a member that has gone ran, if that is looked for.

    Raises:
        CharmError: MicroCeph does not tell.
    """
    if not issuer:
        return Ceph(driver, service.names)
    osds = driver.disks()
    health = _health(driver) if deep and osds else None
    lacking = None
    if fit:
        import drain_ceph

        lacking = drain_ceph.next_service(driver, fit, len(service.members))
    return Ceph(driver, service.names, osds, health, lacking, zones)


def _health(driver: Microceph) -> Health:
    try:
        return driver.health()
    except CharmError as fault:
        return Health("does not tell how it is", {"": str(fault)})


# What is due


def tasks(cloud: Cloud) -> Iterator[Task]:
    """What is due for Ceph's pools."""
    ceph = cloud.ceph
    if ceph is None or not cloud.issuer:
        return
    if ceph.lacking:
        service, member = ceph.lacking
        yield Task(f"{service} of Ceph on {member}", lambda _: ceph.driver.enable(service, member))
    staying = [osd for osd in ceph.osds if osd.member not in cloud.facts.leaving]
    if not staying:
        return
    copies, kept = min(COPIES, len(staying)), int(cloud.facts.config.get(COPIES_KEY) or 0)
    if copies > kept and len(_zones(ceph, staying)) < COPIES and ceph.zones:
        copies = min(copies, ceph.driver.places(staying))
    if copies > kept:
        yield Task("copies of what Ceph holds", partial(_replicate, ceph, copies))
    # Every LXD makes its part of a pool, so Ceph has to be there.
    if not ceph.members >= set(cloud.facts.members):
        return
    remote, files = (cloud.facts.pools.get(name) for name in (REMOTE, REMOTE_FS))
    if _is_due(REMOTE, remote):
        yield Task(f"storage pool {REMOTE}", partial(_make_remote, cloud))
    # After it, so that what Ceph makes with the first pool is there.
    elif _is_ready(REMOTE, remote) and _is_due(REMOTE_FS, files):
        yield Task(f"storage pool {REMOTE_FS}", partial(_make_files, cloud, ceph))


def _zones(ceph: Ceph, osds: Iterable[Osd]) -> set[str]:
    return {ceph.zones[osd.member] for osd in osds if osd.member in ceph.zones}


def _is_ready(name: str, pool: Entity | None) -> bool:
    return pool is not None and pool.kind == DRIVERS[name] and pool.status == CREATED


def _is_due(name: str, pool: Entity | None) -> bool:
    return pool is None or (pool.kind == DRIVERS[name] and pool.status in ("Pending", ERRORED))


def part(name: str, extensions: Collection[str]) -> Mapping[str, str]:
    """A member's part of a pool; newer versions of LXD take none."""
    return {} if "storage_remote_drop_source" in extensions else {"source": SOURCES[name]}


# What is spoken of


def advice(cloud: Cloud) -> Iterator[str]:
    """How Ceph is if it is not well, and what waits for somebody."""
    ceph = cloud.ceph
    if ceph is None:
        return
    if not ceph.osds:
        yield "Ceph has no disks; see the actions list-disks and add-disks"
    zones = _zones(ceph, ceph.osds)
    if zones and len(zones) < COPIES:
        yield (
            f"Ceph has disks in {len(zones)} of the {COPIES} zones that it takes to keep "
            f"{COPIES} copies apart by zone"
        )
    if ceph.health is not None and not ceph.is_well:
        reasons = list(ceph.health.checks.values())
        more = f"; and {len(reasons) - REASONS} more" if len(reasons) > REASONS else ""
        yield f"Ceph {ceph.health.status}: {'; '.join(reasons[:REASONS])}{more}"
    for name, kind in DRIVERS.items():
        pool = cloud.facts.pools.get(name)
        if pool is not None and pool.kind != kind:
            yield (
                f"storage pool {name} is {pool.kind}, not {kind}, as somebody made it before; "
                "rename or delete it for the charm to make its own"
            )
        elif pool is not None and pool.status == ERRORED:
            yield f"storage pool {name} is in error; see `lxc storage show {name}`"


# Doing it


def _replicate(ceph: Ceph, copies: int, lxd: Lxd) -> None:
    keep_copies(ceph.driver, lxd, copies)


def keep_copies(driver: Microceph, lxd: Lxd, copies: int, *, fewer: bool = False) -> None:
    """Let new pools keep this many copies, and the charm's those that keep fewer.

    `fewer`: those that keep more as well, all of them.
    """
    if fewer:
        pools = [pool.name for pool in driver.pools() if pool.size > copies]
    else:
        ours = (pool for pool in driver.pools() if pool.name in OURS)
        pools = [pool.name for pool in ours if pool.size < copies]
    driver.replicate(copies, pools)
    lxd.patch("", {"config": {COPIES_KEY: str(copies)}})


def _make_remote(cloud: Cloud, lxd: Lxd) -> None:
    config = {"ceph.rbd.du": "false", "ceph.osd.pool_name": OSD_POOL}
    if "storage_ceph_use_rbd_defaults" not in cloud.facts.extensions:
        config["ceph.rbd.features"] = FEATURES
    _make(cloud, lxd, REMOTE, "Distributed storage on Ceph", config)


def _make_files(cloud: Cloud, ceph: Ceph, lxd: Lxd) -> None:
    if not ceph.driver.placed().get("mds"):
        ceph.driver.enable("mds", cloud.name)
    config = {"cephfs.path": FILE_SYSTEM}
    if "storage_cephfs_create_missing" in cloud.facts.extensions:
        config |= {
            "cephfs.create_missing": "true",
            "cephfs.meta_pool": META,
            "cephfs.data_pool": DATA,
        }
    else:
        _make_file_system(ceph.driver)
    _make(cloud, lxd, REMOTE_FS, "Distributed file-system storage using CephFS", config)


def _make_file_system(driver: Microceph) -> None:
    """What newer versions of LXD do by themselves (`cephfs.create_missing`)."""
    if FILE_SYSTEM in _names(driver.ceph("fs", "ls"), "name"):
        return
    there = {pool.name for pool in driver.pools()}
    for pool in (META, DATA):
        if pool not in there:
            driver.ceph("osd", "pool", "create", pool, PLACEMENT_GROUPS)
    driver.ceph("fs", "new", FILE_SYSTEM, META, DATA)


def _names(rows: Iterable[Mapping[str, str]] | None, key: str) -> set[str]:
    return {row[key] for row in rows or ()}


def _make(cloud: Cloud, lxd: Lxd, name: str, description: str, config: Mapping[str, str]) -> None:
    pool = cloud.facts.pools.get(name)
    own = part(name, cloud.facts.extensions)
    for member in cloud.facts.members:
        if pool is None or member not in pool.locations:
            body = {"name": name, "driver": DRIVERS[name], "config": own}
            lxd.post("storage-pools", body, target=member)
    about = {"name": name, "driver": DRIVERS[name], "description": description}
    # LXD keeps the configuration of one that it failed to make, as while a member's LXD restarts.
    failed = pool is not None and pool.status == ERRORED
    lxd.post("storage-pools", {**about, "config": {} if failed else config})
