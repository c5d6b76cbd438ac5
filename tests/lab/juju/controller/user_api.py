"""What the `juju` command asks of the controller: one function per request.

Functions are plain (one transaction) or coroutines where the user waits for something.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.juju import clock
from lab.juju.controller import (
    actions,
    charms,
    lifecycle,
    relations,
    secret_rules,
    snapshot,
    status,
    storage_rules,
)
from lab.juju.controller.core import CONTROLLER, Controller
from lab.juju.controller.entities import (
    App,
    Charm,
    Machine,
    Model,
    Operation,
    Relation,
    Storage,
    Task,
    Unit,
)
from lab.juju.controller.errors import NotFound, Refused

Doc = dict[str, Any]
Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}


def handler(function: Handler) -> Handler:
    HANDLERS[function.__name__] = function
    return function


# -- controller and models --------------------------------------------------------------


@handler
def version(ctl: Controller) -> str:
    return ctl.version


@handler
def controller_info(ctl: Controller) -> Doc:
    address, port = ctl.provider.controller_address()
    return {
        "name": CONTROLLER,
        "uuid": ctl.settings.uuid,
        "version": ctl.version,
        "endpoint": f"{address}:{port}",
        "models": len(ctl.store.all(Model)),
        "machines": len(ctl.store.all(Machine)),
        "current": _current_name(ctl),
    }


def _current_name(ctl: Controller) -> str:
    model = ctl.store.get(Model, ctl.settings.current_model)
    return model.name if model else ""


@handler
def models(ctl: Controller) -> list[Doc]:
    found = sorted(ctl.store.all(Model).values(), key=lambda m: m.name)
    return [status.model_details(ctl, m) for m in found]


@handler
def show_model(ctl: Controller, model: str) -> Doc:
    entity = ctl.model_named(model)
    return {entity.name: status.model_details(ctl, entity)}


@handler
def add_model(ctl: Controller, name: str, config: Doc, switch: bool) -> str:
    if any(m.name == name for m in ctl.store.all(Model).values()):
        raise Refused(
            f'failed to create new model: model "{name}" for admin already exists',
            "already exists",
        )
    _check_model_config(config)
    model = ctl.add_model(name)
    model.config = config
    if switch:
        ctl.settings.current_model = model.uuid
    return model.uuid


@handler
def switch(ctl: Controller, model: str) -> str:
    ctl.settings.current_model = ctl.model_named(model).uuid
    return ctl.model_named(model).name


@handler
async def destroy_model(
    ctl: Controller, model: str, force: bool, no_wait: bool, destroy_storage: bool, timeout: float
) -> None:
    entity = ctl.model_named(model)
    if entity.name == "controller":
        raise Refused('"controller" is the controller\'s own model; use "lab down" to end the lab')
    kept = [s.id for s in ctl.storages(entity.uuid)]
    if kept and not destroy_storage:
        raise Refused(
            f'cannot destroy model "{entity.name}": the model has persistent storage remaining: '
            f"{', '.join(kept)}; use --destroy-storage"
        )
    lifecycle.destroy_model(ctl, entity, force, 0.0 if no_wait else None, destroy_storage)
    ctl.commit()
    uid = entity.uuid
    if not await ctl.wait_for(lambda: ctl.store.get(Model, uid) is None, timeout):
        raise Refused(f'timed out after {timeout:g}s while destroying model "{entity.name}"')


def _check_model_config(values: Doc) -> None:
    from lab.juju.controller.snapshot import DEFAULT_MODEL_CONFIG

    for key, value in values.items():
        if key not in DEFAULT_MODEL_CONFIG:
            raise Refused(f'the lab\'s juju does not support model config "{key}"')
        if key == "update-status-hook-interval":
            try:
                clock.duration(str(value))
            except ValueError as err:
                raise Refused(f"{key}: {err}") from err


@handler
def model_config(ctl: Controller, model: str) -> Doc:
    entity = ctl.model_named(model)
    values = snapshot.model_config(ctl, entity.uuid)
    return {
        key: {"Value": value, "Source": "model" if key in entity.config else "default"}
        for key, value in sorted(values.items())
        if key not in ("name", "uuid")
    }


@handler
def set_model_config(ctl: Controller, model: str, values: Doc, reset: list[str]) -> None:
    entity = ctl.model_named(model)
    _check_model_config(values)
    booleans = {"true": True, "false": False}
    parsed = {k: booleans.get(str(v), v) for k, v in values.items()}
    kept = {k: v for k, v in entity.config.items() if k not in reset}
    entity.config = {**kept, **parsed}


@handler
def model_constraints(ctl: Controller, model: str) -> Doc:
    return ctl.model_named(model).constraints


@handler
def set_model_constraints(ctl: Controller, model: str, values: Doc) -> None:
    ctl.model_named(model).constraints = values


# -- applications -----------------------------------------------------------------------


def _load_charm(ctl: Controller, model: Model, path: str) -> Charm:
    """Unpack a charm into the store and number it. Equal content is stored once."""
    source = Path(path)
    if not source.exists():
        raise Refused(
            f'the lab\'s juju does not support charms from Charmhub: "{path}" is not a local path '
            "(use ./dir or ./file.charm)"
        )
    store = ctl.root / "charms"
    store.mkdir(exist_ok=True)
    fresh = store / f"new-{uuid.uuid4().hex}"
    try:
        digest = charms.unpack(source, fresh)
        target = store / digest[:24]
        if not target.exists():
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    meta = charms.read_yaml(target, "metadata.yaml")
    if not meta.get("name"):
        raise Refused(f'charm "{path}": metadata.yaml states no name')
    if meta.get("subordinate") or meta.get("containers"):
        raise Refused(
            f'charm "{meta["name"]}": the lab\'s juju does not support subordinate or '
            "Kubernetes charms"
        )
    charms.check_assumes(meta, ctl.version)
    revision = model.next(f"charm-{meta['name']}")
    found = Charm(
        url=f"{model.uuid}:local:{meta['name']}-{revision}",
        name=meta["name"],
        revision=revision,
        path=str(target),
        digest=digest,
        meta=meta,
        options=charms.read_yaml(target, "config.yaml").get("options") or {},
        actions=charms.read_yaml(target, "actions.yaml"),
    )
    version_file = target / "version"
    if version_file.exists():
        found.version = version_file.read_text().strip()
    return found


def parse_bindings(ctl: Controller, charm: Charm, text: str) -> dict[str, str]:
    """`endpoint=space ... [default-space]` as a map; "" is the default."""
    spaces = {name for name in ctl.provider.networks() if "/" not in name}
    known = {e["endpoint"] for e in charms.endpoints(charm.meta)}
    known |= set(charm.meta.get("extra-bindings") or {}) | {"", "default"}
    found: dict[str, str] = {}
    for word in text.split():
        endpoint, equals, space = word.rpartition("=")
        if not equals:
            endpoint, space = "", word
        if endpoint not in known:
            raise Refused(f'charm has no endpoint or extra binding "{endpoint}"')
        if space not in spaces:
            raise NotFound(f'space "{space}" not found (the lab has: {", ".join(sorted(spaces))})')
        found["" if endpoint == "default" else endpoint] = space
    return found


def parse_config(charm: Charm, values: Doc) -> Doc:
    parsed: Doc = {}
    for name, text in values.items():
        spec = charm.options.get(name)
        if spec is None:
            raise Refused(f'unknown option "{name}"')
        parsed[name] = charms.option_value(name, spec, str(text))
    return parsed


def _resources(ctl: Controller, charm: Charm, app: str, given: dict[str, str]) -> dict[str, Doc]:
    declared = charm.meta.get("resources") or {}
    found: dict[str, Doc] = {}
    for name, path in given.items():
        if name not in declared:
            raise Refused(f'unrecognized resource "{name}"')
        if not Path(path).is_file():
            raise Refused(f'resource "{name}": file "{path}" not found')
        folder = ctl.root / "resources" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        target = folder / (declared[name].get("filename") or Path(path).name)
        shutil.copy(path, target)
        found[name] = {"path": str(target), "filename": target.name}
    return found


@handler
def deploy(
    ctl: Controller,
    model: str,
    charm: str,
    name: str,
    units: int,
    config: Doc,
    storage: dict[str, str],
    bind: str,
    to: list[str],
    trust: bool,
    constraints: Doc,
    channel: str,
    base: str,
    resources: dict[str, str],
    attach_storage: list[str],
) -> Doc:
    entity = ctl.model_named(model)
    if entity.life != "alive":
        raise Refused(f'model "{entity.name}" is being destroyed')
    loaded = _load_charm(ctl, entity, charm)
    name = name or loaded.name
    if ctl.store.get(App, f"{entity.uuid}/{name}"):
        raise Refused(f'application "{name}" already exists', "already exists")
    trust = trust or str(config.pop("trust", "false")).lower() == "true"
    app = App(
        model=entity.uuid,
        name=name,
        charm=loaded.url,
        created=clock.now(),
        trust=trust,
        config=parse_config(loaded, config),
        bindings=parse_bindings(ctl, loaded, bind),
        constraints=constraints,
        channel=channel,
        base=base or "ubuntu@24.04",
        resources=_resources(ctl, loaded, name, resources),
    )
    ctl.store.add(loaded)
    ctl.store.add(app)
    try:
        app.storage = storage_rules.directives(ctl, app, storage)
        relations.add_peers(ctl, app)
        lifecycle.add_units(ctl, app, units, to, attach_storage)
    except Refused:
        lifecycle.remove_app(ctl, app, False, None, True)
        raise
    return {"name": name, "charm": loaded.name, "revision": loaded.revision}


@handler
def add_unit(
    ctl: Controller, model: str, app: str, units: int, to: list[str], attach_storage: list[str]
) -> list[str]:
    entity = ctl.app(ctl.model_named(model).uuid, app)
    return [u.name for u in lifecycle.add_units(ctl, entity, units, to, attach_storage)]


@handler
def remove_unit(
    ctl: Controller,
    model: str,
    names: list[str],
    count: int,
    force: bool,
    no_wait: bool,
    destroy_storage: bool,
) -> list[str]:
    uid = ctl.model_named(model).uuid
    if count:
        app = ctl.app(uid, names[0])
        alive = [u for u in ctl.units(uid, app.name) if u.life == "alive"]
        units = alive[-count:]
    else:
        units = [ctl.unit(uid, name) for name in names]
    for unit in units:
        lifecycle.remove_unit(ctl, unit, force, 0.0 if no_wait else None, destroy_storage)
    return [u.name for u in units]


@handler
def remove_application(
    ctl: Controller,
    model: str,
    names: list[str],
    force: bool,
    no_wait: bool,
    destroy_storage: bool,
) -> None:
    uid = ctl.model_named(model).uuid
    for app in [ctl.app(uid, name) for name in names]:
        lifecycle.remove_app(ctl, app, force, 0.0 if no_wait else None, destroy_storage)


@handler
def refresh(
    ctl: Controller,
    model: str,
    app: str,
    path: str,
    config: Doc,
    resources: dict[str, str],
    storage: dict[str, str],
    bind: str,
    force_units: bool,
    trust: bool,
) -> Doc:
    entity = ctl.model_named(model)
    target = ctl.app(entity.uuid, app)
    loaded = _load_charm(ctl, entity, path)
    old = ctl.charm(target.charm)
    if loaded.name != old.name:
        raise Refused(
            f'cannot upgrade application "{app}" from charm "{old.name}" to "{loaded.name}"'
        )
    _check_endpoints_kept(ctl, target, loaded)
    values = parse_config(loaded, config)
    kept = {k: v for k, v in target.config.items() if k in loaded.options}
    ctl.store.add(loaded)
    target.charm, target.forced_charm = loaded.url, force_units
    target.config = {**kept, **values}
    target.trust = target.trust or trust
    target.bindings = {**target.bindings, **parse_bindings(ctl, loaded, bind)}
    target.resources = {**target.resources, **_resources(ctl, loaded, app, resources)}
    target.storage = storage_rules.directives(
        ctl, target, {**_directive_texts(target, loaded), **storage}
    )
    relations.add_peers(ctl, target)
    return {"name": app, "charm": loaded.name, "revision": loaded.revision}


def _directive_texts(app: App, charm: Charm) -> dict[str, str]:
    known = charm.meta.get("storage") or {}
    return {
        name: f"{d['pool']},{d['size']}M,{d['count']}"
        for name, d in app.storage.items()
        if name in known
    }


def _check_endpoints_kept(ctl: Controller, app: App, charm: Charm) -> None:
    offered = {e["endpoint"] for e in charms.endpoints(charm.meta)}
    for rel in ctl.relations(app.model, app.name):
        used = rel.endpoint(app.name)["endpoint"]
        if used not in offered:
            raise Refused(
                f'cannot upgrade application "{app.name}": would break relation '
                f'"{app.name}:{used}"'
            )


@handler
def config(ctl: Controller, model: str, app: str) -> Doc:
    target = ctl.app(ctl.model_named(model).uuid, app)
    charm = ctl.charm(target.charm)
    settings: Doc = {}
    for name, spec in sorted(charm.options.items()):
        entry: Doc = {
            "default": spec.get("default"),
            "description": spec.get("description", ""),
            "source": "unset",
            "type": spec.get("type", "string"),
        }
        if name in target.config:
            entry["source"], entry["value"] = "user", target.config[name]
        elif spec.get("default") is not None:
            entry["source"], entry["value"] = "default", spec["default"]
        if entry["default"] is None:
            del entry["default"]
        settings[name] = entry
    trust = {
        "default": False,
        "description": "Does this application have access to trusted credentials",
        "source": "user" if target.trust else "default",
        "type": "bool",
        "value": target.trust,
    }
    return {
        "application": app,
        "application-config": {"trust": trust},
        "charm": charm.name,
        "settings": settings,
    }


@handler
def set_config(ctl: Controller, model: str, app: str, values: Doc, reset: list[str]) -> None:
    target = ctl.app(ctl.model_named(model).uuid, app)
    charm = ctl.charm(target.charm)
    if "trust" in values:
        target.trust = str(values.pop("trust")).lower() == "true"
    parsed = parse_config(charm, values)
    for name in reset:
        if name not in charm.options and name != "trust":
            raise Refused(f'unknown option "{name}"')
        if name == "trust":
            target.trust = False
    target.config = {**{k: v for k, v in target.config.items() if k not in reset}, **parsed}


@handler
def trust(ctl: Controller, model: str, app: str, on: bool) -> None:
    ctl.app(ctl.model_named(model).uuid, app).trust = on


@handler
def expose(ctl: Controller, model: str, app: str, on: bool) -> None:
    ctl.app(ctl.model_named(model).uuid, app).exposed = on


@handler
def bind(ctl: Controller, model: str, app: str, text: str) -> None:
    target = ctl.app(ctl.model_named(model).uuid, app)
    found = parse_bindings(ctl, ctl.charm(target.charm), text)
    target.bindings = {**target.bindings, **found}


@handler
def constraints(ctl: Controller, model: str, app: str) -> Doc:
    return ctl.app(ctl.model_named(model).uuid, app).constraints


@handler
def set_constraints(ctl: Controller, model: str, app: str, values: Doc) -> None:
    ctl.app(ctl.model_named(model).uuid, app).constraints = values


# -- relations --------------------------------------------------------------------------


@handler
def integrate(ctl: Controller, model: str, left: str, right: str) -> None:
    relations.integrate(ctl, ctl.model_named(model).uuid, left, right)


@handler
def remove_relation(ctl: Controller, model: str, ends: list[str], force: bool) -> None:
    uid = ctl.model_named(model).uuid
    if len(ends) == 1:
        rel = ctl.store.get(Relation, f"{uid}/{ends[0]}")
        if rel is None:
            raise NotFound(f"relation {ends[0]} not found")
    else:
        rel = relations.find(ctl, uid, ends[0], ends[1])
    if rel.is_peer:
        raise Refused("cannot remove a peer relation")
    relations.destroy(ctl, rel, force)


# -- machines ---------------------------------------------------------------------------


@handler
def add_machine(ctl: Controller, model: str, count: int, constraints: Doc) -> list[str]:
    uid = ctl.model_named(model).uuid
    return [lifecycle.add_machine(ctl, uid, constraints, True).id for _ in range(count)]


@handler
def remove_machine(
    ctl: Controller, model: str, ids: list[str], force: bool, keep: bool, no_wait: bool
) -> None:
    uid = ctl.model_named(model).uuid
    for machine in [ctl.machine(uid, i) for i in ids]:
        lifecycle.remove_machine(ctl, machine, force, keep, 0.0 if no_wait else None)


@handler
def machine_argv(ctl: Controller, model: str, target: str, command: list[str]) -> list[str]:
    """The command line that runs a command on a unit's or a machine's lab machine."""
    uid = ctl.model_named(model).uuid
    machine = ctl.machine(uid, _machine_of(ctl, uid, target))
    if machine.state != "started" or not ctl.provider.is_on(machine.lab_id):
        raise Refused(
            f"opening environment: machine {machine.id} is not running "
            f"({machine.message or machine.state})"
        )
    return ctl.provider.argv(machine.lab_id, command)


def _machine_of(ctl: Controller, model: str, target: str) -> str:
    if target.isdigit():
        return target
    return _resolve_unit(ctl, model, target).machine


def _resolve_unit(ctl: Controller, model: str, name: str) -> Unit:
    """A unit by name, or `app/leader`."""
    app, slash, number = name.partition("/")
    if slash and number == "leader":
        leader = ctl.leader(ctl.app(model, app))
        if not leader:
            raise Refused(f'could not determine leader for "{app}"')
        name = leader
    return ctl.unit(model, name)


@handler
def spaces(ctl: Controller) -> list[Doc]:
    nets = ctl.provider.networks()
    return [
        {
            "name": name,
            "id": str(i),
            "subnets": [nets[k] for k in (name, f"{name}/6") if k in nets],
        }
        for i, name in enumerate(n for n in nets if "/" not in n)
    ]


# -- units ------------------------------------------------------------------------------


@handler
def resolved(ctl: Controller, model: str, names: list[str], retry: bool, every: bool) -> None:
    uid = ctl.model_named(model).uuid
    failed = [u for u in ctl.units(uid) if u.agent.get("current") == "error"]
    for unit in failed if every else [ctl.unit(uid, n) for n in names]:
        if unit.agent.get("current") != "error":
            raise Refused(f'unit "{unit.name}" is not in an error state')
        if unit.resolved:
            raise Refused(f'cannot set resolved mode for unit "{unit.name}": already resolved')
        unit.resolved = "retry-hooks" if retry else "no-hooks"


@handler
def show_unit(ctl: Controller, model: str, unit: str, endpoint: str) -> Doc:
    uid = ctl.model_named(model).uuid
    return {unit: status.unit_details(ctl, _resolve_unit(ctl, uid, unit), endpoint)}


@handler
def show_application(ctl: Controller, model: str, app: str) -> Doc:
    uid = ctl.model_named(model).uuid
    return {app: status.application_details(ctl, ctl.app(uid, app))}


@handler
def status_of(ctl: Controller, model: str, patterns: list[str]) -> Doc:
    return status.full(ctl, ctl.model_named(model), patterns)


@handler
def log_file(ctl: Controller, model: str) -> str:
    return str(ctl.root / "log" / f"{ctl.model_named(model).uuid}.jsonl")


# -- storage ----------------------------------------------------------------------------


@handler
def add_storage(ctl: Controller, model: str, unit: str, directives: list[str]) -> list[str]:
    entity = ctl.unit(ctl.model_named(model).uuid, unit)
    made: list[Storage] = []
    for text in directives:
        name, _, rest = text.partition("=")
        made += storage_rules.add(ctl, entity, name, rest)
    return [s.id for s in made]


@handler
def detach_storage(ctl: Controller, model: str, names: list[str]) -> None:
    uid = ctl.model_named(model).uuid
    for name in names:
        if not storage_rules.find(ctl, uid, name).owner:
            raise Refused(f'storage "{name}" is not attached')
        storage_rules.detach(ctl, uid, name, False)


@handler
def attach_storage(ctl: Controller, model: str, unit: str, names: list[str]) -> None:
    entity = ctl.unit(ctl.model_named(model).uuid, unit)
    for name in names:
        storage_rules.attach(ctl, entity, name)


@handler
def remove_storage(ctl: Controller, model: str, names: list[str], force: bool) -> None:
    uid = ctl.model_named(model).uuid
    for name in names:
        if storage_rules.find(ctl, uid, name).owner and not force:
            raise Refused(
                f'failed to remove storage "{name}": storage is attached; use '
                "--force or detach it first"
            )
        storage_rules.detach(ctl, uid, name, True)
        found = storage_rules.find(ctl, uid, name)
        if not found.owner:
            found.life = "dead"
    ctl.wake_provisioner()


# -- actions ----------------------------------------------------------------------------


@handler
def list_actions(ctl: Controller, model: str, app: str) -> Doc:
    return ctl.charm(ctl.app(ctl.model_named(model).uuid, app).charm).actions


@handler
def enqueue(ctl: Controller, model: str, receivers: list[str], action: str, params: Doc) -> Doc:
    """Queue an action on units; unknown units and actions are refused."""
    uid = ctl.model_named(model).uuid
    units = [_resolve_unit(ctl, uid, r) for r in receivers]
    operation = actions.enqueue(ctl, uid, units, action, params)
    return {
        "operation": operation.id,
        "tasks": operation.tasks,
        "receivers": [u.name for u in units],
    }


@handler
def enqueue_exec(
    ctl: Controller,
    model: str,
    units: list[str],
    apps: list[str],
    machines: list[str],
    every: bool,
    command: str,
    timeout: float,
    parallel: bool,
) -> Doc:
    uid = ctl.model_named(model).uuid
    chosen = [_resolve_unit(ctl, uid, u) for u in units]
    chosen += [u for a in apps for u in ctl.units(uid, ctl.app(uid, a).name)]
    targets = [ctl.machine(uid, m) for m in machines]
    if every:
        targets = ctl.machines(uid)
    operation = actions.enqueue_exec(ctl, uid, chosen, targets, command, timeout, parallel)
    return {
        "operation": operation.id,
        "tasks": operation.tasks,
        "receivers": [ctl.store.all(Task)[f"{uid}/{t}"].receiver for t in operation.tasks],
    }


@handler
async def wait_tasks(ctl: Controller, model: str, ids: list[str], timeout: float) -> Doc:
    """Wait until all tasks ended; returns {id: task document} for those that did."""
    uid = ctl.model_named(model).uuid

    def ended() -> list[Task]:
        found = [ctl.store.get(Task, f"{uid}/{i}") for i in ids]
        return [t for t in found if t is not None and t.completed]

    await ctl.wait_for(lambda: len(ended()) == len(ids), timeout)
    return {t.id: actions.document(t) for t in ended()}


@handler
def show_task(ctl: Controller, model: str, ident: str) -> Doc:
    task = ctl.store.get(Task, f"{ctl.model_named(model).uuid}/{ident}")
    if task is None:
        raise NotFound(f'task with id "{ident}" not found')
    return actions.document(task)


@handler
def operations(ctl: Controller, model: str) -> Doc:
    uid = ctl.model_named(model).uuid
    return {o.id: actions.operation_document(ctl, o) for o in ctl.operations(uid)}


@handler
def show_operation(ctl: Controller, model: str, ident: str) -> Doc:
    found = ctl.store.get(Operation, f"{ctl.model_named(model).uuid}/{ident}")
    if found is None:
        raise NotFound(f'operation "{ident}" not found')
    return {ident: actions.operation_document(ctl, found)}


# -- secrets ----------------------------------------------------------------------------


def _user_secret(ctl: Controller, model: str, ref: str) -> Any:
    for secret in ctl.secrets(model):
        if secret.owner == "model" and ref in (secret.id, secret.uri, secret.label):
            return secret
    try:
        found = secret_rules.find(ctl, model, ref)
    except NotFound:
        raise NotFound(f'secret "{ref}" not found') from None
    return found


@handler
def add_secret(ctl: Controller, model: str, name: str, content: dict[str, str], info: str) -> str:
    uid = ctl.model_named(model).uuid
    if any(s.owner == "model" and s.label == name for s in ctl.secrets(uid)):
        raise Refused(f'secret with name "{name}" already exists', "already exists")
    spec = {"content": content, "label": name, "description": info}
    return secret_rules.add(ctl, uid, "model", spec).uri


@handler
def update_secret(
    ctl: Controller,
    model: str,
    secret: str,
    content: dict[str, str],
    info: str,
    name: str,
    auto_prune: bool | None,
) -> None:
    found = _user_secret(ctl, ctl.model_named(model).uuid, secret)
    if found.owner != "model":
        raise Refused(f'secret "{secret}" is owned by a charm, which alone may update it')
    if auto_prune is not None:
        found.auto_prune = auto_prune
    secret_rules.update(
        ctl,
        found,
        {
            "content": content,
            "label": name or None,
            "description": info or None,
        },
    )


@handler
def remove_secret(ctl: Controller, model: str, secret: str, revision: int | None) -> None:
    found = _user_secret(ctl, ctl.model_named(model).uuid, secret)
    if found.owner != "model":
        raise Refused(f'secret "{secret}" is owned by a charm, which alone may remove it')
    secret_rules.remove(ctl, found, revision)


@handler
def grant_secret(ctl: Controller, model: str, secret: str, apps: list[str], on: bool) -> None:
    uid = ctl.model_named(model).uuid
    found = _user_secret(ctl, uid, secret)
    if found.owner != "model":
        raise Refused(f'secret "{secret}" is owned by a charm, which alone may grant it')
    for app in apps:
        ctl.app(uid, app)
        if on:
            secret_rules.grant(ctl, found, app, "")
        else:
            secret_rules.revoke(found, app)


@handler
def secrets(ctl: Controller, model: str, owner: str) -> Doc:
    uid = ctl.model_named(model).uuid
    wanted = owner.removeprefix("application-").removeprefix("unit-")
    return {
        s.id: status.secret_details(s, False, None, False)
        for s in ctl.secrets(uid)
        if not owner
        or s.owner.partition(":")[2] == wanted
        or (s.owner == "model" and owner == "<model>")
    }


@handler
def show_secret(
    ctl: Controller, model: str, secret: str, reveal: bool, revision: int | None, revisions: bool
) -> Doc:
    found = _user_secret(ctl, ctl.model_named(model).uuid, secret)
    if revision is not None and str(revision) not in found.revisions:
        raise NotFound(f'secret "{found.id}" revision {revision} not found')
    return {found.id: status.secret_details(found, reveal, revision, revisions)}


# -- the lab's own ----------------------------------------------------------------------


@handler
def knobs(ctl: Controller) -> Doc:
    from lab.juju.controller.core import KNOBS

    return {name: ctl.knob(name) for name in KNOBS}


@handler
def set_knob(ctl: Controller, name: str, value: Any) -> None:
    from lab.juju.controller.core import KNOBS

    if name not in KNOBS:
        raise Refused(f'no knob "{name}"; there are: {", ".join(KNOBS)}')
    ctl.settings.knobs[name] = value
    ctl.settings.touch()


@handler
def unit_place(ctl: Controller, model: str, unit: str) -> Doc:
    """Where a unit's agent runs, for faults."""
    uid = ctl.model_named(model).uuid
    found = _resolve_unit(ctl, uid, unit)
    return {
        "unit": found.name,
        "key": found.key,
        "service": lifecycle.agent_name(found.name),
        "lab_id": ctl.machine(uid, found.machine).lab_id,
        "connected": ctl.connected(found.key),
    }


@handler
def signal_agent(ctl: Controller, model: str, unit: str, number: int) -> None:
    place = unit_place(ctl, model, unit)
    ctl.provider.signal_agent(place["lab_id"], place["service"], number)


@handler
def add_fault(ctl: Controller, model: str, unit: str, fault: Doc) -> str:
    key = unit_place(ctl, model, unit)["key"]
    ident = uuid.uuid4().hex[:8]
    faults: dict[str, list[Doc]] = ctl.settings.knobs.setdefault("faults", {})
    faults.setdefault(key, []).append({"id": ident, **fault})
    ctl.settings.touch()
    return ident


@handler
def clear_faults(ctl: Controller) -> None:
    ctl.settings.knobs["faults"] = {}
    ctl.settings.touch()


@handler
def list_faults(ctl: Controller) -> Doc:
    return ctl.settings.knobs.get("faults", {})


@handler
def set_leader(ctl: Controller, model: str, app: str, unit: str, seconds: float) -> None:
    """Expire an application's lease (and bar the old holder for a while), or give it away."""
    import time

    target = ctl.app(ctl.model_named(model).uuid, app)
    if unit:
        target.leader = ctl.unit(target.model, unit).name
        target.lease_until = time.time() + ctl.knob("lease")
        return
    ctl.barred[target.key] = (target.leader, time.time() + seconds)
    target.leader, target.lease_until = "", 0.0


@handler
def unsaved(ctl: Controller) -> list[str]:
    """Forgotten `touch()` calls; always empty unless the controller has a bug."""
    return ctl.store.unsaved()
