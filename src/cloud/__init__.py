"""What the charm sets up inside LXD: server keys, pools, networks, the default profile.

Each module looks at the same frozen facts and names the tasks that are due; a task is done by
asking LXD again whether it still has to be. Tasks of the cluster are the issuer's, a member's
own part (its disk in a pool) is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from record import Record
from settings import Settings

if TYPE_CHECKING:
    from cloud.ovn import Ovn
    from services.lxd import Lxd

MARK = "user.microcloud"
CREATED = "Created"


class Entity(Record):
    """A storage pool or a network of LXD."""

    name: str
    kind: str
    managed: bool
    status: str
    locations: tuple[str, ...]
    config: Mapping[str, str]


class Facts(Record):
    """LXD as this member sees it; `members` has the Juju unit of each, "" if it is not told."""

    extensions: frozenset[str]
    config: Mapping[str, str]
    pools: Mapping[str, Entity]
    networks: Mapping[str, Entity]
    profile: Mapping[str, Any]
    members: Mapping[str, str]


class Cloud(Record):
    """The facts with what is wanted; `name` is this member, `unit` its unit, `local` its part.

    `local` is None while nobody has asked for it or the machine cannot give it; `ovn` is None
    where this member has no OVN.
    """

    name: str
    unit: str
    issuer: bool
    settings: Settings
    facts: Facts
    local: Mapping[str, str] | None = None
    ovn: Ovn | None = None

    def everywhere(self, entity: Entity | None) -> bool:
        """Whether every member has its part of the pool or network."""
        return entity is not None and set(self.facts.members) <= set(entity.locations)


class Task(Record):
    """Something due: what it is called in the plan and in the log, and how it is done."""

    name: str
    do: Callable[[Lxd], None]


def facts(lxd: Lxd) -> Facts:
    """Look; raises DaemonError."""
    server = lxd.server()
    return Facts(
        extensions=frozenset(server["api_extensions"]),
        config=server["config"],
        pools={p["name"]: _entity(p, p["driver"]) for p in lxd.get(_all("storage-pools"))},
        networks={n["name"]: _entity(n, n["type"]) for n in lxd.get(_all("networks"))},
        profile=lxd.get("/1.0/profiles/default"),
        members={member.name: member.unit for member in lxd.members()},
    )


def tasks(cloud: Cloud) -> Iterator[Task]:
    """Everything that is due and that this unit may do now, in order."""
    from cloud import members, networks, pools, profile

    yield from members.tasks(cloud)
    yield from pools.tasks(cloud)
    yield from networks.tasks(cloud)
    if cloud.ovn is not None:
        from cloud import ovn

        yield from ovn.tasks(cloud)
    yield from profile.tasks(cloud)


def advice(cloud: Cloud) -> tuple[str, ...]:
    """What is not as configured and is left to the user to change."""
    from cloud import networks, pools, profile

    found = (*pools.advice(cloud), *networks.advice(cloud), *profile.advice(cloud))
    if cloud.ovn is not None:
        from cloud import ovn

        found += tuple(ovn.advice(cloud))
    return found


def parts(cloud: Cloud) -> tuple[str, ...]:
    """The pools and networks, not ready everywhere yet, of which this member has its part."""
    found = [*cloud.facts.pools.values(), *cloud.facts.networks.values()]
    waiting = (entity for entity in found if entity.status == "Pending")
    return tuple(entity.name for entity in waiting if cloud.name in entity.locations)


def _all(kind: str) -> str:
    return f"/1.0/{kind}?recursion=1"


def _entity(data: Mapping[str, Any], kind: str) -> Entity:
    return Entity(
        name=data["name"],
        kind=kind,
        managed=data.get("managed", True),
        status=data.get("status", ""),
        locations=tuple(data.get("locations") or ()),
        config=data.get("config") or {},
    )
