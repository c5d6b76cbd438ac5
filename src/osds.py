"""This machine's disks and Ceph: which ones are due to become OSDs, and who else has which.

What the machine has on its disks is looked at only while something may be due; once nothing
is, that is written down together with the configuration it was found for, and looked at again
only in hooks that may bring news.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import formation
from cloud import Task
from errors import CharmError, DaemonError
from record import EMPTY, Record, replace
from settings import Backing, CephStorage, Settings
from view import Presence, View

if TYPE_CHECKING:
    from machine.disks import Disk, Probe
    from machine.osds import Choice, Survey, Take, Wish
    from peers import Report
    from services.lxd import Lxd
    from services.microceph import Microceph, Osd

LOCAL = "the storage pool local"
NEWS = ("config_changed", "start", "upgrade_charm", "update_status", "osd_storage_attached")
_OPTIONS = ("ceph-storage", "ceph-wipe", "ceph-encrypt")


class Due(Record):
    """What one look found: disks to take, what is wrong with some, peers.Report's matches."""

    tasks: tuple[Task, ...] = ()
    findings: tuple[str, ...] = ()
    matches: Mapping[str, tuple[int, ...]] = EMPTY


class Released:
    """The disks of this machine that were taken out of Ceph on purpose, by their stable paths.

    The configuration may still name them; they are taken again when somebody asks for them.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "released-disks"

    def paths(self) -> frozenset[str]:
        """The paths."""
        try:
            return frozenset(json.loads(self._path.read_text()))
        except FileNotFoundError:
            return frozenset()

    def names(self, probe: Probe) -> frozenset[str | None]:
        """What the kernel calls them now."""
        return frozenset(probe.resolve(path) for path in self.paths())

    def add(self, path: str) -> None:
        """This one is about to be taken out."""
        self._write(self.paths() | {path})

    def discard(self, path: str, probe: Probe) -> None:
        """The disk that any path leads to may be taken again."""
        name = probe.resolve(path)
        rest = (known for known in self.paths() if path != known and probe.resolve(known) != name)
        if self.paths():
            self._write(frozenset(rest))

    def cancel(self, path: str) -> None:
        """It was not taken out."""
        self._write(self.paths() - {path})

    def _write(self, paths: frozenset[str]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.write_text(json.dumps(sorted(paths)))


class Osds:
    """The disks of this machine as Ceph's, for the length of one hook."""

    def __init__(
        self,
        driver: Microceph,
        lxd: Lxd,
        host: str,
        folder: Path,
        config: Mapping[str, object],
        storages: Callable[[str], Mapping[str, str]],
    ) -> None:
        self._driver = driver
        self._lxd = lxd
        self._host = host
        self._config = "\0".join(str(config.get(option, "")) for option in _OPTIONS)
        self._settled = folder / "settled-disks"
        self._storages = storages
        self._seen: tuple[Choice, tuple[Choice, ...]] | None = None
        self.released = Released(folder)

    # Looking

    def survey(self, settings: Settings) -> Survey:
        """Look at all disks; raises CharmError if a daemon does not tell of them."""
        from machine import osds
        from machine.diskprobe import HostProbe

        owners = dict.fromkeys(self._local_paths(settings), LOCAL)
        owners |= {osd.path: f"osd.{osd.number}" for osd in self.mine()}
        return osds.survey(self._resources(), HostProbe(), owners)

    def mine(self) -> tuple[Osd, ...]:
        """The OSDs of this machine."""
        if self._driver.look().presence is not Presence.MEMBER:
            return ()
        return tuple(osd for osd in self._driver.disks() if osd.member == self._host)

    def _resources(self) -> Mapping[str, object]:
        return self._lxd.get("/1.0/resources")["storage"]

    def _local_paths(self, settings: Settings) -> Iterator[str]:
        """Where the pool `local` is on this machine, or will be."""
        yield from self._storages("local").values()
        if settings.local.backing is Backing.DISK and settings.local.disks is not None:
            yield from settings.local.disks.get_all(self._host)
        try:
            pool = self._lxd.get(f"/1.0/storage-pools/local?target={self._host}")
        except DaemonError as fault:
            if fault.code == 0:
                raise
            return  # LXD has no such pool, or is no cluster yet
        yield from (str((pool.get("config") or {}).get(key, "")) for key in _SOURCES)

    def of_ceph(self, settings: Settings, disks: tuple[Disk, ...], probe: Probe) -> Iterator[Disk]:
        """The disks with Ceph as owner of what it has or is to have: the pool local's view."""
        from machine import selection

        owners = {probe.resolve(osd.path): f"osd.{osd.number}" for osd in self.mine()}
        for storage, location in self._storages("osd").items():
            owners[probe.resolve(location)] = f"Ceph (storage {storage})"
        if settings.ceph.disks is not None:
            for path in settings.ceph.disks.get_all(self._host):
                owners[probe.resolve(path)] = "Ceph (ceph-storage)"
        if settings.local.backing is Backing.FILTER:
            free = (disk for disk in disks if disk.id not in owners)
            for found in selection.matching(settings.ceph.filters, free):
                owners |= {disk.id: "Ceph (ceph-storage)" for disk in found}
        import dataclasses

        for disk in disks:
            yield dataclasses.replace(disk, owner=owners.get(disk.id) or disk.owner)

    # What is due

    def due(self, view: View, event: str, told: Report) -> Due:
        """What is to be done with this machine's disks; `told` is what the units know of it.

        Raises:
            CharmError: a daemon does not tell of them.
        """
        assert view.settings is not None
        if not self.need_a_look(view.settings, event):
            return Due(matches=view.mine.report.matches if view.settings.ceph.filters else EMPTY)
        choice, attached = self._look(view.settings)
        key = f"{zlib.crc32(self._config.encode()):08x}"
        wrong = self._miscounts(view, key, choice, told)
        findings = [finding for one in (*attached, choice) for finding in one.findings]
        takes = [take for one in attached for take in one.takes]
        if wrong is not None and not wrong:
            takes += choice.takes
        elif wrong and (choice.takes or view.draft.issuer == view.me):
            findings += wrong
        if wrong is not None and not takes and not findings:
            self._settle()
        tasks = (Task(f"disk {take.path} for Ceph", partial(self._take, take)) for take in takes)
        matches = {key: choice.matches} if choice.matches else {}
        return Due(tuple(tasks), tuple(findings), matches)

    def _miscounts(
        self, view: View, key: str, choice: Choice, told: Report
    ) -> tuple[str, ...] | None:
        """What is wrong with the number of disks over all units; None as long as it may change.

        Where too many may be found, what this unit counts must have been published in an
        earlier hook: of two units that find a disk at the same time, one at least then sees
        the other's.
        """
        from machine import selection

        assert view.settings is not None
        filters = view.settings.ceph.filters
        whole = [unit for unit in view.units if unit != view.me and formation.is_whole(view, unit)]
        others = [view.units[unit].report.matches.get(key) for unit in whole]
        known = [counts for counts in others if counts is not None]
        wrong = selection.miscounts(filters, (choice.matches, *known))
        limited = any(wanted.find_max for wanted in filters)
        if not limited and not any(wrong):
            return ()
        said = not limited or not others or told.matches.get(key) == choice.matches
        if formation.others_join(view) or len(known) < len(others) or not said:
            return None
        return tuple(f"ceph-storage: {finding}" for one in wrong for finding in one)

    def _look(self, settings: Settings) -> tuple[Choice, tuple[Choice, ...]]:
        """What the configuration chooses, and what each attached storage does."""
        if self._seen is None:
            from machine import osds
            from machine.encryption import unsupported

            seen = self.survey(settings)
            first, *rest = (
                osds.choose(wish, seen, unsupported) for wish in self.wishes(settings, seen)
            )
            self._seen = (first, tuple(rest))
        return self._seen

    def wishes(self, settings: Settings, seen: Survey) -> Iterator[Wish]:
        """What the configuration wishes for, then each attached storage by itself."""
        from machine.osds import Wish

        wanted = settings.ceph
        storages = self._attached(wanted)
        base = Wish(
            "ceph-storage",
            "ceph-wipe=true",
            wipe=wanted.wipe,
            encrypt=wanted.encrypt,
            released=self.released.names(seen.probe),
        )
        yield replace(
            base,
            paths=wanted.disks.get_all(self._host) if wanted.disks is not None else (),
            filters=wanted.filters,
            attached=tuple(seen.probe.resolve(location) for location in storages.values()),
        )
        for storage, location in storages.items():
            yield replace(base, option=f"storage {storage}", paths=(location,))

    def need_a_look(self, settings: Settings, event: str) -> bool:
        """Whether something may be due."""
        if self._is_settled() and event not in NEWS:
            return False
        wanted = settings.ceph
        if wanted.disks or wanted.filters or self._attached(wanted):
            return True
        self._settle()
        return False

    def _attached(self, wanted: CephStorage) -> Mapping[str, str]:
        """Where the attached storages are that are to be taken."""
        return {} if wanted.none else self._storages("osd")

    def _is_settled(self) -> bool:
        try:
            return self._settled.read_text() == self._config
        except FileNotFoundError:
            return False

    def _settle(self) -> None:
        if not self._is_settled():
            self._settled.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._settled.write_text(self._config)

    def stir(self) -> None:
        """Look at the disks again in the next hook, whichever it is."""
        self._settled.unlink(missing_ok=True)
        self._seen = None

    # Acting

    @contextlib.contextmanager
    def releasing(self, path: str) -> Iterator[None]:
        """A disk is taken out of Ceph, and stays out though it is wished for.

        That is written down first: a hook that dies in between must not lead to its return.
        """
        self.released.add(path)
        try:
            yield
        except CharmError:
            self.released.cancel(path)
            raise
        self.stir()

    def _take(self, take: Take, _lxd: Lxd) -> None:
        self._seen = None
        self._driver.add_disks([take.path], wipe=take.wipe, encrypt=take.encrypt)


_SOURCES = ("volatile.initial_source", "source")
