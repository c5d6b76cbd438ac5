"""The driver of MicroCeph: what is not microcluster's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from errors import DaemonError, JoinFailed
from services.microceph import Health, Microceph, Osd, Pool
from unit.conftest import Machine
from view import Presence
from world import Ticket

STATUS = {
    "health": {
        "status": "HEALTH_WARN",
        "checks": {
            "PG_DEGRADED": {"severity": "HEALTH_WARN", "summary": {"message": "2 pgs degraded"}},
            "OSD_DOWN": {"severity": "HEALTH_WARN", "summary": {"message": "1 osds down"}},
        },
    },
    "osdmap": {"num_osds": 3, "num_up_osds": 2, "num_in_osds": 3},
}


@pytest.fixture
def ceph(machine: Machine) -> Microceph:
    machine.install("lxd", "microceph")
    machine.microceph.members = {"micro1": "10.0.0.1:7443", "micro2": "10.0.0.2:7443"}
    return Microceph(machine.folder / "state")


def test_only_the_first_member_says_how_the_cluster_is_to_be(machine: Machine):
    machine.install("lxd", "microceph")
    machine.connections = ["content lxd:ceph-conf - -"]
    driver = Microceph(machine.folder / "state", lambda first: {"PublicNet": "x"} if first else {})
    driver.bootstrap("micro1", "10.0.0.1")
    machine.microceph.members = {}
    driver.join(Ticket("micro1", "10.0.0.1", "secret", 7, ()), 10)
    assert [asked["config"] for asked in machine.microceph.controls] == [{"PublicNet": "x"}, {}]
    assert machine.microceph.controls[0]["address"] == "10.0.0.1:7443"
    assert "connect lxd:ceph-conf microceph:ceph-conf" in machine.snap_calls


def test_a_failed_join_leaves_nothing_of_the_cluster(machine: Machine):
    machine.install("lxd", "microceph")
    snap = machine.folder / "microceph"
    keyring, conf = snap / "current/conf/ceph.keyring", snap / "current/conf/metadata.yaml"
    monitor = snap / "common/data/mon/ceph-micro1/store.db/x"
    for path in (keyring, conf, monitor):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    machine.microceph.refuse = {"POST /core/control": (500, "no quorum")}
    driver = Microceph(machine.folder / "state")
    with pytest.raises(JoinFailed, match="MicroCeph: no quorum"):
        driver.join(Ticket("micro1", "10.0.0.1", "secret", 7, ()), 10)
    assert not keyring.exists()
    assert not monitor.parent.exists()
    assert conf.exists(), "it says which Ceph is installed"
    assert driver.look().presence is Presence.ALONE


def test_disks(machine: Machine, ceph: Microceph):
    machine.microceph.disk("/dev/disk/by-id/b", "micro2")
    ceph.add_disks(["/dev/disk/by-id/a"], wipe=True)
    assert machine.microceph.bodies[-1]["wipe"] is True
    assert ceph.disks() == (
        Osd(1, "micro2", "/dev/disk/by-id/b"),
        Osd(2, "micro1", "/dev/disk/by-id/a"),
    )
    ceph.remove_disk(1, timeout=60)
    ceph.remove_disk(9)
    assert machine.microceph.bodies[-1] == {
        "osdid": 1,
        "bypass_safety": False,
        "confirm_downgrade": False,
        "prohibit_crush_scaledown": False,
        "timeout": 60,
    }
    assert [osd.number for osd in ceph.disks()] == [2]


def test_a_refused_disk_is_an_error_although_the_daemon_answers_that_all_is_well(
    machine: Machine, ceph: Microceph
):
    machine.microceph.refused = {
        "/dev/sda": "device /dev/sda is currently mounted and cannot be used - aborting",
        "/dev/sdc": "failed to set stable disk path: invalid disk path: /dev/sdc",
    }
    with pytest.raises(DaemonError) as caught:
        ceph.add_disks(["/dev/sda", "/dev/sdb", "/dev/sdc"])
    assert str(caught.value) == (
        "MicroCeph: /dev/sda: device /dev/sda is currently mounted and cannot be used - aborting; "
        "MicroCeph: /dev/sdc: failed to set stable disk path: invalid disk path: /dev/sdc"
    )
    assert [osd.path for osd in ceph.disks()] == ["/dev/sdb"], "one bad disk stops no other"


def test_a_refused_request_is_an_error_as_well(
    machine: Machine, ceph: Microceph, monkeypatch: pytest.MonkeyPatch
):
    said = {"validation_error": "illegal spec: loop,0G,1", "report": []}
    monkeypatch.setattr(machine.microceph, "_add", lambda _: said)
    with pytest.raises(DaemonError, match="MicroCeph: illegal spec: loop,0G,1"):
        ceph.add_loop("loop,0G,1")
    said["report"] = [{"path": "loop,0G,1", "report": "Failure", "error": "illegal spec"}]
    said["validation_error"] = "illegal spec"
    with pytest.raises(DaemonError) as caught:
        ceph.add_loop("loop,0G,1")
    assert str(caught.value).count("illegal spec") == 1


def test_services_and_pools(machine: Machine, ceph: Microceph):
    machine.microceph.services = {"mon": ["micro2", "micro1"], "mds": ["micro1"]}
    assert ceph.placed() == {"mds": ("micro1",), "mon": ("micro1", "micro2")}
    ceph.enable("mds", "micro2")
    assert ceph.placed()["mds"] == ("micro1", "micro2")
    machine.microceph.pools = {"lxd_remote": 1}
    ceph.replicate(2)
    assert ceph.pools() == (Pool("lxd_remote", 1, "microceph_auto_osd"),)
    ceph.replicate(3, ["lxd_remote"])
    assert ceph.pools()[0].size == machine.microceph.default_size == 3


@pytest.mark.parametrize("osdmap", [STATUS["osdmap"], {"osdmap": STATUS["osdmap"]}])
def test_health(machine: Machine, ceph: Microceph, osdmap: dict[str, object]):
    machine.tool("microceph.ceph", json.dumps({**STATUS, "osdmap": osdmap}))
    health = ceph.health()
    checks = {"OSD_DOWN": "1 osds down", "PG_DEGRADED": "2 pgs degraded"}
    assert health == Health("HEALTH_WARN", checks, 3, 2, 3)
    assert str(health) == "Ceph HEALTH_WARN: 1 osds down; 2 pgs degraded"


def test_ceph_says_what_is_wrong(machine: Machine, ceph: Microceph):
    with pytest.raises(DaemonError, match=r"microceph\.ceph status failed: .*No such file"):
        ceph.health()
    machine.tool("microceph.ceph", "")
    assert ceph.ceph("osd", "unset", "noout") is None
    command = Path(machine.folder / "bin/microceph.ceph")
    command.write_text("#!/bin/sh\necho 'Error EINVAL: pool is no pool' >&2\nexit 22\n")
    with pytest.raises(DaemonError, match="osd pool get x size failed: Error EINVAL"):
        ceph.ceph("osd", "pool", "get", "x", "size")
    command.write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(DaemonError, match="did not end within 0 s"):
        ceph.ceph("status", timeout=0.1)


@pytest.mark.parametrize(
    ("off", "said"),
    [
        ("micro2", "too few run to be a majority: power on micro2; if that cannot be, docs/"),
        ("", "the logs of its monitors (micro1, micro2) may say why"),
    ],
)
def test_a_ceph_without_majority_says_whom_it_waits_for(
    machine: Machine, ceph: Microceph, off: str, said: str
):
    machine.microceph.services["mon"] = ["micro1", "micro2"]
    machine.microceph.status[off] = "UNREACHABLE"
    tool = machine.folder / "bin/microceph.ceph"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    with pytest.raises(DaemonError) as caught:
        ceph.ceph("pg", "stat", timeout=0.1)
    assert str(caught.value).startswith("microceph.ceph pg stat did not end within 0 s; ")
    assert said in str(caught.value)
