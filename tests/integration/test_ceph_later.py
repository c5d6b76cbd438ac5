"""A cloud without Ceph gets it later: every member its part, the profile its new root."""

from __future__ import annotations

import jubilant
import pytest

from integration import ceph, cloud
from integration.cloud import APP

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def plain(juju: jubilant.Juju, charm, config) -> jubilant.Juju:
    """Three members of LXD alone."""
    juju.deploy(charm, APP, num_units=3, config=config)
    cloud.wait_active(juju, 3)
    return juju


def test_it_begins_with_local_storage(plain: jubilant.Juju):
    unit = cloud.units(plain)[0]
    assert "microceph" not in cloud.sh(plain, unit, "snap list")
    assert cloud.lxc(plain, unit, "profile device get default root pool").strip() == "local"


def test_ceph_comes_to_every_member(plain: jubilant.Juju):
    plain.config(APP, {**ceph.WITH_CEPH, "ceph-storage": ceph.DISKS})
    first = cloud.units(plain)[0]
    ceph.wait_pools(plain, first)
    cloud.wait_active(plain, 3)
    ceph.wait_healthy(plain, first, 3)
    members = sorted(cloud.members(plain, first))
    told = ceph.told(plain, first)
    assert told["services"] == {"mds": members, "mgr": members, "mon": members}
    for name in ceph.OSD_POOLS:
        assert told["pools"][name] == {"copies": 3, "rule": "microceph_auto_host"}, name
    for member in members:
        for name in ("remote", "remote-fs"):
            assert ceph.pool(plain, first, name, member)["status"] == "Created", (name, member)
    assert cloud.lxc(plain, first, "profile device get default root pool").strip() == "remote"


def test_it_cannot_be_turned_off_again(plain: jubilant.Juju):
    plain.config(APP, {"microceph-channel": "", "ceph-storage": "none"})
    ceph.wait_message(plain, "microceph-channel is empty, and this machine is a member")
    plain.config(APP, {**ceph.WITH_CEPH, "ceph-storage": ceph.DISKS})
    cloud.wait_active(plain, 3)
