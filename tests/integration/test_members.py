"""Members leave and come while containers with data run.

From four to one, to three again, and a machine that is lost is replaced.
"""

from __future__ import annotations

from pathlib import Path

import jubilant
import pytest

from integration import ceph, cloud, ovn
from integration.cloud import APP
from integration.faults import Faults
from integration.membership import CEPH, agree, check_data, launch_on_each, machine_called, remove

pytestmark = pytest.mark.timeout(1200)
NAMES = ("c1", "c2", "c3", "c4")


@pytest.fixture(scope="module")
def whole(juju: jubilant.Juju, charm: Path, config, faults) -> jubilant.Juju:
    """Four members with Ceph and OVN, and a container with data on each."""
    juju.model_config({"update-status-hook-interval": "10s"})
    juju.deploy(charm, APP, num_units=4, config={**config, **ovn.UPLINK, **CEPH})
    cloud.wait_active(juju, 4)
    agree(juju)
    launch_on_each(juju, faults.image(), NAMES)
    return juju


def test_a_member_with_instances_stays_until_they_may_be_moved(whole: jubilant.Juju):
    first, *_, last = cloud.units(whole)
    name = cloud.hostname(whole, last)
    whole.remove_unit(last)
    whole.wait(
        lambda s: s.apps[APP].units[last].workload_status.message == 'hook failed: "stop"',
        delay=0.3,
    )
    assert f"{name} cannot leave the cloud, as it holds instance c4" in whole.debug_log()
    assert cloud.members(whole, first)[name] == "Online"
    check_data(whole, first, *NAMES)
    whole.config(APP, {"on-removal": "move"})
    whole.wait(lambda s: last not in s.apps[APP].units, delay=0.5)
    agree(whole)
    check_data(whole, first, *NAMES)


def test_the_leader_leaves(whole: jubilant.Juju):
    remove(whole, cloud.leader(whole))
    cloud.wait_active(whole, 2)
    agree(whole)
    check_data(whole, cloud.units(whole)[0], *NAMES)


def test_one_member_keeps_everything(whole: jubilant.Juju, guest: Path, faults: Faults):
    leaver = cloud.units(whole)[0]
    # So that Juju keeps the machine.
    whole.deploy(guest, "guest", to=faults.machine(leaver))
    remove(whole, leaver)
    cloud.wait_active(whole, 1)
    # One copy, and nobody to stand in for the metadata server: Ceph warns.
    agree(whole, healthy=False)
    check_data(whole, cloud.units(whole)[0], *NAMES)


def test_it_grows_to_three_again_with_a_machine_that_has_left(whole: jubilant.Juju):
    (guest,) = whole.status().apps["guest"].units.values()
    whole.add_unit(APP, to=guest.machine)
    whole.add_unit(APP)
    cloud.wait_active(whole, 3)
    agree(whole)
    check_data(whole, cloud.units(whole)[0], *NAMES)


def test_a_machine_lost_with_its_disk_is_replaced_by_one_of_its_name(
    whole: jubilant.Juju, faults: Faults
):
    """Its containers were moved away before; its copies of their data are lost with it."""
    first, *_, last = cloud.units(whole)
    name = cloud.hostname(whole, last)
    faults.power_off(last)
    ceph.wait_message(whole, f"{name} is offline")
    with pytest.raises(jubilant.TaskError) as caught:
        whole.run(first, "remove-member", {"name": name})
    assert f"{name} is the machine of {last}, which Juju knows" in caught.value.task.message
    whole.remove_unit(last, force=True)
    whole.wait(lambda s: last not in s.apps[APP].units, delay=0.5)
    agree(whole, healthy=False)  # three copies on two disks
    check_data(whole, first, *NAMES)
    whole.add_unit(APP, to=machine_called(whole, name))
    cloud.wait_active(whole, 3)
    agree(whole)
    check_data(whole, first, *NAMES)
