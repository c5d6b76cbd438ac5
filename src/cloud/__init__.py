"""What the charm sets up inside LXD: server keys, pools, networks, the default profile.

Each module looks at the same frozen facts and names the tasks that are due; a task is done by
asking LXD again whether it still has to be. Tasks of the cluster are the issuer's, a member's
own part (its disk in a pool) is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from record import Record
from settings import Settings

if TYPE_CHECKING:
    from cloud.ceph import Ceph
    from cloud.ovn import Ovn
    from services.lxd import Lxd
    from view import Member

MARK = "user.microcloud"
CREATED = "Created"
VOLUMES = {"images": "storage.images_volume", "backups": "storage.backups_volume"}


class Entity(Record):
    """A storage pool or a network of LXD."""

    name: str
    kind: str
    managed: bool
    status: str
    locations: tuple[str, ...]
    config: Mapping[str, str]
    description: str = ""


class Facts:
    """LXD as this member sees it, each part asked for when it is first looked at.

    In most hooks nothing is due and few parts are needed, and LXD takes its time to list
    networks. What was asked once holds for one look. `members` has the Juju unit of each
    member, "" if LXD was not told; `domains` the failure domain; `leaving` are about to leave,
    `evacuated` in maintenance. Looking raises DaemonError.
    """

    def __init__(self, lxd: Lxd, server: Mapping[str, Any], members: Iterable[Member]) -> None:
        self._lxd = lxd
        self.extensions = frozenset(server["api_extensions"])
        self.config: Mapping[str, str] = server["config"]
        found = tuple(members)
        self.members = {member.name: member.unit for member in found}
        self.domains = {member.name: member.domain for member in found}
        self.evacuated = frozenset(member.name for member in found if member.evacuated)
        self.leaving = frozenset(member.name for member in found if member.leaving)

    @cached_property
    def pools(self) -> Mapping[str, Entity]:
        """The storage pools."""
        found = self._lxd.get("/1.0/storage-pools?recursion=1")
        return {pool["name"]: _entity(pool, pool["driver"]) for pool in found}

    @cached_property
    def networks(self) -> Mapping[str, Entity]:
        """The networks, and the machine's interfaces that LXD knows."""
        found = self._lxd.get("/1.0/networks?recursion=1")
        return {network["name"]: _entity(network, network["type"]) for network in found}

    @cached_property
    def profile(self) -> Mapping[str, Any]:
        """The default profile."""
        return self._lxd.get("/1.0/profiles/default")

    @property
    def local_is_in_use(self) -> bool:
        """Whether this member's own volumes are on the pool `local`, so that it is ready."""
        return all(key in self.config for key in VOLUMES.values())


class Cloud(Record):
    """The facts with what is wanted; `name` is this member, `unit` its unit, `local` its part.

    `local` is None while nobody has asked for it or the machine cannot give it; `ceph` and
    `ovn` are None where this member has none. `lost_servers` of LXD's database are no member's;
    who leads it looks for them in periodic hooks.
    """

    name: str
    unit: str
    issuer: bool
    settings: Settings
    facts: Facts
    local: Mapping[str, str] | None = None
    ceph: Ceph | None = None
    ovn: Ovn | None = None
    lost_servers: tuple[str, ...] = ()

    def everywhere(self, entity: Entity | None) -> bool:
        """Whether every member has its part of the pool or network."""
        return entity is not None and set(self.facts.members) <= set(entity.locations)


class Task(Record):
    """Something due: what it is called in the plan and in the log, and how it is done."""

    name: str
    do: Callable[[Lxd], None]


def facts(lxd: Lxd) -> Facts:
    """Look; raises DaemonError."""
    return Facts(lxd, lxd.server(), lxd.members())


def tasks(cloud: Cloud) -> Iterator[Task]:
    """Everything that is due and that this unit may do now, in order."""
    from cloud import members, networks, pools, profile

    yield from members.tasks(cloud)
    yield from pools.tasks(cloud)
    if cloud.ceph is not None:
        from cloud import ceph

        yield from ceph.tasks(cloud)
    yield from networks.tasks(cloud)
    if cloud.ovn is not None:
        from cloud import ovn

        yield from ovn.tasks(cloud)
    yield from profile.tasks(cloud)


def advice(cloud: Cloud) -> tuple[str, ...]:
    """What is not as configured and is left to the user to change.

    What all members share is spoken of by the issuer.
    """
    from cloud import networks, pools, profile

    found: tuple[str, ...] = ()
    if cloud.issuer:
        found += (*pools.advice(cloud), *networks.advice(cloud), *profile.advice(cloud))
        if cloud.ceph is not None:
            from cloud import ceph

            found += tuple(ceph.advice(cloud))
    if cloud.ovn is not None:
        from cloud import ovn

        found += tuple(ovn.advice(cloud))
    return found


def parts(cloud: Cloud) -> tuple[str, ...]:
    """The pools and networks, not ready everywhere yet, of which this member has its part."""
    found: list[Entity] = []
    if not cloud.facts.local_is_in_use:
        found += cloud.facts.pools.values()
    if cloud.settings.uplink is not None:
        found += cloud.facts.networks.values()
    waiting = (entity for entity in found if entity.status == "Pending")
    return tuple(entity.name for entity in waiting if cloud.name in entity.locations)


def _entity(data: Mapping[str, Any], kind: str) -> Entity:
    return Entity(
        name=data["name"],
        kind=kind,
        managed=data.get("managed", True),
        status=data.get("status", ""),
        locations=tuple(data.get("locations") or ()),
        config=data.get("config") or {},
        description=data.get("description", ""),
    )
