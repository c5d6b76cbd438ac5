"""Juju storage `osd` that comes and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ops
from ops import hookcmds

import drain_ceph
import formation
import osd_removal
from errors import CharmError, Findings
from osds import Released
from view import Presence
from world import World, folder_of

if TYPE_CHECKING:
    from services.microceph import Osd


def attached(charm: ops.CharmBase, storage: ops.Storage) -> None:
    """A disk that was taken out of Ceph is taken again when somebody attaches it anew."""
    from machine.diskprobe import HostProbe

    Released(folder_of(charm)).discard(str(storage.location), HostProbe())


def detaching(charm: ops.CharmBase, storage: ops.Storage) -> formation.Rest:
    """Take the storage's disk out of Ceph, unless the whole application goes: its cloud stays.

    Of a unit that is being removed, Juju detaches all storage before its `stop`: then Ceph may
    keep fewer copies, as it does for the disks that the unit leaves with.

    Raises:
        CharmError: data or redundancy would be lost, or Ceph does not answer.
    """
    if charm.app.planned_units() == 0:
        return formation.Rest("maintenance", "the cloud stays on its machines")
    world = World(charm, event="osd_storage_detaching")
    service = world.view.services.get("microceph")
    if service is not None and service.presence is Presence.BROKEN:
        raise CharmError(f"cannot tell whether {storage.full_id} is in use: {service.detail}")
    if service is not None and service.presence is Presence.MEMBER:
        going = hookcmds.goal_state().units[charm.unit.name].status == "dying"
        _release(world, storage, going=going)
    return formation.look_only(world.view)


def _release(world: World, storage: ops.Storage, *, going: bool) -> None:
    from machine.diskprobe import HostProbe

    probe = HostProbe()
    name = probe.resolve(str(storage.location))
    for osd in world.osds.mine():
        if name is not None and probe.resolve(osd.path) == name:
            with world.osds.releasing(osd.path):
                if going:
                    _leave_with(world, osd)
                else:
                    osd_removal.remove(world.microceph, osd, tell=world.say)


def _leave_with(world: World, osd: Osd) -> None:
    name = world.view.name
    wrong = drain_ceph.findings(world.microceph, name)
    if wrong:
        raise Findings(f"{name} cannot leave: {finding}" for finding in wrong)
    drain_ceph.drain_disk(world.microceph, world.lxd, osd, world.say)
