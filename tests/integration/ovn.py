"""What the tests of OVN share: the uplink's settings, containers, and traffic between them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import jubilant

from integration import cloud
from integration.cloud import APP

Config = dict[str, bool | int | float | str]
# As the lab has it; on a real controller the variables say what its machines have.
INTERFACE = os.environ.get("UPLINK_INTERFACE", "enp6s0")
GATEWAY = os.environ.get("UPLINK_GATEWAY", "10.72.0.1/24")
RANGE = os.environ.get("UPLINK_RANGE", "10.72.0.100-10.72.0.199")
UPLINK: Config = {
    "microovn-channel": "24.03/stable",
    "ovn-uplink-interface": INTERFACE,
    "ovn-ipv4-gateway": GATEWAY,
    "ovn-ipv4-range": RANGE,
}
ROUTER = GATEWAY.partition("/")[0]
# A TCP server beyond the uplink that says something: a container's way out must reach it.
OUTSIDE = os.environ.get("UPLINK_TCP", f"{ROUTER} 8080")
IMAGE = "mini"


@contextlib.contextmanager
def outside_server() -> Iterator[None]:
    """A web server on the lab's router."""
    from lab.host import networks
    from lab.layout import Lab

    words = ("busybox", "httpd", "-f", "-p", f"{ROUTER}:8080", "-h", "/usr/share/common-licenses")
    server = subprocess.Popen(networks.enter(Lab.from_environment().router_netns, *words))
    try:
        yield
    finally:
        server.kill()
        server.wait()


def tell(juju: jubilant.Juju, unit: str) -> dict[str, Any]:
    """OVN's health as the charm tells it."""
    return cloud.status(juju, unit)["ovn"]


def network(juju: jubilant.Juju, unit: str, name: str, target: str = "") -> dict[str, Any]:
    """A network of LXD, or a member's part of it."""
    query = f"?target={target}" if target else ""
    found = json.loads(cloud.lxc(juju, unit, f"query /1.0/networks/{name}{query}"))
    return {**found, "locations": sorted(found.get("locations") or ())}


def import_image(juju: jubilant.Juju, unit: str, path: str) -> None:
    """Import the small image into the cluster."""
    juju.scp(path, f"{unit}:/root/mini.tar.xz")
    cloud.lxc(juju, unit, f"image import /root/mini.tar.xz --alias {IMAGE}")


def launch(juju: jubilant.Juju, unit: str, name: str, member: str) -> str:
    """Launch a container on a member; its IPv4 address."""
    cloud.lxc(juju, unit, f"launch {IMAGE} {name} --target {member} --quiet")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = cloud.lxc(juju, unit, f"exec -T -n {name} -- ip -4 -o addr show dev eth0")
        found = [word for word in shown.split() if word.count(".") == 3 and "/" in word]
        if found:
            return found[0].partition("/")[0]
        time.sleep(0.3)
    raise AssertionError(f"{name} got no address within 60 s")


def inside(juju: jubilant.Juju, unit: str, container: str, command: str) -> str:
    """What a shell command in a container prints."""
    return cloud.sh(juju, unit, f"lxc exec -T -n {container} -- sh -c '{command}'", wait=60)


def pings(juju: jubilant.Juju, unit: str, container: str, address: str) -> bool:
    """Whether one of three pings from a container is answered."""
    said = inside(juju, unit, container, f"ping -c 3 -i 0.2 -W 2 {address}; true")
    return "100% packet loss" not in said


def fetches(juju: jubilant.Juju, unit: str, container: str, address: str) -> int:
    """How many bytes a container gets from another one's web server, over TCP."""
    ask = f'printf "GET /blob HTTP/1.0\\r\\n\\r\\n" | timeout -s KILL 20 nc {address} 80 | wc -c'
    return int(inside(juju, unit, container, ask).strip())


def gets_out(juju: jubilant.Juju, unit: str, container: str) -> bool:
    """Whether a container gets an answer of a TCP server at the uplink's other end."""
    ask = f'printf "GET / HTTP/1.0\r\n\r\n" | timeout -s KILL 5 nc -w 2 {OUTSIDE} | wc -c; true'
    return int(inside(juju, unit, container, ask).strip() or 0) > 0


def gateway(juju: jubilant.Juju, unit: str) -> str:
    """The member through which the network `default` reaches its uplink now."""
    table = "--bare --columns=chassis find Port_Binding type=chassisredirect"
    uuid = cloud.sh(juju, unit, f"microovn.ovn-sbctl {table}").split()[0]
    return cloud.sh(
        juju, unit, f"microovn.ovn-sbctl --bare --columns=name list Chassis {uuid}"
    ).strip()


def wait_blocked(juju: jubilant.Juju, sentence: str, timeout: float = 60) -> str:
    """Wait until a unit is blocked with the sentence; its whole message."""

    def blocked(status: jubilant.Status) -> bool:
        return bool(_messages(status, sentence))

    return _messages(juju.wait(blocked, delay=0.3, successes=1, timeout=timeout), sentence)[0]


def _messages(status: jubilant.Status, sentence: str) -> list[str]:
    states = [unit.workload_status for unit in status.apps[APP].units.values()]
    return [s.message for s in states if s.current == "blocked" and sentence in s.message]
