"""The documents of `juju status`, `show-unit`, `show-model` and `show-secret`."""

from __future__ import annotations

import base64
import time
from fnmatch import fnmatch
from typing import Any

from lab.juju import clock
from lab.juju.controller import charms, secret_rules
from lab.juju.controller.core import CONTROLLER, Controller
from lab.juju.controller.entities import App, Machine, Model, Secret, Storage, Unit

Doc = dict[str, Any]
_RANK = ("error", "blocked", "maintenance", "waiting", "active", "terminated", "unknown")


def full(ctl: Controller, model: Model, patterns: list[str]) -> Doc:
    """The whole status document of a model."""
    apps = [a for a in ctl.apps(model.uuid) if _wanted(ctl, a, patterns)]
    machines = ctl.machines(model.uuid)
    if patterns:
        used = {u.machine for a in apps for u in ctl.units(model.uuid, a.name)}
        machines = [m for m in machines if m.id in used or m.id in patterns]
    doc: Doc = {
        "model": {
            "name": model.name,
            "type": "iaas",
            "controller": CONTROLLER,
            "cloud": "lab",
            "region": "default",
            "version": model.version,
            "model-status": {
                "current": "available" if model.life == "alive" else "destroying",
                "since": clock.since(model.created),
            },
            "sla": "unsupported",
        },
        "machines": {m.id: machine(ctl, m) for m in machines},
        "applications": {a.name: application(ctl, a) for a in apps},
        "storage": _storage(ctl, model.uuid),
        "controller": {"timestamp": time.strftime("%H:%M:%SZ", time.gmtime())},
    }
    return {k: v for k, v in doc.items() if v or k in ("machines", "applications")}


def _wanted(ctl: Controller, app: App, patterns: list[str]) -> bool:
    if not patterns:
        return True
    names = [app.name, *(u.name for u in ctl.units(app.model, app.name))]
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)


def _info(current: str, message: str = "", since: str = "", **more: str) -> Doc:
    doc = {"current": current, "message": message, "since": clock.since(since), **more}
    return {k: v for k, v in doc.items() if v}


def machine(ctl: Controller, m: Machine) -> Doc:
    """One machine."""
    started = m.state == "started"
    agent = "started" if started else ("error" if m.state == "error" else "pending")
    hosted = [u for u in ctl.units(m.model) if u.machine == m.id]
    if started and any(u.lost for u in hosted) and not any(ctl.connected(u.key) for u in hosted):
        agent = "down"
    addresses = [ip for nic in m.interfaces for ip, _ in nic["addresses"]]
    first = ctl.address(m, "alpha") or next(iter(addresses), "")
    doc: Doc = {
        "juju-status": _info(
            agent,
            m.message,
            m.since,
            version=(m.state == "started" and ctl.version) or "",
            life="" if m.life == "alive" else m.life,
        ),
        "hostname": m.hostname,
        "dns-name": first,
        "ip-addresses": [first, *(a for a in addresses if a != first)] if first else [],
        "instance-id": (m.lab_id and f"lab-m{m.lab_id}") or "pending",
        "display-name": m.hostname,
        "machine-status": _info(
            "running" if started else "provisioning error" if m.state == "error" else "pending",
            m.message or ("Running" if started else ""),
            m.since,
        ),
        "modification-status": _info("idle", "", m.created),
        "base": {"name": "ubuntu", "channel": "24.04"},
        "network-interfaces": {nic["name"]: _nic(ctl, nic) for nic in m.interfaces},
        "constraints": " ".join(f"{k}={v}" for k, v in m.constraints.items()),
        "hardware": "arch=amd64",
    }
    return {k: v for k, v in doc.items() if v}


def _nic(ctl: Controller, nic: Doc) -> Doc:
    import ipaddress

    space = ""
    for name, subnet in ctl.provider.networks().items():
        net = ipaddress.ip_network(subnet)
        if any(ipaddress.ip_address(ip) in net for ip, _ in nic["addresses"]):
            space = name.partition("/")[0]
    doc: Doc = {
        "ip-addresses": [ip for ip, _ in nic["addresses"]],
        "mac-address": nic["mac"],
        "is-up": bool(nic["up"]),
    }
    return {**doc, "space": space} if space else doc


def application(ctl: Controller, app: App) -> Doc:
    charm = ctl.charm(app.charm)
    name, _, channel = app.base.partition("@")
    units = ctl.units(app.model, app.name)
    doc: Doc = {
        "charm": charm.url.partition(":")[2],
        "charm-origin": "local",
        "base": {"name": name, "channel": channel},
        "charm-name": charm.name,
        "charm-rev": charm.revision,
        "charm-version": charm.version,
        "exposed": app.exposed,
        "life": "" if app.life == "alive" else app.life,
        "application-status": aggregate(app, units),
        "relations": _app_relations(ctl, app),
        "units": {u.name: unit(ctl, u) for u in units},
        "version": app.version,
        "endpoint-bindings": bindings(ctl, app),
    }
    always = ("charm-rev", "exposed", "charm", "charm-origin", "charm-name")
    return {k: v for k, v in doc.items() if v or k in always}


def bindings(ctl: Controller, app: App) -> dict[str, str]:
    meta = ctl.charm(app.charm).meta
    names = [e["endpoint"] for e in charms.endpoints(meta)] + list(
        meta.get("extra-bindings") or {}
    )
    doc = {"": ctl.bound_space(app, "")}
    return {**doc, **{n: ctl.bound_space(app, n) for n in names if n != "juju-info"}}


def aggregate(app: App, units: list[Unit]) -> Doc:
    """The status the leader set, or else the worst of the units'."""
    if app.status:
        return _info(app.status["current"], app.status["message"], app.status["since"])
    shown = [workload(u) for u in units]
    if not shown:
        return _info("unknown" if app.life == "alive" else "terminated", "", app.created)
    rank = {name: place for place, name in enumerate(_RANK)}
    return min(shown, key=lambda doc: rank.get(doc["current"], len(rank)))


def _app_relations(ctl: Controller, app: App) -> Doc:
    found: dict[str, list[Doc]] = {}
    for rel in ctl.relations(app.model, app.name):
        mine, other = rel.endpoint(app.name), rel.other(app.name)
        found.setdefault(mine["endpoint"], []).append(
            {
                "related-application": other["app"],
                "interface": mine["interface"],
                "scope": mine["scope"],
            }
        )
    return found


def workload(u: Unit) -> Doc:
    """A failed hook shows as the workload's status."""
    if u.agent.get("current") == "error":
        return _info("error", u.agent["message"], u.agent["since"])
    return _info(u.workload["current"], u.workload["message"], u.workload["since"])


def agent(ctl: Controller, u: Unit) -> Doc:
    current, message = u.agent["current"], u.agent["message"]
    if current == "error":
        current, message = "idle", ""
    if u.lost:
        return _info("lost", "agent is not communicating with the server", u.lost)
    version = ctl.version if current != "allocating" else ""
    life = "" if u.life == "alive" else u.life
    return _info(current, message, u.agent["since"], version=version, life=life)


def unit(ctl: Controller, u: Unit) -> Doc:
    app = ctl.app(u.model, u.app)
    address = ctl.address(ctl.machine(u.model, u.machine), ctl.bound_space(app, ""))
    doc: Doc = {
        "workload-status": workload(u),
        "juju-status": agent(ctl, u),
        "leader": ctl.leader(app) == u.name,
        "machine": u.machine,
        "open-ports": open_ports(u),
        "public-address": address,
        "upgrading-from": "" if u.charm in ("", app.charm) else u.charm.partition(":")[2],
    }
    return {k: v for k, v in doc.items() if v}


def open_ports(u: Unit) -> list[str]:
    """All ranges of all endpoints, as `80/tcp`, `8000-8999/udp`, `icmp`."""
    return sorted({p for ports in u.ports.values() for p in ports})


def _storage(ctl: Controller, model: str) -> Doc:
    found = ctl.storages(model)
    if not found:
        return {}
    doc: Doc = {"storage": {s.id: _instance(s) for s in found}}
    section = {"filesystem": "filesystems", "block": "volumes"}
    for s in found:
        if s.machine:
            doc.setdefault(section[s.kind], {})[str(s.number)] = _device(s)
    return doc


def _instance(s: Storage) -> Doc:
    attachment: Doc = {"machine": s.machine, "location": s.location}
    doc: Doc = {
        "kind": s.kind,
        "life": "" if s.life == "alive" else "dying",
        "status": _info("error" if s.state == "error" else s.state, s.message, s.created),
        "persistent": s.kind == "block",
    }
    if s.owner:
        life = "alive" if s.attachment_life == "alive" else "dying"
        doc["attachments"] = {"units": {s.owner: {**attachment, "life": life}}}
    return {k: v for k, v in doc.items() if v != ""}


def _device(s: Storage) -> Doc:
    doc: Doc = {
        "storage": s.id,
        "pool": s.pool,
        "size": s.size,
        "status": _info("attached" if s.owner else "detached", "", s.created),
    }
    if s.kind == "filesystem":
        at: Doc = {"mount-point": s.location, "read-only": s.read_only, "life": "alive"}
    else:
        doc.update({"persistent": True, "provider-id": s.disk, "hardware-id": s.hardware_id})
        at = {
            "device": s.location.removeprefix("/dev/"),
            "device-link": s.link,
            "read-only": s.read_only,
            "life": "alive",
        }
    if s.owner:
        doc["attachments"] = {
            "machines": {s.machine: at},
            "units": {s.owner: {"machine": s.machine, "location": s.location}},
        }
    else:
        doc["attachments"] = {"machines": {}}
    return doc


# -- show-unit --------------------------------------------------------------------------


def unit_details(ctl: Controller, u: Unit, endpoint: str) -> Doc:
    app = ctl.app(u.model, u.app)
    infos: list[Doc] = []
    for rel in ctl.relations(u.model, u.app):
        mine, other = rel.endpoint(u.app), rel.other(u.app)
        if endpoint and mine["endpoint"] != endpoint:
            continue
        info: Doc = {
            "relation-id": rel.id,
            "endpoint": mine["endpoint"],
            "related-endpoint": other["endpoint"],
            "application-data": rel.bag(other["app"]),
        }
        if rel.is_peer:
            info["local-unit"] = {"in-scope": u.name in rel.scope, "data": rel.bag(u.name)}
        related = {
            name: {"in-scope": True, "data": rel.bag(name)}
            for name in rel.scope
            if name != u.name and name.rpartition("/")[0] == other["app"]
        }
        if related:
            info["related-units"] = related
        if endpoint or related or info["application-data"] or rel.is_peer:
            infos.append(info)
    address = ctl.address(ctl.machine(u.model, u.machine), ctl.bound_space(app, ""))
    doc: Doc = {
        "workload-version": app.version,
        "machine": u.machine,
        "opened-ports": open_ports(u),
        "public-address": address,
        "charm": app.charm.partition(":")[2],
        "leader": ctl.leader(app) == u.name,
        "life": u.life,
        "relation-info": infos,
    }
    always = ("opened-ports", "charm", "leader")
    return {k: v for k, v in doc.items() if v or k in always}


def application_details(ctl: Controller, app: App) -> Doc:
    charm = ctl.charm(app.charm)
    return {
        "charm": charm.name,
        "base": app.base,
        "channel": app.channel,
        "constraints": app.constraints,
        "principal": True,
        "exposed": app.exposed,
        "remote": False,
        "life": app.life,
        "endpoint-bindings": bindings(ctl, app),
        "units": {u.name: {"machine": u.machine} for u in ctl.units(app.model, app.name)},
    }


# -- show-model, show-secret ------------------------------------------------------------


def model_details(ctl: Controller, model: Model) -> Doc:
    machines = ctl.machines(model.uuid)
    return {
        "name": f"admin/{model.name}",
        "short-name": model.name,
        "model-uuid": model.uuid,
        "model-type": "iaas",
        "controller-uuid": ctl.settings.uuid,
        "controller-name": CONTROLLER,
        "is-controller": model.name == "controller",
        "owner": "admin",
        "cloud": "lab",
        "region": "default",
        "type": "lab",
        "life": model.life,
        "status": {
            "current": "available" if model.life == "alive" else "destroying",
            "since": clock.since(model.created),
        },
        "users": {
            "admin": {"display-name": "admin", "access": "admin", "last-connection": "just now"}
        },
        "machines": {m.id: {"cores": 1} for m in machines},
        "agent-version": ctl.version,
        "unit-count": len(ctl.units(model.uuid)),
        "credential": {"name": "lab", "owner": "admin", "cloud": "lab", "validity-check": "valid"},
        "is-current": ctl.settings.current_model == model.uuid,
    }


def secret_details(s: Secret, reveal: bool, revision: int | None, revisions: bool) -> Doc:
    owner = "<model>" if s.owner == "model" else s.owner.partition(":")[2]
    doc: Doc = {
        "revision": s.latest if revision is None else revision,
        "owner": owner,
        "created": s.created,
        "updated": s.updated or s.created,
        "name" if s.owner == "model" else "label": s.label,
        "description": s.description,
        "rotation": "" if s.rotate == "never" else s.rotate,
        "rotates": clock.iso(s.next_rotate) if s.next_rotate else "",
        "expires": clock.iso(s.expire) if s.expire else "",
        "access": [{k: g[k] for k in ("target", "scope", "role")} for g in s.grants],
        "checksum": s.revisions[str(s.latest)]["checksum"],
    }
    if revisions:
        doc["revisions"] = [
            {
                "revision": int(n),
                "backend": "internal",
                "created": r["created"],
                "updated": r["created"],
            }
            for n, r in sorted(s.revisions.items(), key=lambda item: int(item[0]))
        ]
    if reveal:
        values = secret_rules.content(s, doc["revision"])
        doc["content"] = {
            "Data": {k: base64.b64decode(v).decode(errors="replace") for k, v in values.items()}
        }
    return {k: v for k, v in doc.items() if v not in ("", [])}
