"""Emptying a member that leaves: its instances and custom volumes go to the others.

What is only on this machine is found first, all of it; then either nothing is done and the
list is said, or each thing is moved. An instance that has to be stopped for its move carries a
note of that, so that whichever hook goes on starts it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloud import MARK, VOLUMES
from cloud.pools import LOCAL
from errors import CharmError, DaemonError
from record import Record

if TYPE_CHECKING:
    from services.lxd import Lxd
    from view import Member

logger = logging.getLogger(__name__)

MOVING = f"{MARK}.moving-from"  # in an instance's configuration: start it once it is elsewhere
STOP_TIMEOUT = 30  # seconds for an instance to shut down, as LXD gives it when a host goes down
MOVE_TIMEOUT = 3600.0  # seconds for one instance or volume: it is copied where pools are local
_SHARED = ("ceph", "cephfs", "cephobject")


class CannotLeave(CharmError):
    """This member holds something that would be lost if it left."""


class Held(Record):
    """Something that only this member has; `why` is what stands against moving it."""

    kind: str
    name: str
    project: str
    pool: str = ""
    running: bool = False
    why: str = ""

    def __str__(self) -> str:
        place = f"{self.pool}/" if self.kind != "instance" else ""
        project = f" of project {self.project}" if self.project != "default" else ""
        why = f" ({self.why})" if self.why else ""
        return f"{self.kind} {place}{self.name}{project}{why}"


def look(lxd: Lxd, name: str) -> tuple[Held, ...]:
    """What the member `name` holds; raises DaemonError."""
    return (*_instances(lxd, name), *_volumes(lxd, name), *_buckets(lxd, name))


def _instances(lxd: Lxd, name: str) -> Iterator[Held]:
    for item in lxd.get("/1.0/instances?recursion=1&all-projects=true"):
        if item["location"] == name:
            running = item.get("status") == "Running" or item["config"].get(MOVING) == name
            if item.get("status") == "Error":  # its member does not answer
                running = item["config"].get("volatile.last_state.power") == "RUNNING"
            ephemeral = "it is ephemeral: stopping it deletes it" if item.get("ephemeral") else ""
            project = item.get("project", "default")
            pool = item.get("expanded_devices", {}).get("root", {}).get("pool", "")
            yield Held("instance", item["name"], project, pool, running=running, why=ephemeral)


def _volumes(lxd: Lxd, name: str) -> Iterator[Held]:
    for pool in _local_pools(lxd):
        path = f"/1.0/storage-pools/{pool}/volumes/custom?recursion=1&all-projects=true"
        for volume in lxd.get(path):
            ours = pool == LOCAL and volume["name"] in VOLUMES
            if volume["location"] == name and not ours:
                users = ", ".join(use.rpartition("/")[2] for use in volume.get("used_by") or ())
                project = volume.get("project", "default")
                why = f"attached to {users}" if users else ""
                yield Held("volume", volume["name"], project, pool, why=why)


def _buckets(lxd: Lxd, name: str) -> Iterator[Held]:
    if "storage_buckets" not in lxd.server()["api_extensions"]:
        return
    for pool in _local_pools(lxd):
        for project in lxd.get("/1.0/projects"):
            project = project.rpartition("/")[2]
            path = f"/1.0/storage-pools/{pool}/buckets?recursion=1&project={quote(project)}"
            for bucket in lxd.get(path):
                if bucket.get("location") == name:
                    yield Held("bucket", bucket["name"], project, pool, why="buckets do not move")


def _local_pools(lxd: Lxd) -> Iterator[str]:
    for pool in lxd.get("/1.0/storage-pools?recursion=1"):
        if pool["driver"] not in _SHARED:
            yield pool["name"]


def stuck(lxd: Lxd, name: str, *, move: bool) -> tuple[str, ...]:
    """Why the member cannot be emptied, before anything is done; `move`: things may be moved."""
    left = [item for item in look(lxd, name) if item.why or not move]
    return (_sentence(name, left, move=move),) if left else ()


def drain(lxd: Lxd, name: str, members: Iterable[Member]) -> None:
    """Empty the member, as far as `stuck` has found nothing.

    Raises:
        CannotLeave: something stays, which the sentence lists; its instances run as before.
    """
    _start_moved(lxd, name)
    targets = [m.name for m in members if m.is_available and m.name != name]
    left = [still for item in look(lxd, name) if (still := _move(lxd, name, targets, item))]
    _start_moved(lxd, name)
    if left:
        raise CannotLeave(_sentence(name, left, move=True))


def _sentence(name: str, left: Sequence[Held], *, move: bool) -> str:
    return f"{name} cannot leave the cloud, as it holds {', '.join(map(str, left))}; " + _way_out(
        left, move=move
    )


def _way_out(left: Iterable[Held], *, move: bool) -> str:
    if move or all(item.why for item in left):
        return "move or delete them, and Juju's next try of this hook goes on"
    return (
        "move or delete them (lxc move NAME --target MEMBER), or have them moved by "
        "on-removal=move, and Juju's next try of this hook goes on"
    )


def _move(lxd: Lxd, name: str, targets: list[str], item: Held) -> Held | None:
    """Move one thing; the same with a reason if it stays."""
    try:
        target = _target(lxd, targets, item)
        logger.info("moving %s from %s to %s", item, name, target)
        if item.kind == "instance":
            _move_instance(lxd, name, target, item)
        else:
            _move_volume(lxd, name, target, item)
    except CharmError as fault:
        return Held(**{**_fields(item), "why": str(fault)})
    return None


def _fields(item: Held) -> Mapping[str, Any]:
    return {field: getattr(item, field) for field in item._fields}


def _target(lxd: Lxd, targets: list[str], item: Held) -> str:
    """The member that has fewest instances, and no volume of this name."""
    count = dict.fromkeys(targets, 0)
    for instance in lxd.get("/1.0/instances?recursion=1&all-projects=true"):
        if instance["location"] in count:
            count[instance["location"]] += 1
    if item.kind == "volume":
        path = f"/1.0/storage-pools/{item.pool}/volumes/custom?recursion=1"
        for volume in lxd.get(f"{path}&project={quote(item.project)}"):
            if volume["name"] == item.name:
                count.pop(volume["location"], None)
    if not count:
        raise CharmError("no other member can take it")
    return min(count, key=lambda member: (count[member], member))


def _move_instance(lxd: Lxd, name: str, target: str, item: Held) -> None:
    path = f"instances/{item.name}"
    if item.running:
        lxd.patch(path, {"config": {MOVING: name}}, project=item.project)
        _stop(lxd, path, item.project)
    try:
        body = {"name": item.name, "migration": True}
        lxd.post(path, body, target=target, project=item.project, timeout=MOVE_TIMEOUT)
    except DaemonError:
        if item.running:
            _start(lxd, path, item.project)
        raise


def _stop(lxd: Lxd, path: str, project: str) -> None:
    """Shut an instance down, by force if it does not heed."""
    query = f"?project={quote(project)}"
    for force in (False, True):
        if lxd.get(f"/1.0/{path}/state{query}")["status"] == "Stopped":
            return
        body = {"action": "stop", "timeout": STOP_TIMEOUT, "force": force}
        try:
            lxd.put(f"{path}/state", body, project=project)
        except DaemonError as fault:
            if force:
                raise
            logger.info("%s does not shut down: %s", path, fault)


def _start_moved(lxd: Lxd, name: str) -> None:
    """Start what ran on this member and is elsewhere now."""
    for item in lxd.get("/1.0/instances?recursion=1&all-projects=true"):
        if item["config"].get(MOVING) == name and item["location"] != name:
            try:
                _start(lxd, f"instances/{item['name']}", item.get("project", "default"))
            except DaemonError as fault:
                # It is safe where it is; the user sees it stopped.
                logger.warning("%s does not start: %s", item["name"], fault)


def _start(lxd: Lxd, path: str, project: str) -> None:
    if lxd.get(f"/1.0/{path}/state?project={quote(project)}")["status"] == "Stopped":
        lxd.put(f"{path}/state", {"action": "start", "timeout": -1}, project=project)
    lxd.patch(path, {"config": {MOVING: ""}}, project=project)


def _move_volume(lxd: Lxd, name: str, target: str, item: Held) -> None:
    """Copy the volume, and delete it here once it is there.

    The target pulls it from here, which all versions can; only newer ones copy by themselves.
    """
    path = f"storage-pools/{item.pool}/volumes/custom"
    here: dict[str, Any] = {"target": name, "project": item.project}
    query = f"target={quote(name)}&project={quote(item.project)}"
    volume = lxd.get(f"/1.0/{path}/{quote(item.name)}?{query}")
    request = {"name": item.name, "pool": item.pool, "migration": True}
    offer = lxd.begin(f"{path}/{item.name}", request, **here)
    server = lxd.server()
    address = server["config"]["cluster.https_address"]
    source = {
        "type": "migration",
        "mode": "pull",
        "name": item.name,
        "pool": item.pool,
        "certificate": server["environment"]["certificate"],
        "operation": f"https://{address}/1.0/operations/{offer['id']}",
        "secrets": offer["metadata"],
    }
    kept = {key: volume[key] for key in ("name", "type", "content_type", "config", "description")}
    body = {**kept, "source": source}
    lxd.post(path, body, target=target, project=item.project, timeout=MOVE_TIMEOUT)
    lxd.delete(f"{path}/{item.name}", **here)


# Machines that are gone


def lost_with(lxd: Lxd, name: str) -> tuple[Held, ...]:
    """What goes with a machine that is gone: all that is not on a pool that others have too."""
    local = set(_local_pools(lxd))
    found = (item for item in look(lxd, name) if item.kind != "instance" or item.pool in local)
    return tuple(found)


def rescue(lxd: Lxd, name: str, members: Iterable[Member]) -> None:
    """Give what a machine that is gone had on shared pools to others, running if it ran."""
    targets = [m.name for m in members if m.is_available and m.name != name]
    lost = lost_with(lxd, name)
    for item in look(lxd, name):
        if item in lost:
            continue
        target = _target(lxd, targets, item)
        logger.info("%s goes on on %s, as %s is gone", item, target, name)
        path, body = f"instances/{item.name}", {"name": item.name, "migration": True}
        lxd.patch(path, {"config": {MOVING: name if item.running else ""}}, project=item.project)
        lxd.post(path, body, target=target, project=item.project, timeout=MOVE_TIMEOUT)
    _start_moved(lxd, name)
    if lost:
        logger.warning("%s took with it: %s", name, ", ".join(map(str, lost)))
