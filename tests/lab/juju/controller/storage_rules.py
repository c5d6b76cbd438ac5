"""Storage instances: asked for at deployment or later, attached to machines, detached."""

from __future__ import annotations

import re
from typing import Any

from lab.juju import clock
from lab.juju.controller.core import Controller
from lab.juju.controller.entities import App, Storage, Unit
from lab.juju.controller.errors import NotFound, Refused

Doc = dict[str, Any]
_UNITS = {"M": 1, "G": 1 << 10, "T": 1 << 20, "P": 1 << 30}
POOLS = ("lab", "loop", "rootfs", "tmpfs", "maas", "lxd", "lxd-btrfs", "lxd-zfs", "manual")


def parse(text: str) -> Doc:
    """A directive `pool,size,count` in any order, as {"pool", "size" (MiB), "count"}."""
    doc: Doc = {}
    for part in filter(None, text.split(",")):
        size = re.fullmatch(r"([\d.]+)([MGTP])(?:i?B)?", part)
        if size:
            doc["size"] = int(float(size[1]) * _UNITS[size[2]])
        elif part.isdigit():
            doc["count"] = int(part)
        elif part in POOLS:
            doc["pool"] = part
        else:
            raise Refused(f'pool "{part}" not found (the lab has: {", ".join(POOLS)})')
    return doc


def spec_of(ctl: Controller, app: App, name: str) -> Doc:
    spec = (ctl.charm(app.charm).meta.get("storage") or {}).get(name)
    if spec is None:
        raise Refused(f'charm "{ctl.charm(app.charm).name}" has no store called "{name}"')
    return spec


def _range(spec: Doc) -> tuple[int, int | None]:
    """The least and the most instances of a storage; singular ones are needed exactly once."""
    multiple = spec.get("multiple")
    if not multiple:
        return (1, 1)
    text = str(multiple["range"])
    low, dash, high = text.partition("-")
    if text.endswith("+"):
        return (int(text[:-1]), None)
    if not dash:
        return (int(low), int(low))
    return (int(low or 0), int(high) if high else None)


def _minimum(spec: Doc) -> int:
    return parse(str(spec["minimum-size"])).get("size", 0) if "minimum-size" in spec else 0


def _default(spec: Doc) -> int:
    """The size, in MiB, of storage for which nobody stated one."""
    return _minimum(spec) or 1024


def directives(ctl: Controller, app: App, given: dict[str, str]) -> dict[str, Doc]:
    """Every storage of the charm with pool, size and initial count."""
    for name in given:
        spec_of(ctl, app, name)
    found: dict[str, Doc] = {}
    for name, spec in (ctl.charm(app.charm).meta.get("storage") or {}).items():
        if spec.get("shared"):
            raise Refused(f'the lab\'s juju does not support "shared" storage ("{name}")')
        least, most = _range(spec)
        wanted = parse(given.get(name, ""))
        default_count = least if name not in given else max(1, least)
        doc = {"pool": "lab", "size": _default(spec), "count": default_count, **wanted}
        _check_count(app.name, name, doc["count"], least, most)
        if doc["size"] < _minimum(spec):
            raise Refused(
                f'cannot use {doc["size"]}M for storage "{name}": its minimum is {_minimum(spec)}M'
            )
        found[name] = doc
    return found


def _check_count(app: str, name: str, count: int, least: int, most: int | None) -> None:
    if count < least:
        raise Refused(
            f'application "{app}" store "{name}": {least} instances required, {count} specified'
        )
    if most is not None and count > most:
        raise Refused(
            f'application "{app}" store "{name}": at most {most} instances supported, '
            f"{count} specified"
        )


def for_new_unit(ctl: Controller, app: App, unit: Unit, existing: list[str]) -> None:
    """The instances a unit starts with: detached ones named by the user count first."""
    taken: dict[str, int] = {}
    for ident in existing:
        attach(ctl, unit, ident)
        name = ident.partition("/")[0]
        taken[name] = taken.get(name, 0) + 1
    for name, doc in app.storage.items():
        for _ in range(doc["count"] - taken.get(name, 0)):
            _create(ctl, app, unit, name, doc)


def _create(ctl: Controller, app: App, unit: Unit, name: str, doc: Doc) -> Storage:
    spec = spec_of(ctl, app, name)
    number = ctl.model_named(app.model).next("storage")
    return ctl.store.add(
        Storage(
            model=app.model,
            id=f"{name}/{number}",
            name=name,
            kind=spec["type"],
            pool=doc["pool"],
            size=doc["size"],
            created=clock.now(),
            owner=unit.name,
            machine=unit.machine,
            attachment_life="alive",
            number=number,
            read_only=bool(spec.get("read-only")),
        )
    )


def add(ctl: Controller, unit: Unit, name: str, text: str) -> list[Storage]:
    """`juju add-storage` and the hook tool storage-add."""
    app = ctl.app(unit.model, unit.app)
    spec = spec_of(ctl, app, name)
    doc = {
        "pool": "lab",
        "size": _default(spec),
        "count": 1,
        **{k: v for k, v in app.storage.get(name, {}).items() if k != "count"},
        **parse(text),
    }
    have = sum(1 for s in ctl.storages(unit.model, unit.name) if s.name == name)
    least, most = _range(spec)
    _check_count(app.name, name, have + doc["count"], least, most)
    made = [_create(ctl, app, unit, name, doc) for _ in range(doc["count"])]
    ctl.wake_provisioner()
    return made


def find(ctl: Controller, model: str, ident: str) -> Storage:
    found = ctl.store.get(Storage, f"{model}/{ident}")
    if found is None:
        raise NotFound(f'storage "{ident}" not found')
    return found


def attach(ctl: Controller, unit: Unit, ident: str) -> None:
    """Attach a detached instance to a unit."""
    found = find(ctl, unit.model, ident)
    if found.owner:
        raise Refused(f'storage "{ident}" is already attached to {found.owner}')
    if found.machine and found.machine != unit.machine:
        raise Refused(
            f'cannot attach storage "{ident}" to {unit.name}: the lab\'s disks stay with their '
            f"machine ({found.machine}), and the unit is on machine {unit.machine}"
        )
    spec_of(ctl, ctl.app(unit.model, unit.app), found.name)
    found.owner, found.machine = unit.name, unit.machine
    found.attachment_life = "alive"
    if found.state == "detached":
        found.state = "pending"
    ctl.wake_provisioner()


def detach(ctl: Controller, model: str, ident: str, destroy: bool) -> None:
    """Ask the unit to let go of an instance (it runs storage-detaching first)."""
    found = find(ctl, model, ident)
    found.destroy = found.destroy or destroy
    if found.owner and found.attachment_life == "alive":
        found.attachment_life = "dying"
    if destroy:
        found.life = "dying"
    if not found.owner:
        ctl.wake_provisioner()


def unit_going(ctl: Controller, unit: Unit) -> None:
    """A dying unit's storage is detached by hooks before its `stop`."""
    for found in ctl.storages(unit.model, unit.name):
        if found.attachment_life == "alive":
            found.attachment_life = "dying"


def detached(ctl: Controller, unit: Unit, ident: str) -> None:
    """The unit ran storage-detaching (or never had it attached)."""
    found = find(ctl, unit.model, ident)
    _release(ctl, found, unit.destroy_storage)


def _release(ctl: Controller, found: Storage, destroy: bool) -> None:
    found.owner, found.attachment_life = "", ""
    found.destroy = found.destroy or destroy
    found.state = "detached" if found.state == "attached" else found.state
    if found.destroy:
        found.life = "dead"
    ctl.wake_provisioner()


def unit_gone(ctl: Controller, unit: Unit) -> None:
    """A unit was removed, in order or by force."""
    for found in ctl.storages(unit.model, unit.name):
        _release(ctl, found, unit.destroy_storage)


def machine_gone(ctl: Controller, model: str, machine: str) -> None:
    """Disks of the lab go with their machine."""
    for found in ctl.storages(model):
        if found.machine == machine:
            ctl.store.remove(found)
