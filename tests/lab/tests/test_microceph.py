"""MicroCeph's stand-in with real Ceph daemons: formation, disks, growth, loss, and LXD's pools."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import image, shape
from lab.host import teardown
from lab.host.machine import CommandFailed, Machine
from lab.layout import Lab
from lab.microceph import network, osds, rbd_map, services, settings
from lab.microcluster.rest import ApiError

needs_lab = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ceph-osd") or not shutil.which("lxd"),
    reason="needs root and the packages of tests/lab/packages",
)
SOCKET = "/var/snap/microceph/common/state/control.socket"
SHAPE = """\
networks:
  mgmt: {cidr: 10.71.0.0/24}
  internal: {cidr: 10.74.0.0/24}
defaults:
  disks: {osd0: 6GiB, osd1: 6GiB}
"""
HEALTH_DEADLINE = 120  # seconds


# Without a lab


def test_configuration_names_all_monitors_in_order() -> None:
    values = {
        "fsid": "f", "public_network": "10.0.0.0/24", "mon.host.b": "10.0.0.2",
        "mon.host.a": "10.0.0.1", "v2only": "false",
    }  # fmt: skip
    text = settings.render(values)
    assert "mon host = 10.0.0.1,10.0.0.2\n" in text
    assert "ms bind ipv4 = true\nms bind ipv6 = false\n" in text


def test_configuration_for_ipv6_and_the_second_protocol_only() -> None:
    values = {"public_network": "fd00::/64", "mon.host.a": "fd00::1", "v2only": "true"}
    text = settings.render(values)
    assert "mon host = v2:[fd00::1]:3300\n" in text
    assert "ms bind ipv6 = true\nms bind msgr1 = false\n" in text


def test_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [ipaddress.ip_interface("10.0.0.7/24"), ipaddress.ip_interface("fd00::7/64")]
    monkeypatch.setattr(network, "local", lambda: mine)
    assert network.address_in("10.5.0.0/24,fd00::/64") == "fd00::7"
    assert network.network_of("10.0.0.7") == "10.0.0.0/24"
    assert network.contains("10.0.0.0/24,10.1.0.0/24", "10.1.0.9")
    assert not network.contains("10.0.0.0/24", "fd00::1")
    with pytest.raises(ApiError, match="failed to parse subnet"):
        network.subnets("10.0.0.0/99")
    with pytest.raises(ApiError, match=r"no local IP belongs to .* \[192\.0\.2\.0/24\]"):
        network.address_in("192.0.2.0/24")


@pytest.mark.parametrize("key", ["osd_memory_target", ""])
def test_only_known_settings_are_managed(key: str) -> None:
    with pytest.raises(ApiError, match="is not a MicroCeph supported cluster config"):
        settings.check_key(key)


def test_read_only_setting() -> None:
    settings.check_key("public_network")
    with pytest.raises(ApiError, match="does not support write operation"):
        settings.check_key("public_network", write=True)


def test_too_few_services_elsewhere() -> None:
    rows = [{"service": s, "location": m} for m in "abc" for s in ("mon", "mgr", "mds")]
    services.check_enough(rows, "z", {"mon": 3, "mgr": 1, "mds": 1})
    with pytest.raises(ApiError, match="need at least 3 mon, 1 mds, and 1 mgr"):
        services.check_enough(rows, "a", {"mon": 3, "mgr": 1, "mds": 1})


@pytest.mark.parametrize(
    "spec", ["loop,4G", "loop,0G,1", "loop,4K,1", "loop,4G,0", "loop,4G,1x", "loop,,1"]
)
def test_loop_specs_that_are_none(spec: str) -> None:
    assert not osds.LOOP.fullmatch(spec)


def test_key_has_the_form_of_a_keyring() -> None:
    key = services.new_key()
    assert len(key) == 40
    assert key.startswith("AQ")
    assert key != services.new_key()


def test_rbd_arguments() -> None:
    options, words = rbd_map.parse(["--id", "admin", "--pool", "p", "map", "image@snap"])
    assert words == ["map", "image@snap"]
    assert rbd_map.image_of(words[1], options) == rbd_map.Image("p", "image", "snap")
    assert rbd_map.image_of("q/i", {}) == rbd_map.Image("q", "i")
    assert [rbd_map.size_of(s) for s in ("1G", "512", "8B")] == [1 << 30, 512 << 20, 8]
    with pytest.raises(rbd_map.RbdError, match="invalid size"):
        rbd_map.size_of("big")


# With a lab


@dataclass
class Cloud:
    """Four machines, of which the first three become members in the first test."""

    machines: list[Machine]

    def ceph(self, *words: str, on: int = 0) -> str:
        return self.machines[on].run("microceph.ceph", *words).stdout

    def cli(self, *words: str, on: int = 0, timeout: float = 120) -> str:
        return self.machines[on].run("microceph", *words, timeout=timeout).stdout

    def fails(self, *words: str, on: int = 0) -> str:
        with pytest.raises(CommandFailed) as caught:
            self.machines[on].run("microceph", *words)
        return caught.value.stderr

    def rest(self, method: str, url: str, body: object = None, on: int = 0) -> Any:
        argv = ["curl", "-s", "--unix-socket", SOCKET, "-X", method, f"http://ceph{url}"]
        argv += [] if body is None else ["-d", json.dumps(body)]
        return json.loads(self.machines[on].run(*argv, timeout=200).stdout)

    def join(self, number: int) -> None:
        """Join by REST with the address 10.71.0.1N and port 7443, as a charm does."""
        machine = self.machines[number]
        body = {"name": machine.hostname, "expire_after": 600 * 10**9}
        token = self.rest("POST", "/core/control/tokens", body)["metadata"]
        address = f"10.71.0.{10 + number}:7443"
        body = {"join_token": token, "name": machine.hostname, "address": address}
        answer = self.rest("POST", "/core/control", body, on=number)
        assert answer["type"] == "sync", answer

    def wait_healthy(self) -> None:
        """Wait for HEALTH_OK."""
        deadline = time.monotonic() + HEALTH_DEADLINE
        while not (health := self.ceph("health")).startswith("HEALTH_OK"):
            assert time.monotonic() < deadline, health
            time.sleep(0.3)

    def wait_for(self, text: str, *words: str) -> None:
        """Wait until a `ceph` command prints a text."""
        deadline = time.monotonic() + HEALTH_DEADLINE
        while text not in (shown := self.ceph(*words)):
            assert time.monotonic() < deadline, shown
            time.sleep(0.3)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """Four machines with the snap, removed at the end."""
    mine = Lab("tceph")
    teardown.remove(mine)
    shape.save(mine, shape.parse(SHAPE))
    made = [Machine.create(mine, str(number)) for number in range(4)]
    for machine in made:
        machine.power_on()
        machine.run("snap", "install", "microceph")
    yield Cloud(made)
    assert teardown.remove(mine) == []


@needs_lab
def test_bootstrap_refuses_what_does_not_fit_and_leaves_nothing(cloud: Cloud) -> None:
    assert "Database is not yet initialized" in cloud.fails("status")
    body = {"bootstrap": True, "name": "micro1", "address": "10.71.0.10:7443"}
    for config, text in (
        ({"PublicNet": "10.99.0.0/24"}, "no local IP belongs to any of the listed subnets"),
        (
            {"MonIp": "10.71.0.10", "PublicNet": "10.74.0.0/24"},
            "provided mon-ip 10.71.0.10 is not",
        ),
        ({"ClusterNet": "10.99.0.0/24"}, "failed to locate cluster network 10.99.0.0/24 on host"),
        ({"DeferCeph": "true"}, "DeferCeph is not supported by this stand-in"),
    ):
        answer = cloud.rest("POST", "/core/control", {**body, "config": config})
        assert answer["type"] == "error"
        assert text in answer["error"]
    assert not cloud.rest("GET", "/core/1.0")["metadata"]["ready"]


@needs_lab
def test_three_members_with_mon_mgr_mds(cloud: Cloud) -> None:
    config = {"PublicNet": "10.71.0.0/24", "ClusterNet": "10.74.0.0/24"}
    body = {"bootstrap": True, "name": "micro1", "address": "10.71.0.10:7443", "config": config}
    assert cloud.rest("POST", "/core/control", body)["type"] == "sync"
    cloud.join(1)
    cloud.join(2)
    status = cloud.cli("status")
    assert status.count("Services: mds, mgr, mon\n") == 3
    assert "- micro2 (10.71.0.11)\n" in status
    quorum = json.loads(cloud.ceph("quorum_status", "-f", "json"))
    assert sorted(quorum["quorum_names"]) == ["micro1", "micro2", "micro3"]
    for machine in cloud.machines[:3]:
        conf = machine.run("cat", "/var/snap/microceph/current/conf/ceph.conf").stdout
        assert "mon host = 10.71.0.10,10.71.0.11,10.71.0.12\n" in conf


@needs_lab
def test_disks_are_checked_and_reported_with_status_200(cloud: Cloud) -> None:
    def report(body: dict[str, Any]) -> tuple[str, str]:
        answer = cloud.rest("POST", "/1.0/disks", body)
        assert answer["status_code"] == 200
        reports = answer["metadata"]["report"]
        return answer["metadata"]["validation_error"], reports[0]["error"] if reports else ""

    machine = cloud.machines[0]
    assert "invalid disk path: /dev/sdz" in report({"path": ["/dev/sdz"]})[1]
    assert "encryption unsupported" in report({"path": ["/dev/sda"], "encrypt": True})[1]
    batch, _ = report({"path": ["/dev/sda", "loop,4G,1"]})
    assert "loop spec loop,4G,1 is not supported" in batch
    assert "insufficient free space" in report({"path": ["loop,900T,1"]})[1]
    assert "not supported" in report({"path": [], "osd_match": "eq(@type,'ssd')"})[0]
    machine.run("mkfs.ext4", "-q", "/dev/sda")
    assert "is not pristine (contains data)" in report({"path": ["/dev/sda"]})[1]
    machine.run("mount", "/dev/sda", "/mnt")
    mounted = report({"path": ["/dev/sda"], "wipe": True})[1]
    machine.run("umount", "/mnt")
    assert "is currently mounted and cannot be used - aborting" in mounted
    assert cloud.rest("GET", "/1.0/disks")["metadata"] == []


@needs_lab
def test_osds_and_the_failure_domain(cloud: Cloud) -> None:
    added = cloud.rest("POST", "/1.0/disks", {"path": ["/dev/sda"], "wipe": True})
    assert added["metadata"]["report"] == [{"path": "/dev/sda", "report": "Success", "error": ""}]
    rules = cloud.rest("GET", "/1.0/pools")["metadata"]
    assert [(p["pool"], p["crush_rule"]) for p in rules] == [(".mgr", "microceph_auto_osd")]
    for number in (1, 2):
        cloud.cli("disk", "add", "/dev/sda", on=number)
    cloud.wait_healthy()
    rules = cloud.rest("GET", "/1.0/pools")["metadata"]
    assert [p["crush_rule"] for p in rules] == ["microceph_auto_host"]
    disks = cloud.rest("GET", "/1.0/disks")["metadata"]
    assert [(d["osd"], d["location"]) for d in disks] == [
        (1, "micro1"), (2, "micro2"), (3, "micro3"),
    ]  # fmt: skip
    assert disks[0]["path"].startswith("/dev/disk/by-id/scsi-0QEMU_")
    again = cloud.rest("POST", "/1.0/disks", {"path": ["/dev/sda"], "wipe": True})
    assert "already exists" in again["metadata"]["report"][0]["error"]
    assert cloud.ceph("config", "show", "osd.1", "cluster_network").strip() == "10.74.0.0/24"
    assert "10.74.0.11:" in cloud.ceph("osd", "dump")


@needs_lab
def test_available_disks_are_those_of_this_host(cloud: Cloud) -> None:
    listing = json.loads(cloud.cli("disk", "list", "--json"))
    assert len(listing["ConfiguredDisks"]) == 3
    assert [d["Size"] for d in listing["AvailableDisks"]] == ["6.00GiB"]


@needs_lab
def test_an_osd_that_dies_stays_down_until_its_service_is_restarted(cloud: Cloud) -> None:
    cloud.machines[1].run("pkill", "-9", "-f", "ceph-osd .* --id 2$")
    cloud.wait_for("1 osds down", "health")
    cloud.machines[1].run("snap", "restart", "microceph.osd")
    cloud.wait_healthy()


@needs_lab
def test_a_fourth_member_gets_no_monitor_and_gives_its_disks(cloud: Cloud) -> None:
    cloud.join(3)
    services_of = cloud.rest("GET", "/1.0/services")["metadata"]
    assert {row["location"] for row in services_of} == {"micro1", "micro2", "micro3"}
    cloud.cli("disk", "add", "/dev/sda", "/dev/sdb", on=3)
    cloud.cli("disk", "add", "loop,4G,1", on=1)
    cloud.wait_for("6 osds: 6 up", "-s")
    cloud.wait_healthy()
    for number in (6, 5, 4):
        assert f"Removing osd.{number}" in cloud.cli("disk", "remove", f"osd.{number}")
    cloud.wait_healthy()
    assert "we need at least 3 OSDs, have 3" in cloud.fails(
        "disk", "remove", "3", "--confirm-failure-domain-downgrade"
    )
    assert "--confirm-failure-domain-downgrade" in cloud.fails("disk", "remove", "3")
    assert "Node micro3 still has disks" in cloud.fails("cluster", "remove", "micro3")
    cloud.cli("cluster", "remove", "micro4")
    assert "Database is not yet initialized" in cloud.fails("status", on=3)
    cloud.machines[3].power_off()


@needs_lab
def test_settings_pools_and_maintenance(cloud: Cloud) -> None:
    cloud.cli("pool", "set-rf", "--size", "2", "")
    assert cloud.ceph("config", "get", "mon", "osd_pool_default_size").strip() == "2"
    cloud.cli("pool", "set-rf", "--size", "3", "*")
    assert "| .mgr | 3    | microceph_auto_host |" in cloud.cli("pool", "list")
    assert "| cluster_network " in cloud.cli("cluster", "config", "list")
    assert "does not support write" in cloud.fails(
        "cluster", "config", "set", "public_network", "x"
    )
    cloud.cli("cluster", "maintenance", "enter", "micro2", "--stop-osds")
    cloud.wait_for("1 osds down", "health")
    cloud.cli("cluster", "maintenance", "exit", "micro2")
    cloud.wait_healthy()


@needs_lab
def test_gateway(cloud: Cloud) -> None:
    if not shutil.which("radosgw"):
        pytest.skip("needs the package radosgw")
    cloud.cli("enable", "rgw", "--port", "8080", "--target", "micro2")
    assert "mds, mgr, mon, rgw, osd" in cloud.cli("status")
    ask = ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "1"]
    shown = cloud.machines[0].run(*ask, "http://10.71.0.11:8080/", timeout=60).stdout
    assert "ListAllMyBucketsResult" in shown
    cloud.cli("disable", "rgw", "--target", "micro2")
    assert "nfs is not supported" in cloud.fails("enable", "nfs")


def _form_lxd(cloud: Cloud) -> None:
    """An LXD cluster of three with the pools that MicroCloud makes."""
    first = cloud.machines[0]
    for machine in cloud.machines[:3]:
        machine.run("snap", "install", "lxd")
        machine.run("lxd", "waitready", "--timeout", "30")
    first.run("lxc", "config", "set", "core.https_address", "10.71.0.10:8443")
    first.run("lxc", "cluster", "enable", first.hostname)
    for number, machine in enumerate(cloud.machines[1:3], 1):
        token = first.run("lxc", "cluster", "add", machine.hostname).stdout.split()[-1]
        preseed = (
            f"cluster:\n  enabled: true\n  server_address: 10.71.0.{10 + number}:8443\n"
            f"  cluster_token: {token}\n"
        )
        machine.run("lxd", "init", "--preseed", input=preseed)
    for pool in ("lxd_cephfs_meta", "lxd_cephfs_data"):
        cloud.ceph("osd", "pool", "create", pool, "32")
    cloud.ceph("fs", "new", "lxd_cephfs", "lxd_cephfs_meta", "lxd_cephfs_data")
    cloud.wait_for("up:active", "mds", "stat")
    for pool, driver, source, options in (
        ("remote", "ceph", "lxd_remote", ["ceph.rbd.du=false", "ceph.osd.pool_name=lxd_remote"]),
        ("remote-fs", "cephfs", "lxd_cephfs", ["cephfs.path=lxd_cephfs"]),
    ):
        for machine in cloud.machines[:3]:
            first.run("lxc", "storage", "create", pool, driver, f"source={source}",
                      "--target", machine.hostname)  # fmt: skip
        first.run("lxc", "storage", "create", pool, driver, *options)


@needs_lab
def test_containers_on_ceph_move_and_share(cloud: Cloud) -> None:
    _form_lxd(cloud)
    lxc = cloud.machines[0].run
    path = image.build(cloud.machines[0].lab)
    lxc("lxc", "image", "import", str(path), "--alias", "mini")
    for number, machine in enumerate(cloud.machines[:3], 1):
        lxc("lxc", "launch", "mini", f"c{number}", "-s", "remote", "--target", machine.hostname)
    lxc("lxc", "storage", "volume", "create", "remote-fs", "shared")
    for name in ("c1", "c3"):
        lxc("lxc", "storage", "volume", "attach", "remote-fs", "shared", name, "/shared")
    lxc("lxc", "exec", "c1", "--", "sh", "-c", "echo hello >/shared/greeting; sync")
    assert lxc("lxc", "exec", "c3", "--", "cat", "/shared/greeting").stdout == "hello\n"
    lxc("lxc", "exec", "c2", "--", "sh", "-c", "echo kept >/root/file; sync")
    lxc("lxc", "snapshot", "c2", "before")
    lxc("lxc", "stop", "-f", "c2")
    lxc("lxc", "move", "c2", "--target", "micro3")
    lxc("lxc", "start", "c2")
    assert lxc("lxc", "exec", "c2", "--", "cat", "/root/file").stdout == "kept\n"


@needs_lab
def test_a_lost_machine_and_its_return(cloud: Cloud) -> None:
    lxc = cloud.machines[0].run
    lost = cloud.machines[2]
    lost.power_off()
    cloud.wait_for("1 osds down", "health")
    deadline = time.monotonic() + HEALTH_DEADLINE
    while "OFFLINE" not in lxc("sh", "-c", "lxc cluster list -f csv | grep ^micro3").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    lxc("lxc", "move", "c2", "--target", "micro1")
    # The dead client's lock on the image is broken when its watch has timed out.
    lxc("lxc", "start", "c2", timeout=120)
    assert lxc("lxc", "exec", "c2", "--", "cat", "/root/file").stdout == "kept\n"
    members = json.loads(cloud.cli("cluster", "list", "-f", "json"))
    assert [m["status"] for m in members] == ["ONLINE", "ONLINE", "UNREACHABLE"]
    lost.power_on()
    cloud.wait_healthy()
    assert cloud.cli("status", on=2).count("mds, mgr, mon, osd") == 3


@needs_lab
def test_a_member_with_a_monitor_leaves_by_force_only_and_joins_again(cloud: Cloud) -> None:
    cloud.cli("disk", "add", "/dev/sdb", on=0)
    cloud.cli("disk", "add", "/dev/sdb", on=1)
    cloud.wait_for("5 osds: 5 up", "-s")
    removal = ("disk", "remove", "3", "--confirm-failure-domain-downgrade")
    cloud.cli(*removal, timeout=200)
    assert "Insufficient non OSD services" in cloud.fails("cluster", "remove", "micro3")
    cloud.cli("cluster", "remove", "micro3", "--force")
    cloud.wait_for("2 daemons, quorum micro1,micro2", "-s")
    for machine in cloud.machines[:2]:
        conf = machine.run("cat", "/var/snap/microceph/current/conf/ceph.conf").stdout
        assert "mon host = 10.71.0.10,10.71.0.11\n" in conf
    cloud.join(2)
    assert cloud.cli("status").count("mds, mgr, mon") == 3
    cloud.cli("disk", "add", "/dev/sda", on=2)
    cloud.wait_healthy()
