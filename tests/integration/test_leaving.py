"""One of two members leaves while it leads LXD's database, or after LXD's answer was lost.

The machine can be a member again; the cloud stays when its application goes.
"""

from __future__ import annotations

import json
from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.faults import Faults
from integration.interruptions import check
from integration.membership import remove

pytestmark = pytest.mark.timeout(600)
# What the charm notes before it lets LXD remove this member: as if its hook had died then.
NOTE = """
import json
certificate = open("/var/snap/lxd/common/lxd/cluster.crt").read()
with open("/var/lib/microcloud-charm/{folder}/leaving-lxd", "w") as note:
    json.dump([certificate, ["{address}"]], note)
"""


def test_the_leader_of_the_database_leaves_it_to_the_other(
    juju: jubilant.Juju, charm: Path, config
):
    juju.model_config({"update-status-hook-interval": "10s"})
    juju.deploy(charm, APP, num_units=2, config=config)
    cloud.wait_active(juju, 2)
    unit = cloud.units(juju)[0]
    (name,) = (
        member["server_name"]
        for member in cloud.lxc_json(juju, unit, "cluster list")
        if "database-leader" in member["roles"]
    )
    remove(juju, next(u for u in cloud.units(juju) if cloud.hostname(juju, u) == name))
    check(juju, 1)
    juju.add_unit(APP)
    check(juju, 2)


def test_a_member_that_cannot_tell_whether_it_has_left_leaves(
    juju: jubilant.Juju, guest: Path, faults: Faults
):
    first, last = cloud.units(juju)
    machine, name = faults.machine(last), cloud.hostname(juju, last)
    juju.deploy(guest, "guest", to=machine)  # so that Juju keeps the machine
    (other,) = (m for m in cloud.lxc_json(juju, first, "cluster list") if m["server_name"] != name)
    note = NOTE.format(
        folder=last.replace("/", "-"), address=other["url"].removeprefix("https://")
    )
    faults.run("exec", machine, "--", "python3", "-c", note)
    cloud.lxc(juju, first, f"cluster remove --force --yes {name}")
    juju.remove_unit(last)
    juju.wait(lambda s: last not in s.apps[APP].units, delay=0.3, timeout=180)
    check(juju, 1)
    juju.add_unit(APP, to=machine)
    check(juju, 2)


def servers(juju: jubilant.Juju, unit: str) -> int:
    """How many servers LXD's database has, as this unit's LXD knows."""
    return cloud.sh(juju, unit, "lxd sql local 'SELECT address FROM raft_nodes'").count(":8443")


def test_a_server_that_lxd_leaves_in_its_database_is_removed(juju: jubilant.Juju, faults: Faults):
    juju.add_unit(APP)
    check(juju, 3)
    first, *_, last = cloud.units(juju)
    name = cloud.hostname(juju, last)
    faults.power_off(last)
    # LXD forgets the member and not its server, as it does by chance when one leaves.
    for table in ("nodes", "certificates"):
        cloud.sh(juju, first, f"lxd sql global \"DELETE FROM {table} WHERE name = '{name}'\"")
    juju.remove_unit(last, force=True)
    juju.wait(lambda s: last not in s.apps[APP].units, delay=0.3)
    juju.wait(
        lambda _: all(servers(juju, unit) == 2 for unit in cloud.units(juju)), delay=1, timeout=120
    )
    check(juju, 2)


@pytest.mark.usefixtures("faults")  # for the machine that the test before has kept
def test_the_cloud_stays_when_the_application_goes(juju: jubilant.Juju):
    first, last = cloud.units(juju)
    machines = [juju.status().apps[APP].units[unit].machine for unit in (first, last)]
    before = cloud.members(juju, first)
    juju.add_unit("guest", to=machines[0])  # beside the one on the other machine
    juju.wait(lambda s: len(s.apps["guest"].units) == 2 and jubilant.all_agents_idle(s, "guest"))
    juju.remove_application(APP)
    juju.wait(lambda s: APP not in s.apps, delay=0.3)
    for machine in machines:
        told = json.loads(juju.ssh(machine, "sudo /snap/bin/lxc cluster list --format json"))
        assert {one["server_name"]: one["status"] for one in told} == before
