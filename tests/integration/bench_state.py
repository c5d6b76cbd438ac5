"""What both sides of the benchmark must end in, read from the daemons to be compared.

A floor that did less than the charm would flatter it. Left out is what differs by chance
(addresses of bridges, database roles) and the charm's own marks (`user.*`).
"""

from __future__ import annotations

from typing import Any

from integration.bench_rest import LXD, MICROOVN, BenchError, Rest
from lab.host.machine import Machine, machines
from lab.layout import Lab

_RANDOM = ("ipv4.address", "ipv6.address", "volatile.")


def read(lab: Lab, *, ovn: bool) -> dict[str, Any]:
    """The state of the cloud that is up in the lab; raises BenchError."""
    found = machines(lab)
    state = _cluster(Rest(found[0], LXD))
    state["members' own"] = {m.hostname: _own(Rest(m, LXD), m.hostname) for m in found}
    if ovn:
        services = Rest(found[0], MICROOVN).get("/1.0/services")
        state["OVN's services"] = sorted((s["location"], s["service"]) for s in services)
        state["connections"] = {machine.hostname: _connections(machine) for machine in found}
    return state


def _cluster(lxd: Rest) -> dict[str, Any]:
    members = lxd.get("/1.0/cluster/members?recursion=1")
    return {
        "members": {m["server_name"]: (m["url"], m["status"]) for m in members},
        "pools": _entities(lxd, "storage-pools", "driver"),
        "networks": _entities(lxd, "networks", "type"),
        "default profile": lxd.get("/1.0/profiles/default")["devices"],
    }


def _entities(lxd: Rest, kind: str, sort: str) -> dict[str, Any]:
    return {
        item["name"]: {
            "kind": item[sort],
            "status": item["status"],
            "description": item["description"],
            "locations": sorted(item["locations"] or ()),
            "config": _settled(item["config"]),
        }
        for item in lxd.get(f"/1.0/{kind}?recursion=1")
        if item.get("managed", True)
    }


def _own(lxd: Rest, name: str) -> dict[str, Any]:
    volumes = lxd.get(f"/1.0/storage-pools/local/volumes/custom?recursion=1&target={name}")
    return {
        "config": _settled(lxd.get("/1.0")["config"]),
        "volumes": sorted(v["name"] for v in volumes if v["location"] == name),
    }


def _settled(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if not key.startswith("user.")}
    return {key: "?" if key.startswith(_RANDOM) else value for key, value in kept.items()}


def _connections(machine: Machine) -> list[str]:
    rows = machine.run("snap", "connections", "lxd").stdout.splitlines()[1:]
    return sorted(" ".join(row.split()[1:3]) for row in rows)


def compare(floor: dict[str, Any], charm: dict[str, Any]) -> None:
    """Refuse to compare times of sides that did different things; raises BenchError."""
    different = [key for key in floor | charm if floor.get(key) != charm.get(key)]
    if different:
        lines = [f"{key}: {floor.get(key)} by hand, {charm.get(key)} by the charm"
                 for key in different]  # fmt: skip
        raise BenchError("the two sides do not end in the same state:\n" + "\n".join(lines))
