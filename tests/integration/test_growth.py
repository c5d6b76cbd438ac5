"""A cloud of three grows to eight at once while containers with data run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jubilant
import pytest

from integration import cloud, ovn
from integration.cloud import APP
from integration.conftest import REPO
from integration.membership import CEPH, agree, check_data, launch_on_each

pytestmark = pytest.mark.timeout(1800)
NAMES = ("c1", "c2", "c3")
BEGIN, END = 3, 8
POLL = 0.3  # seconds between two looks at the members
FIGURES = REPO / "build/growth.json"


@pytest.fixture(scope="module")
def whole(juju: jubilant.Juju, charm: Path, config, faults) -> jubilant.Juju:
    """Three members with Ceph and OVN, and a container with data on each."""
    juju.deploy(charm, APP, num_units=BEGIN, config={**config, **ovn.UPLINK, **CEPH})
    cloud.wait_active(juju, BEGIN)
    launch_on_each(juju, faults.image(), NAMES)
    return juju


@contextmanager
def arrivals(juju: jubilant.Juju, unit: str) -> Iterator[list[float]]:
    """When LXD had one member more, in seconds since the begin."""
    began, found, done = time.monotonic(), list[float](), threading.Event()

    def watch() -> None:
        while not done.wait(POLL):
            count = len(cloud.members(juju, unit)) - BEGIN
            found.extend([round(time.monotonic() - began, 1)] * (count - len(found)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def test_five_units_at_once_join_in_order(whole: jubilant.Juju):
    first = cloud.units(whole)[0]
    with arrivals(whole, first) as found:
        whole.add_unit(APP, num_units=END - BEGIN)
        cloud.wait_active(whole, END, timeout=1200)
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(dict(enumerate(found, BEGIN + 1))))
    whole.model_config({"update-status-hook-interval": "10s"})
    agree(whole)
    check_data(whole, first, *NAMES)


def test_the_last_one_bears_instances(whole: jubilant.Juju):
    first, *_, last = cloud.units(whole)
    params = {"image": ovn.IMAGE, "egress": ovn.ROUTER, "member": cloud.hostname(whole, last)}
    told = whole.run(first, "verify", params, wait=300).results["members"]
    assert set(json.loads(told)) == {params["member"]}
