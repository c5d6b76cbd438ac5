"""The catalogue entry of LXD.

Three tracks can be installed, and all three bring the LXD of the host's distribution, since the
lab has no other: ``snap list`` says so with that version. The tracks have different revisions,
so that refreshing from one to another is a refresh with all its steps.
"""

from __future__ import annotations

import shutil
import subprocess

from lab.errors import LabError
from lab.lxd import wiring
from lab.snapd.catalog import PYTHON, Connection, Context, Daemon, Hooks, Plug, Release, Snap

VERSION = "5.0.2"
REVISIONS = {"5.0": "30500", "5.21": "30521", "6": "30600", "latest": "30600"}
CLIENT_ENV = {"LXD_DIR": "$SNAP_COMMON/lxd", "LXD_CONF": "/root/snap/lxd/common/config"}


def _install(context: Context) -> None:
    if not wiring.binary("lxd").exists():
        raise LabError("the host has no LXD: install the packages lxd, lxd-client and lxcfs on it")
    for name in ("lxd", "lxd/logs", "config"):
        (context.common / name).mkdir(parents=True, exist_ok=True)
    (context.common / "lxd").chmod(0o711)


def _remove(context: Context) -> None:
    """Let go of every mount, or the directories could not be deleted."""
    wiring.stop_lxcfs()
    with open("/proc/self/mounts", encoding="utf-8") as table:
        targets = [line.split()[1] for line in table]
    for target in reversed(targets):
        if target.startswith(str(context.common)):
            subprocess.run(["umount", "-l", target], check=False, capture_output=True)
    for link in wiring.LINKS:
        if link.is_symlink():
            link.unlink()
    shutil.rmtree("/root/snap/lxd", ignore_errors=True)


def _connected(_context: Context, connection: Connection) -> None:
    if connection.plug_snap == "lxd":
        wiring.link_all()


SNAPS = [
    Snap(
        name="lxd",
        summary="LXD - container and VM manager",
        channels={track: Release(VERSION, revision) for track, revision in REVISIONS.items()},
        default="5.21",
        env=CLIENT_ENV,
        apps={
            "lxd": ["$PAYLOAD/lxd"],
            "lxc": ["$PAYLOAD/lxc"],
        },
        aliases={"lxc": "lxc"},
        services={
            "daemon": Daemon(
                [PYTHON, "-m", "lab.lxd.wiring"],
                # As the snap does: stopping shuts the instances down, reloading keeps them.
                stop_signal="SIGPWR",
                reload_signal="SIGTERM",
                kill="process",
                stop_timeout=600,
            )
        },
        plugs={
            "ceph-conf": Plug("content", content="ceph-conf", target="$SNAP_DATA/microceph"),
            "ovn-certificates": Plug(
                "content", content="ovn-certificates", target="$SNAP_DATA/microovn/certificates"
            ),
            "ovn-chassis": Plug(
                "content", content="ovn-chassis", target="$SNAP_DATA/microovn/chassis"
            ),
            "lxd-support": Plug("lxd-support", system=True),
            "network": Plug("network", system=True),
            "network-bind": Plug("network-bind", system=True),
            "system-observe": Plug("system-observe", system=True),
        },
        hooks=Hooks(install=_install, remove=_remove, connect=_connected, disconnect=_connected),
        autoconnect=[
            ("lxd:ceph-conf", "microceph:ceph-conf"),
            ("lxd:ovn-certificates", "microovn:ovn-certificates"),
            ("lxd:ovn-chassis", "microovn:ovn-chassis"),
        ],
    )
]
