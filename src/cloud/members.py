"""What LXD is told of each member: its Juju unit, known when it is gone, and its zone.

And what LXD keeps of members that are gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from cloud import Cloud, Task

if TYPE_CHECKING:
    from services.lxd import Lxd

_DOMAIN = "default"  # what LXD says for a failure domain that nobody has set
_GROUP = "default"  # where LXD puts every member that joins
# What a PUT takes of what a GET gives. LXD 5.0 refuses a PATCH without the roles.
_WRITABLE = ("config", "description", "failure_domain", "groups", "roles")


def tasks(cloud: Cloud) -> Iterator[Task]:
    """Each member tells of itself."""
    if cloud.facts.members.get(cloud.name, "") != cloud.unit:
        yield Task("name of this unit", lambda lxd: note(lxd, cloud.name, lxd.own(cloud.unit)))
    zone = os.environ.get("JUJU_AVAILABILITY_ZONE", "")
    # Any other one was chosen by somebody.
    if zone and zone != _DOMAIN and cloud.facts.domains.get(cloud.name, "") == _DOMAIN:
        yield Task("failure domain of this member", partial(_locate, cloud, zone))
    if cloud.lost_servers:
        yield Task("LXD's database, without lost servers", lambda lxd: lxd.forget_servers())


def _locate(cloud: Cloud, zone: str, lxd: Lxd) -> None:
    _write(lxd, cloud.name, failure_domain=zone)


def note(lxd: Lxd, name: str, notes: Mapping[str, str]) -> None:
    """Write keys of the member's configuration; "" takes one away."""
    old: dict[str, str] = lxd.get(f"/1.0/cluster/members/{name}")["config"]
    config = {key: value for key, value in {**old, **notes}.items() if value}
    if config != old:
        _write(lxd, name, config=config)


def _write(lxd: Lxd, name: str, **changes: Any) -> None:
    path = f"cluster/members/{name}"
    member = lxd.get(f"/1.0/{path}")
    body = {key: member[key] for key in _WRITABLE if key in member}
    # A join that was cut short leaves a member in no group, and LXD refuses to write that.
    if body.get("groups") == []:
        body["groups"] = [_GROUP]
    lxd.put(path, {**body, **changes})
