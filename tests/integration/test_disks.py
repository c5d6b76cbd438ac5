"""Disks for Ceph: added and removed while data is on them, attached and detached."""

from __future__ import annotations

import json
from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.disks import CEPH, Config, osds, refused, run

pytestmark = pytest.mark.timeout(900)
POOL, OBJECT = "checked", "data"
HELD = "/root/held"


@pytest.fixture(scope="module")
def three(juju: jubilant.Juju, charm: Path, config: Config) -> jubilant.Juju:
    """Three machines with an OSD each, and data in a pool of Ceph's."""
    juju.deploy(charm, APP, num_units=3, config={**config, **CEPH}, storage={"osd": "3G"})
    cloud.wait_active(juju, 3)
    juju.wait(lambda _: len(osds(juju)) == 3, delay=1.0)
    unit = cloud.units(juju)[0]
    cloud.sh(
        juju,
        unit,
        f"microceph.ceph osd pool create {POOL} 8; head -c 30000000 /dev/urandom > {HELD}; "
        f"microceph.rados -p {POOL} put {OBJECT} {HELD}",
    )
    return juju


def of(juju: jubilant.Juju, unit: str) -> list[int]:
    """The OSDs of the unit's machine."""
    host = cloud.hostname(juju, unit)
    return [number for number, (member, _) in osds(juju).items() if member == host]


def check_data(juju: jubilant.Juju) -> None:
    """What was put into the pool comes out of it."""
    cloud.sh(juju, f"{APP}/0", f"microceph.rados -p {POOL} get {OBJECT} - | cmp - {HELD}")


def wait_healthy(juju: jubilant.Juju) -> None:
    """Wait until all data is where it should be, in as many copies as it should be."""

    def clean(_: jubilant.Status) -> bool:
        told = cloud.sh(juju, f"{APP}/0", "microceph.ceph pg stat --format json")
        summary = json.loads(told)["pg_summary"]
        states = {one["name"] for one in summary["num_pg_by_state"]}
        return states <= {"active+clean", "active+clean+scrubbing"}

    juju.wait(clean, delay=1.0, timeout=300)


def test_disks_are_added_and_removed_under_data(three: jubilant.Juju, lab: str):
    """From three OSDs to six and back; data is read at each step."""
    source = {"filter": "device_id == *osd0"} if lab else {"loop": "4G,1"}
    first = set(osds(three))
    for unit in cloud.units(three):
        assert len(run(three, unit, "add-disks", **source)) == 1
        check_data(three)
    assert len(osds(three)) == 6
    wait_healthy(three)
    for unit in cloud.units(three):
        (added,) = set(of(three, unit)) - first
        task = three.run(unit, "remove-disk", {"osd": f"osd.{added}"}, wait=600)
        assert json.loads(task.results["disk"])["osd"] == added
        assert any(f"osd.{added}: no data left on it" in line for line in task.log)
        check_data(three)
    assert set(osds(three)) == first
    wait_healthy(three)
    unit = cloud.units(three)[0]
    (last,) = of(three, unit)
    reason = f"cannot remove osd.{last}: Ceph needs at least 3 OSDs and has 3"
    assert reason in refused(three, unit, "remove-disk", osd=f"osd.{last}")


def attach(juju: jubilant.Juju, unit: str) -> tuple[str, int]:
    """Give a unit one more Juju storage: its name, and the OSD that it becomes."""
    names, numbers = set(storages(juju)), set(osds(juju))
    juju.cli("add-storage", unit, "osd=3G")
    juju.wait(lambda _: len(osds(juju)) == len(numbers) + 1, delay=1.0)
    cloud.wait_active(juju, 3)
    (name,) = set(storages(juju)) - names
    (number,) = set(osds(juju)) - numbers
    assert number in of(juju, unit)
    return name, number


def storages(juju: jubilant.Juju) -> dict[str, str]:
    """The state of each Juju storage."""
    return {name: one.status.current for name, one in juju.status().storage.storage.items()}


def test_storage_is_attached_later_and_detached(three: jubilant.Juju):
    unit = cloud.units(three)[1]
    name, number = attach(three, unit)
    wait_healthy(three)
    three.cli("detach-storage", name)
    three.wait(lambda _: number not in osds(three), delay=1.0)
    cloud.wait_active(three, 3)
    assert storages(three)[name] == "detached"
    check_data(three)


def test_storage_that_is_needed_stays_attached_until_there_is_another(three: jubilant.Juju):
    """Juju tries the hook again, so that it goes on by itself once there is a fourth disk."""
    unit = cloud.units(three)[1]
    found = three.status().storage.storage.items()
    (name,) = (name for name, one in found if one.attachments and unit in one.attachments.units)
    before = osds(three)
    three.cli("detach-storage", name)
    three.wait(lambda s: s.apps[APP].units[unit].workload_status.current == "error", delay=0.5)
    assert osds(three) == before
    assert "Ceph needs at least 3 OSDs and has 3" in three.debug_log(limit=300)
    check_data(three)
    three.run(unit, "add-disks", {"loop": "4G,1"}, wait=600)
    three.wait(lambda _: set(osds(three)) != set(before) and len(osds(three)) == 3, delay=1.0)
    cloud.wait_active(three, 3)
    assert storages(three)[name] == "detached"
    check_data(three)
