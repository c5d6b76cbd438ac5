"""The MicroOVN stand-in over real OVN: formation, LXD's networks, power, growth and removal."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import image, shape
from lab.host import teardown
from lab.host.machine import Machine
from lab.layout import Lab

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ovn-northd") or not shutil.which("lxd"),
    reason="needs root, OVN and LXD",
)
SOCKET = "/var/snap/microovn/common/state/control.socket"
ENV = "/var/snap/microovn/common/data/env/ovn.env"
GATEWAY = "10.72.0.100"


def wait(condition: Callable[[], object], seconds: float = 90) -> float:
    """Wait until a condition holds; the seconds that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, f"not so after {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - start


class Cloud:
    """Machines with MicroOVN; the addresses of members and tunnels are templates."""

    def __init__(
        self, lab: Lab, address: str = "10.71.0.{}:6443", encap: str = "10.71.0.{}"
    ) -> None:
        self.lab = lab
        self.address = address
        self.encap = encap

    def machine(self, number: int) -> Machine:
        return Machine(self.lab, str(number))

    def name(self, number: int) -> str:
        return f"micro{number + 1}"

    def up(self, number: int) -> None:
        machine = Machine.create(self.lab, str(number))
        machine.power_on()
        machine.run("snap", "install", "microovn", "--channel", "24.03/stable")
        machine.run("microovn", "waitready", "-t", "20")

    def rest(self, number: int, method: str, url: str, body: object = None) -> dict[str, Any]:
        """One request; the whole envelope, or only an error when no daemon answers."""
        data = [] if body is None else ["-d", json.dumps(body)]
        argv = ["curl", "-sS", "--unix-socket", SOCKET, "-X", method, *data, f"http://x{url}"]
        done = self.machine(number).run(*argv, timeout=180, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr}

    def ok(self, number: int, method: str, url: str, body: object = None) -> Any:
        """One request that must succeed; its metadata."""
        answer = self.rest(number, method, url, body)
        assert answer["error"] == ""
        return answer["metadata"]

    def control(self, number: int, **body: object) -> None:
        address = self.address.format(10 + number)
        config = {"ovn-encap-ip": self.encap.format(10 + number)}
        body |= {"name": self.name(number), "address": address, "config": config}
        self.ok(number, "POST", "/core/control", body)

    def join(self, number: int, by: int = 0) -> None:
        request = {"name": self.name(number), "expire_after": 60 * 10**9}
        self.control(number, join_token=self.ok(by, "POST", "/core/control/tokens", request))

    def sh(self, number: int, command: str, timeout: float = 60) -> str:
        return self.machine(number).run("sh", "-c", command, timeout=timeout).stdout

    def centrals(self, number: int) -> list[str]:
        """The addresses in one member's ovn.env."""
        line = self.sh(number, f"grep NB_CONNECT {ENV}").split('"')[1]
        return [part.split(":")[1] for part in line.split(",")]

    def lxc(self, number: int, *args: str, check: bool = True, timeout: float = 90) -> str:
        done = self.machine(number).run("/snap/bin/lxc", *args, check=check, timeout=timeout)
        return done.stdout

    def inside(self, container: str, command: str, by: int = 0) -> str:
        """Run something in a container, asked of one member; what it printed."""
        argv = ("exec", "-T", "-n", container, "--", "timeout", "-s", "KILL", "10", "sh", "-c")
        return self.lxc(by, *argv, command, check=False).strip()

    def router(self, *argv: str) -> int:
        """Run a command on the router; its exit status."""
        full = ["ip", "netns", "exec", self.lab.router_netns, *argv]
        return subprocess.run(full, capture_output=True, timeout=60).returncode

    def reaches(self, container: str, address: str, by: int = 0) -> bool:
        return " 0% packet loss" in self.inside(container, f"ping -c1 -W1 {address}", by)

    def fetches(self, container: str, address: str, port: int, by: int = 0) -> bool:
        """Whether 5 MB come over TCP."""
        get = r"(printf 'GET /blob HTTP/1.0\r\n\r\n'; sleep 2)"
        size = self.inside(container, f"{get} | nc {address} {port} | wc -c", by)
        return int(size or 0) > 5 * 1024 * 1024


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """Three members with central, formed as MicroCloud forms them."""
    lab = Lab("tovn")
    teardown.remove(lab)
    made = Cloud(lab)
    for number in range(3):
        made.up(number)
    made.control(0, bootstrap=True)
    made.join(1)
    made.join(2, by=1)
    yield made
    if not os.environ.get("LAB_KEEP"):
        assert teardown.remove(lab) == []


def form_lxd(cloud: Cloud) -> None:
    """An LXD cluster with UPLINK and an OVN network, one container on every member."""
    for number in range(3):
        cloud.machine(number).run("snap", "install", "lxd", "--channel", "5.21/stable")
    cloud.sh(0, "lxd waitready --timeout=90; lxc config set core.https_address=10.71.0.10:8443")
    body = {"server_name": "micro1", "enabled": True}
    cloud.lxc(0, "query", "-X", "PUT", "--wait", "-d", json.dumps(body), "/1.0/cluster")
    for number in (1, 2):
        cloud.sh(number, "lxd waitready --timeout=90")
        join_lxd(cloud, number)
    target = [("--target", cloud.name(number)) for number in range(3)]
    for where in target:
        cloud.lxc(0, "storage", "create", "local", "dir", *where)
    cloud.lxc(0, "storage", "create", "local", "dir")
    connect = ",".join(f"ssl:{ip}:6641" for ip in cloud.centrals(0))
    cloud.lxc(0, "config", "set", f"network.ovn.northbound_connection={connect}")
    uplink = ("network", "create", "UPLINK", "--type=physical")
    for where in target:
        cloud.lxc(0, *uplink, "parent=enp6s0", *where)
    cloud.lxc(
        0, *uplink, "ipv4.ovn.ranges=10.72.0.100-10.72.0.199", "ipv4.gateway=10.72.0.1/24",
        "dns.nameservers=10.72.0.1",
    )  # fmt: skip
    cloud.lxc(
        0, "network", "create", "default", "--type=ovn", "network=UPLINK",
        "ipv4.address=10.73.0.1/24", "ipv4.nat=true", "ipv6.address=none",
    )  # fmt: skip
    device = ("profile", "device", "add", "default")
    cloud.lxc(0, *device, "root", "disk", "path=/", "pool=local")
    cloud.lxc(0, *device, "eth0", "nic", "network=default", "name=eth0")
    cloud.lxc(0, "image", "import", str(image.build(cloud.lab)), "--alias", "mini")
    for number, where in enumerate(target):
        cloud.lxc(0, "launch", "mini", f"c{number}", *where)


def join_lxd(cloud: Cloud, number: int) -> None:
    """Let a machine join the LXD cluster of the first."""
    name = json.dumps({"server_name": cloud.name(number)})
    made = cloud.lxc(0, "query", "-X", "POST", "-d", name, "/1.0/cluster/members")
    token = json.loads(made)["metadata"]
    keys = {"serverName": "server_name", "expiresAt": "expires_at"}
    text = json.dumps({keys.get(key, key): value for key, value in token.items()})
    certificate = json.loads(cloud.lxc(0, "query", "/1.0"))["environment"]["certificate"]
    body = {
        "server_name": cloud.name(number),
        "enabled": True,
        "member_config": [],
        "cluster_address": "10.71.0.10:8443",
        "server_address": f"10.71.0.{10 + number}:8443",
        "cluster_certificate": certificate,
        "cluster_password": base64.b64encode(text.encode()).decode(),
    }
    cloud.lxc(number, "query", "-X", "PUT", "--wait", "-d", json.dumps(body), "/1.0/cluster")


def test_formation(cloud: Cloud) -> None:
    services = cloud.ok(0, "GET", "/1.0/services")
    expected = {
        (n, s) for n in ("micro1", "micro2", "micro3") for s in ("central", "chassis", "switch")
    }
    assert {(row["location"], row["service"]) for row in services} == expected
    status = cloud.sh(2, "microovn status")
    assert "- micro2 (10.71.0.11)\n  Services: central, chassis, switch\n" in status
    assert "OVN Northbound: OK (" in status
    assert "OVN Southbound: OK (" in status
    wait(lambda: all(len(cloud.centrals(number)) == 3 for number in range(3)))
    for number in range(3):
        remote = cloud.sh(number, "microovn.ovs-vsctl get open_vswitch . external_ids:ovn-remote")
        wait(lambda n=number: cloud.sh(
            n, "microovn.ovs-vsctl get open_vswitch . external_ids:ovn-remote").count("ssl:") == 3
        )  # fmt: skip
        assert "ssl:10.71.0.10:6642" in remote
    find = "microovn.ovn-sbctl --bare --columns=ip find Encap type=geneve"
    assert sorted(cloud.sh(1, find).split()) == [f"10.71.0.1{number}" for number in range(3)]


def test_nic_is_untouched(cloud: Cloud) -> None:
    nics = {nic.name: nic for nic in cloud.machine(0).interfaces()}
    assert nics["enp5s0"].addresses == [("10.71.0.10", "10.71.0.0/24")]
    shown = cloud.sh(0, "ip -4 -o address show scope global")
    assert [line.split()[1] for line in shown.splitlines()] == ["enp5s0"]


def test_errors(cloud: Cloud) -> None:
    again = cloud.rest(0, "POST", "/core/control", {"bootstrap": True, "name": "micro1"})
    assert again["error"] == "Unable to initialize cluster: Database is online"
    assert (
        cloud.rest(0, "PUT", "/1.0/service/chassis")["error"] == "this service is already enabled"
    )
    assert cloud.rest(0, "PUT", "/1.0/service/nothing")["error"] == "service does not exist"
    assert "not supported" in cloud.rest(0, "PUT", "/1.0/service/bgp")["error"]
    done = cloud.machine(0).run("microovn", "certificates", "set-ca", check=False)
    assert done.returncode == 1
    assert "not supported" in done.stderr


def test_certificates(cloud: Cloud) -> None:
    listed = json.loads(cloud.sh(0, "microovn certificates list -f json"))
    assert set(listed) == {"ca", "client", "ovnnb", "ovnsb", "ovn-northd", "ovn-controller"}
    answer = cloud.ok(1, "PUT", "/1.0/ca")["reissued_certificates"]
    assert {name: report["failed"] for name, report in answer.items()} == {
        "micro1": [], "micro2": [], "micro3": [],
    }  # fmt: skip
    authorities = {
        cloud.sh(n, "cat /var/snap/microovn/common/data/pki/cacert.pem") for n in range(3)
    }
    assert len(authorities) == 1
    assert cloud.sh(2, "microovn.ovn-nbctl --timeout=20 show; echo $?").endswith("0\n")


def test_lxd_networks(cloud: Cloud) -> None:
    form_lxd(cloud)
    addresses = {f"c{number}": f"10.73.0.{2 + number}" for number in range(3)}
    for container, own in addresses.items():
        wait(lambda c=container: cloud.reaches(c, "10.72.0.1"))
        for address in addresses.values():
            if address != own:
                wait(lambda c=container, a=address: cloud.reaches(c, a))
                assert cloud.fetches(container, address, 80), (container, address)


def test_gateway_fails_over_and_returns(cloud: Cloud) -> None:
    wait(lambda: cloud.router("ping", "-c1", "-W1", GATEWAY) == 0)
    shown = cloud.sh(0, "microovn.ovn-sbctl show").split("Chassis ")
    number = int(next(part for part in shown if "cr-lxd" in part).split()[0][-1]) - 1
    other = (number + 1) % 3
    machine = cloud.machine(number)
    machine.power_off()
    took = wait(lambda: cloud.router("ping", "-c1", "-W1", GATEWAY) == 0)
    print(f"the gateway answers {took:.1f} s after the power cut")
    assert cloud.reaches(f"c{other}", "10.72.0.1", by=other)
    gone = {m["name"]: m["status"] for m in cloud.ok(other, "GET", "/core/1.0/cluster")}
    assert gone.pop(cloud.name(number)) == "UNREACHABLE"
    assert set(gone.values()) == {"ONLINE"}
    machine.power_on()
    wait(lambda: cloud.rest(number, "GET", "/core/1.0/ready")["error"] == "")
    wait(lambda: cloud.reaches(f"c{number}", "10.72.0.1", by=number))
    wait(lambda: cloud.sh(number, "microovn status").count(": OK (") == 2)


def test_fourth_member_is_not_central(cloud: Cloud) -> None:
    cloud.up(3)
    cloud.join(3, by=2)
    mine = [r["service"] for r in cloud.ok(3, "GET", "/1.0/services") if r["location"] == "micro4"]
    assert sorted(mine) == ["chassis", "switch"]
    assert cloud.sh(3, "microovn.ovn-sbctl show").count("Chassis") >= 3
    assert cloud.sh(3, "ls /var/snap/microovn/common/data/central/db") == ""


def test_central_can_move(cloud: Cloud) -> None:
    enabled = cloud.ok(0, "PUT", "/1.0/service/central?target=micro4")
    assert enabled == {
        "message": "central enabled", "warnings": {"EvenCentral": True, "FewCentral": False},
    }  # fmt: skip
    done = cloud.sh(0, "microovn disable central --node micro2")
    assert done == "Service central disabled\n"
    expected = ["10.71.0.10", "10.71.0.12", "10.71.0.13"]
    for number in range(4):
        wait(lambda n=number: sorted(cloud.centrals(n)) == expected)
    control = "/var/snap/microovn/common/run/ovn/ovnnb_db.ctl"
    servers = cloud.sh(3, f"microovn.ovn-appctl -t {control} cluster/status OVN_Northbound")
    assert "10.71.0.11" not in servers
    wait(lambda: cloud.sh(1, "microovn status").count(": OK (") == 2)


def test_removal_leaves_no_trace(cloud: Cloud) -> None:
    wait(lambda: all(m["role"] != "PENDING" for m in cloud.ok(0, "GET", "/core/1.0/cluster")))
    cloud.ok(3, "DELETE", "/core/1.0/cluster/micro4")
    assert "micro4" not in cloud.sh(0, "microovn.ovn-sbctl show")
    assert cloud.rest(3, "GET", "/1.0/services")["error"] == "Database is not yet initialized"
    assert "lab-encap" not in cloud.sh(3, "ip link")
    assert cloud.sh(3, "ls -d /var/snap/microovn/common/backup_*")
    for number in range(3):
        wait(lambda n=number: sorted(cloud.centrals(n)) == ["10.71.0.10", "10.71.0.12"])
    cloud.join(3)
    assert len(cloud.ok(3, "GET", "/core/1.0/cluster")) == 4
    wait(lambda: "micro4" in cloud.sh(0, "microovn.ovn-sbctl show"))


def test_dead_member_needs_force(cloud: Cloud) -> None:
    cloud.machine(3).power_off()
    refused = cloud.rest(0, "DELETE", "/core/1.0/cluster/micro4")
    assert "10.71.0.13:6443" in refused["error"]
    cloud.ok(0, "DELETE", "/core/1.0/cluster/micro4?force=1")
    assert [m["name"] for m in cloud.ok(1, "GET", "/core/1.0/cluster")] == [
        "micro1",
        "micro2",
        "micro3",
    ]
    # As with the real one, nobody has told OVN's own databases: they still name the dead machine.
    assert "micro4" in cloud.sh(0, "microovn.ovn-sbctl show")
    wait(lambda: sorted(cloud.centrals(2)) == ["10.71.0.10", "10.71.0.12"])
    assert cloud.reaches("c0", "10.73.0.4")


NETWORKS = """
networks:
  mgmt: {cidr: 10.71.0.0/24, cidr6: "fd42:71::/64", ipv6: true}
  uplink: {cidr: 10.72.0.0/24, addresses: false}
  under: {cidr: 10.75.0.0/24, mtu: 1600}
"""


@pytest.mark.parametrize("encap", ["10.75.0.{}", "fd42:71::{}"])
def test_other_underlays(encap: str) -> None:
    """Members on IPv6; tunnels over a network of their own, and over IPv6. Without LXD."""
    lab = Lab("tovn2")
    teardown.remove(lab)
    lab.root.mkdir(parents=True)
    shape.save(lab, shape.parse(NETWORKS))
    cloud = Cloud(lab, "[fd42:71::{}]:6443", encap)
    try:
        for number in range(2):
            cloud.up(number)
        cloud.control(0, bootstrap=True)
        cloud.join(1)
        assert "ssl:[fd42:71::10]:6641" in cloud.sh(1, f"cat {ENV}")
        cloud.sh(0, "microovn.ovn-nbctl ls-add sw")
        for number in range(2):
            mac, ip = f"0a:00:00:00:00:0{number}", f"10.99.0.{number + 1}"
            port = f"microovn.ovn-nbctl lsp-add sw p{number} -- lsp-set-addresses p{number}"
            cloud.sh(number, f"{port} '{mac} {ip}'")
            cloud.machine(number).run(
                "microovn.ovs-vsctl", "add-port", "br-int", f"p{number}",
                "--", "set", "interface", f"p{number}", "type=internal", f'mac="{mac}"',
                f"external_ids:iface-id=p{number}",
            )  # fmt: skip
            cloud.sh(number, f"ip address add {ip}/24 dev p{number}; ip link set p{number} up")
        for number in range(2):
            ping = f"ping -c1 -W1 10.99.0.{2 - number} >/dev/null 2>&1 && echo yes || true"
            wait(lambda n=number, p=ping: cloud.sh(n, p))
    finally:
        assert teardown.remove(lab) == []
