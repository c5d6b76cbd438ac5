"""Run on a machine by `faults_state`: all that formation leaves there, as JSON.

It stands alone (standard library only), and asks the daemons' sockets itself, so that what it
says does not go through the charm.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

LXD = "/var/snap/lxd/common/lxd/unix.socket"
STATE = Path("/var/lib/microcloud-charm")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _get(path: str, url: str) -> Any:
    connection = _Connection(path)
    try:
        connection.request("GET", url)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer["metadata"] if "metadata" in answer else {"error": answer.get("error")}


def _lxd() -> dict[str, Any]:
    def get(url: str) -> Any:
        return _get(LXD, url)

    me = get("/1.0")["environment"]["server_name"]
    pools = get("/1.0/storage-pools?recursion=1")
    networks = [item for item in get("/1.0/networks?recursion=1") if item["managed"]]
    running = get("/1.0/operations?recursion=1").get("running", [])
    members = get("/1.0/cluster/members?recursion=1")
    return {
        "members": {
            member["server_name"]: [member["status"], member["config"]] for member in members
        },
        "databases": sum(member["database"] for member in members),
        "trust": sorted([c["type"], c["name"]] for c in get("/1.0/certificates?recursion=1")),
        "tokens": [o for o in running if "secret" in (o.get("metadata") or {})],
        "config": get("/1.0")["config"],
        "pools": {
            pool["name"]: [pool, get(f"/1.0/storage-pools/{pool['name']}?target={me}")["config"]]
            for pool in pools
        },
        "networks": {
            net["name"]: [net, get(f"/1.0/networks/{net['name']}?target={me}")["config"]]
            for net in networks
        },
        "profile": get("/1.0/profiles/default")["devices"],
    }


def _microcluster(name: str, where: str = "state") -> dict[str, Any]:
    path = f"/var/snap/{name}/common/{where}/control.socket"
    members = _get(path, "/core/1.0/cluster")
    return {
        "members": {member["name"]: [member["status"], member["role"]] for member in members},
        "services": sorted(
            [row["location"], row["service"]] for row in _get(path, "/1.0/services") or ()
        ),
        "tokens": sorted(token["name"] for token in _get(path, "/core/control/tokens") or ()),
    }


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def _ovn() -> dict[str, Any]:
    found: dict[str, Any] = _microcluster("microovn")
    words = ("get", "open", ".", "external_ids:ovn-remote")
    remote = _run("/snap/bin/microovn.ovs-vsctl", *words).strip().strip('"')
    found["remote"] = sorted(remote.split(","))  # in the order in which they joined
    found["raft"] = {}
    for name, full in (("nb", "OVN_Northbound"), ("sb", "OVN_Southbound")):
        control = Path(f"/var/snap/microovn/common/run/ovn/ovn{name}_db.ctl")
        if control.exists():
            words = ("-t", str(control), "cluster/status", full)
            said = _run("/snap/bin/microovn.ovn-appctl", *words)
            found["raft"][name] = said.partition("Servers:")[2].count(" at ")
    return found


def _ceph() -> dict[str, Any]:
    found = _microcluster("microceph")
    said = json.loads(_run("/snap/bin/microceph.ceph", "status", "--format", "json"))
    tree = json.loads(_run("/snap/bin/microceph.ceph", "osd", "tree", "--format", "json"))
    found["mons"] = said["monmap"]["num_mons"]
    found["osds"] = sorted(node["type"] for node in tree["nodes"])
    found["pools"] = _run("/snap/bin/microceph.ceph", "osd", "pool", "ls").split()
    return found


def main() -> None:
    """Print what is here."""
    found: dict[str, Any] = {"lxd": _lxd()}
    if Path("/snap/bin/microovn").exists():
        found["microovn"] = _ovn()
    if Path("/snap/bin/microceph").exists():
        found["microceph"] = _ceph()
    marks = (path for path in STATE.glob("*/*") if not path.name.startswith("restarted"))
    found["marks"] = sorted(str(path.relative_to(STATE)) for path in marks)
    found["links"] = sorted(link["ifname"] for link in json.loads(_run("ip", "-j", "link")))
    print(json.dumps(found))


main()
