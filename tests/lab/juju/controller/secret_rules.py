"""Secrets: who may do what, which revision a reader gets, and which hooks follow."""

from __future__ import annotations

import time
from typing import Any

from lab.juju import clock
from lab.juju.controller.core import Controller, secret_id, stable_hash
from lab.juju.controller.entities import App, Secret, Unit
from lab.juju.controller.errors import NotFound, Refused

Doc = dict[str, Any]
_PERIODS = {
    "never": 0.0,
    "hourly": 3600.0,
    "daily": 86400.0,
    "weekly": 604800.0,
    "monthly": 2592000.0,
    "quarterly": 7776000.0,
    "yearly": 31536000.0,
}


def bare(uri: str) -> str:
    """The id in `secret:<id>`, `secret://<model>/<id>` or `<id>`."""
    return uri.removeprefix("secret:").rpartition("/")[2]


def owned_by(secret: Secret, unit: Unit) -> bool:
    return secret.owner in (f"unit:{unit.name}", f"app:{unit.app}")


def manages(ctl: Controller, secret: Secret, unit: Unit) -> bool:
    """Whether the unit may change the secret: its own, or its application's if it leads."""
    if secret.owner == f"unit:{unit.name}":
        return True
    return (
        secret.owner == f"app:{unit.app}"
        and ctl.leader(ctl.app(unit.model, unit.app)) == unit.name
    )


def can_read(ctl: Controller, secret: Secret, unit: Unit) -> bool:
    if owned_by(secret, unit):
        return True
    return any(g["target"] in (unit.name, unit.app) for g in live_grants(ctl, secret))


def live_grants(ctl: Controller, secret: Secret) -> list[Doc]:
    """Grants whose relation still exists; those of user secrets have none."""
    known = {str(r.id) for r in ctl.relations(secret.model)}
    return [g for g in secret.grants if not g["relation"] or g["relation"] in known]


def find(ctl: Controller, model: str, uri: str) -> Secret:
    secret = ctl.store.get(Secret, f"{model}/{bare(uri)}")
    if secret is None:
        raise NotFound(f'secret "{bare(uri)}" not found')
    return secret


def by_label(ctl: Controller, unit: Unit, label: str) -> Secret | None:
    """A secret by its owner's label (for every unit of the owner) or by the reader's own."""
    for secret in ctl.secrets(unit.model):
        if secret.label == label and owned_by(secret, unit):
            return secret
        if secret.consumers.get(unit.name, {}).get("label") == label:
            return secret
    return None


def read(
    ctl: Controller, unit: Unit, uri: str, label: str, refresh: bool, peek: bool
) -> dict[str, str]:
    """What `secret-get` returns (base64 values); records the reader as a consumer."""
    secret = ctl.store.get(Secret, f"{unit.model}/{bare(uri)}") if uri else None
    if secret is None and not uri and label:
        secret = by_label(ctl, unit, label)
    if secret is None:
        raise NotFound(
            f'secret "{bare(uri)}" not found' if uri else f'consumer label "{label}" not found'
        )
    if not can_read(ctl, secret, unit):
        raise Refused("permission denied", "permission denied")
    if uri and label:
        _relabel(ctl, secret, unit, label)
    if peek:
        return content(secret, secret.latest)
    record = secret.consumers.get(unit.name)
    tracked = secret.latest if record is None or refresh else record["tracked"]
    if record is None or record["tracked"] != tracked:
        secret.consumers[unit.name] = {"label": "", **(record or {}), "tracked": tracked}
        secret.touch()
        _prune(ctl, secret)
    return content(secret, tracked)


def _relabel(ctl: Controller, secret: Secret, unit: Unit, label: str) -> None:
    """On the owner the owner's label changes; on others their own."""
    if manages(ctl, secret, unit):
        secret.label = label
    elif not owned_by(secret, unit):
        record = secret.consumers.get(unit.name, {"tracked": secret.latest})
        secret.consumers[unit.name] = {**record, "label": label}
        secret.touch()


def content(secret: Secret, revision: int) -> dict[str, str]:
    entry = secret.revisions.get(str(revision))
    if entry is None:
        raise NotFound(f'secret revision "{secret.id}/{revision}" not found')
    return entry["content"]


def info(ctl: Controller, unit: Unit, secret: Secret) -> Doc:
    """What `secret-info-get` shows of a secret the unit manages."""
    doc: Doc = {
        "revision": secret.latest,
        "label": secret.label,
        "owner": "unit" if secret.owner.startswith("unit:") else "application",
        "rotation": secret.rotate,
    }
    if secret.description:
        doc["description"] = secret.description
    if secret.expire:
        doc["expiry"] = clock.iso(secret.expire)
    if secret.next_rotate:
        doc["rotates"] = clock.iso(secret.next_rotate)
    access = [{k: g[k] for k in ("target", "scope", "role")} for g in live_grants(ctl, secret)]
    if access:
        doc["access"] = access
    return doc


def add(ctl: Controller, model: str, owner: str, spec: Doc) -> Secret:
    """Create a secret; `spec` has content and perhaps id, label, description, rotate, expire."""
    _check_label(ctl, model, owner, spec.get("label") or "", None)
    secret = Secret(
        model=model,
        id=spec.get("id") or secret_id(),
        owner=owner,
        created=clock.now(),
        auto_prune=bool(spec.get("auto-prune")),
    )
    ctl.store.add(secret)
    _apply(secret, spec)
    _new_revision(secret, spec["content"])
    return secret


def update(ctl: Controller, secret: Secret, spec: Doc) -> None:
    """Change metadata, and the content if it differs from the latest revision's."""
    _check_label(ctl, secret.model, secret.owner, spec.get("label") or "", secret)
    _apply(secret, spec)
    values = spec.get("content")
    latest = secret.revisions.get(str(secret.latest), {})
    if values and stable_hash(values) != latest.get("checksum"):
        _new_revision(secret, values)
    secret.updated = clock.now()
    _prune(ctl, secret)


def check_label(ctl: Controller, model: str, owner: str, label: str, own: Secret | None) -> None:
    """Public form of the check, for flushes that must fail before they change anything."""
    _check_label(ctl, model, owner, label, own)


def _check_label(ctl: Controller, model: str, owner: str, label: str, own: Secret | None) -> None:
    if not label:
        return
    for other in ctl.secrets(model):
        if other is not own and other.owner == owner and other.label == label:
            raise Refused(f'secret with label "{label}" already exists', "already exists")


def _apply(secret: Secret, spec: Doc) -> None:
    if spec.get("label") is not None:
        secret.label = spec["label"]
    if spec.get("description") is not None:
        secret.description = spec["description"]
    if spec.get("rotate"):
        secret.rotate = spec["rotate"]
        period = _PERIODS[spec["rotate"]]
        secret.next_rotate = time.time() + period if period else 0.0
    if spec.get("expire"):
        secret.expire = secret.next_expire = float(spec["expire"])


def _new_revision(secret: Secret, values: dict[str, str]) -> None:
    secret.latest += 1
    secret.updated = clock.now()
    secret.revisions[str(secret.latest)] = {
        "content": values,
        "checksum": stable_hash(values),
        "created": secret.updated,
    }
    if secret.next_rotate:
        secret.next_rotate = time.time() + _PERIODS[secret.rotate]
    secret.touch()


def remove(ctl: Controller, secret: Secret, revision: int | None) -> None:
    """Remove one revision, or all: a secret without revisions is gone."""
    if revision is not None and str(revision) not in secret.revisions:
        raise NotFound(f'secret revision "{secret.id}/{revision}" not found')
    if revision is None:
        secret.revisions.clear()
    else:
        del secret.revisions[str(revision)]
        secret.touch()
        if revision == secret.latest and secret.revisions:
            secret.latest = max(int(r) for r in secret.revisions)
    if not secret.revisions:
        ctl.store.remove(secret)


def obsolete(secret: Secret) -> list[int]:
    """Revisions older than the latest that no consumer tracks."""
    tracked = {c["tracked"] for c in secret.consumers.values()}
    return sorted(
        int(r) for r in secret.revisions if int(r) != secret.latest and int(r) not in tracked
    )


def _prune(ctl: Controller, secret: Secret) -> None:
    if secret.auto_prune:
        for revision in obsolete(secret):
            remove(ctl, secret, revision)


def grant(ctl: Controller, secret: Secret, target: str, relation: str) -> None:
    scope = f"relation-{relation}" if relation else "model"
    entry = {"target": target, "scope": scope, "role": "view", "relation": relation}
    for old in secret.grants:
        if old["target"] == target and old["relation"] != relation:
            raise Refused("cannot change secret permission scope")
    if entry not in secret.grants:
        secret.grants.append(entry)
        secret.touch()


def revoke(secret: Secret, target: str) -> None:
    """Take access from a unit or an application (and then from its units too)."""
    secret.grants = [
        g
        for g in secret.grants
        if g["target"] != target and g["target"].rpartition("/")[0] != target
    ]
    secret.consumers = {
        who: c
        for who, c in secret.consumers.items()
        if who != target and who.rpartition("/")[0] != target
    }


def forget(ctl: Controller, model: str, who: str) -> None:
    """Delete what a removed unit or application owned, and its traces as a reader."""
    for secret in ctl.secrets(model):
        if secret.owner in (f"unit:{who}", f"app:{who}"):
            ctl.store.remove(secret)
        elif who in secret.consumers or any(g["target"] == who for g in secret.grants):
            revoke(secret, who)


def drop_relation(ctl: Controller, model: str, relation: int) -> None:
    """A grant dies with its relation."""
    for secret in ctl.secrets(model):
        if any(g["relation"] == str(relation) for g in secret.grants):
            secret.grants = [g for g in secret.grants if g["relation"] != str(relation)]


def events(ctl: Controller, unit: Unit, app: App) -> Doc:
    """The secret hooks due on a unit: expired, rotate, changed, remove."""
    now = time.time()
    doc: Doc = {"expired": [], "rotate": [], "changed": [], "remove": []}
    if unit.life != "alive":
        return doc
    for secret in ctl.secrets(unit.model):
        record = secret.consumers.get(unit.name)
        if record and record["tracked"] < secret.latest and can_read(ctl, secret, unit):
            label = record.get("label") or (secret.label if owned_by(secret, unit) else "")
            doc["changed"].append([secret.uri, label, secret.latest])
        if not manages(ctl, secret, unit):
            continue
        if secret.next_expire and secret.next_expire <= now and secret.latest:
            doc["expired"].append([secret.uri, secret.label, secret.latest, secret.next_expire])
        if secret.next_rotate and secret.next_rotate <= now:
            doc["rotate"].append([secret.uri, secret.label, 0, secret.next_rotate])
        for revision in obsolete(secret):
            doc["remove"].append([secret.uri, secret.label, revision])
    return doc


def rearm(ctl: Controller, model: str, uri: str, kind: str) -> None:
    """After secret-expired or secret-rotate ran: ask again later unless it was dealt with."""
    secret = ctl.store.get(Secret, f"{model}/{bare(uri)}")
    if secret is None:
        return
    repeat = time.time() + ctl.knob("secret-repeat")
    if kind == "rotate" and secret.next_rotate <= time.time():
        secret.next_rotate = repeat
    if kind == "expired" and secret.next_expire <= time.time():
        secret.next_expire = repeat


def next_due(ctl: Controller) -> float:
    """When the next secret becomes due for expiry or rotation; infinity if none."""
    times = [
        t for s in ctl.store.all(Secret).values() for t in (s.next_expire, s.next_rotate) if t
    ]
    return min((t for t in times if t > time.time()), default=float("inf"))
