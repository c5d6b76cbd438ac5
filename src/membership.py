"""Members that leave, while their daemons run.

One leaves at a time: which one, LXD keeps in the members' configuration, as units that are
about to be removed can no longer tell each other anything. Instances, volumes and disks go
first, then what the others need of this member is handed over, then the memberships; LXD's
before those of the services beneath its networks and pools.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import drain
import drain_ceph
from cloud import MARK, VOLUMES, members, ovn
from cloud.pools import LOCAL
from drain import CannotLeave
from errors import CharmError, DaemonError
from peers import by_number
from services.lxd import LEAVING_KEY
from view import Presence

if TYPE_CHECKING:
    from services.lxd import Lxd
    from world import World

logger = logging.getLogger(__name__)

_WAITS = " waits"  # after the unit in a member's note of leaving: another one goes first
TURN_TIMEOUT = 120.0  # seconds to wait for others that leave; then Juju tries the hook again


def leave(world: World) -> None:
    """Take this machine out of the cloud.

    Raises:
        CannotLeave: instances or volumes are only here, or others leave; the sentence says it.
        DaemonError: a daemon refuses.
    """
    view = world.view
    lxd = view.services["lxd"]
    if world.refused.is_set():
        logger.info("%s is in a cluster that is not the cloud's, and stays there", view.name)
        return
    # A member that others have taken out answers no more, or does not find itself for a moment.
    here = lxd.presence is Presence.ALONE or view.name in lxd.names
    out = not here and world.lxd.has_left(view.name)
    _check_answers(world, but="lxd" if out else "")
    if lxd.presence is Presence.MEMBER and not out:
        if not any(member.unit for member in lxd.members):
            logger.info("%s is in a cluster that no unit of this application is of", view.name)
            return  # it was there before, and this unit was refused
        if len(lxd.members) == 1:
            logger.info("%s is the last member; there is no cluster to leave", view.name)
            return
        with _turn(world):
            _empty(world)
            _hand_over(world)
            _release_volumes(world.lxd, view.name)
            _keep_database(world)
            uplink = ovn.uplink_of(world.lxd, view.name)
            world.lxd.remove(view.name, force=False)
            if uplink:  # LXD has set it down, and a down one is not fit for the next time
                subprocess.run(["ip", "link", "set", uplink, "up"], check=False)
    # What LXD's networks and pools needed goes after it; none if an earlier try got this far.
    for name, driver in world.services.items():
        state = view.services[name]
        if name == "lxd" or state.presence is not Presence.MEMBER or len(state.members) == 1:
            continue
        if name == "microceph":
            drain_ceph.leave(world.microceph, view.name)
        else:
            driver.remove(view.name, force=False)


def _check_answers(world: World, but: str) -> None:
    """A daemon that does not answer may be a member still; gone, it may take a majority along."""
    silent = [
        f"{name}: {state.detail}"
        for name, state in world.view.services.items()
        if state.presence is Presence.BROKEN and not state.joining and name != but
    ]
    if silent:
        raise CannotLeave(
            f"{world.view.name} cannot leave before it answers ({'; '.join(silent)}); Juju tries "
            f"again. If its machine is given up: juju remove-unit --force {world.view.me}"
        )


@contextlib.contextmanager
def _turn(world: World) -> Iterator[None]:
    """This member is the only one that leaves meanwhile; given up again if it cannot."""
    lxd, name = world.lxd, world.view.name
    _wait_for_turn(world)
    try:
        yield
    except CharmError:
        with contextlib.suppress(DaemonError):  # a later try, or LXD's removal, takes it away
            members.note(lxd, name, {LEAVING_KEY: ""})
        raise


def _wait_for_turn(world: World) -> None:
    """Note in LXD that this member leaves, and wait until no other does.

    Whoever goes on has noted that it goes and then seen no other's note of it, so there is at
    most one. Of several the first by number keeps its note; the others note that they wait, so
    that nothing is handed over to them. Waiting is for LXD, whose state shows while a hook
    runs, and nothing else is left for this unit to do.
    """
    lxd, name, unit = world.lxd, world.view.name, world.view.me
    deadline = time.monotonic() + TURN_TIMEOUT
    while True:
        members.note(lxd, name, {LEAVING_KEY: unit})
        others = [m for m in lxd.members() if m.online and m.name != name and m.leaving]
        going = [m for m in others if not m.leaving.endswith(_WAITS)]
        unsettled = _between(world)
        if not going and not unsettled:
            return
        if going and min(by_number(m.leaving) for m in going) < by_number(unit):
            members.note(lxd, name, {LEAVING_KEY: unit + _WAITS})
        if time.monotonic() > deadline:
            if not going:
                return
            first = ", ".join(m.name for m in going)
            raise CannotLeave(f"{name} waits for {first} to leave first; Juju tries again")
        world.say(f"waiting for {', '.join([m.name for m in going] or unsettled)} first")
        time.sleep(1.0)


def _between(world: World) -> list[str]:
    """Online members of other services that are not in LXD: just leaving, or just joining."""
    inside = {member.name for member in world.lxd.members()}
    seen = [driver.look() for name, driver in world.services.items() if name != "lxd"]
    found = {m.name for state in seen for m in state.members if m.online}
    return sorted(found - inside)


def _empty(world: World) -> None:
    """Instances, volumes and disks go elsewhere; if something cannot, nothing does."""
    view, lxd = world.view, world.lxd
    move = view.settings is not None and view.settings.on_removal == "move"
    has_ceph = _is_member(world, "microceph")
    wrong = drain_ceph.findings(world.microceph, view.name) if has_ceph else ()
    held = drain.stuck(lxd, view.name, move=move)
    if held or wrong:
        raise CannotLeave("; ".join([*held, *(f"{view.name} cannot leave: {w}" for w in wrong)]))
    if move:
        world.say("moving instances to other members")
    drain.drain(lxd, view.name, lxd.members())
    if has_ceph:
        drain_ceph.hand_over(world.microceph, view.name, _staying(world))
        drain_ceph.drain(world.microceph, lxd, view.name, world.say)


def _hand_over(world: World) -> None:
    """What the others need of this member they get from another one before it goes."""
    if _is_member(world, "microovn"):
        ovn.hand_over(world.microovn, world.lxd, world.view.name, _staying(world))


def _is_member(world: World, service: str) -> bool:
    state = world.view.services.get(service)
    return state is not None and state.presence is Presence.MEMBER


def _staying(world: World) -> list[str]:
    """The members that may take something over."""
    name = world.view.name
    return [m.name for m in world.lxd.members() if m.is_available and m.name != name]


def _keep_database(world: World) -> None:
    """The last but one goes only when the last one can have the database alone."""
    others = [member for member in world.lxd.members() if member.name != world.view.name]
    if len(others) != 1:
        return
    try:
        world.lxd.give_up_database(world.view.name, others[0].name)
    except DaemonError as fault:
        raise CannotLeave(
            f"{world.view.name} cannot leave, as LXD's database would end with it: {fault}; Juju "
            f"tries again. Or keep this unit, and remove the one on {others[0].name} instead"
        ) from fault


def _release_volumes(lxd: Lxd, name: str) -> None:
    """LXD removes no member that has custom volumes, its own two included."""
    config = lxd.server()["config"]
    for volume, key in VOLUMES.items():
        used = config.get(key) == f"{LOCAL}/{volume}"
        if used:
            lxd.patch("", {"config": {key: ""}})
        path = f"storage-pools/{LOCAL}/volumes/custom/{volume}"
        try:  # an earlier try may have got between the two
            marked = MARK in lxd.get(f"/1.0/{path}?target={name}")["config"]
        except DaemonError as fault:
            if fault.code != 404:
                raise
            continue
        if used or marked:
            lxd.delete(path, target=name)
