"""The actions list-disks, add-disks and remove-disk: this unit's disks, and Ceph's use of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import osd_removal
from errors import CharmError, DaemonError, Findings
from record import Record

if TYPE_CHECKING:
    from machine.disks import Disk
    from machine.osds import Choice, Survey, Wish
    from services.microceph import Osd
    from settings import Settings
    from world import World

_LOOP = re.compile(r"(?:loop,)?([1-9][0-9]*[MGT],[1-9][0-9]*)")
_OSD = re.compile(r"(?:osd\.)?([0-9]{1,9})")

Params = Mapping[str, Any]
Log = Callable[[str], None]


class Added(Record):
    """What became of each disk: `disks` for JSON, `faults` are sentences."""

    disks: tuple[Mapping[str, object], ...]
    faults: tuple[str, ...] = ()


def listing(world: World) -> list[dict[str, object]]:
    """All disks of this machine, ready for JSON; raises CharmError."""
    seen = world.osds.survey(_settings(world))
    released = world.osds.released.names(seen.probe)
    osds = {osd.path: osd.number for osd in world.osds.mine()}
    names = {seen.probe.resolve(path): number for path, number in osds.items()}
    found = [_shown(disk, names.get(disk.id), disk.id in released) for disk in seen.disks]
    others = {path: n for path, n in osds.items() if n not in {one["osd"] for one in found}}
    # A file, or a disk that is gone.
    return found + [{"path": path, "osd": number} for path, number in sorted(others.items())]


def _shown(disk: Disk, osd: int | None, released: bool) -> dict[str, object]:
    from machine import disks

    ceph = list(disks.unfit(disk))
    if released:
        ceph.append("was taken out of Ceph; the action add-disks takes it again")
    local = disks.unfit(disk, minimum=0)
    return {**disks.to_json(disk, ceph, local), "osd": osd}


def add(world: World, params: Params, log: Log) -> Added:
    """Make OSDs of disks of this machine, all that can be; raises CharmError if none may be."""
    settings = _settings(world)
    _check_member(world)
    given = [name for name in ("disks", "filter", "loop") if params.get(name)]
    if len(given) != 1:
        raise CharmError(
            f"give one of disks, filter and loop, not {' and '.join(given) or 'none'}"
        )
    if given == ["loop"]:
        return _add_files(world, params, log)
    seen = world.osds.survey(settings)
    wish = _wish(params)
    choice = _choice(wish, seen)
    if params.get("dry-run"):
        return Added(tuple(_told(take.path, take.size) for take in choice.takes))
    return _take(world, seen, choice, log)


def _wish(params: Params) -> Wish:
    from machine import filters, selection
    from machine.osds import Wish

    wipe, encrypt = bool(params.get("wipe")), bool(params.get("encrypt"))
    paths = tuple(path for path in re.split(r"[,\s]+", params.get("disks") or "") if path)
    try:
        found = selection.parse_list(
            params.get("filter") or "", "ceph", wipe=wipe, encrypt=encrypt
        )
    except filters.FilterError as fault:
        raise Findings(fault.findings) from fault
    return Wish("add-disks", "wipe=true", paths, found, wipe=wipe, encrypt=encrypt)


def _choice(wish: Wish, seen: Survey) -> Choice:
    """What may be taken; what a filter must find is counted on this machine alone."""
    from machine import osds, selection
    from machine.encryption import unsupported

    choice = osds.choose(wish, seen, unsupported)
    counts = selection.miscounts(wish.filters, [choice.matches])
    wrong = (*choice.findings, *(finding for one in counts for finding in one))
    if wrong:
        raise Findings(wrong)
    return choice


def _take(world: World, seen: Survey, choice: Choice, log: Log) -> Added:
    faults: list[str] = []
    for take in choice.takes:
        log(f"making an OSD of {take.path}")
        world.osds.released.discard(take.path, seen.probe)
        try:
            world.microceph.add_disks([take.path], wipe=take.wipe, encrypt=take.encrypt)
        except DaemonError as fault:
            faults.append(str(fault))
    numbers = {osd.path: osd.number for osd in world.osds.mine()}
    added = (_told(take.path, take.size, numbers.get(take.path)) for take in choice.takes)
    return Added(tuple(added), tuple(faults))


def _add_files(world: World, params: Params, log: Log) -> Added:
    spec = _LOOP.fullmatch(params["loop"].strip())
    if spec is None:
        raise CharmError(f"loop={params['loop']!r} is not size and number of files, as 4G,1 is")
    if params.get("wipe") or params.get("encrypt"):
        raise CharmError("wipe and encrypt are for disks, not for the files of loop")
    if params.get("dry-run"):
        return Added(())
    before = world.osds.mine()
    log(f"making OSDs of files: {spec[1]}")
    world.microceph.add_loop(f"loop,{spec[1]}")
    new = [osd for osd in world.osds.mine() if osd not in before]
    return Added(tuple(_told(osd.path, None, osd.number) for osd in new))


def _told(path: str, size: int | None, osd: int | None = None) -> dict[str, object]:
    return {"path": path, "size": size, "osd": osd}


def remove(world: World, params: Params, log: Log) -> dict[str, object]:
    """Take one OSD of this machine out of Ceph; raises CharmError if it stays."""
    settings = _settings(world)
    _check_member(world)
    seen = world.osds.survey(settings)
    osd = _named(world, seen, params)
    timeout = params.get("timeout", osd_removal.TIMEOUT)
    force = params.get("force") or ""
    if force and force != f"osd.{osd.number}":
        raise CharmError(
            f"force={force} does not name the OSD that is to be removed at the price of data; "
            f"that would be force=osd.{osd.number}"
        )
    with world.osds.releasing(osd.path):
        if force:
            log(f"removing osd.{osd.number} without regard to what is on it")
            world.microceph.remove_disk(osd.number, force=True, timeout=timeout)
        else:
            osd_removal.remove(world.microceph, osd, timeout=timeout, tell=log)
    return {"osd": osd.number, "path": osd.path, "member": osd.member}


def _named(world: World, seen: Survey, params: Params) -> Osd:
    """The OSD that is meant, by number or by disk."""
    name, path = params.get("osd") or "", params.get("disk") or ""
    if bool(name) == bool(path):
        raise CharmError("give one of osd (osd=osd.3) and disk (a path)")
    if path:
        from machine.disks import DiskNotFoundError

        try:
            name = seen.find(path).owner
        except DiskNotFoundError as fault:
            raise CharmError(str(fault)) from fault
    number = _OSD.fullmatch(name)
    osds = world.microceph.disks()
    for osd in osds:
        if number and osd.number == int(number[1]):
            return _here(world, osd)
    here = ", ".join(f"osd.{osd.number} ({osd.path})" for osd in world.osds.mine())
    raise CharmError(f"{path or name} is no OSD; this machine has {here or 'none'}")


def _here(world: World, osd: Osd) -> Osd:
    if osd.member == world.view.name:
        return osd
    bags = world.view.units.items()
    units = [unit for unit, bag in bags if bag.identity and bag.identity.name == osd.member]
    where = f"; run this on {units[0]}" if units else ""
    raise CharmError(f"osd.{osd.number} is on {osd.member}, not on {world.view.name}{where}")


def _settings(world: World) -> Settings:
    if world.view.settings is None:
        raise Findings(world.view.problems)
    return world.view.settings


def _check_member(world: World) -> None:
    if "microceph" not in world.view.joined:
        raise CharmError(f"{world.view.name} is no member of a MicroCeph cluster (yet)")
