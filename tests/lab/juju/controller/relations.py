"""Relations: making them, unit scopes, and their end."""

from __future__ import annotations

import ipaddress
from typing import Any

from lab.juju import clock
from lab.juju.controller import secret_rules
from lab.juju.controller.charms import endpoints
from lab.juju.controller.core import Controller, addresses_in
from lab.juju.controller.entities import App, Relation, Unit
from lab.juju.controller.errors import NotFound, Refused

Doc = dict[str, Any]


def add_peers(ctl: Controller, app: App) -> None:
    """Every peer endpoint is a relation of its own from the start."""
    present = {
        r.endpoint(app.name)["endpoint"] for r in ctl.relations(app.model, app.name) if r.is_peer
    }
    for endpoint in endpoints(ctl.charm(app.charm).meta):
        if endpoint["role"] == "peer" and endpoint["endpoint"] not in present:
            _create(ctl, app.model, [{"app": app.name, **endpoint}])


def _create(ctl: Controller, model: str, ends: list[dict[str, str]]) -> Relation:
    entity = ctl.model_named(model)
    return ctl.store.add(
        Relation(model=model, id=entity.next("relation"), endpoints=ends, created=clock.now())
    )


def integrate(ctl: Controller, model: str, left: str, right: str) -> Relation:
    """Relate two applications (`app` or `app:endpoint`)."""
    pairs = _matches(ctl, model, left, right)
    if not pairs:
        raise Refused(f"no relations found between {left!r} and {right!r}".replace("'", '"'))
    if len(pairs) > 1:
        explicit = [p for p in pairs if "juju-info" not in (p[0]["endpoint"], p[1]["endpoint"])]
        pairs = explicit or pairs
    if len(pairs) > 1:
        options = "; ".join(sorted(f'"{_spell(a)} {_spell(b)}"' for a, b in pairs))
        raise Refused(f'ambiguous relation: "{left} {right}" could refer to {options}')
    first, second = sorted(pairs[0], key=lambda e: e["role"] != "requirer")
    for rel in ctl.relations(model, first["app"]):
        if not rel.is_peer and {_spell(e) for e in rel.endpoints} == {
            _spell(first),
            _spell(second),
        }:
            name = f"{_spell(first)} {_spell(second)}"
            raise Refused(
                f'cannot add relation "{name}": relation {name} already exists', "already exists"
            )
    _check_limits(ctl, model, (first, second))
    return _create(ctl, model, [first, second])


def _spell(end: dict[str, str]) -> str:
    return f"{end['app']}:{end['endpoint']}"


def _matches(
    ctl: Controller, model: str, left: str, right: str
) -> list[tuple[dict[str, str], dict[str, str]]]:
    return [
        (a, b)
        for a in _ends(ctl, model, left)
        for b in _ends(ctl, model, right)
        if {a["role"], b["role"]} == {"provider", "requirer"}
        and a["interface"] == b["interface"]
        and a["app"] != b["app"]
    ]


def _ends(ctl: Controller, model: str, ref: str) -> list[dict[str, str]]:
    name, _, endpoint = ref.partition(":")
    app = ctl.app(model, name)
    found = [
        {"app": name, **e}
        for e in endpoints(ctl.charm(app.charm).meta)
        if not endpoint or e["endpoint"] == endpoint
    ]
    if not found:
        raise NotFound(f'application "{name}" has no "{endpoint}" relation')
    return found


def _check_limits(
    ctl: Controller, model: str, ends: tuple[dict[str, str], dict[str, str]]
) -> None:
    for end in ends:
        used = sum(
            1
            for r in ctl.relations(model, end["app"])
            if not r.is_peer and r.endpoint(end["app"])["endpoint"] == end["endpoint"]
        )
        if end["limit"] and used >= int(end["limit"]):
            raise Refused(
                f"establishing a new relation for {_spell(end)} would exceed its maximum "
                f"relation limit of {end['limit']}",
                "quota limit exceeded",
            )


def find(ctl: Controller, model: str, left: str, right: str) -> Relation:
    """The relation between two applications, for remove-relation."""
    a, b = left.partition(":"), right.partition(":")
    for rel in ctl.relations(model, a[0]):
        if rel.is_peer or not any(e["app"] == b[0] for e in rel.endpoints):
            continue
        if a[2] and rel.endpoint(a[0])["endpoint"] != a[2]:
            continue
        if b[2] and rel.endpoint(b[0])["endpoint"] != b[2]:
            continue
        return rel
    raise NotFound(f'relation "{left} {right}" not found')


def destroy(ctl: Controller, rel: Relation, force: bool = False) -> None:
    """Begin a relation's end; it is gone once every unit has left its scope."""
    rel.life = "dying"
    if force:
        rel.scope = {}
    collect(ctl, rel)


def collect(ctl: Controller, rel: Relation) -> None:
    """Delete a dying relation nobody is in any more."""
    if rel.life != "alive" and not rel.scope:
        secret_rules.drop_relation(ctl, rel.model, rel.id)
        ctl.store.remove(rel)
        from lab.juju.controller import lifecycle

        for end in rel.endpoints:
            lifecycle.collect_app(ctl, rel.model, end["app"])


def enter(ctl: Controller, rel: Relation, unit: Unit) -> None:
    """A unit enters a relation's scope: from now on the others see it."""
    if unit.name in rel.scope:
        return
    if rel.life != "alive" or unit.life != "alive":
        raise Refused("cannot enter scope: unit or relation is not alive")
    rel.scope[unit.name] = "in"
    rel.touch()
    rel.write(unit.name, dict(network_settings(ctl, rel, unit)))


def network_settings(ctl: Controller, rel: Relation, unit: Unit) -> dict[str, str]:
    """What Juju itself writes into a unit's bag."""
    app = ctl.app(unit.model, unit.app)
    machine = ctl.machine(unit.model, unit.machine)
    space = ctl.bound_space(app, rel.endpoint(unit.app)["endpoint"])
    found = addresses_in(machine, ctl.provider.networks().get(space, ""))
    if not found:
        return {}
    bits = ipaddress.ip_address(found[0]).max_prefixlen
    doc = {"ingress-address": found[0], "egress-subnets": f"{found[0]}/{bits}"}
    if not ctl.is_v4:
        doc["private-address"] = found[0]
    return doc


def leave(ctl: Controller, rel: Relation, unit: str) -> None:
    """A unit left for good. Its bag stays readable while the relation lives."""
    if unit in rel.scope:
        del rel.scope[unit]
        rel.touch()
    collect(ctl, rel)


def depart_at_once(ctl: Controller, unit: Unit) -> None:
    """What Juju 3 does when a unit is told to go: the others see it leave right away."""
    for rel in ctl.relations(unit.model, unit.app):
        if rel.scope.get(unit.name) == "in":
            rel.scope[unit.name] = "departing"
            rel.touch()
