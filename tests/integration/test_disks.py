"""Disks for Ceph: added and removed while data is on them, attached, detached, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.conftest import LAB, a_model
from integration.faults import Faults

pytestmark = pytest.mark.timeout(900)
CEPH = {"microceph-channel": "squid/stable", "instance-network": "none", "local-storage": "none"}
POOL, OBJECT = "checked", "data"
HELD = "/root/held"
Config = dict[str, bool | int | float | str]


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


def osds(juju: jubilant.Juju, unit: str = f"{APP}/0") -> dict[int, tuple[str, str]]:
    """Member and path of each OSD, by number."""
    told = json.loads(cloud.sh(juju, unit, "microceph disk list --json"))["ConfiguredDisks"] or []
    return {disk["osd"]: (disk["location"], disk["path"]) for disk in told}


def of(juju: jubilant.Juju, unit: str) -> list[int]:
    """The OSDs of the unit's machine."""
    host = cloud.hostname(juju, unit)
    return [number for number, (member, _) in osds(juju).items() if member == host]


def run(juju: jubilant.Juju, unit: str, action: str, **params: Any) -> Any:
    """The JSON result of an action."""
    (result,) = juju.run(unit, action, params, wait=600).results.values()
    return json.loads(result)


def refused(juju: jubilant.Juju, unit: str, action: str, **params: Any) -> str:
    """Why an action failed."""
    with pytest.raises(jubilant.TaskError) as caught:
        juju.run(unit, action, params, wait=600)
    return caught.value.task.message


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


# Bad disks


@pytest.fixture(scope="module")
def alone(request: pytest.FixtureRequest, charm: Path, config: Config, lab: str):
    """One machine with disks that are fit for nothing, and their sums."""
    if not lab:
        pytest.skip("it spoils disks of the machine; only the lab's may be used for that")
    for juju in a_model(request):
        juju.deploy(charm, APP, config={**config, **CEPH})
        cloud.wait_active(juju, 1)
        machine = Faults(LAB, juju)
        for name, size in (("small", "1GiB"), ("table", "4GiB"), ("busy", "4GiB")):
            machine.run("disk", "add", "0", name, size)
        cloud.sh(juju, f"{APP}/0", SPOIL)
        yield juju


SPOIL = """
for name in data osd0 osd1 small table busy; do
  ln -sfn $(readlink -f /dev/disk/by-id/*-$name) /root/$name
done
mkfs.ext4 -q /root/data && mkdir -p /srv-mounted && mount /root/data /srv-mounted
mkfs.ext4 -q -L kept /root/osd0
python3 -c 'import struct
with open("/root/table", "r+b") as disk:
    disk.seek(446)
    disk.write(struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 4096))
    disk.seek(510)
    disk.write(bytes((0x55, 0xAA)))'
nohup python3 -c 'import os, time
while not os.path.exists("/root/held"):
    try:
        os.open("/root/busy", os.O_RDONLY | os.O_EXCL)
        open("/root/held", "w")
    except OSError:  # somebody looks at the new disk
        time.sleep(0.1)
time.sleep(3600)' >/dev/null 2>&1 &
until [ -e /root/held ]; do sleep 0.1; done
"""


def sums(juju: jubilant.Juju) -> str:
    """Checksums of the disks' first and last 64 MiB, where any taker begins to write.

    Not of the mounted one, whose file system writes by itself.
    """
    return cloud.sh(
        juju,
        f"{APP}/0",
        "for name in osd0 osd1 small table busy; do "
        "(head -c 64M /root/$name; tail -c 64M /root/$name) | sha256sum | sed s/-/$name/; done",
    )


def status_of(juju: jubilant.Juju) -> str:
    """The unit's message."""
    return juju.status().apps[APP].units[f"{APP}/0"].workload_status.message


REASONS = {
    "data": "is mounted on /srv-mounted",
    "osd0": "holds an ext4 file system labelled kept; set wipe=true to use it all the same",
    "small": "is 1.0 GiB; an OSD needs at least 2.0 GiB",
    "table": "holds a partition table (dos); set wipe=true to use it all the same",
    "busy": "is in use: something on this machine has opened it for itself alone",
}


def test_bad_disks_have_their_sentences_and_stay_as_they_are(alone: jubilant.Juju):
    before = sums(alone)
    unit = f"{APP}/0"
    paths = [f"/root/{name}" for name in REASONS]
    wrong = refused(alone, unit, "add-disks", disks=" ".join([*paths, "/dev/sdz", "/root/osd1"]))
    for name, reason in REASONS.items():
        assert f"-{name} {reason}" in wrong
    assert "add-disks: /dev/sdz is no disk of this machine" in wrong
    twice = refused(alone, unit, "add-disks", disks="/root/osd1,/dev/disk/../../root/osd1")
    assert "are the same disk" in twice
    for name in ("data", "small", "busy"):
        assert REASONS[name] in refused(alone, unit, "add-disks", disks=f"/root/{name}", wipe=True)
    encrypted = refused(alone, unit, "add-disks", disks="/root/osd1", encrypt=True)
    assert "this machine cannot encrypt disks" in encrypted
    (planned,) = run(alone, unit, "add-disks", **{"disks": "/root/osd1", "dry-run": True})
    assert planned["path"].endswith("-osd1")
    assert osds(alone) == {}
    assert sums(alone) == before


def test_list_disks_says_why_not(alone: jubilant.Juju):
    found = run(alone, f"{APP}/0", "list-disks")
    reasons = {disk["path"].rpartition("-")[2]: disk["ceph"]["reasons"] for disk in found}
    assert reasons["osd1"] == []
    for name, reason in REASONS.items():
        assert any(said in reason.replace("wipe=true", "wipe") for said in reasons[name]), name


def test_a_filter_takes_all_or_says_what_is_wrong(alone: jubilant.Juju):
    before = sums(alone)
    alone.config(APP, {"ceph-storage": "size == 6GiB"})
    alone.wait(lambda s: jubilant.all_blocked(s, APP), delay=0.3)
    assert "-osd0 holds an ext4 file system labelled kept; set ceph-wipe=true" in status_of(alone)
    alone.config(APP, {"ceph-storage": "[{find: size == 6GiB, wipe: true, find_max: 1}]"})
    alone.wait(lambda _: "Found more than 1 disks" in status_of(alone), delay=0.3)
    assert osds(alone) == {}
    assert sums(alone) == before
    alone.config(APP, {"ceph-storage": "[{find: size == 6GiB, wipe: true, find_max: 2}]"})
    alone.wait(lambda _: len(osds(alone)) == 2, delay=1.0)
    cloud.wait_active(alone, 1)
    kept = [line for line in before.splitlines() if not line.endswith(("osd0", "osd1"))]
    assert [line for line in sums(alone).splitlines() if line in kept] == kept
