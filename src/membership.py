"""Members that leave."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cloud import VOLUMES
from cloud.pools import LOCAL
from errors import CharmError
from view import Presence

if TYPE_CHECKING:
    from services.lxd import Lxd
    from world import World

logger = logging.getLogger(__name__)


class CannotLeave(CharmError):
    """This member holds something that would be lost if it left."""


def leave(world: World) -> None:
    """Take this machine out of the cloud.

    Raises:
        CannotLeave: instances or volumes are only here; the sentence lists them.
        DaemonError: LXD refuses.
    """
    view = world.view
    if view.services["lxd"].presence is Presence.MEMBER and not _leave_lxd(world):
        return
    # What LXD's networks and pools needed goes after it; none if an earlier try got this far.
    for name, driver in world.services.items():
        state = view.services[name]
        if name != "lxd" and state.presence is Presence.MEMBER and len(state.members) > 1:
            driver.remove(view.name, force=False)


def _leave_lxd(world: World) -> bool:
    """Leave LXD; False, and nothing done, if this is its last member."""
    view = world.view
    held = _held(world.lxd, view.name)
    if held:
        raise CannotLeave(
            f"{view.name} cannot leave the cloud, as it holds {', '.join(held)}; move or delete "
            "them (lxc move NAME --target MEMBER), and Juju's next try of this hook goes on"
        )
    if len(view.services["lxd"].members) == 1:
        logger.info("%s is the last member; there is no cluster to leave", view.name)
        return False
    _release_volumes(world.lxd, view.name)
    world.lxd.remove(view.name, force=False)
    return True


def _held(lxd: Lxd, name: str) -> list[str]:
    instances = lxd.get("/1.0/instances?recursion=1&all-projects=true")
    held = [f"instance {item['name']}" for item in instances if item["location"] == name]
    for pool in lxd.get("/1.0/storage-pools?recursion=1"):
        if pool["driver"] in ("ceph", "cephfs"):
            continue
        path = f"/1.0/storage-pools/{pool['name']}/volumes/custom?recursion=1&all-projects=true"
        for volume in lxd.get(path):
            if volume["location"] == name and not _is_service_volume(pool["name"], volume):
                held.append(f"volume {pool['name']}/{volume['name']}")
    return held


def _is_service_volume(pool: str, volume: dict[str, Any]) -> bool:
    return pool == LOCAL and volume["name"] in VOLUMES


def _release_volumes(lxd: Lxd, name: str) -> None:
    """LXD removes no member that has custom volumes, its own two included."""
    config = lxd.server()["config"]
    for volume, key in VOLUMES.items():
        if config.get(key) != f"{LOCAL}/{volume}":
            continue
        lxd.patch("", {"config": {key: ""}})
        lxd.delete(f"storage-pools/{LOCAL}/volumes/custom/{volume}", target=name)
