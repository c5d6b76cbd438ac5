"""Disks that Ceph cannot have: each its sentence, and nothing written to them."""

from __future__ import annotations

from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.conftest import LAB
from integration.disks import CEPH, Config, osds, refused, run
from integration.faults import Faults

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def alone(juju: jubilant.Juju, charm: Path, config: Config, lab: str) -> jubilant.Juju:
    """One machine with disks that are fit for nothing, and their sums."""
    if not lab:
        pytest.skip("it spoils disks of the machine; only the lab's may be used for that")
    juju.deploy(charm, APP, config={**config, **CEPH})
    cloud.wait_active(juju, 1)
    machine = Faults(LAB, juju)
    for name, size in (("small", "1GiB"), ("table", "4GiB"), ("busy", "4GiB")):
        machine.run("disk", "add", "0", name, size)
    cloud.sh(juju, f"{APP}/0", SPOIL)
    return juju


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
