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
    """LXD as this member sees it."""

    extensions: frozenset[str]
    config: Mapping[str, str]
    pools: Mapping[str, Entity]
    networks: Mapping[str, Entity]
    profile: Mapping[str, Any]
    members: tuple[str, ...]


class Cloud(Record):
    """The facts with what is wanted: `name` is this member, `local` its part of that pool.

    `local` is None while nobody has asked for it or the machine cannot give it.
    """

    name: str
    issuer: bool
    settings: Settings
    facts: Facts
    local: Mapping[str, str] | None = None

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
        members=tuple(member.name for member in lxd.members()),
    )


def tasks(cloud: Cloud) -> Iterator[Task]:
    """Everything that is due and that this unit may do now, in order."""
    from cloud import networks, pools, profile

    yield from pools.tasks(cloud)
    yield from networks.tasks(cloud)
    yield from profile.tasks(cloud)


def advice(cloud: Cloud) -> tuple[str, ...]:
    """What is not as configured and is left to the user to change."""
    from cloud import networks, pools, profile

    return (*pools.advice(cloud), *networks.advice(cloud), *profile.advice(cloud))


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
