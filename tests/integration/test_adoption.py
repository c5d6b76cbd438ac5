"""Clusters from before Juju: one is adopted, a second is refused and stays as it is.

A member that is no unit is left alone, until a person has it removed.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import jubilant
import pytest

from integration import ceph, cloud
from integration.cloud import APP
from integration.faults import Faults
from integration.interruptions import check, says

pytestmark = pytest.mark.timeout(600)


def sh(juju: jubilant.Juju, machine: int, command: str) -> str:
    """The output of a shell command on a machine without a unit."""
    script = shlex.quote(f"PATH=/snap/bin:$PATH; {command}")
    return juju.ssh(str(machine), f"sudo sh -ec {script}").strip()


def cluster(juju: jubilant.Juju, machine: int) -> str:
    """Make the machine a cluster of one, by hand; gives the machine's name."""
    return sh(
        juju,
        machine,
        "snap list lxd >/dev/null 2>&1 || snap install lxd --channel=5.21/stable >/dev/null;"
        "lxd waitready; lxc config set core.https_address $(hostname -I | cut -d' ' -f1):8443;"
        "lxc cluster enable $(hostname) >/dev/null; hostname",
    )


def join(juju: jubilant.Juju, machine: int, token: str) -> str:
    """Join the machine to a cluster, by hand; gives the machine's name."""
    preseed = {
        "enabled": True,
        "server_name": "$(hostname)",
        "server_address": "$(hostname -I | cut -d' ' -f1):8443",
        "cluster_token": token,
    }
    return sh(
        juju,
        machine,
        "snap list lxd >/dev/null 2>&1 || snap install lxd --channel=5.21/stable >/dev/null;"
        f"lxd waitready; lxd init --preseed <<END >/dev/null\n"
        f"cluster: {json.dumps(preseed)}\nEND\nhostname",
    )


def all_of(juju: jubilant.Juju, machine: int) -> Any:
    """What LXD on a machine says of itself, its cluster and what is in it."""
    paths = ("1.0", "1.0/cluster/members?recursion=1", "1.0/storage-pools", "1.0/networks")
    paths = (*paths, "1.0/profiles?recursion=1", "1.0/certificates?recursion=1")
    return [json.loads(sh(juju, machine, f"lxc query '/{path}'")) for path in paths]


def test_one_cluster_is_adopted_and_another_refused(juju: jubilant.Juju, charm: Path, config):
    juju.model_config({"update-status-hook-interval": "5s"})
    for _ in range(3):
        juju.add_machine()
    juju.wait(
        lambda s: [m.juju_status.current for m in s.machines.values()] == ["started"] * 3,
        delay=0.1,
    )
    first = cluster(juju, 0)
    other = cluster(juju, 2)
    second = sh(juju, 1, "hostname")
    second = join(juju, 1, sh(juju, 0, f"lxc cluster add -q {second}"))
    before = all_of(juju, 2)

    juju.deploy(charm, APP, config=config, to="0")
    cloud.wait_active(juju, 1)
    juju.add_unit(APP, num_units=2, to=["1", "2"])
    says(juju, f"{other} is in the lxd cluster ", unit=f"{APP}/2")
    says(juju, f"{APP}/2 is in another lxd cluster", unit=f"{APP}/0")
    said = juju.status().apps[APP].units[f"{APP}/2"].workload_status
    assert said.current == "blocked"
    assert f"({other}), " in said.message
    assert f"({first}, {second}), and one cloud is one cluster" in said.message
    assert all_of(juju, 2) == before, "the refused one was changed"

    juju.remove_unit(f"{APP}/2")
    juju.wait(lambda s: len(s.apps[APP].units) == 2, delay=0.2)
    check(juju, 2)
    juju.add_unit(APP)
    check(juju, 3)


def test_a_member_that_juju_does_not_know_is_removed_by_hand(juju: jubilant.Juju, faults: Faults):
    first = cloud.units(juju)[0]
    juju.add_machine()
    number = max(map(int, juju.status().machines))
    juju.wait(lambda s: s.machines[str(number)].juju_status.current == "started", delay=0.1)
    name = sh(juju, number, "hostname")
    join(juju, number, sh(juju, 0, f"lxc cluster add -q {name}"))
    with pytest.raises(jubilant.TaskError) as caught:
        juju.run(first, "remove-member", {"name": name})
    assert f"{name} still runs, as lxd can tell; power it off first" in caught.value.task.message
    faults.run("power", "off", str(number))
    ceph.wait_message(juju, f"{name} is offline")
    task = juju.run(first, "remove-member", {"name": name}, wait=120)
    told = json.loads(task.results["member"])
    assert told == {"removed": name, "from": ["lxd"], "lost": []}
    check(juju, 3)
