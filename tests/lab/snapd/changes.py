"""Installing, refreshing and removing snaps."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

import yaml

from lab.errors import LabError
from lab.snapd import catalog, interfaces, machine_facts, services, state
from lab.snapd.catalog import Release, Snap
from lab.snapd.state import Installed

MOUNTS = Path("/snap")
DATA = Path("/var/snap")


def install(name: str, channel: str, cohort: str, revision: str) -> Installed | None:
    """Install a snap; return None if it is there already.

    Raises:
        LabError: with snapd's words; nothing is left behind.
    """
    snap = catalog.find(name)
    full, release = snap.release(channel)
    _check_revision(snap, release, revision)
    with state.changing(name, "install-snap"):
        if name in state.load().snaps:
            return None
        time.sleep(machine_facts.load().snap_delay)
        installed = Installed(name, release.version, release.revision, full, cohort)
        try:
            _unpack(snap, installed)
            snap.hooks.install(interfaces.context(installed))
            with state.change() as current:
                current.snaps[name] = installed
            interfaces.autoconnect(snap)
            snap.hooks.configure(interfaces.context(installed))
            services.register(snap, installed, start=True)
        except LabError as error:
            with suppress(LabError):
                _erase(snap, installed)
            raise LabError(
                f"cannot perform the following tasks:\n- Run install hook of {name!r} snap "
                f"({error})"
            ) from error
    return installed


def _check_revision(snap: Snap, release: Release, revision: str) -> None:
    if revision and revision != release.revision:
        raise LabError(
            f'snap "{snap.name}" not found at least at revision {revision}.\n'
            f"       Please use 'snap info {snap.name}' to list available releases."
        )


def _unpack(snap: Snap, installed: Installed) -> None:
    """Make the snap's directories and its launchers."""
    mounted = MOUNTS / snap.name / installed.revision
    (mounted / "meta").mkdir(parents=True, exist_ok=True)
    document = {
        "name": snap.name,
        "version": installed.version,
        "summary": snap.summary,
        "apps": {name: {} for name in {**snap.apps, **snap.services}},
    }
    (mounted / "meta/snap.yaml").write_text(yaml.safe_dump(document))
    data = DATA / snap.name / installed.revision
    data.mkdir(parents=True, exist_ok=True)
    (DATA / snap.name / "common").mkdir(exist_ok=True)
    for base in (MOUNTS, DATA):
        link = base / snap.name / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(installed.revision)
    _write_launchers(snap, installed)


def _launcher(snap: str, app: str) -> Path:
    return MOUNTS / "bin" / (app if app == snap else f"{snap}.{app}")


def _write_launchers(snap: Snap, installed: Installed) -> None:
    values = services.substitutions(snap.name, installed.revision)
    env = services.environment(snap, installed.revision, values)
    (MOUNTS / "bin").mkdir(exist_ok=True)
    for app, argv in snap.apps.items():
        words = services.command(argv, values)
        keep = {**env} if argv[0] == catalog.PYTHON else {**env, "PYTHONPATH": ""}
        assign = " ".join(f"{name}='{value}'" for name, value in keep.items() if value)
        command = " ".join(f"'{word}'" for word in words)
        path = _launcher(snap.name, app)
        path.write_text(f'#!/bin/sh\nexec env {assign} {command} "$@"\n')
        path.chmod(0o755)
    for alias, app in snap.aliases.items():
        link = MOUNTS / "bin" / alias
        link.unlink(missing_ok=True)
        link.symlink_to(_launcher(snap.name, app).name)


def _remove_launchers(snap: Snap) -> None:
    for alias in snap.aliases:
        (MOUNTS / "bin" / alias).unlink(missing_ok=True)
    for app in snap.apps:
        _launcher(snap.name, app).unlink(missing_ok=True)


def refresh(name: str, channel: str, cohort: str, leave_cohort: bool) -> Installed | None:
    """Refresh a snap; return None if the channel holds what is installed already.

    Raises:
        LabError: with snapd's words.
    """
    old = state.load().get(name)
    snap = catalog.find(name)
    wanted = channel or old.channel
    if "/" not in wanted and wanted in catalog.RISKS:
        wanted = f"{old.channel.split('/')[0]}/{wanted}"
    full, release = snap.release(wanted)
    with state.changing(name, "refresh-snap"):
        new = Installed(**vars(state.load().get(name)))
        new.channel, new.cohort = full, "" if leave_cohort else cohort or new.cohort
        switched = new.channel != old.channel
        if release.revision == old.revision:
            with state.change() as current:
                current.snaps[name] = new
            return new if switched else None
        time.sleep(machine_facts.load().snap_delay)
        new.version, new.revision = release.version, release.revision
        for service in reversed(list(snap.services)):
            services.act("stop", snap, service, reload=True)
        shutil.copytree(
            DATA / name / old.revision,
            DATA / name / new.revision,
            symlinks=True,
            dirs_exist_ok=True,
        )
        _unpack(snap, new)
        with state.change() as current:
            current.snaps[name] = new
        snap.hooks.refresh(interfaces.context(new))
        services.register(snap, new, start=True)
    return new


def remove(name: str) -> bool:
    """Remove a snap and its data; return False if it is not installed.

    Raises:
        LabError: something of it cannot be removed.
    """
    installed = state.load().snaps.get(name)
    if installed is None:
        return False
    with state.changing(name, "remove-snap"):
        _erase(catalog.find(name), installed)
    return True


def _erase(snap: Snap, installed: Installed) -> None:
    services.unregister(snap)
    interfaces.disconnect_all(snap.name)
    snap.hooks.remove(interfaces.context(installed))
    with state.change() as current:
        current.snaps.pop(snap.name, None)
    _remove_launchers(snap)
    for base in (MOUNTS, DATA):
        try:
            shutil.rmtree(base / snap.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LabError(f"cannot remove snap {snap.name!r}: {error}") from error


def hold(names: list[str], until: str) -> None:
    """Hold general refreshes of snaps.

    Raises:
        LabError: with snapd's words, if one is not installed.
    """
    with state.change() as current:
        for name in names or list(current.snaps):
            current.get(name).held = until


def set_enabled(name: str, enabled: bool) -> None:
    """Enable or disable a whole snap: its services and its ``current`` links.

    Raises:
        LabError: with snapd's words, if it is not installed or already so.
    """
    installed = state.load().get(name)
    snap = catalog.find(name)
    if installed.enabled == enabled:
        raise LabError(f'snap "{name}" already {"enabled" if enabled else "disabled"}')
    if enabled:
        _unpack(snap, installed)
        services.register(snap, installed, start=True)
    else:
        services.unregister(snap)
        (MOUNTS / name / "current").unlink(missing_ok=True)
        _remove_launchers(snap)
    with state.change() as current:
        current.get(name).enabled = enabled
