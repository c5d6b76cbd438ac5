"""The store: which snaps there are, and how a module of the lab adds one.

A snap is a value of :class:`Snap`. A package of the lab that brings one has a module named
``snap`` (``lab/microovn/snap.py`` for example) with ``SNAPS``, a list of such values, built from
what is below; nothing else has to be done. The module is imported by the ``snap`` command
*inside* the machines, so it must be quick to import.

What an entry describes:

``channels``
    Track to :class:`Release` (``{"24.03": Release("24.03.2+lab", "701")}``). Every risk level of
    a track has the same release. ``default`` is the track of an install without ``--channel``.
``apps``
    Command name to argv. ``microovn`` becomes ``/snap/bin/microovn``; anything else becomes
    ``/snap/bin/<snap>.<app>``, written without the prefix here: ``{"ovn-nbctl": [...]}``.
    ``$SNAP``, ``$SNAP_DATA``, ``$SNAP_COMMON``, ``$SNAP_NAME`` and ``$PAYLOAD`` (a directory with
    copies of the host programs that machines do not see) are replaced in argv and env.
    ``PYTHON`` as the first word is the lab's interpreter, with the lab importable.
``aliases``
    Alias to app, as the store grants them: ``{"lxc": "lxc"}`` makes ``/snap/bin/lxc``.
``services``
    Service name to :class:`Daemon`: run by the machine's supervisor as ``snap.<snap>.<service>``,
    started at install and at each power-on, in the order given. Logs are in
    ``/var/log/lab/snap.<snap>.<service>.log``.
``plugs``, ``slots``
    Name to :class:`Plug` and :class:`Slot`. A plug with ``system=True`` goes to the system's own
    slot. For ``content`` interfaces a connection links each directory that the slot offers into
    the plug's target directory under its own last name; both by their ``current`` paths.
``hooks``
    ``install``, ``configure``, ``refresh``, ``remove`` are called with a :class:`Context`;
    ``connect`` and ``disconnect`` with a Context and a :class:`Connection`, on both sides.
    An install hook that raises ``LabError`` fails the install, which is undone. ``remove`` runs
    after the services have stopped and before the directories are deleted.
``autoconnect``
    Pairs ``("lxd:ceph-conf", "microceph:ceph-conf")``, made when the second of the two snaps is
    installed, as the store's declarations do. Plugs of the system are connected at install
    unless their :class:`Plug` says ``auto=False``.
``shims``
    What the lab needs around *another* snap's daemon because the host's kernel lacks something:
    snap name to a function that returns a :class:`Shim`. It is called inside the machine each
    time that daemon starts, whether the contributing snap is installed or not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lab
from lab.errors import LabError

RISKS = ("stable", "candidate", "beta", "edge")
PYTHON = "PYTHON"


@dataclass(frozen=True)
class Release:
    """What a channel holds."""

    version: str
    revision: str


@dataclass(frozen=True)
class Daemon:
    """A service of a snap.

    ``stop_signal`` asks it to stop, ``reload_signal`` for a restart that keeps its work going
    (``snap restart --reload``, refresh). ``kill`` is ``group`` or ``process``. ``stop_timeout``
    is in seconds. A service that is not ``enabled`` is not started by the install.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    restart: str = "on-failure"
    kill: str = "group"
    stop_timeout: float = 30.0
    stop_signal: str = "SIGTERM"
    reload_signal: str = "SIGTERM"
    enabled: bool = True


@dataclass(frozen=True)
class Plug:
    """A plug; ``target`` is where the content of a ``content`` interface appears."""

    interface: str
    system: bool = False
    auto: bool = True
    content: str = ""
    target: str = ""


@dataclass(frozen=True)
class Slot:
    """A slot; ``offers`` are the directories of a ``content`` interface."""

    interface: str
    content: str = ""
    offers: Sequence[str] = ()


@dataclass(frozen=True)
class Connection:
    """A plug of one snap connected to a slot of another (or of the system: ``slot_snap`` '')."""

    plug_snap: str
    plug: str
    slot_snap: str
    slot: str


@dataclass(frozen=True)
class Context:
    """Where a hook works. Paths are the machine's: hooks run inside it, as root."""

    snap: str
    revision: str
    options: Mapping[str, object]

    @property
    def data(self) -> Path:
        """``$SNAP_DATA``, by its ``current`` path."""
        return Path("/var/snap", self.snap, "current")

    @property
    def common(self) -> Path:
        """``$SNAP_COMMON``."""
        return Path("/var/snap", self.snap, "common")


Hook = Callable[[Context], None]
ConnectionHook = Callable[[Context, Connection], None]


def nothing(_context: Context) -> None:
    """A hook that does nothing."""


def nothing_connected(_context: Context, _connection: Connection) -> None:
    """A connection hook that does nothing."""


@dataclass(frozen=True)
class Hooks:
    """A snap's hooks."""

    install: Hook = nothing
    configure: Hook = nothing
    refresh: Hook = nothing
    remove: Hook = nothing
    connect: ConnectionHook = nothing_connected
    disconnect: ConnectionHook = nothing_connected


@dataclass(frozen=True)
class Shim:
    """Something around a daemon: directories in front of PATH, variables, a prefix to argv."""

    path: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    prefix: Sequence[str] = ()


@dataclass(frozen=True)
class Snap:
    """A snap of the store."""

    name: str
    summary: str
    channels: Mapping[str, Release]
    default: str
    apps: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    services: Mapping[str, Daemon] = field(default_factory=dict[str, Daemon])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    plugs: Mapping[str, Plug] = field(default_factory=dict[str, Plug])
    slots: Mapping[str, Slot] = field(default_factory=dict[str, Slot])
    hooks: Hooks = field(default_factory=Hooks)
    autoconnect: Sequence[tuple[str, str]] = ()
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    shims: Mapping[str, Callable[[], Shim]] = field(default_factory=dict[str, Callable[[], Shim]])
    publisher: str = "canonical"

    def release(self, channel: str) -> tuple[str, Release]:
        """Return the full channel name (``5.21/stable``) and what is in it.

        Raises:
            LabError: with snapd's words, if the snap has no such channel.
        """
        full = full_channel(self, channel)
        track = full.split("/")[0]
        if track == "latest" and "latest" not in self.channels:
            track = self.default
        if track not in self.channels:
            raise LabError(
                f'snap "{self.name}" is not available on {full} but other tracks exist.\n\n'
                "       Please be mindful that different tracks may include different features.\n"
                f"       Get more information with 'snap info {self.name}'."
            )
        return full, self.channels[track]


def full_channel(snap: Snap, channel: str) -> str:
    """Return ``track/risk``, from a track, a risk, both, or nothing.

    Raises:
        LabError: it is none of these.
    """
    parts = [p for p in channel.split("/") if p]
    if not parts:
        return f"{snap.default}/stable"
    if len(parts) == 1:
        return f"latest/{parts[0]}" if parts[0] in RISKS else f"{parts[0]}/stable"
    if len(parts) > 2 or parts[1] not in RISKS:
        raise LabError(
            f'cannot use channel "{channel}": the lab knows track, risk and track/risk only'
        )
    return channel


def store() -> dict[str, Snap]:
    """Return all snaps: of every module ``lab.<package>.snap`` that is there."""
    found: dict[str, Snap] = {}
    for path in sorted(Path(lab.__file__).parent.glob("*/snap.py")):
        module = importlib.import_module(f"lab.{path.parent.name}.snap")
        for snap in module.SNAPS:
            found[snap.name] = snap
    return found


def find(name: str) -> Snap:
    """Return a snap of the store.

    Raises:
        LabError: with snapd's words, if there is none of that name.
    """
    snaps = store()
    if name not in snaps:
        raise LabError(f'snap "{name}" not found')
    return snaps[name]
