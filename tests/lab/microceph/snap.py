"""MicroCeph's entry for the snap catalog, and what it puts around LXD's daemon."""

from __future__ import annotations

from pathlib import Path

from lab.errors import LabError
from lab.microceph import paths, shims
from lab.snapd.catalog import PYTHON, Context, Daemon, Hooks, Plug, Release, Slot, Snap

# Ceph's own tools, each with MicroCeph's configuration.
TOOLS = ("ceph", "rbd", "rados", "radosgw-admin")


def _install(_: Context) -> None:
    if not Path("/usr/bin/ceph-osd").exists():
        raise LabError("the host has no Ceph: install the packages of tests/lab/packages/ceph.txt")
    paths.create()


def _service(name: str, *, timeout: float = 30.0) -> Daemon:
    # Not enabled: the daemon starts what this member is to run.
    return Daemon(
        [PYTHON, "-m", "lab.microceph.launch", name], enabled=False, stop_timeout=timeout
    )


SNAPS = [
    Snap(
        name="microceph",
        summary="Simple clustered Ceph deployment",
        # Every track has the same real Ceph, 16.2, behind it; the daemon is modelled on squid.
        channels={
            "quincy": Release("17.2.9+lab", "1290"),
            "reef": Release("18.2.4+lab", "1388"),
            "squid": Release("19.2.3+lab", "1471"),
            "tentacle": Release("20.2.0+lab", "1660"),
            "latest": Release("20.2.0+lab", "1661"),
        },
        default="squid",
        apps={
            "microceph": [PYTHON, "-m", "lab.microceph.cli"],
            **{tool: [f"/usr/bin/{tool}", "-c", str(paths.CEPH_CONF)] for tool in TOOLS},
        },
        services={
            "mon": _service("mon"),
            "mgr": _service("mgr"),
            "mds": _service("mds"),
            "osd": _service("osd"),
            "rgw": _service("rgw"),
            "daemon": Daemon(
                [PYTHON, "-m", "lab.microceph.app"], restart="always", stop_timeout=10.0
            ),
        },
        plugs={
            "block-devices": Plug("block-devices", system=True, auto=False),
            "dm-crypt": Plug("dm-crypt", system=True, auto=False),
            "hardware-observe": Plug("hardware-observe", system=True),
            "mount-observe": Plug("mount-observe", system=True),
            "network": Plug("network", system=True),
            "network-bind": Plug("network-bind", system=True),
        },
        slots={
            "ceph-conf": Slot("content", "ceph-conf", ["$SNAP_DATA/conf"]),
            "ceph-logs": Slot("content", "ceph-logs", ["$SNAP_COMMON/logs"]),
        },
        autoconnect=[("lxd:ceph-conf", "microceph:ceph-conf")],
        hooks=Hooks(install=_install),
        shims={"lxd": shims.for_lxd},
    )
]
