"""Formation is disturbed, and ends all the same in one whole cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.conftest import LAB, a_model
from integration.faults import Faults

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def juju(request: pytest.FixtureRequest) -> Iterator[jubilant.Juju]:
    """A model for each test: each forms its own cloud."""
    yield from a_model(request)


@pytest.fixture
def faults(juju: jubilant.Juju, lab: str) -> Faults:
    if not lab:
        pytest.skip("only the lab can do this to a machine")
    return Faults(LAB, juju)


@pytest.fixture
def deploy(juju: jubilant.Juju, charm: Path, config):
    def deploy(count: int = 3, **more: str | int) -> None:
        juju.deploy(charm, APP, num_units=count, config={**config, **more})

    return deploy


def check(juju: jubilant.Juju, count: int) -> None:
    """All units are one cluster, and nothing of the way there is left.

    A hook whose agent was killed counts as failed until Juju tries it again.
    """
    cloud.wait_active(juju, count)
    views = [cloud.members(juju, unit) for unit in cloud.units(juju)]
    assert all(view == views[0] for view in views)
    assert len(views[0]) == count
    assert set(views[0].values()) == {"Online"}
    unit = cloud.units(juju)[0]
    trusted = {entry["name"] for entry in cloud.lxc_json(juju, unit, "config trust list")}
    assert trusted <= set(views[0])
    tokens = [o for o in cloud.lxc_json(juju, unit, "operation list") if o["class"] == "token"]
    assert not [o for o in tokens if o["status"] == "Running"]  # one that is used stays 5 s


def says(juju: jubilant.Juju, text: str, *, unit: str = "") -> str:
    """Wait until the unit, or any unit, has this text in its message; gives the unit."""

    def who(status: jubilant.Status) -> list[str]:
        units = status.apps[APP].units.items()
        return [
            name
            for name, found in units
            if unit in ("", name) and text in found.workload_status.message
        ]

    return who(juju.wait(lambda status: bool(who(status)), delay=0.1))[0]


def follower(juju: jubilant.Juju) -> str:
    """A unit that is not the leader."""
    status = juju.wait(lambda s: any(u.leader for u in s.apps[APP].units.values()), delay=0.1)
    return next(name for name, unit in status.apps[APP].units.items() if not unit.leader)


def test_the_leader_changes_before_anything_is_formed(juju, faults, deploy):
    deploy()
    faults.elect(follower(juju))
    check(juju, 3)


def test_the_leader_changes_while_units_join(juju, faults, deploy):
    deploy()
    says(juju, "joining lxd")
    faults.elect(follower(juju))
    check(juju, 3)


def test_the_leader_changes_and_the_cloud_grows_under_the_new_one(juju, faults, deploy):
    deploy(2)
    cloud.wait_active(juju, 2)
    new = follower(juju)
    faults.elect(new)
    juju.wait(lambda s: bool(s.apps[APP].units[new].leader), delay=0.1)
    juju.add_unit(APP)
    check(juju, 3)


def test_an_agent_is_killed_while_its_unit_joins(juju, faults, deploy):
    deploy()
    faults.kill_agent(says(juju, "joining lxd"))
    check(juju, 3)


def test_an_agent_is_killed_while_it_starts_the_cloud(juju, faults, deploy):
    deploy()
    faults.kill_agent(says(juju, "setting up"))
    check(juju, 3)


def test_a_join_hangs_and_is_tried_again(juju, faults, deploy):
    """The joiner's LXD is frozen in the middle of its join for longer than it may take."""
    deploy(2, **{"join-timeout": 10})
    joiner = says(juju, "joining lxd")
    faults.run("exec", faults.machine(joiner), "--", "pkill", "-STOP", "-x", "lxd")
    check(juju, 2)
    assert "joining lxd failed: LXD did not finish within 10 s" in juju.debug_log()


def test_equal_host_names_block_both_that_have_not_joined(juju, faults, deploy):
    deploy(1)
    cloud.wait_active(juju, 1)
    juju.add_machine()
    juju.wait(lambda s: s.machines["1"].juju_status.current == "started", delay=0.1)
    name = cloud.hostname(juju, f"{APP}/0")
    juju.ssh("1", f"hostname {name}")
    juju.add_unit(APP, to="1")
    says(juju, f"{APP}/0 and {APP}/1 are both on machines called {name}")
    juju.remove_unit(f"{APP}/1")
    juju.wait(lambda s: len(s.apps[APP].units) == 1, delay=0.2)
    check(juju, 1)


def test_bad_configuration_is_said_and_then_put_right(juju, deploy, config):
    deploy(1, **{"local-driver": "ext4", "join-timeout": 1})
    says(juju, "local-driver='ext4' is none of zfs, btrfs, lvm, dir")
    says(juju, "join-timeout=1 is not between 10 and 3600 seconds")
    assert cloud.sh(juju, f"{APP}/0", "ls /snap").strip() == "", "something was installed"
    juju.config(APP, {**config, "join-timeout": 300})
    cloud.wait_active(juju, 1)
