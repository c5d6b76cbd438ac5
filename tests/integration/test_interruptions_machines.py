"""Machines lose power while a cloud is formed; it ends whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jubilant
import pytest

from integration.cloud import APP
from integration.conftest import LAB, a_model
from integration.faults import Faults
from integration.interruptions import appears, check, follower

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def juju(request: pytest.FixtureRequest) -> Iterator[jubilant.Juju]:
    """A model for each test, in which what is left for update-status comes soon."""
    for juju in a_model(request):
        juju.model_config({"update-status-hook-interval": "30s"})
        yield juju


@pytest.fixture
def faults(juju: jubilant.Juju, lab: str) -> Faults:
    if not lab:
        pytest.skip("only the lab can do this to a machine")
    return Faults(LAB, juju)


@pytest.fixture
def deploy(juju: jubilant.Juju, charm: Path, config):
    def deploy(count: int = 3, to: str | None = None, **more: str | int) -> None:
        juju.deploy(charm, APP, num_units=count, config={**config, **more}, to=to)

    return deploy


def test_a_joiner_is_powered_off_in_the_middle_and_comes_back(juju, faults, deploy):
    deploy()
    lost = follower(juju)
    appears(faults, lost, f"/var/lib/microcloud-charm/{lost.replace('/', '-')}/joining-lxd")
    faults.power_off(lost)
    faults.power_on(lost)
    check(juju, 3)
