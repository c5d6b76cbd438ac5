"""What the tests of membership share: data that must live on, and whether all daemons agree."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jubilant

from integration import ceph, cloud, ovn
from integration.cloud import APP

CEPH: dict[str, str] = {"microceph-channel": "squid/stable", "ceph-storage": "id == sdb"}
PATIENCE = 300.0  # seconds for the daemons to agree; the charm looks again every few seconds


def launch(juju: jubilant.Juju, unit: str, name: str, member: str) -> None:
    """A container with something in it, on Ceph."""
    cloud.lxc(juju, unit, f"launch {ovn.IMAGE} {name} --target {member} --quiet")
    ovn.inside(juju, unit, name, f"echo data of {name} >/root/precious; sync")


def launch_on_each(juju: jubilant.Juju, image: Path, names: Sequence[str]) -> None:
    """A container on each member, as soon as there is a pool of Ceph's for it."""
    first = cloud.units(juju)[0]
    ceph.wait_pools(juju, first)
    ovn.import_image(juju, first, str(image))
    for name, unit in zip(names, cloud.units(juju), strict=True):
        launch(juju, first, name, cloud.hostname(juju, unit))


def check_data(juju: jubilant.Juju, unit: str, *names: str) -> None:
    """The containers run, and what was in them is in them still."""
    states = {one["name"]: one["status"] for one in cloud.lxc_json(juju, unit, "list")}
    assert states == dict.fromkeys(names, "Running")
    for name in names:
        assert ovn.inside(juju, unit, name, "cat /root/precious").strip() == f"data of {name}"


def agree(juju: jubilant.Juju, *, healthy: bool = True) -> None:
    """LXD, Ceph and OVN have the same members, those of Juju's units, and nothing else is left.

    The last of it may be put right by the next update-status only.
    """
    units = cloud.units(juju)
    names = sorted(cloud.hostname(juju, unit) for unit in units)
    wanted = _wanted(names, healthy)
    deadline = time.monotonic() + PATIENCE
    while (found := _told(juju, units[0])) != wanted:
        assert time.monotonic() < deadline, {
            key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]
        }
        time.sleep(1)


def _wanted(names: list[str], healthy: bool) -> dict[str, Any]:
    few = min(3, len(names))
    return {
        "lxd": dict.fromkeys(names, "Online"),
        "database": len(names),
        "trusted": names,
        "ceph": names,
        "ovn": names,
        "chassis": names,
        "mons": few,
        "raft": [few, few],
        "northbound": few,
        "strangers": [],
        "crush hosts": names,
        "health": healthy,
        "tokens": 0,
    }


def _told(juju: jubilant.Juju, unit: str) -> dict[str, Any]:
    told = cloud.status(juju, unit)
    services = told["services"]
    ceph = json.loads(cloud.sh(juju, unit, "microceph.ceph status --format json"))
    tree = json.loads(cloud.sh(juju, unit, "microceph.ceph osd tree --format json"))
    auth = json.loads(cloud.sh(juju, unit, "microceph.ceph auth ls --format json"))["auth_dump"]
    names = [member["name"] for member in services["microceph"]["members"]]
    keys = [one["entity"] for one in auth if one["entity"].startswith(("mgr.", "mds."))]
    tokens = cloud.lxc_json(juju, unit, "operation list")
    key = cloud.lxc(juju, unit, "config get network.ovn.northbound_connection")
    query = "SELECT count(*) AS servers FROM raft_nodes"
    return {
        "lxd": cloud.members(juju, unit),
        "database": int(*re.findall(r"\d+", cloud.sh(juju, unit, f"lxd sql local '{query}'"))),
        "trusted": sorted(one["name"] for one in cloud.lxc_json(juju, unit, "config trust list")),
        "ceph": sorted(names),
        "ovn": sorted(member["name"] for member in services["microovn"]["members"]),
        "chassis": sorted(told["ovn"].get("chassis", ())),
        "mons": len(ceph["quorum_names"]),
        "raft": [len(told["ovn"].get(f"{name}-servers", ())) for name in ("nb", "sb")],
        "northbound": key.count("ssl:"),
        "strangers": [key for key in keys if key.partition(".")[2] not in names],
        "crush hosts": sorted(n["name"] for n in tree["nodes"] if n["type"] == "host"),
        "health": ceph["health"]["status"] == "HEALTH_OK",
        # Others are for images that one member gets from another.
        "tokens": len([t for t in tokens if "serverName" in (t["metadata"] or ())]),
    }


def remove(juju: jubilant.Juju, *units: str, timeout: float = 300) -> None:
    """Remove units and wait until they are gone."""
    juju.remove_unit(*units)
    juju.wait(lambda s: not set(units) & set(s.apps[APP].units), delay=0.5, timeout=timeout)


def machine_called(juju: jubilant.Juju, name: str) -> str:
    """A new machine with this host name."""
    juju.add_machine()
    machine = max(juju.status().machines, key=int)
    juju.wait(lambda s: s.machines[machine].juju_status.current == "started", delay=0.3)
    juju.ssh(machine, f"hostname {name}")
    return machine
