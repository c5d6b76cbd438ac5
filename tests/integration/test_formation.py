"""Deploy three, use them, grow to four, change the leader."""

from __future__ import annotations

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def formed(juju: jubilant.Juju, charm, config) -> jubilant.Juju:
    juju.deploy(charm, APP, num_units=3, config=config)
    cloud.wait_active(juju, 3)
    return juju


def test_three_machines_are_one_cluster(formed: jubilant.Juju):
    hosts = {cloud.hostname(formed, unit) for unit in cloud.units(formed)}
    for unit in cloud.units(formed):
        assert cloud.members(formed, unit) == dict.fromkeys(hosts, "Online")


def test_the_pool_and_the_network_are_on_every_member(formed: jubilant.Juju):
    unit = cloud.units(formed)[0]
    pools = {pool["name"]: pool for pool in cloud.lxc_json(formed, unit, "storage list")}
    assert pools["local"]["status"] == "Created"
    assert len(pools["local"]["locations"]) == 3
    networks = {n["name"]: n for n in cloud.lxc_json(formed, unit, "network list")}
    assert networks["lxdbr0"]["status"] == "Created"
    for unit in cloud.units(formed):
        name = cloud.hostname(formed, unit)
        for volume in ("images", "backups"):
            shown = cloud.lxc(formed, unit, f"config get storage.{volume}_volume")
            assert shown.strip() == f"local/{volume}", name


def test_server_keys_are_microclouds(formed: jubilant.Juju):
    for unit in cloud.units(formed):
        assert cloud.lxc(formed, unit, "config get core.https_address").strip() == "[::]:8443"
    assert cloud.lxc(formed, cloud.units(formed)[0], "config get user.microcloud").strip()


def test_the_status_action_agrees_with_lxd(formed: jubilant.Juju):
    unit = cloud.units(formed)[0]
    told = cloud.status(formed, unit)
    names = {member["name"] for member in told["services"]["lxd"]["members"]}
    assert names == set(cloud.members(formed, unit))
    assert told["storage-pools"]["local"]["status"] == "Created"
    assert told["status"] == "active"


def test_the_workload_version_is_shown(formed: jubilant.Juju):
    version = formed.status().apps[APP].version
    assert version.split(".")[0].isdigit()


def test_growing_by_one(formed: jubilant.Juju):
    formed.add_unit(APP)
    cloud.wait_active(formed, 4)
    unit = cloud.units(formed)[-1]
    assert len(cloud.members(formed, unit)) == 4
    assert len(cloud.status(formed, unit)["services"]["lxd"]["members"]) == 4
    pools = cloud.lxc_json(formed, unit, "storage list")
    assert len(pools[0]["locations"]) == 4


def test_no_token_is_left(formed: jubilant.Juju):
    for unit in cloud.units(formed):
        shown = formed.cli("show-unit", unit, "--endpoint", "cluster", "--format", "json")
        assert "grants" not in shown


def test_removing_a_unit_leaves_the_cluster_clean(formed: jubilant.Juju):
    gone = cloud.units(formed)[-1]
    name = cloud.hostname(formed, gone)
    formed.remove_unit(gone)
    formed.wait(lambda status: gone not in status.apps[APP].units, delay=0.3)
    cloud.wait_active(formed, 3)
    left = cloud.units(formed)[0]
    assert name not in cloud.members(formed, left)
    trusted = cloud.lxc_json(formed, left, "config trust list")
    assert name not in {entry["name"] for entry in trusted}
