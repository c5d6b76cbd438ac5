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
from integration.interruptions import appears, check, follower, says

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


def test_a_joiner_is_powered_off_in_the_middle_and_comes_back(juju, faults, deploy):
    juju.model_config({"update-status-hook-interval": "30s"})
    deploy()
    lost = follower(juju)
    appears(faults, lost, f"/var/lib/microcloud-charm/{lost.replace('/', '-')}/joining-lxd")
    faults.power_off(lost)
    faults.power_on(lost)
    check(juju, 3)


def test_the_initiator_is_lost_in_the_middle_and_never_comes_back(juju, faults, deploy):
    """Those that came after it say what to do, and then start without it."""
    juju.model_config({"update-status-hook-interval": "5s"})
    deploy(1)
    lost = f"{APP}/0"
    says(juju, "", unit=lost)
    appears(faults, lost, "/var/snap/lxd/common/lxd/cluster.crt")
    faults.power_off(lost)
    juju.add_unit(APP, num_units=2)
    faults.fault("expire-lease", APP, "--seconds", "600")
    remedy = f"if its machine is gone for good: juju remove-unit --force {lost}"
    says(juju, f"waiting for {lost} to start the cloud; {remedy}")
    juju.cli("remove-unit", lost, "--force", "--no-wait", "--no-prompt")
    check(juju, 2)


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
