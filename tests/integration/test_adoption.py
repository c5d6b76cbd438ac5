"""Clusters from before Juju: one is adopted, a second is refused and stays as it is.

A member that is no unit is left alone, until a person has it removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jubilant
import pytest

from integration import by_hand, ceph, cloud
from integration.cloud import APP
from integration.conftest import a_model
from integration.faults import Faults
from integration.interruptions import check, says

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[jubilant.Juju]:
    """A model of its own."""
    yield from a_model(request)


def all_of(juju: jubilant.Juju, machine: int) -> Any:
    """What LXD on a machine says of itself, its cluster and what is in it."""
    paths = ("/1.0", "/1.0/cluster/members?recursion=1", "/1.0/storage-pools", "/1.0/networks")
    more = ("/1.0/profiles?recursion=1", "/1.0/certificates?recursion=1")
    return by_hand.told(juju, machine, *paths, *more)


def test_an_empty_machine_that_led_makes_way(fresh: jubilant.Juju, charm: Path, config):
    fresh.model_config({"update-status-hook-interval": "5s"})
    by_hand.machines(fresh, 3)
    names = {by_hand.start(fresh, 0), by_hand.join(fresh, 1)}
    fresh.deploy(charm, APP, config=config, to="2")
    cloud.wait_active(fresh, 1)
    fresh.add_unit(APP, num_units=2, to=["0", "1"])
    for unit in (f"{APP}/1", f"{APP}/2"):
        says(fresh, "and one cloud is one cluster", unit=unit)
    fresh.remove_unit(f"{APP}/0")
    check(fresh, 2)
    assert cloud.members(fresh, f"{APP}/1").keys() == names


def test_one_cluster_is_adopted_and_another_refused(
    juju: jubilant.Juju, charm: Path, guest: Path, config
):
    juju.model_config({"update-status-hook-interval": "5s"})
    by_hand.machines(juju, 3)
    first, second, other = by_hand.start(juju, 0), by_hand.join(juju, 1), by_hand.start(juju, 2)
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

    juju.deploy(guest, "guest", to="2")  # so that Juju keeps the machine
    juju.remove_unit(f"{APP}/2")
    juju.wait(lambda s: len(s.apps[APP].units) == 2, delay=0.2)
    check(juju, 2)
    assert all_of(juju, 2) == before, "the one that left was changed"


def test_who_gives_its_cluster_up_joins(juju: jubilant.Juju):
    (guest,) = juju.status().apps["guest"].units.values()
    juju.add_unit(APP, to=guest.machine)
    says(juju, "is in the lxd cluster ", "and one cloud is one cluster")
    by_hand.sh(juju, int(guest.machine), "snap remove --purge lxd")
    check(juju, 3)


def test_a_member_that_juju_does_not_know_is_removed_by_hand(juju: jubilant.Juju, faults: Faults):
    first = cloud.units(juju)[0]
    juju.add_machine()
    number = max(map(int, juju.status().machines))
    juju.wait(lambda s: s.machines[str(number)].juju_status.current == "started", delay=0.1)
    name = by_hand.join(juju, number)
    with pytest.raises(jubilant.TaskError) as caught:
        juju.run(first, "remove-member", {"name": name})
    assert f"{name} still runs, as lxd can tell; power it off first" in caught.value.task.message
    faults.run("power", "off", str(number))
    ceph.wait_message(juju, f"{name} is offline")
    task = juju.run(first, "remove-member", {"name": name}, wait=120)
    told = json.loads(task.results["member"])
    assert told == {"removed": name, "from": ["lxd"], "lost": []}
    check(juju, 3)
