"""Actions and `juju exec`: checked against the charm's schema, queued, shown."""

from __future__ import annotations

from typing import Any

from lab.juju import clock
from lab.juju.controller.core import Controller
from lab.juju.controller.entities import Machine, Operation, Task, Unit
from lab.juju.controller.errors import NotFound, Refused

Doc = dict[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def enqueue(ctl: Controller, model: str, units: list[Unit], name: str, params: Doc) -> Operation:
    """Queue an action of the units' charms."""
    checked: list[tuple[Unit, Doc, bool]] = []
    for unit in units:
        app = ctl.app(model, unit.app)
        spec = ctl.charm(app.charm).actions.get(name)
        if spec is None:
            raise NotFound(f'action "{name}" not defined on unit "{unit.name}" (not found)')
        values = with_defaults(params, spec.get("params") or {})
        validate(name, values, spec)
        checked.append((unit, values, bool(spec.get("parallel"))))
    plural = ",".join(u.name for u in units)
    return _operation(
        ctl,
        model,
        f"{name} run on {plural}",
        [(unit.name, name, values, parallel) for unit, values, parallel in checked],
    )


def enqueue_exec(
    ctl: Controller,
    model: str,
    units: list[Unit],
    machines: list[Machine],
    command: str,
    timeout: float,
    parallel: bool,
) -> Operation:
    """Queue a shell command on units (with a hook's environment) or machines (without).

    A machine's command is run by the agent of a unit that lives there.
    """
    wanted: list[tuple[str, str, Doc, bool]] = [
        (u.name, "juju-exec", {"command": command, "timeout": timeout}, parallel) for u in units
    ]
    for machine in machines:
        host = next((u for u in ctl.units(model) if u.machine == machine.id), None)
        if host is None:
            raise Refused(
                f"the lab's juju does not support exec on machine {machine.id}: it hosts no unit"
            )
        wanted.append(
            (
                host.name,
                "juju-exec",
                {
                    "command": command,
                    "timeout": timeout,
                    "machine": machine.id,
                },
                True,
            )
        )
    if not wanted:
        raise Refused("no targets: use --unit, --application, --machine or --all")
    return _operation(ctl, model, f"exec {command}", wanted)


def _operation(
    ctl: Controller, model: str, summary: str, wanted: list[tuple[str, str, Doc, bool]]
) -> Operation:
    entity = ctl.model_named(model)
    ident = str(entity.next("operation", 1))
    tasks = []
    for receiver, name, params, parallel in wanted:
        task = ctl.store.add(
            Task(
                model=model,
                id=str(entity.next("operation", 1)),
                operation=ident,
                receiver=receiver,
                name=name,
                params=params,
                enqueued=clock.now(),
                parallel=parallel,
            )
        )
        tasks.append(task.id)
    return ctl.store.add(
        Operation(model=model, id=ident, summary=summary, enqueued=clock.now(), tasks=tasks)
    )


def with_defaults(params: Doc, properties: Doc) -> Doc:
    """Params plus the schema's defaults, also inside objects."""
    result = dict(params)
    for name, spec in properties.items():
        if name not in result and "default" in spec:
            result[name] = spec["default"]
        elif isinstance(result.get(name), dict) and spec.get("properties"):
            result[name] = with_defaults(result[name], spec["properties"])
    return result


def validate(action: str, params: Doc, spec: Doc) -> None:
    """Check params as Juju's controller does; Refused names the parameter."""
    schema = {
        "type": "object",
        "properties": spec.get("params") or {},
        "required": spec.get("required") or [],
        "additionalProperties": spec.get("additionalProperties", False),
    }
    _check(f'"{action}"', params, schema, "(root)")


def _check(action: str, value: Any, schema: Doc, where: str) -> None:
    def fail(why: str) -> None:
        raise Refused(f"validation failed: {where} : {why}, given {value!r}")

    kinds = schema.get("type") or []
    names = kinds if isinstance(kinds, list) else [kinds]
    if names and not _is_one_of(value, names):
        fail(f"must be of type {' or '.join(names)}")
    if "enum" in schema and value not in schema["enum"]:
        fail(f"must match one of the enum values {schema['enum']}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, fail)
    if isinstance(value, str):
        _check_text(value, schema, fail)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, item in enumerate(value):
            _check(action, item, schema["items"], f"{where}.{number}")
    if isinstance(value, dict):
        _check_object(action, value, schema, where)


def _is_one_of(value: Any, names: list[str]) -> bool:
    """Whether a value has one of the schema's types; True and False are no numbers."""
    allowed = tuple(t for n in names for t in _TYPES.get(n, (object,)))
    wrong_bool = isinstance(value, bool) and bool not in allowed and object not in allowed
    return isinstance(value, allowed) and not wrong_bool


def _check_number(value: float, schema: Doc, fail: Any) -> None:
    if "minimum" in schema and value < schema["minimum"]:
        fail(f"must be greater than or equal to {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        fail(f"must be less than or equal to {schema['maximum']}")


def _check_text(value: str, schema: Doc, fail: Any) -> None:
    import re

    if "pattern" in schema and not re.search(schema["pattern"], value):
        fail(f"does not match pattern '{schema['pattern']}'")
    if len(value) < schema.get("minLength", 0):
        fail(f"must be at least {schema['minLength']} characters long")
    if len(value) > schema.get("maxLength", len(value)):
        fail(f"must be at most {schema['maxLength']} characters long")


def _check_object(action: str, value: Doc, schema: Doc, where: str) -> None:
    properties = schema.get("properties") or {}
    for name in schema.get("required") or []:
        if name not in value:
            raise Refused(
                f'validation failed: {where} : "{name}" property is missing and '
                f"required, given {value!r}"
            )
    for name, item in value.items():
        inner = name if where == "(root)" else f"{where}.{name}"
        if name in properties:
            _check(action, item, properties[name], inner)
        elif schema.get("additionalProperties") is False:
            raise Refused(
                f'validation failed: {where} : additional property "{name}" is not '
                f"allowed, given {value!r}"
            )


def document(task: Task) -> Doc:
    """A task as `juju run --format json` shows it."""
    doc: Doc = {"id": task.id, "status": task.status, "unit": task.receiver}
    if task.params.get("machine") is not None and task.name == "juju-exec":
        del doc["unit"]
        doc["machine"] = task.params["machine"]
    if task.message:
        doc["message"] = task.message
    doc["results"] = task.results
    if task.log:
        doc["log"] = [f"{_local(entry['at'])} {entry['message']}" for entry in task.log]
    timing = {"enqueued": task.enqueued, "started": task.started, "completed": task.completed}
    doc["timing"] = {k: _local(v) for k, v in timing.items() if v}
    return doc


def _local(stamp: str) -> str:
    return stamp.replace("T", " ").replace("Z", " +0000 UTC")


def operation_document(ctl: Controller, operation: Operation) -> Doc:
    tasks = [ctl.store.all(Task)[f"{operation.model}/{t}"] for t in operation.tasks]
    states = {t.status for t in tasks}
    overall = next(
        (s for s in ("running", "pending", "failed", "aborted") if s in states), "completed"
    )
    return {
        "summary": operation.summary,
        "status": overall,
        "timing": {"enqueued": _local(operation.enqueued)},
        "tasks": {
            t.id: {"host": t.receiver, **{k: v for k, v in document(t).items() if k != "id"}}
            for t in tasks
        },
    }
