"""A member leaves though LXD's answer to that was lost, and its machine can be a member again."""

from __future__ import annotations

from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.faults import Faults
from integration.interruptions import check

pytestmark = pytest.mark.timeout(600)
# What the charm notes before it lets LXD remove this member: as if its hook had died then.
NOTE = """
import json
certificate = open("/var/snap/lxd/common/lxd/cluster.crt").read()
with open("/var/lib/microcloud-charm/{folder}/leaving-lxd", "w") as note:
    json.dump([certificate, ["{address}"]], note)
"""


def test_a_member_that_cannot_tell_whether_it_has_left_leaves(
    juju: jubilant.Juju, charm: Path, guest: Path, config, faults: Faults
):
    juju.deploy(charm, APP, num_units=2, config=config)
    cloud.wait_active(juju, 2)
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
