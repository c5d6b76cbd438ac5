"""A member is spared for a while, one is lost for good and replaced; LXD and OVN alone."""

from __future__ import annotations

import json
from pathlib import Path

import jubilant
import pytest

from integration import cloud, ovn
from integration.cloud import APP
from integration.faults import Faults
from integration.membership import machine_called

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def whole(juju: jubilant.Juju, charm: Path, config, faults) -> jubilant.Juju:
    juju.model_config({"update-status-hook-interval": "10s"})
    juju.deploy(charm, APP, num_units=3, config={**config, **ovn.UPLINK})
    cloud.wait_active(juju, 3)
    first = cloud.units(juju)[0]
    ovn.import_image(juju, first, str(faults.image()))
    return juju


def members(juju: jubilant.Juju, unit: str) -> dict[str, dict]:
    found = json.loads(juju.run(unit, "list-members").results["members"])
    return {one["member"]: one for one in found}


def test_verify_finds_all_well_and_leaves_nothing(whole: jubilant.Juju):
    first = cloud.units(whole)[0]
    task = whole.run(first, "verify", {"image": ovn.IMAGE, "egress": ovn.ROUTER}, wait=300)
    told = json.loads(task.results["members"])
    assert set(told) == set(cloud.members(whole, first))
    for checks in told.values():
        assert checks.pop("address")
        assert set(checks) == {"storage", "network", "name-resolution", "egress"}
    assert cloud.lxc_json(whole, first, "list") == []


def test_verify_says_what_does_not_work(whole: jubilant.Juju):
    with pytest.raises(jubilant.TaskError) as caught:
        whole.run(cloud.units(whole)[0], "verify", {"image": "missing"})
    assert "no instance can be launched on" in caught.value.task.message


def test_maintenance_survives_a_reboot(whole: jubilant.Juju, faults: Faults):
    first, unit, third = cloud.units(whole)
    name = cloud.hostname(whole, unit)
    cloud.lxc(whole, first, f"launch {ovn.IMAGE} c1 --target {name} --quiet")
    whole.run(unit, "enter-maintenance", wait=300)
    (instance,) = cloud.lxc_json(whole, first, "list")
    assert instance["status"] == "Running"
    assert instance["location"] != name
    with pytest.raises(jubilant.TaskError) as caught:
        whole.run(third, "enter-maintenance")
    assert f"{name} is away already; one at a time" in caught.value.task.message
    faults.power_off(unit)
    faults.power_on(unit)
    whole.wait(
        lambda s: "in maintenance" in s.apps[APP].units[unit].workload_status.message, delay=0.5
    )
    assert members(whole, first)[name]["in-maintenance"] is True
    whole.run(unit, "exit-maintenance", wait=300)
    cloud.wait_active(whole, 3)
    (instance,) = cloud.lxc_json(whole, first, "list")
    assert (instance["location"], instance["status"]) == (name, "Running")
    cloud.lxc(whole, first, "delete --force c1")


def test_a_machine_that_is_lost_is_replaced_by_one_of_its_name(
    whole: jubilant.Juju, faults: Faults
):
    first, *_, last = cloud.units(whole)
    name = cloud.hostname(whole, last)
    faults.power_off(last)
    whole.wait(
        lambda s: any(
            f"{name} is offline" in unit.workload_status.message
            for unit in s.apps[APP].units.values()
        ),
        delay=0.5,
    )
    with pytest.raises(jubilant.TaskError) as caught:
        whole.run(first, "remove-member", {"name": name})
    assert f"{name} is the machine of {last}, which Juju knows" in caught.value.task.message
    whole.remove_unit(last, force=True)
    whole.wait(lambda s: last not in s.apps[APP].units, delay=0.5)
    whole.wait(lambda _: name not in members(whole, first), delay=1)
    whole.add_unit(APP, to=machine_called(whole, name))
    cloud.wait_active(whole, 3)
    found = members(whole, first)
    assert found[name]["missing"] == []
    told = ovn.tell(whole, first)
    assert sorted(told["chassis"]) == sorted(found)
    trusted = sorted(one["name"] for one in cloud.lxc_json(whole, first, "config trust list"))
    assert trusted == sorted(found)
