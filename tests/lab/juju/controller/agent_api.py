"""What unit agents ask of the controller. Every function is one request, hence one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lab.juju import clock
from lab.juju.controller import (
    lifecycle,
    relations,
    secret_rules,
    snapshot,
    storage_rules,
)
from lab.juju.controller.core import CONTROLLER, Controller
from lab.juju.controller.entities import App, Relation, Task, Unit
from lab.juju.controller.errors import NotFound, Refused

Doc = dict[str, Any]
Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}


def handler(function: Handler) -> Handler:
    HANDLERS[function.__name__] = function
    return function


def _app(ctl: Controller, unit: Unit) -> App:
    return ctl.app(unit.model, unit.app)


def _relation(ctl: Controller, unit: Unit, ident: int | str) -> Relation:
    rel = ctl.relation(unit.model, int(ident))
    if not any(e["app"] == unit.app for e in rel.endpoints):
        raise NotFound("relation not found")
    return rel


@handler
def facts(ctl: Controller, unit: Unit) -> Doc:
    """What does not change during an agent's life."""
    model = ctl.model_named(unit.model)
    address, port = ctl.provider.controller_address()
    return {
        "model": model.uuid,
        "model_name": model.name,
        "machine": unit.machine,
        "version": ctl.version,
        "api": f"{address}:{port}",
        "v4": ctl.is_v4,
        "networks": ctl.provider.networks(),
    }


# -- leadership -------------------------------------------------------------------------


@handler
def claim(ctl: Controller, unit: Unit) -> bool:
    """Ask for the lease or extend it."""
    app = _app(ctl, unit)
    holder = ctl.leader(app)
    if holder not in ("", unit.name):
        return False
    if not holder and (
        unit.life != "alive"
        or (
            ctl.barred.get(app.key, ("", 0.0))[1] > time.time()
            and ctl.barred[app.key][0] == unit.name
        )
    ):
        return False
    app.leader, app.lease_until = unit.name, time.time() + ctl.knob("lease")
    return True


# -- status -----------------------------------------------------------------------------


@handler
def set_status(
    ctl: Controller,
    unit: Unit,
    which: str,
    current: str,
    message: str = "",
    data: Doc | None = None,
) -> None:
    """Set the agent's, the unit's or (the leader only) the application's status."""
    if which == "application":
        if ctl.leader(_app(ctl, unit)) != unit.name:
            raise Refused("this unit is not the leader")
        _app(ctl, unit).status = {
            "current": current,
            "message": message,
            "data": data or {},
            "since": clock.now(),
        }
        return
    lifecycle.set_status(unit, which, current, message, data)
    if which == "workload":
        ctl.log(
            unit.model,
            unit.name,
            "DEBUG",
            "juju.worker.uniter.context",
            f"[WORKLOAD-STATUS] {current}: {message}",
        )


@handler
def started(ctl: Controller, unit: Unit) -> None:
    """`start` succeeded: a charm that never set a status is "unknown" from here."""
    if unit.workload.get("message") == "installing charm software":
        lifecycle.set_status(unit, "workload", "unknown", "")


@handler
def get_status(ctl: Controller, unit: Unit, application: bool) -> Doc:
    if not application:
        return unit.workload
    app = _app(ctl, unit)
    if ctl.leader(app) != unit.name:
        raise Refused("finding application status: this unit is not the leader")
    units = {u.name: u.workload for u in ctl.units(unit.model, unit.app)}
    return {
        "application": app.status or {"current": "unknown", "message": "", "data": {}},
        "units": units,
    }


@handler
def set_version(ctl: Controller, unit: Unit, version: str) -> None:
    _app(ctl, unit).version = version


@handler
def log(ctl: Controller, unit: Unit, lines: list[list[Any]]) -> None:
    ctl.log_lines(unit.model, unit.name, lines)


# -- configuration and place ------------------------------------------------------------


@handler
def config(ctl: Controller, unit: Unit) -> Doc:
    return ctl.config(_app(ctl, unit))


@handler
def interfaces(ctl: Controller, unit: Unit, found: list[Doc], hostname: str) -> None:
    """The machine's addresses as its agent sees them."""
    machine = ctl.machine(unit.model, unit.machine)
    if machine.interfaces != found:
        machine.interfaces = found
    if hostname and machine.hostname != hostname:
        machine.hostname = hostname


@handler
def network(ctl: Controller, unit: Unit, binding: str) -> Doc:
    """The space and subnets an endpoint is bound to."""
    app = _app(ctl, unit)
    meta = ctl.charm(app.charm).meta
    known = {e["endpoint"] for e in relations.endpoints(meta)} | set(
        meta.get("extra-bindings") or {}
    )
    if binding not in known:
        raise NotFound(f'no network config found for binding "{binding}"')
    space = ctl.bound_space(app, binding)
    networks = ctl.provider.networks()
    return {
        "space": space,
        "subnets": [networks[k] for k in (space, f"{space}/6") if k in networks],
    }


@handler
def goal_state(ctl: Controller, unit: Unit) -> Doc:
    """Units and relations that are wanted, with their status and since when."""
    doc: Doc = {
        "units": {u.name: _goal(u) for u in ctl.units(unit.model, unit.app)},
        "relations": {},
    }
    for rel in ctl.relations(unit.model, unit.app):
        if rel.is_peer:
            continue
        other = rel.other(unit.app)["app"]
        goals: Doc = doc["relations"].setdefault(rel.endpoint(unit.app)["endpoint"], {})
        goals[other] = {
            "status": "joined" if rel.life == "alive" else "dying",
            "since": _spaced(rel.created),
        }
        goals.update({u.name: _goal(u) for u in ctl.units(unit.model, other)})
    return doc


def _goal(unit: Unit) -> Doc:
    status = "dying" if unit.life != "alive" else unit.workload.get("current", "waiting")
    return {"status": status, "since": _spaced(unit.workload.get("since", unit.created))}


def _spaced(stamp: str) -> str:
    return stamp.replace("T", " ")


# -- relations --------------------------------------------------------------------------


@handler
def enter_scope(ctl: Controller, unit: Unit, relation: int) -> None:
    relations.enter(ctl, _relation(ctl, unit, relation), unit)


@handler
def leave_scope(ctl: Controller, unit: Unit, relation: int) -> None:
    rel = ctl.store.get(Relation, f"{unit.model}/{relation}")
    if rel is not None:
        relations.leave(ctl, rel, unit.name)


@handler
def settings(ctl: Controller, unit: Unit, relation: int, who: str) -> Doc:
    """A bag of a relation the unit takes part in."""
    rel = _relation(ctl, unit, relation)
    if who != unit.app and who != rel.other(unit.app)["app"]:
        owner = who.rpartition("/")[0]
        if owner not in (unit.app, rel.other(unit.app)["app"]) or who not in rel.bags:
            raise Refused("permission denied")
    return rel.bag(who)


@handler
def remote_app(ctl: Controller, unit: Unit, relation: int) -> str:
    return _relation(ctl, unit, relation).other(unit.app)["app"]


# -- the flush --------------------------------------------------------------------------


@handler
def commit(ctl: Controller, unit: Unit, changes: Doc) -> None:
    """All buffered changes of a hook, or none: check everything first, then change."""
    app = _app(ctl, unit)
    leads = ctl.leader(app) == unit.name
    rels = {rid: _relation(ctl, unit, rid) for rid in changes.get("relations", {})}
    wants_lead = any(c.get("app") for c in changes.get("relations", {}).values())
    secret_plan = changes.get("secrets", [])
    wants_lead = wants_lead or any(
        s["op"] == "add" and s["owner"].startswith("app:") for s in secret_plan
    )
    if wants_lead and not leads:
        raise Refused(
            f'cannot write relation settings or secrets of application "{app.name}": '
            f'"{unit.name}" is not leader of "{app.name}"',
            "not leader",
        )
    _check_secrets(ctl, unit, secret_plan)
    for name, count in changes.get("storage", []):
        storage_rules.spec_of(ctl, app, name)
        storage_rules.parse(count)
    for name, count in changes.get("storage", []):
        storage_rules.add(ctl, unit, name, count)
    for rid, change in changes.get("relations", {}).items():
        rels[rid].write(unit.name, change.get("unit", {}))
        rels[rid].write(app.name, change.get("app", {}))
    if changes.get("network"):
        _refresh_network(ctl, unit)
    if "ports" in changes:
        unit.ports = changes["ports"]
    if "state" in changes:
        unit.state = changes["state"]
    _apply_secrets(ctl, unit, secret_plan)


def _refresh_network(ctl: Controller, unit: Unit) -> None:
    """Juju rewrites its own keys of the unit's bags in config-changed."""
    for rel in ctl.relations(unit.model, unit.app):
        if unit.name in rel.scope:
            wanted = relations.network_settings(ctl, rel, unit)
            current = rel.bag(unit.name)
            if any(key in current and current[key] != value for key, value in wanted.items()):
                rel.write(unit.name, dict(wanted))


def _check_secrets(ctl: Controller, unit: Unit, plan: list[Doc]) -> None:
    created = {s["spec"]["id"] for s in plan if s["op"] == "add"}
    for step in plan:
        if step["op"] == "add":
            secret_rules.check_label(
                ctl, unit.model, step["owner"], step["spec"].get("label") or "", None
            )
        elif step["id"] not in created:
            secret = secret_rules.find(ctl, unit.model, step["id"])
            if not secret_rules.manages(ctl, secret, unit):
                raise Refused("permission denied")
            if step["op"] == "set":
                secret_rules.check_label(
                    ctl, unit.model, secret.owner, step["spec"].get("label") or "", secret
                )


def _apply_secrets(ctl: Controller, unit: Unit, plan: list[Doc]) -> None:
    for step in plan:
        if step["op"] == "add":
            secret_rules.add(ctl, unit.model, step["owner"], step["spec"])
            continue
        try:
            secret = secret_rules.find(ctl, unit.model, step["id"])
        except NotFound:
            continue  # removed earlier in the same hook
        if step["op"] == "set":
            secret_rules.update(ctl, secret, step["spec"])
        elif step["op"] == "remove" and (
            step["revision"] is None or str(step["revision"]) in secret.revisions
        ):
            secret_rules.remove(ctl, secret, step["revision"])
        elif step["op"] == "grant":
            secret_rules.grant(ctl, secret, step["target"], str(step["relation"]))
        elif step["op"] == "revoke":
            secret_rules.revoke(secret, step["target"])


# -- ports, storage, resources, state ---------------------------------------------------


@handler
def ports(ctl: Controller, unit: Unit) -> dict[str, list[str]]:
    return unit.ports


@handler
def state(ctl: Controller, unit: Unit) -> dict[str, str]:
    return unit.state


@handler
def storage_spec(ctl: Controller, unit: Unit, name: str) -> Doc:
    return storage_rules.spec_of(ctl, _app(ctl, unit), name)


@handler
def storage_detached(ctl: Controller, unit: Unit, ident: str) -> None:
    storage_rules.detached(ctl, unit, ident)


@handler
def resource(ctl: Controller, unit: Unit, name: str) -> Doc:
    found = _app(ctl, unit).resources.get(name)
    if found is None:
        raise NotFound(f"could not download resource: resource#{unit.app}/{name} not found")
    return found


@handler
def credential(ctl: Controller, unit: Unit) -> Doc:
    if not _app(ctl, unit).trust:
        raise Refused("cannot access cloud credentials: permission denied")
    return {
        "type": "lab",
        "name": CONTROLLER,
        "region": "default",
        "credential": {"auth-type": "empty", "attrs": {}},
    }


# -- secrets ----------------------------------------------------------------------------


@handler
def secret_read(
    ctl: Controller, unit: Unit, uri: str, label: str, refresh: bool, peek: bool
) -> Doc:
    return secret_rules.read(ctl, unit, uri, label, refresh, peek)


@handler
def secret_find(ctl: Controller, unit: Unit, uri: str, label: str) -> Doc:
    """Who owns a secret the unit can see: for the hook tools that manage secrets."""
    secret = (
        secret_rules.find(ctl, unit.model, uri) if uri else secret_rules.by_label(ctl, unit, label)
    )
    if secret is None:
        raise NotFound(f'secret "{label}" not found')
    return {
        "id": secret.id,
        "owner": secret.owner,
        "latest": secret.latest,
        "manages": secret_rules.manages(ctl, secret, unit),
        "owned": secret_rules.owned_by(secret, unit),
        "info": secret_rules.info(ctl, unit, secret),
    }


@handler
def secret_ids(ctl: Controller, unit: Unit) -> list[str]:
    return [s.id for s in ctl.secrets(unit.model) if secret_rules.manages(ctl, s, unit)]


@handler
def secret_rearm(ctl: Controller, unit: Unit, uri: str, kind: str) -> None:
    secret_rules.rearm(ctl, unit.model, uri, kind)


# -- actions ----------------------------------------------------------------------------


def _task(ctl: Controller, unit: Unit, ident: str) -> Task:
    task = ctl.store.get(Task, f"{unit.model}/{ident}")
    if task is None or task.receiver != unit.name:
        raise NotFound(f'task "{ident}" not found')
    return task


@handler
def task_begin(ctl: Controller, unit: Unit, ident: str) -> Doc | None:
    """Take a queued task; None when it is not to be run any more."""
    task = _task(ctl, unit, ident)
    if task.status != "pending":
        return None
    task.status, task.started = "running", clock.now()
    return {"name": task.name, "params": task.params}


@handler
def task_log(ctl: Controller, unit: Unit, ident: str, message: str) -> None:
    task = _task(ctl, unit, ident)
    task.log = [*task.log, {"at": clock.now(), "message": message}]


@handler
def task_end(
    ctl: Controller, unit: Unit, ident: str, status: str, message: str, results: Doc
) -> None:
    task = _task(ctl, unit, ident)
    task.results = results
    lifecycle.end_task(task, status, message)


@handler
def tasks_interrupted(ctl: Controller, unit: Unit) -> None:
    """An agent starts: whatever it was running before is failed, never run again."""
    for task in ctl.tasks(unit.model, unit.name):
        if task.status == "running":
            lifecycle.end_task(task, "failed", "action terminated")
            task.results = {"return-code": 1}


# -- life -------------------------------------------------------------------------------


@handler
def charm_is(ctl: Controller, unit: Unit, url: str) -> None:
    """The charm the unit now runs."""
    unit.charm = url


@handler
def clear_resolved(ctl: Controller, unit: Unit) -> None:
    unit.resolved = ""


@handler
def fault_done(ctl: Controller, unit: Unit, ident: str) -> None:
    """A one-time fault was played."""
    faults: dict[str, list[Doc]] = ctl.settings.knobs.get("faults", {})
    faults[unit.key] = [f for f in faults.get(unit.key, []) if f["id"] != ident]
    ctl.settings.touch()


@handler
def dead(ctl: Controller, unit: Unit) -> None:
    """The unit finished its teardown."""
    lifecycle.bury_unit(ctl, unit)


@handler
def reboot(ctl: Controller, unit: Unit) -> None:
    """The charm asked for a reboot of its machine."""
    ctl.reboot_machine(ctl.machine(unit.model, unit.machine))


@handler
def remote_state(ctl: Controller, unit: Unit) -> Doc:
    return snapshot.of_unit(ctl, unit)
