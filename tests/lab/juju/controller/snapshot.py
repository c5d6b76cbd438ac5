"""What one unit's agent is shown of the world: the "remote state" its decisions rest on."""

from __future__ import annotations

from typing import Any

from lab.juju import clock
from lab.juju.controller import secret_rules
from lab.juju.controller.core import Controller, stable_hash
from lab.juju.controller.entities import App, Machine, Relation, Task, Unit

Doc = dict[str, Any]
DEFAULT_MODEL_CONFIG: dict[str, Any] = {
    "update-status-hook-interval": "5m",
    "automatically-retry-hooks": True,
    "logging-config": "<root>=INFO",
    "default-space": "alpha",
    "apt-http-proxy": "",
    "apt-https-proxy": "",
    "apt-no-proxy": "",
    "apt-ftp-proxy": "",
    "juju-http-proxy": "",
    "juju-https-proxy": "",
    "juju-no-proxy": "127.0.0.1,localhost,::1",
    "juju-ftp-proxy": "",
    "http-proxy": "",
    "https-proxy": "",
    "no-proxy": "127.0.0.1,localhost,::1",
    "ftp-proxy": "",
    "provisioner-harvest-mode": "destroyed",
    "default-base": "",
    "development": False,
    "test-mode": False,
}


def model_config(ctl: Controller, model: str) -> Doc:
    """The model's effective configuration."""
    from lab.juju.controller.entities import Model

    entity = ctl.store.all(Model)[model]
    values: Doc = {
        "name": entity.name,
        "uuid": entity.uuid,
        "type": "lab",
        "agent-version": ctl.version,
    }
    return {**DEFAULT_MODEL_CONFIG, **values, **entity.config}


def of_unit(ctl: Controller, unit: Unit) -> Doc:
    """The remote state of a unit."""
    app = ctl.app(unit.model, unit.app)
    machine = ctl.machine(unit.model, unit.machine)
    charm = ctl.charm(app.charm)
    config = model_config(ctl, unit.model)
    return {
        "life": unit.life,
        "app_life": app.life,
        "leader": ctl.leader(app),
        "leader_settings": not ctl.is_v4,
        "resolved": unit.resolved,
        "charm": {"url": charm.url, "path": charm.path, "forced": app.forced_charm},
        "config_hash": stable_hash([ctl.config(app), app.trust, addresses(machine)]),
        "relations": {
            str(rel.id): _relation(ctl, rel, app, unit)
            for rel in ctl.relations(unit.model, app.name)
            if rel.life == "alive" or unit.name in rel.scope
        },
        **_storage(ctl, unit),
        "actions": _pending(ctl, unit),
        "secrets": secret_rules.events(ctl, unit, app),
        "update_status": clock.duration(config["update-status-hook-interval"]),
        "auto_retry": bool(config["automatically-retry-hooks"]),
        "retry_delay": ctl.knob("retry-delay"),
        "retry_limit": ctl.knob("retry-limit"),
        "lease": ctl.knob("lease"),
        "ping": min(5.0, ctl.knob("lost-after") / 3),
        "faults": ctl.settings.knobs.get("faults", {}).get(unit.key, []),
        "proxies": {k: config[f"juju-{k.lower()}-proxy"] for k in ("http", "https", "ftp", "no")},
    }


def _pending(ctl: Controller, unit: Unit) -> list[list[Any]]:
    """The unit's queued tasks; the states first, as there are many tasks and few pending."""
    found = [
        t
        for t in ctl.store.all(Task).values()
        if t.status == "pending" and t.receiver == unit.name and t.model == unit.model
    ]
    return [[t.id, t.parallel] for t in sorted(found, key=lambda t: int(t.id))]


def addresses(machine: Machine) -> list[str]:
    return sorted(ip for nic in machine.interfaces for ip, _cidr in nic["addresses"])


def _relation(ctl: Controller, rel: Relation, app: App, unit: Unit) -> Doc:
    mine, other = rel.endpoint(app.name), rel.other(app.name)
    members = {
        name: rel.version(name)
        for name, state in rel.scope.items()
        if name != unit.name
        and (rel.is_peer or name.rpartition("/")[0] == other["app"])
        and (state == "in" or ctl.is_v4)
    }
    return {
        "life": rel.life,
        "endpoint": mine["endpoint"],
        "peer": rel.is_peer,
        "app": other["app"],
        "in_scope": unit.name in rel.scope,
        "members": members,
        "apps": {other["app"]: rel.version(other["app"])},
    }


def _storage(ctl: Controller, unit: Unit) -> Doc:
    mine = ctl.storages(unit.model, unit.name)
    return {
        "storage": {
            s.id: {"kind": s.kind, "location": s.location, "life": s.attachment_life}
            for s in mine
            if s.state == "attached" and s.attachment_life
        },
        "storage_pending": any(s.state in ("pending", "error") for s in mine),
    }
