"""The services of snaps, as units of the machine's supervisor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.errors import LabError
from lab.host import service as supervisor
from lab.host.supervisor import Service
from lab.snapd import machine_facts
from lab.snapd.catalog import PYTHON, Daemon, Snap
from lab.snapd.state import Installed


def substitutions(name: str, revision: str) -> dict[str, str]:
    """The variables that a catalogue entry may use in argv and env."""
    return {
        "$SNAP_COMMON": f"/var/snap/{name}/common",
        "$SNAP_DATA": f"/var/snap/{name}/{revision}",
        "$SNAP_NAME": name,
        "$SNAP_REVISION": revision,
        "$PAYLOAD": machine_facts.load().payload,
        "$SNAP": f"/snap/{name}/{revision}",
    }


def replace(text: str, values: Mapping[str, str]) -> str:
    """Replace variables; longer names come first in ``values``."""
    for variable, value in values.items():
        text = text.replace(variable, value)
    return text


def command(argv: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return an argv with its variables replaced and the lab's interpreter put in."""
    words = [replace(word, values) for word in argv]
    return [machine_facts.load().python, *words[1:]] if words[0] == PYTHON else words


def environment(snap: Snap, revision: str, values: Mapping[str, str]) -> dict[str, str]:
    """The variables that every program of a snap has."""
    facts = machine_facts.load()
    given = {name: replace(value, values) for name, value in snap.env.items()}
    return {
        "SNAP": values["$SNAP"],
        "SNAP_NAME": snap.name,
        "SNAP_REVISION": revision,
        "SNAP_COMMON": values["$SNAP_COMMON"],
        "SNAP_DATA": values["$SNAP_DATA"],
        "PYTHONPATH": facts.pythonpath,
        "PYTHONDONTWRITEBYTECODE": "1",
        "LAB": facts.lab,
        "LAB_ROOT": facts.lab_root,
        **given,
    }


def unit(snap: Snap, name: str) -> str:
    """The supervisor's name of a service."""
    return f"snap.{snap.name}.{name}"


def register(snap: Snap, installed: Installed, *, start: bool) -> None:
    """Hand a snap's services to the supervisor, in order; start them if asked to."""
    values = substitutions(snap.name, installed.revision)
    known = supervisor.states()
    for name, daemon in snap.services.items():
        # A refresh leaves as it was what somebody has enabled or disabled since the install.
        enabled = bool(known.get(unit(snap, name), {}).get("enabled", daemon.enabled))
        env = environment(snap, installed.revision, values)
        env.update({k: replace(v, values) for k, v in daemon.env.items()})
        spec = Service(
            name=unit(snap, name),
            argv=command(daemon.argv, values),
            env=env,
            restart=daemon.restart,
            cwd="/",
            kill=daemon.kill,
            stop_timeout=daemon.stop_timeout,
            stop_signal=daemon.stop_signal,
            enabled=enabled,
        )
        supervisor.add(spec, start=start and enabled)


def unregister(snap: Snap) -> None:
    """Stop a snap's services, the last first, and forget them."""
    known = supervisor.states()
    for name, daemon in reversed(list(snap.services.items())):
        if unit(snap, name) in known:
            supervisor.act("remove", unit(snap, name), timeout=daemon.stop_timeout + 5)


def act(operation: str, snap: Snap, name: str, *, reload: bool = False) -> None:
    """Start, stop or restart a service."""
    daemon = snap.services[name]
    signal = daemon.reload_signal if reload else ""
    supervisor.act(operation, unit(snap, name), timeout=daemon.stop_timeout + 5, signal=signal)


def status(snap: Snap) -> dict[str, tuple[str, str]]:
    """Return startup (enabled, disabled) and state (active, inactive) of each service."""
    known = supervisor.states()
    found: dict[str, tuple[str, str]] = {}
    for name in snap.services:
        report: dict[str, Any] = known.get(unit(snap, name), {})
        startup = "enabled" if report.get("enabled") else "disabled"
        found[name] = (startup, "active" if report.get("state") == "active" else "inactive")
    return found


def select(snap: Snap, wanted: str) -> list[tuple[str, Daemon]]:
    """Return the services that ``lxd`` or ``lxd.daemon`` means.

    Raises:
        LabError: with snapd's words, if the snap has no such service.
    """
    _, _, name = wanted.partition(".")
    if name and name not in snap.services:
        raise LabError(f'snap "{snap.name}" has no service "{name}"')
    if not snap.services:
        raise LabError(f'snap "{snap.name}" has no services')
    return [(n, d) for n, d in snap.services.items() if name in ("", n)]
