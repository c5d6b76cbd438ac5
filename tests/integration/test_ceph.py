"""Ceph: pools as MicroCloud makes them, networks of its own, data that outlives a member."""

from __future__ import annotations

import jubilant
import pytest

from integration import ceph, cloud, ovn
from integration.cloud import APP
from integration.conftest import ON_LAB

pytestmark = pytest.mark.timeout(1200)
PUBLIC, INTERNAL = "10.74.0", "10.73.0"
FEATURES = "layering,striping,exclusive-lock,object-map,fast-diff,deep-flatten"


@pytest.fixture(scope="module")
def formed(juju: jubilant.Juju, charm, config) -> jubilant.Juju:
    """Three members without a disk; Ceph's networks by an option and by a binding."""
    networks = {"ceph-public-network": f"{PUBLIC}.0/24"} if ON_LAB else {}
    bind = {"ceph-internal": "underlay"} if ON_LAB else None
    wanted = {**config, **ceph.WITH_CEPH, **networks}
    juju.model_config({"update-status-hook-interval": "4s"})
    juju.deploy(charm, APP, num_units=3, config=wanted, bind=bind)
    cloud.wait_active(juju, 3)
    return juju


@pytest.fixture(scope="module")
def stored(formed: jubilant.Juju) -> jubilant.Juju:
    """A disk in Ceph on each member, which the charm finds in its next periodic hook."""
    for unit in cloud.units(formed):
        ceph.add_disk(formed, unit)
    first = cloud.units(formed)[0]
    ceph.wait_pools(formed, first)
    ceph.wait_healthy(formed, first, 3)
    ceph.wait_message(formed, "Ceph", there=False)
    # The third disk may have come after the hook that made the pools.
    ceph.wait(lambda: ceph.copies(formed, first) == {3}, "there are not three copies")
    return formed


@pytest.fixture(scope="module")
def image(stored: jubilant.Juju, faults) -> str:
    """The small image, imported into the cluster."""
    ovn.import_image(stored, cloud.units(stored)[0], str(faults.image()))
    return ovn.IMAGE


def test_ceph_without_disks_says_so_and_what_to_do(formed: jubilant.Juju):
    ceph.wait_message(formed, "Ceph has no disks; see the actions list-disks and add-disks")
    unit = cloud.units(formed)[0]
    members = sorted(cloud.members(formed, unit))
    services = ceph.told(formed, unit)["services"]
    assert services == {"mds": members, "mgr": members, "mon": members}
    assert set(cloud.status(formed, unit)["storage-pools"]) == {"local"}


def test_lxd_has_what_microcloud_makes(stored: jubilant.Juju):
    unit = cloud.units(stored)[0]
    members = sorted(cloud.members(stored, unit))
    remote = ceph.pool(stored, unit, "remote")
    assert (remote["driver"], remote["status"]) == ("ceph", "Created")
    assert remote["description"] == "Distributed storage on Ceph"
    assert sorted(remote["locations"]) == members
    expected = {
        "ceph.cluster_name": "ceph",
        "ceph.osd.pg_num": "32",
        "ceph.osd.pool_name": "lxd_remote",
        "ceph.rbd.du": "false",
        "ceph.user.name": "admin",
        "volatile.pool.pristine": "true",
    }
    assert expected.items() <= remote["config"].items()
    assert remote["config"].get("ceph.rbd.features", FEATURES) == FEATURES
    files = ceph.pool(stored, unit, "remote-fs")
    assert (files["driver"], files["status"]) == ("cephfs", "Created")
    assert files["description"] == "Distributed file-system storage using CephFS"
    assert files["config"]["cephfs.path"] == "lxd_cephfs"
    assert sorted(files["locations"]) == members
    for member in members:
        for name in ("remote", "remote-fs"):
            assert ceph.pool(stored, unit, name, member)["status"] == "Created", (name, member)
    root = cloud.lxc(stored, unit, "profile device get default root pool")
    assert root.strip() == "remote"


def test_ceph_keeps_three_copies_on_three_machines(stored: jubilant.Juju):
    unit = cloud.units(stored)[0]
    told = ceph.told(stored, unit)
    members = sorted(cloud.members(stored, unit))
    assert sorted(osd["member"] for osd in told["osds"]) == members
    assert all(osd["path"].startswith("/dev/disk/by-id/") for osd in told["osds"])
    for name in ceph.OSD_POOLS:
        assert told["pools"][name] == {"copies": 3, "rule": "microceph_auto_host"}, name
        size = ceph.ask(stored, unit, f"osd pool get {name} size")
        assert size["size"] == 3
    assert ceph.ask(stored, unit, "fs get lxd_cephfs")["mdsmap"]["fs_name"] == "lxd_cephfs"


@pytest.mark.skipif(not ON_LAB, reason="the lab's networks")
def test_ceph_uses_its_networks(stored: jubilant.Juju):
    unit = cloud.units(stored)[0]
    for osd in ceph.ask(stored, unit, "osd dump")["osds"]:
        assert osd["public_addr"].startswith(f"{PUBLIC}."), osd
        assert osd["cluster_addr"].startswith(f"{INTERNAL}."), osd
    for monitor in ceph.ask(stored, unit, "mon dump")["mons"]:
        assert monitor["addr"].startswith(f"{PUBLIC}."), monitor
    said = cloud.sh(stored, unit, "microceph.ceph config show osd.1 cluster_network")
    assert said.strip() == f"{INTERNAL}.0/24"


@pytest.mark.skipif(not ON_LAB, reason="the lab's networks")
def test_a_running_ceph_is_not_moved(stored: jubilant.Juju):
    stored.config(APP, {"ceph-public-network": "10.71.0.0/24"})
    said = ovn.wait_blocked(stored, "ceph-public-network=10.71.0.0/24 cannot be")
    assert f"Ceph's public network is {PUBLIC}.0/24" in said
    stored.config(APP, {"ceph-public-network": f"{PUBLIC}.0/24"})
    cloud.wait_active(stored, 3)


def test_files_are_shared_between_members(stored: jubilant.Juju, image: str):
    unit = cloud.units(stored)[0]
    cloud.lxc(stored, unit, "storage volume create remote-fs shared")
    here, there = sorted(cloud.members(stored, unit))[:2]
    for member in (here, there):
        cloud.lxc(stored, unit, f"launch {image} on-{member} --target {member}")
        cloud.lxc(stored, unit, f"storage volume attach remote-fs shared on-{member} /shared")
    ovn.inside(stored, unit, f"on-{here}", "echo hello > /shared/file")
    assert ovn.inside(stored, unit, f"on-{there}", "cat /shared/file").strip() == "hello"
    for member in (here, there):
        cloud.lxc(stored, unit, f"delete --force on-{member}")


def test_an_osd_that_dies_is_said_until_it_is_back(stored: jubilant.Juju):
    unit = cloud.units(stored)[-1]
    name = cloud.hostname(stored, unit)
    cloud.sh(stored, unit, "snap stop microceph.osd")
    ceph.wait(lambda: ceph.told(stored, unit)["health"]["status"] == "HEALTH_WARN", "Ceph is well")
    ceph.wait(lambda: ceph.told(stored, unit)["health"]["up"] == 2, f"{name}'s disk is not down")
    ceph.wait_message(stored, "Ceph HEALTH_WARN: 1 ")
    cloud.wait_active(stored, 3)
    cloud.sh(stored, unit, "snap start microceph.osd")
    ceph.wait_healthy(stored, unit, 3)
    ceph.wait_message(stored, "Ceph HEALTH", there=False)


def test_what_a_container_wrote_outlives_its_member(stored: jubilant.Juju, image: str, faults):
    units = {cloud.hostname(stored, unit): unit for unit in cloud.units(stored)}
    first = cloud.units(stored)[0]
    here = cloud.hostname(stored, first)
    lost, other = (name for name in sorted(units) if name != here)
    cloud.lxc(stored, first, "config set cluster.offline_threshold 11")
    cloud.lxc(stored, first, f"launch {image} kept --target {lost}")
    # Not `sync`: that waits for every file system of the host, other labs' too.
    write = "dd if=/dev/urandom of=/root/data bs=64k count=64 conv=fsync 2>/dev/null"
    ovn.inside(stored, first, "kept", write)
    before = ovn.inside(stored, first, "kept", "md5sum /root/data")
    faults.power_off(units[lost])
    ceph.wait(lambda: cloud.members(stored, first)[lost] == "Offline", f"{lost} is not offline")
    ceph.wait(lambda: ceph.told(stored, first).get("health", {}).get("up") == 2, "no disk is down")

    def moved() -> bool:
        # LXD's new leader may take the other one for offline too, until it has heard from it.
        cloud.lxc(stored, first, f"move kept --target {other}")
        return True

    ceph.wait(moved, f"kept cannot move to {other}")
    cloud.lxc(stored, first, "start kept")
    assert ovn.inside(stored, first, "kept", "md5sum /root/data") == before
    faults.power_on(units[lost])
    ceph.wait_healthy(stored, first, 3)
    cloud.wait_active(stored, 3)
    assert ovn.inside(stored, first, "kept", "md5sum /root/data") == before


def test_growing_to_four(stored: jubilant.Juju, image: str):
    stored.add_unit(APP)
    cloud.wait_active(stored, 4)
    first, fourth = cloud.units(stored)[0], cloud.units(stored)[-1]
    member = cloud.hostname(stored, fourth)
    told = ceph.told(stored, fourth)
    assert len(told["services"]["mon"]) == 3
    for name in ("remote", "remote-fs"):
        assert ceph.pool(stored, first, name, member)["status"] == "Created"
    cloud.lxc(stored, first, f"launch {image} grown --target {member}")
    root = cloud.lxc(stored, first, "query /1.0/instances/grown")
    assert '"pool": "remote"' in root
    ceph.add_disk(stored, fourth)
    ceph.wait_healthy(stored, fourth, 4)
    assert ceph.told(stored, first)["pools"]["lxd_remote"]["copies"] == 3
