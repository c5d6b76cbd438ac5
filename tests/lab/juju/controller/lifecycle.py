"""How applications, units, machines and models come and go."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from lab.juju import clock
from lab.juju.controller import relations, secret_rules, storage_rules
from lab.juju.controller.core import Controller
from lab.juju.controller.entities import App, Machine, Model, Task, Unit
from lab.juju.controller.errors import Refused

Doc = dict[str, Any]


def add_units(
    ctl: Controller, app: App, count: int, to: list[str], attach_storage: list[str] | None = None
) -> list[Unit]:
    """Add units, each on its placement's machine or a new one."""
    if app.life != "alive":
        raise Refused(f'cannot add unit: application "{app.name}" is not alive')
    if len(to) > count:
        raise Refused(f"cannot place {count} unit(s) on {len(to)} machines: too many placements")
    targets = [_placement(ctl, app, place) for place in to]
    targets += [None] * (count - len(targets))
    made: list[Unit] = []
    for target in targets:
        machine = target or add_machine(ctl, app.model, app.constraints)
        number = app.next_unit
        app.next_unit += 1
        unit = ctl.store.add(
            Unit(
                model=app.model,
                name=f"{app.name}/{number}",
                app=app.name,
                machine=machine.id,
                password=secrets.token_hex(12),
                created=clock.now(),
            )
        )
        set_status(unit, "agent", "allocating", "")
        set_status(unit, "workload", "waiting", "waiting for machine")
        storage_rules.for_new_unit(ctl, app, unit, attach_storage or [])
        made.append(unit)
    ctl.wake_provisioner()
    return made


def _placement(ctl: Controller, app: App, place: str) -> Machine | None:
    if place.isdigit():
        machine = ctl.machine(app.model, place)
        if machine.life != "alive":
            raise Refused(f"cannot place unit on machine {place}: it is being removed")
        return machine
    if not place or place == "new":
        return None
    raise Refused(
        f'the lab\'s juju does not support "--to {place}": it places units on machines by '
        "number only (no containers, zones, tags or subnets)"
    )


def add_machine(ctl: Controller, model: str, constraints: Doc, explicit: bool = False) -> Machine:
    ident = str(ctl.model_named(model).next("machine"))
    machine = ctl.store.add(
        Machine(
            model=model,
            id=ident,
            created=clock.now(),
            since=clock.now(),
            explicit=explicit,
            constraints=constraints,
            base="ubuntu@24.04",
        )
    )
    ctl.wake_provisioner()
    return machine


def set_status(
    unit: Unit, which: str, current: str, message: str, data: Doc | None = None
) -> None:
    """Set a unit's agent or workload status; `since` moves only when something changed."""
    old: Doc = getattr(unit, which)
    new = {"current": current, "message": message, "data": data or {}}
    if {k: old.get(k) for k in new} != new:
        setattr(unit, which, {**new, "since": clock.now()})


# -- removal ----------------------------------------------------------------------------


def remove_unit(
    ctl: Controller, unit: Unit, force: bool, wait: float | None, destroy_storage: bool = False
) -> None:
    """Tell a unit to go. Without a running agent that never came up, it goes at once."""
    unit.destroy_storage = unit.destroy_storage or destroy_storage
    if unit.life == "alive":
        unit.life = "dying"
        storage_rules.unit_going(ctl, unit)
        if not ctl.is_v4:
            relations.depart_at_once(ctl, unit)
    if unit.agent.get("current") == "allocating" and not ctl.connected(unit.key):
        bury_unit(ctl, unit)
    elif force:
        _later(ctl, _force_unit(ctl, unit.key, wait))


async def _force_unit(ctl: Controller, key: str, wait: float | None) -> None:
    """Give a forced unit time to go in order: little if it cannot, a minute if it may."""

    def stuck() -> bool:
        unit = ctl.store.get(Unit, key)
        return unit is None or not ctl.connected(key) or unit.agent.get("current") == "error"

    if wait is None:
        await ctl.wait_for(stuck, ctl.knob("force-wait"))
        await ctl.wait_for(lambda: ctl.store.get(Unit, key) is None, 3.0)
    else:
        await ctl.wait_for(lambda: ctl.store.get(Unit, key) is None, wait)
    unit = ctl.store.get(Unit, key)
    if unit is not None:
        bury_unit(ctl, unit)
        ctl.commit()


def _later(ctl: Controller, work: Any) -> None:
    task = asyncio.get_running_loop().create_task(work)
    ctl.background.add(task)
    task.add_done_callback(ctl.background.discard)


def bury_unit(ctl: Controller, unit: Unit) -> None:
    """A unit is dead: forget it and everything that was only its own."""
    app = ctl.app(unit.model, unit.app)
    for rel in ctl.relations(unit.model, unit.app):
        relations.leave(ctl, rel, unit.name)
    for task in ctl.tasks(unit.model, unit.name):
        end_task(task, "aborted", "unit removed")
    secret_rules.forget(ctl, unit.model, unit.name)
    storage_rules.unit_gone(ctl, unit)
    if app.leader == unit.name:
        app.leader, app.lease_until = "", 0.0
    faults = ctl.settings.knobs.get("faults", {})
    if faults.pop(unit.key, None):
        ctl.settings.touch()
    machine = ctl.machine(unit.model, unit.machine)
    ctl.store.remove(unit)
    machine.retired = [*machine.retired, agent_name(unit.name)]
    if not any(u.machine == machine.id for u in ctl.units(unit.model)):
        machine.keep = machine.keep or bool(ctl.knob("keep-machines"))
        machine.life = "dead"
    collect_app(ctl, unit.model, app.name)
    ctl.wake_provisioner()


def end_task(task: Task, status: str, message: str = "") -> None:
    if task.status in ("pending", "running", "aborting"):
        task.status, task.message, task.completed = status, message, clock.now()


def agent_name(unit: str) -> str:
    return "jujud-unit-" + unit.replace("/", "-")


def remove_app(
    ctl: Controller, app: App, force: bool, wait: float | None, destroy_storage: bool
) -> None:
    """Tell an application to go, with its units and relations."""
    app.life = "dying"
    app.destroy_storage = destroy_storage
    for rel in ctl.relations(app.model, app.name):
        if not rel.is_peer:
            relations.destroy(ctl, rel)
    for unit in ctl.units(app.model, app.name):
        remove_unit(ctl, unit, force, wait, destroy_storage)
    collect_app(ctl, app.model, app.name)


def collect_app(ctl: Controller, model: str, name: str) -> None:
    """Delete a dying application nothing belongs to any more."""
    app = ctl.store.get(App, f"{model}/{name}")
    if app is None or app.life == "alive" or ctl.units(model, name):
        return
    left = ctl.relations(model, name)
    if any(not r.is_peer for r in left):
        return
    ctl.store.remove(app)
    for rel in left:
        secret_rules.drop_relation(ctl, model, rel.id)
        ctl.store.remove(rel)
    secret_rules.forget(ctl, model, name)
    collect_model(ctl, model)


def remove_machine(
    ctl: Controller, machine: Machine, force: bool, keep: bool, wait: float | None
) -> None:
    units = [u for u in ctl.units(machine.model) if u.machine == machine.id]
    if units and not force:
        names = ", ".join(u.name for u in units)
        raise Refused(
            f"machine {machine.id} has units hosted: {names}; use --force to remove them as well"
        )
    machine.keep = machine.keep or keep
    for unit in units:
        remove_unit(ctl, unit, True, wait)
    if not units:
        machine.life = "dead"
    ctl.wake_provisioner()


def destroy_model(
    ctl: Controller, model: Model, force: bool, wait: float | None, destroy_storage: bool
) -> None:
    model.life = "dying"
    model.destroy_storage = destroy_storage
    for app in ctl.apps(model.uuid):
        remove_app(ctl, app, force, wait, destroy_storage)
    for machine in ctl.machines(model.uuid):
        if not any(u.machine == machine.id for u in ctl.units(model.uuid)):
            machine.life = "dead"
    collect_model(ctl, model.uuid)
    ctl.wake_provisioner()


def collect_model(ctl: Controller, uuid: str) -> None:
    """Delete a dying model that is empty, with its secrets, tasks and log."""
    model = ctl.store.get(Model, uuid)
    if model is None or model.life == "alive" or ctl.apps(uuid) or ctl.machines(uuid):
        return
    leftovers = [
        *ctl.secrets(uuid),
        *ctl.tasks(uuid),
        *ctl.operations(uuid),
        *ctl.storages(uuid),
        *ctl.relations(uuid),
    ]
    for entity in leftovers:
        ctl.store.remove(entity)
    ctl.store.remove(model)
    if ctl.settings.current_model == uuid:
        ctl.settings.current_model = ""
    (ctl.root / "log" / f"{uuid}.jsonl").unlink(missing_ok=True)
