"""Which disks of one machine become OSDs of Ceph: what is wished for, against what is there.

Nothing here changes anything. A disk that is an OSD already is not chosen again, so that the
same wish can be looked at in every hook.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping

from machine import disks as machine_disks
from machine import selection
from machine.disks import Disk, Probe
from machine.selection import DiskFilter
from record import Record

OSD = "osd."


class Survey(Record):
    """All disks of this machine; `owners` has those of others that LXD does not list, too."""

    disks: tuple[Disk, ...]
    probe: Probe
    owners: Mapping[str, str]

    def find(self, text: str) -> Disk:
        """The disk that a path means; raises machine.disks.DiskNotFoundError."""
        disk = machine_disks.find(text, self.disks, self.probe)
        owner = self.owners.get(disk.id, "")
        return dataclasses.replace(disk, owner=owner) if owner != disk.owner else disk


def survey(resources: Mapping[str, object], probe: Probe, owners: Mapping[str, str]) -> Survey:
    """Look at all disks that LXD lists; `owners` are machine.disks.inventory's, by path."""
    disks = machine_disks.inventory(resources, probe, owners)
    named = ((probe.resolve(path), owner) for path, owner in owners.items())
    return Survey(disks, probe, {name: owner for name, owner in named if name is not None})


class Take(Record):
    """A disk to be made an OSD."""

    path: str
    size: int
    wipe: bool = False
    encrypt: bool = False


class Wish(Record):
    """What the user wants to be OSDs of one machine.

    `paths` name disks, `filters` find them. `option` is what they were given in, `wiping` what
    allows to erase a disk. `wipe` and `encrypt` are for the paths. Disks that are `attached`
    are others' to wish for; what was taken out of Ceph on purpose, `released`, is not taken
    (both by the kernel's names).
    """

    option: str
    wiping: str
    paths: tuple[str, ...] = ()
    filters: tuple[DiskFilter, ...] = ()
    attached: Collection[str | None] = ()
    wipe: bool = False
    encrypt: bool = False
    released: Collection[str | None] = ()


class Choice(Record):
    """The disks to take; or, if there are `findings`, why none is taken.

    `matches` says how many disks of this machine each filter finds, whatever has them now.
    """

    takes: tuple[Take, ...] = ()
    findings: tuple[str, ...] = ()
    matches: tuple[int, ...] = ()


def choose(wish: Wish, seen: Survey, unencryptable: Callable[[], Iterable[str]]) -> Choice:
    """Find the disks and check each; `unencryptable` says why this machine cannot encrypt."""
    choosing = _Choosing(wish)
    _named(choosing, wish, seen)
    free = [disk for disk in seen.disks if disk.id not in wish.attached and _may_be_found(disk)]
    found = selection.matching(wish.filters, free)
    for wanted, matches in zip(wish.filters, found, strict=True):
        for disk in matches:
            choosing.take(disk, wanted.wipe, wanted.encrypt)
    if any(take.encrypt for take in choosing.takes):
        choosing.findings += unencryptable()
    findings = tuple(f"{wish.option}: {finding}" for finding in choosing.findings)
    takes = () if findings else tuple(choosing.takes)
    return Choice(takes, findings, tuple(len(matches) for matches in found))


def _may_be_found(disk: Disk) -> bool:
    """Not what the pool `local` has: it was there first."""
    return not disk.owner or disk.owner.startswith(OSD)


def _named(choosing: _Choosing, wish: Wish, seen: Survey) -> None:
    paths: dict[str, str] = {}
    for path in wish.paths:
        try:
            disk = seen.find(path)
        except machine_disks.DiskNotFoundError as fault:
            choosing.findings.append(str(fault))
            continue
        if disk.id in paths:
            choosing.findings.append(f"{paths[disk.id]} and {path} are the same disk")
        elif disk.id not in wish.attached:
            paths[disk.id] = path
            choosing.take(disk, wish.wipe, wish.encrypt)


class _Choosing:
    """The disks that were chosen so far, and what was found wrong."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self.takes: list[Take] = []
        self.findings: list[str] = []

    def take(self, disk: Disk, wipe: bool, encrypt: bool) -> None:
        """Take a disk, or say why not; nothing if it is an OSD or was taken out of Ceph."""
        if disk.owner.startswith(OSD) or disk.id in self._wish.released:
            return
        reasons = machine_disks.unfit(disk, wipe=wipe, option=self._wish.wiping)
        self.findings += [f"{disk.path} {reason}" for reason in reasons]
        if not reasons:
            self.takes.append(Take(disk.path, disk.size, wipe, encrypt))
