"""What the tests of Ceph share: disks, health, pools, and waiting for them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import jubilant

from integration import cloud
from integration.cloud import APP

WITH_CEPH: dict[str, bool | int | float | str] = {"microceph-channel": "squid/stable"}
# A filter for one disk of each machine; on a real controller the variable has one.
DISKS = os.environ.get("CEPH_DISKS", "device_id == *-osd0")
OSD_POOLS = ("lxd_remote", "lxd_cephfs_meta", "lxd_cephfs_data")


def told(juju: jubilant.Juju, unit: str) -> dict[str, Any]:
    """Ceph as the charm tells it."""
    return cloud.status(juju, unit)["ceph"]


def ask(juju: jubilant.Juju, unit: str, command: str) -> Any:
    """What a `ceph` command says."""
    return json.loads(cloud.sh(juju, unit, f"microceph.ceph {command} --format json"))


def copies(juju: jubilant.Juju, unit: str) -> set[int]:
    """How many copies the charm's pools keep."""
    pools = told(juju, unit)["pools"]
    return {pools[name]["copies"] for name in OSD_POOLS}


def free_disk(juju: jubilant.Juju, unit: str) -> str:
    """The path of the first disk of the unit's machine that MicroCeph would take."""
    listed = json.loads(cloud.sh(juju, unit, "microceph disk list --json"))
    return listed["AvailableDisks"][-1]["Path"]


def add_disk(juju: jubilant.Juju, unit: str) -> str:
    """Give a disk of the unit's machine to Ceph by hand; its path."""
    path = free_disk(juju, unit)
    cloud.sh(juju, unit, f"microceph disk add {path}")
    return path


def pool(juju: jubilant.Juju, unit: str, name: str, target: str = "") -> dict[str, Any]:
    """A storage pool of LXD, or a member's part of it."""
    query = f"?target={target}" if target else ""
    return json.loads(cloud.lxc(juju, unit, f"query /1.0/storage-pools/{name}{query}"))


def wait_pools(juju: jubilant.Juju, unit: str) -> None:
    """Wait until both of the charm's pools are there."""

    def there() -> bool:
        pools = cloud.status(juju, unit)["storage-pools"]
        return all(
            pools.get(name, {}).get("status") == "Created" for name in ("remote", "remote-fs")
        )

    wait(there, "remote and remote-fs are not there")


def wait_healthy(juju: jubilant.Juju, unit: str, osds: int, timeout: float = 120) -> None:
    """Wait until Ceph says that all is well, with so many disks in use."""

    def healthy() -> bool:
        health = told(juju, unit).get("health", {})
        return health.get("status") == "HEALTH_OK" and health["up"] == osds == health["inside"]

    wait(healthy, f"Ceph is not well with {osds} disks", timeout)


def wait_message(juju: jubilant.Juju, text: str, *, there: bool = True) -> None:
    """Wait until the text is in (or gone from) some unit's message."""

    def shown() -> bool:
        units = juju.status().apps[APP].units.values()
        return any(text in unit.workload_status.message for unit in units) == there

    wait(shown, f"{text!r} is {'not' if there else 'still'} in the status")


def wait(done: Callable[[], bool], otherwise: str, timeout: float = 120) -> None:
    """Wait until it is done; AssertionError `otherwise`.

    A command that fails is one that says no: a database whose leader has gone refuses to answer.
    """
    deadline = time.monotonic() + timeout
    while not _says_yes(done):
        assert time.monotonic() < deadline, f"{otherwise} after {timeout:.0f} s"
        time.sleep(0.5)


def _says_yes(done: Callable[[], bool]) -> bool:
    try:
        return done()
    except jubilant.TaskError:
        return False
