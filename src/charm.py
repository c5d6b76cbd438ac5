#!/usr/bin/env python3
"""The front door: Juju's events come in, status goes out.

Every event is answered alike: look at the world, do what is due, say what is waited for (see
docs/explanation/design.md). What differs is said here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import ops

import formation
from errors import CharmError
from world import World

logger = logging.getLogger(__name__)

STATUS = {
    "active": ops.ActiveStatus,
    "blocked": ops.BlockedStatus,
    "maintenance": ops.MaintenanceStatus,
    "waiting": ops.WaitingStatus,
}


def _list_interfaces(world: World, _: Mapping[str, Any]) -> object:
    from operations import interfaces

    return interfaces.describe(world)


def _list_disks(world: World, _: Mapping[str, Any]) -> object:
    from operations import disks

    return disks.listing(world)


def _list_members(world: World, _: Mapping[str, Any]) -> object:
    from operations import members

    return members.listing(world)


def _remove_member(world: World, params: Mapping[str, Any]) -> object:
    from operations import members

    return members.remove(world, params)


def _enter_maintenance(world: World, params: Mapping[str, Any]) -> object:
    from operations import maintenance

    return maintenance.enter(world, params)


def _exit_maintenance(world: World, _: Mapping[str, Any]) -> object:
    from operations import maintenance

    return maintenance.leave(world)


def _verify(world: World, params: Mapping[str, Any]) -> object:
    from operations import verify

    return verify.run(world, params)


_OPERATIONS: Mapping[str, tuple[str, Callable[[World, Mapping[str, Any]], object]]] = {
    "list-interfaces": ("interfaces", _list_interfaces),
    "list-disks": ("disks", _list_disks),
    "list-members": ("members", _list_members),
    "remove-member": ("member", _remove_member),
    "enter-maintenance": ("maintenance", _enter_maintenance),
    "verify": ("members", _verify),
    "exit-maintenance": ("maintenance", _exit_maintenance),
}


class MicrocloudCharm(ops.CharmBase):
    """One member of the cloud."""

    def __init__(self, framework: ops.Framework) -> None:
        super().__init__(framework)
        self._rest: formation.Rest | None = None
        for event in (
            self.on.install,
            self.on.start,
            self.on.config_changed,
            self.on.leader_elected,
            self.on.update_status,
            self.on.upgrade_charm,
            self.on["cluster"].relation_created,
            self.on["cluster"].relation_joined,
            self.on["cluster"].relation_changed,
            self.on["cluster"].relation_departed,
            self.on["local"].storage_attached,
        ):
            framework.observe(event, self._on_event)
        framework.observe(self.on["osd"].storage_attached, self._on_osd_attached)
        framework.observe(self.on["osd"].storage_detaching, self._on_osd_detaching)
        framework.observe(self.on.stop, self._on_stop)
        framework.observe(self.on.collect_unit_status, self._on_collect_unit_status)
        framework.observe(self.on.status_action, self._on_status_action)
        framework.observe(self.on.add_disks_action, self._on_add_disks_action)
        framework.observe(self.on.remove_disk_action, self._on_remove_disk_action)
        for action in _OPERATIONS:
            framework.observe(self.on[action].action, self._on_operation)

    def _on_event(self, event: ops.EventBase) -> None:
        departing = getattr(event, "departing_unit", None)
        name = event.handle.kind
        world = World(
            self,
            event=name,
            leaving=departing == self.unit,
            departed=departing.name if departing else "",
        )
        self._rest = world.settle()
        if name in ("install", "upgrade_charm", "start"):
            self._set_version(world)

    def _set_version(self, world: World) -> None:
        try:
            self.unit.set_workload_version(world.lxd.server()["environment"]["server_version"])
        except CharmError as fault:
            logger.info("LXD does not tell its version: %s", fault)

    def _on_osd_attached(self, event: ops.StorageAttachedEvent) -> None:
        import storage

        storage.attached(self, event.storage)
        self._on_event(event)

    def _on_osd_detaching(self, event: ops.StorageDetachingEvent) -> None:
        """Empty the disk first.

        A refusal fails the hook: Juju then keeps the storage attached, and tries again.
        """
        import storage

        try:
            self._rest = storage.detaching(self, event.storage)
        except CharmError as fault:
            self.unit.status = ops.BlockedStatus(str(fault))
            raise

    def _on_stop(self, event: ops.StopEvent) -> None:
        """Leave the cloud, unless the whole application goes: its cloud stays.

        A refusal fails the hook: Juju then keeps the unit and its machine, and tries again.
        """
        self._rest = formation.Rest("maintenance", "the cloud stays on its machines")
        if self.app.planned_units() == 0:
            return
        import membership

        membership.leave(World(self, event="stop", leaving=True))
        self._rest = formation.Rest("maintenance", "left the cloud")

    def _on_collect_unit_status(self, event: ops.CollectStatusEvent) -> None:
        rest = self._rest or formation.look_only(World(self, event="").view)
        event.add_status(STATUS[rest.status](rest.message))

    def _on_status_action(self, event: ops.ActionEvent) -> None:
        from operations import status

        event.set_results({"cloud": json.dumps(status.describe(World(self, event="action")))})

    def _on_operation(self, event: ops.ActionEvent) -> None:
        """An action whose result is one JSON document, under the name that is said here."""
        name, operation = _OPERATIONS[event.handle.kind.removesuffix("_action").replace("_", "-")]
        try:
            found = operation(World(self, event="action"), event.params)
        except CharmError as fault:
            event.fail(str(fault))
            return
        event.set_results({name: json.dumps(found)})

    def _on_add_disks_action(self, event: ops.ActionEvent) -> None:
        from operations import disks

        try:
            added = disks.add(World(self, event="action"), event.params, event.log)
        except CharmError as fault:
            event.fail(str(fault))
            return
        event.set_results({"disks": json.dumps([dict(disk) for disk in added.disks])})
        if added.faults:
            event.fail("; ".join(added.faults))
        self._rest = World(self, event="action").settle()

    def _on_remove_disk_action(self, event: ops.ActionEvent) -> None:
        from operations import disks

        try:
            removed = disks.remove(World(self, event="action"), event.params, event.log)
        except CharmError as fault:
            event.fail(str(fault))
            return
        event.set_results({"disk": json.dumps(removed)})
        self._rest = World(self, event="action").settle()


if __name__ == "__main__":
    ops.main(MicrocloudCharm)
