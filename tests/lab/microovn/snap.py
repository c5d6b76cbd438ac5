"""MicroOVN's entry for the snap catalog."""

from __future__ import annotations

from pathlib import Path

from lab.errors import LabError
from lab.snapd.catalog import PYTHON, Context, Daemon, Hooks, Release, Slot, Snap

TOOLS = (
    "ovn-nbctl", "ovn-sbctl", "ovn-appctl", "ovn-trace",
    "ovs-vsctl", "ovs-appctl", "ovs-ofctl", "ovs-dpctl",
)  # fmt: skip


def _install(_: Context) -> None:
    if Path("/run/openvswitch/db.sock").exists():
        raise LabError(
            "Open vSwitch runs on this host already (/run/openvswitch/db.sock): "
            "MicroOVN brings its own; remove the host's openvswitch-switch first"
        )


def _remove(_: Context) -> None:
    # Imported here: every `snap` command reads this module, few remove the snap.
    from lab.microovn import underlay

    underlay.remove_taps()


def _run(*args: str, **options: object) -> Daemon:
    return Daemon([PYTHON, "-m", *args], **options)  # pyright: ignore[reportArgumentType]


def _service(name: str) -> Daemon:
    # Not enabled: the daemon starts what this member is to run. Exit 0 is an orderly end.
    return _run(
        "lab.microovn.launch", name, enabled=False, restart="on-failure", stop_timeout=10.0
    )


SNAPS = [
    Snap(
        name="microovn",
        summary="Simplified OVN deployment",
        # Every track has the same real OVN, 23.03, behind it; the daemon is modelled on 24.03.
        channels={
            "22.03": Release("22.03.3+lab", "395"),
            "24.03": Release("24.03.2+lab", "721"),
            "26.03": Release("26.03.0+lab", "980"),
            "latest": Release("26.03.0+lab", "981"),
        },
        default="24.03",
        apps={
            "microovn": [PYTHON, "-m", "lab.microovn.cli"],
            **{tool: [PYTHON, "-m", "lab.microovn.tools", tool] for tool in TOOLS},
        },
        services={
            "switch": _service("switch"),
            "ovn-ovsdb-server-nb": _service("ovn-ovsdb-server-nb"),
            "ovn-ovsdb-server-sb": _service("ovn-ovsdb-server-sb"),
            "ovn-northd": _service("ovn-northd"),
            "chassis": _service("chassis"),
            "daemon": _run("lab.microovn.app", restart="always", stop_timeout=10.0),
        },
        env={"SNAP_COMMON": "$SNAP_COMMON"},
        slots={
            "ovn-certificates": Slot("content", "ovn-certificates", ["$SNAP_COMMON/data/pki"]),
            "ovn-env": Slot("content", "ovn-env", ["$SNAP_COMMON/data/env"]),
            "ovn-chassis": Slot(
                "content", "ovn-chassis", ["$SNAP_COMMON/run/switch", "$SNAP_COMMON/run/ovn"]
            ),
            "ovn-central-data": Slot("content", "ovn-central-data", ["$SNAP_COMMON/data/central"]),
        },
        autoconnect=[
            ("lxd:ovn-certificates", "microovn:ovn-certificates"),
            ("lxd:ovn-chassis", "microovn:ovn-chassis"),
        ],
        hooks=Hooks(install=_install, remove=_remove),
    )
]
