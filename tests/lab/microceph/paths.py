"""Where MicroCeph keeps its things, below `/var/snap/microceph`."""

from __future__ import annotations

from pathlib import Path

SNAP = Path("/var/snap/microceph")
CONF = SNAP / "current" / "conf"
COMMON = SNAP / "common"
DATA = COMMON / "data"
LOGS = COMMON / "logs"
# Sockets and pid files go with the machine's power.
RUN = Path("/run/microceph")
CEPH_CONF = CONF / "ceph.conf"
ADMIN_KEYRING = CONF / "ceph.client.admin.keyring"
RGW_CONF = CONF / "radosgw.conf"
MGR_MODULES = DATA / "mgr-modules"


def service_data(service: str, member: str) -> Path:
    """The data directory of a mon, mgr or mds."""
    return DATA / service / f"ceph-{member}"


def osd_data(number: int) -> Path:
    """The data directory of an OSD."""
    return DATA / "osd" / f"ceph-{number}"


def osd_pid(number: int) -> Path:
    """The pid file of an OSD."""
    return RUN / f"osd.{number}.pid"


def create() -> None:
    """Make the directories."""
    for path in (CONF, DATA, LOGS, RUN, DATA / "osd"):
        path.mkdir(parents=True, exist_ok=True)
