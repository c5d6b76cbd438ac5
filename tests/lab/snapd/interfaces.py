"""Plugs, slots and connections; the directories that a content connection brings along."""

from __future__ import annotations

from pathlib import Path

from lab.errors import LabError
from lab.snapd import catalog, state
from lab.snapd.catalog import Connection, Context, Plug, Slot, Snap


def context(installed: state.Installed) -> Context:
    """Return the context in which a snap's hooks run."""
    return Context(installed.name, installed.revision, installed.options)


def resolve(plug_ref: str, slot_ref: str) -> Connection:
    """Find out what ``snap connect PLUG [SLOT]`` means.

    Raises:
        LabError: with snapd's words, if there is no such plug or slot or they do not fit.
    """
    plug_snap, _, plug_name = plug_ref.partition(":")
    current = state.load()
    current.get(plug_snap)
    plug = _plug(plug_snap, plug_name)
    slot_snap, _, slot_name = slot_ref.partition(":")
    if not slot_ref:
        slot_snap, slot_name = _candidate(current, plug_snap, plug_name, plug)
    if slot_snap in ("", "system", "core", "snapd"):
        if not plug.system:
            raise LabError(f'snap "snapd" has no slot named "{slot_name}"')
        return Connection(plug_snap, plug_name, "", plug.interface)
    current.get(slot_snap)
    slot = _slot(slot_snap, slot_name or plug_name)
    if slot.interface != plug.interface or slot.content != plug.content:
        raise LabError(
            f'cannot connect {plug_snap}:{plug_name} ("{plug.interface}" interface) to '
            f'{slot_snap}:{slot_name} ("{slot.interface}" interface)'
        )
    return Connection(plug_snap, plug_name, slot_snap, slot_name or plug_name)


def _candidate(
    current: state.State, plug_snap: str, plug_name: str, plug: Plug
) -> tuple[str, str]:
    if plug.system:
        return "", plug.interface
    found = [
        (snap, name)
        for snap in current.snaps
        for name, slot in catalog.find(snap).slots.items()
        if (slot.interface, slot.content) == (plug.interface, plug.content)
    ]
    if len(found) != 1:
        words = "no slot" if not found else "several slots"
        raise LabError(f"cannot connect {plug_snap}:{plug_name}: {words} to choose from")
    return found[0]


def _plug(snap: str, name: str) -> Plug:
    plugs = catalog.find(snap).plugs
    if name not in plugs:
        raise LabError(f'snap "{snap}" has no plug named "{name}"')
    return plugs[name]


def _slot(snap: str, name: str) -> Slot:
    slots = catalog.find(snap).slots
    if name not in slots:
        raise LabError(f'snap "{snap}" has no slot named "{name}"')
    return slots[name]


def connect(connection: Connection, *, manual: bool) -> None:
    """Make a connection: the record, the directories, then the hooks of both sides."""
    with state.change() as current:
        if connection in current.connections:
            return
        current.connections.append(connection)
        if manual:
            current.manual.append(f"{connection.plug_snap}:{connection.plug}")
    _link(connection, connected=True)
    _call_hooks(connection, connected=True)


def disconnect(connection: Connection) -> None:
    """Undo a connection.

    Raises:
        LabError: with snapd's words, if it does not exist.
    """
    with state.change() as current:
        if connection not in current.connections:
            raise LabError(
                f"cannot disconnect {connection.plug_snap}:{connection.plug} from "
                f"{connection.slot_snap}:{connection.slot}, it is not connected"
            )
        current.connections.remove(connection)
    _link(connection, connected=False)
    _call_hooks(connection, connected=False)


def _link(connection: Connection, *, connected: bool) -> None:
    """Link the slot's directories into the plug's target, or remove those links."""
    plug = catalog.find(connection.plug_snap).plugs[connection.plug]
    if not plug.target or not connection.slot_snap:
        return
    slot = catalog.find(connection.slot_snap).slots[connection.slot]
    target = Path(_current(plug.target, connection.plug_snap))
    for offer in slot.offers:
        source = Path(_current(offer, connection.slot_snap))
        link = target / source.name
        if link.is_symlink():
            link.unlink()
        if connected:
            target.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)


def _current(path: str, snap: str) -> str:
    path = path.replace("$SNAP_DATA", f"/var/snap/{snap}/current")
    return path.replace("$SNAP_COMMON", f"/var/snap/{snap}/common")


def _call_hooks(connection: Connection, *, connected: bool) -> None:
    current = state.load()
    for name in {connection.plug_snap, connection.slot_snap} & current.snaps.keys():
        hooks = catalog.find(name).hooks
        hook = hooks.connect if connected else hooks.disconnect
        hook(context(current.snaps[name]), connection)


def autoconnect(snap: Snap) -> None:
    """Make the connections that the store's declarations allow for a snap just installed."""
    for name, plug in snap.plugs.items():
        if plug.system and plug.auto:
            connect(Connection(snap.name, name, "", plug.interface), manual=False)
    installed = state.load().snaps
    for entry in catalog.store().values():
        for plug_ref, slot_ref in entry.autoconnect:
            plug_snap, slot_snap = plug_ref.split(":")[0], slot_ref.split(":")[0]
            present = plug_snap in installed and slot_snap in installed
            if present and snap.name in (plug_snap, slot_snap):
                connect(resolve(plug_ref, slot_ref), manual=False)


def disconnect_all(name: str) -> None:
    """Undo all connections of a snap that is about to go."""
    for connection in state.load().connections:
        if name in (connection.plug_snap, connection.slot_snap):
            disconnect(connection)
