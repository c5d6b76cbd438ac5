"""A daemon that answers as MicroCeph does, as far as the charm asks it.

It keeps disks, services and pools in lists; what real Ceph does is tested on the lab.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unit.fake_daemon import Query, Refused
from unit.fake_microcluster import FakeMicrocluster

CORE = ("mon", "mgr", "mds")


@dataclass
class FakeMicroceph(FakeMicrocluster):
    """The state of one MicroCeph and of the cluster that it is in.

    `name` is this member, whose disks are added; `refused` are the errors for some paths;
    `default_size` is how often new pools keep what they hold.
    """

    name: str = "micro1"
    disks: list[dict[str, Any]] = field(default_factory=list)
    services: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in CORE})
    pools: dict[str, int] = field(default_factory=dict)
    default_size: int = 3
    rule: str = "microceph_auto_osd"
    config: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    noout: bool = False
    against: str = ""  # what its checks say against maintenance
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def disk(self, path: str, member: str = "") -> None:
        """One more OSD."""
        number = 1 + max((disk["osd"] for disk in self.disks), default=0)
        self.disks.append({"osd": number, "path": path, "location": member or self.name})

    def joined(self, name: str) -> None:
        for members in self.services.values():
            if len(members) < 3:
                members.append(name)

    def left(self, name: str) -> None:
        for members in self.services.values():
            if name in members:
                members.remove(name)

    def more(self, call: str, query: Query, body: dict[str, Any]) -> Any:
        number = call.rpartition("/")[2]
        if call == "GET /1.0/disks":
            return self.disks
        if call == "GET /1.0/services":
            return [
                {"service": service, "location": member, "group_id": "", "info": ""}
                for service, members in self.services.items()
                for member in members
            ]
        if call == "GET /1.0/pools":
            return [
                {"pool": pool, "pool_id": 1, "size": size, "min_size": 1, "crush_rule": self.rule}
                for pool, size in self.pools.items()
            ]
        if call == "GET /1.0/configs":
            return [
                {"key": key, "value": value, "wait": False} for key, value in self.config.items()
            ]
        self.bodies.append(body)
        return self._change(call, number, query, body)

    def _change(self, call: str, number: str, query: Query, body: dict[str, Any]) -> Any:
        if call == "POST /1.0/disks":
            return self._add(body)
        if call.startswith("DELETE /1.0/disks/"):
            if query["target"] != [
                next(d["location"] for d in self.disks if d["osd"] == int(number))
            ]:
                raise Refused(400, f"osd.{number} is not here")
            self.disks = [disk for disk in self.disks if disk["osd"] != int(number)]
        elif call.startswith("PUT /1.0/ops/maintenance/"):
            if body["check_only"]:
                return [{"name": "check", "error": self.against, "action": ""}]
            self.noout = body["status"] == "maintenance"
        elif call.startswith("DELETE /1.0/services/"):
            self.services[number].remove(query["target"][0])
        elif call.startswith("PUT /1.0/services/"):
            self.services[number].append(query["target"][0])
        elif call == "PUT /1.0/pools-op":
            self.default_size = body["size"]
            self.pools |= {pool: body["size"] for pool in body["pools"] if pool}
        else:
            raise Refused(404, f"not found: {call}")
        return None

    def _add(self, body: dict[str, Any]) -> dict[str, Any]:
        """An answer that says Success as a whole, whatever came of it."""
        reports: list[dict[str, str]] = []
        for path in body["path"]:
            error = self.refused.get(path, "")
            if not error:
                self.disk(path)
            word = "Failure" if error else "Success"
            reports.append({"path": path, "report": word, "error": error})
        return {"validation_error": "", "report": reports, "warnings": None}
