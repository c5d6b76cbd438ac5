"""A cloud without Ceph gets it later, with zones: every member its part.

Also the profile its new root, and copies stay apart by zone when a member leaves.
"""

from __future__ import annotations

import jubilant
import pytest

from integration import ceph, cloud
from integration.cloud import APP

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def plain(juju: jubilant.Juju, charm, config) -> jubilant.Juju:
    """Three members of LXD alone."""
    # A disk that comes after the hook that made the pools counts with the next periodic one.
    juju.model_config({"update-status-hook-interval": "10s"})
    juju.deploy(charm, APP, num_units=3, config=config)
    cloud.wait_active(juju, 3)
    return juju


@pytest.fixture(scope="module")
def zoned(plain: jubilant.Juju) -> bool:
    """Whether the machines are in three availability zones, as the lab's are."""
    return len({zone(plain, unit) for unit in cloud.units(plain)}) == 3


@pytest.fixture
def zones_needed(zoned: bool) -> None:
    """For tests of zones."""
    if not zoned:
        pytest.skip("needs machines in three availability zones")


def zone(juju: jubilant.Juju, unit: str) -> str:
    """The availability zone of the unit's machine, as Juju tells the charm."""
    return cloud.sh(juju, unit, "echo $JUJU_AVAILABILITY_ZONE").strip()


def wait_pools_keep(juju: jubilant.Juju, unit: str, copies: int, place: str) -> None:
    """Wait until each pool keeps so many copies, each in another `place`: a rack is a zone."""
    kept = {"copies": copies, "rule": f"microceph_auto_{place}"}
    wanted = {name: kept for name in ceph.OSD_POOLS}

    def keep() -> bool:
        pools = ceph.told(juju, unit)["pools"]
        return wanted.items() <= pools.items()

    ceph.wait(keep, f"not {copies} copies, each in another {place}")


def test_it_begins_with_local_storage(plain: jubilant.Juju):
    unit = cloud.units(plain)[0]
    assert "microceph" not in cloud.sh(plain, unit, "snap list")
    assert cloud.lxc(plain, unit, "profile device get default root pool").strip() == "local"


def test_ceph_comes_to_every_member(plain: jubilant.Juju, zoned: bool):
    plain.config(APP, {**ceph.WITH_CEPH, "ceph-storage": ceph.DISKS, "ceph-zones": zoned})
    first = cloud.units(plain)[0]
    ceph.wait_pools(plain, first)
    cloud.wait_active(plain, 3)
    ceph.wait_healthy(plain, first, 3)
    members = sorted(cloud.members(plain, first))
    told = ceph.told(plain, first)
    assert told["services"] == {"mds": members, "mgr": members, "mon": members}
    wait_pools_keep(plain, first, 3, "rack" if zoned else "host")
    for member in members:
        for name in ("remote", "remote-fs"):
            assert ceph.pool(plain, first, name, member)["status"] == "Created", (name, member)
    assert cloud.lxc(plain, first, "profile device get default root pool").strip() == "remote"


@pytest.mark.usefixtures("zones_needed")
def test_each_machine_is_in_its_zone(plain: jubilant.Juju):
    unit = cloud.units(plain)[0]
    nodes = {node["id"]: node for node in ceph.ask(plain, unit, "osd tree")["nodes"]}
    racks = {
        nodes[child]["name"]: node["name"]
        for node in nodes.values()
        if node["type"] == "rack"
        for child in node["children"]
    }
    zones = {cloud.hostname(plain, u): f"az.{zone(plain, u)}" for u in cloud.units(plain)}
    assert racks == zones


def test_it_cannot_be_turned_off_again(plain: jubilant.Juju):
    plain.config(APP, {"microceph-channel": "", "ceph-storage": "none"})
    ceph.wait_message(plain, "microceph-channel is empty, and this machine is a member")
    plain.config(APP, {**ceph.WITH_CEPH, "ceph-storage": ceph.DISKS})
    cloud.wait_active(plain, 3)


@pytest.mark.usefixtures("zones_needed")
def test_zones_cannot_be_turned_off_again(plain: jubilant.Juju):
    plain.config(APP, {"ceph-zones": False})
    ceph.wait_message(plain, "ceph-zones=false cannot be")
    plain.config(APP, {"ceph-zones": True})
    cloud.wait_active(plain, 3)


@pytest.mark.usefixtures("zones_needed")
def test_a_zone_leaves_with_its_only_machine(plain: jubilant.Juju):
    *staying, leaver = cloud.units(plain)
    plain.remove_unit(leaver)
    cloud.wait_active(plain, 2)
    ceph.wait_healthy(plain, staying[0], 2)
    wait_pools_keep(plain, staying[0], 2, "rack")
