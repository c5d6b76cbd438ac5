"""LXD is told which Juju unit each member is, so that it is known when the unit is gone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from cloud import Cloud, Task
from services.lxd import UNIT_KEY

if TYPE_CHECKING:
    from services.lxd import Lxd

# What a PUT takes of what a GET gives. LXD 5.0 refuses a PATCH without the roles.
_WRITABLE = ("config", "description", "failure_domain", "groups", "roles")


def tasks(cloud: Cloud) -> Iterator[Task]:
    """Each member tells of itself."""
    if cloud.facts.members.get(cloud.name, "") != cloud.unit:
        yield Task("name of this unit", partial(_tell, cloud))


def _tell(cloud: Cloud, lxd: Lxd) -> None:
    path = f"cluster/members/{cloud.name}"
    member = lxd.get(f"/1.0/{path}")
    body = {key: member[key] for key in _WRITABLE if key in member}
    body["config"] = {**member["config"], UNIT_KEY: cloud.unit}
    lxd.put(path, body)
