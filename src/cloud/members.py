"""What LXD is told of each member: its Juju unit, known when it is gone, and its zone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from cloud import Cloud, Task
from services.lxd import UNIT_KEY

if TYPE_CHECKING:
    from services.lxd import Lxd

_DOMAIN = "default"  # what LXD says for a failure domain that nobody has set
# What a PUT takes of what a GET gives. LXD 5.0 refuses a PATCH without the roles.
_WRITABLE = ("config", "description", "failure_domain", "groups", "roles")


def tasks(cloud: Cloud) -> Iterator[Task]:
    """Each member tells of itself."""
    if cloud.facts.members.get(cloud.name, "") != cloud.unit:
        yield Task("name of this unit", lambda lxd: note(lxd, cloud.name, UNIT_KEY, cloud.unit))
    zone = os.environ.get("JUJU_AVAILABILITY_ZONE", "")
    # Any other one was chosen by somebody.
    if zone and zone != _DOMAIN and cloud.facts.domains.get(cloud.name, "") == _DOMAIN:
        yield Task("failure domain of this member", partial(_locate, cloud, zone))


def _locate(cloud: Cloud, zone: str, lxd: Lxd) -> None:
    _write(lxd, cloud.name, failure_domain=zone)


def note(lxd: Lxd, name: str, key: str, value: str) -> None:
    """Write a key of the member's configuration; "" takes it away."""
    config: dict[str, str] = lxd.get(f"/1.0/cluster/members/{name}")["config"]
    if config.get(key, "") == value:
        return
    config = {**config, key: value}
    _write(lxd, name, config={k: v for k, v in config.items() if v})


def _write(lxd: Lxd, name: str, **changes: Any) -> None:
    path = f"cluster/members/{name}"
    member = lxd.get(f"/1.0/{path}")
    body = {key: member[key] for key in _WRITABLE if key in member}
    lxd.put(path, {**body, **changes})
