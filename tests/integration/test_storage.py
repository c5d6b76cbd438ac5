"""What the pool `local` is made of: attached Juju storage, a disk by filter, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.conftest import LAB, a_model
from integration.faults import Faults

pytestmark = pytest.mark.timeout(600)
UNIT = f"{APP}/0"


@pytest.fixture
def juju(request: pytest.FixtureRequest) -> Iterator[jubilant.Juju]:
    """A model for each test."""
    yield from a_model(request)


def source(juju: jubilant.Juju) -> str:
    """The file system on the machine's disks, by disk: what the pool was made on."""
    return cloud.sh(juju, UNIT, "lsblk -nro NAME,FSTYPE")


def test_attached_juju_storage_becomes_the_pool(juju: jubilant.Juju, charm: Path, config):
    juju.deploy(charm, APP, config=config, storage={"local": "3G"})
    cloud.wait_active(juju, 1)
    attached = juju.status().storage.volumes["0"].attachments.machines["0"].device
    driver = str(config.get("local-driver", "zfs_member"))
    assert f"{attached} {driver}" in source(juju)
    assert cloud.lxc_json(juju, UNIT, "storage list")[0]["status"] == "Created"


def test_a_disk_with_data_is_refused_and_taken_when_told_to(
    juju: jubilant.Juju, charm: Path, config, lab: str
):
    if not lab:
        pytest.skip("it writes to a disk of the machine; only the lab's may be used for that")
    faults = Faults(LAB, juju)
    juju.add_machine()
    juju.wait(lambda s: s.machines["0"].juju_status.current == "started", delay=0.1)
    disk = (
        "/dev/disk/by-id/"
        + faults.run(
            "exec", "0", "--", "sh", "-c", "ls /dev/disk/by-id | grep data | head -n 1"
        ).strip()
    )
    summed = f"head -c 256M {disk} | sha256sum"  # where ext4 begins; the rest is empty
    faults.run("exec", "0", "--", "sh", "-c", f"mkfs.ext4 -q {disk} && {summed} >/root/sum")
    juju.deploy(charm, APP, config={**config, "local-storage": disk}, to="0")
    juju.wait(lambda s: jubilant.all_blocked(s, APP), delay=0.2)
    message = juju.status().apps[APP].units[UNIT].workload_status.message
    assert f"local-storage: {disk} holds" in message
    assert "ext4" in message
    assert "local-wipe" in message
    assert cloud.sh(juju, UNIT, summed) == cloud.sh(juju, UNIT, "cat /root/sum")
    juju.config(APP, {"local-wipe": True})
    cloud.wait_active(juju, 1)
    assert "sda btrfs" in source(juju)


def test_a_filter_takes_the_first_disk_that_matches(
    juju: jubilant.Juju, charm: Path, config, lab: str
):
    if not lab:
        pytest.skip("the sizes are those of the lab's disks")
    juju.deploy(charm, APP, config={**config, "local-storage": "size > 100GiB"})
    juju.wait(lambda s: jubilant.all_blocked(s, APP), delay=0.2)
    message = juju.status().apps[APP].units[UNIT].workload_status.message
    assert "no free disk matches 'size > 100GiB'" in message
    juju.config(APP, {"local-storage": "size > 7GiB"})
    cloud.wait_active(juju, 1)
    assert "sda btrfs" in source(juju)
