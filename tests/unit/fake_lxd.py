"""A daemon that answers on a unix socket as LXD does, as far as the charm asks it.

It keeps a few dictionaries, so that a test can say what is there before an event and see what
is there after it. What real LXD does with the same requests is tested on the lab.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlparse

from unit.fake_daemon import Query, Refused


@dataclass
class FakeLxd:
    """The state of one LXD and the cluster that it is in."""

    name: str = "micro1"
    clustered: bool = False
    pid: int = 100
    fingerprint: str = ""
    extensions: list[str] = field(default_factory=lambda: ["storage_pool_source_wipe"])
    config: dict[str, str] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)
    member_config: dict[str, dict[str, str]] = field(default_factory=dict)
    offline: set[str] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)
    failing: str = ""  # part of a command that fails in instances
    certificates: list[dict[str, str]] = field(default_factory=list)
    evacuated: set[str] = field(default_factory=set)
    domains: dict[str, str] = field(default_factory=dict)
    immovable: set[str] = field(default_factory=set)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    profile: dict[str, Any] = field(
        default_factory=lambda: {"config": {}, "devices": {}, "description": ""}
    )
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    instances: list[dict[str, Any]] = field(default_factory=list)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    local_status: str = ""
    parents: dict[str, str] = field(default_factory=dict)
    interfaces: list[dict[str, Any]] = field(default_factory=list)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    forwards: list[str] = field(default_factory=list)
    disks: list[dict[str, Any]] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    refuse_with: int = 500
    voteless: set[str] = field(default_factory=set)
    ungrouped: set[str] = field(default_factory=set)
    lost_servers: list[str] = field(default_factory=list)
    leader: str = ""
    urls: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    joined_with: dict[str, Any] = field(default_factory=dict)

    def answer(self, method: str, url: str, body: dict[str, Any]) -> Any:
        """The metadata of the answer; ("async", id) for an operation that is over already."""
        parsed = urlparse(url)
        path = parsed.path.rstrip("/")
        query = parse_qs(parsed.query)
        self.requests.append(f"{method} {path}")
        if body:
            self.bodies.append((f"{method} {url}", body))
        for start, error in self.refuse.items():
            if f"{method} {path}".startswith(start):
                raise Refused(self.refuse_with, error)
        parts = path.removeprefix("/1.0").strip("/").split("/")
        handler: Callable[..., Any] | None = getattr(
            self, f"_{method.lower()}_{parts[0].replace('-', '_') or 'server'}", None
        )
        if handler is None:
            raise Refused(404, f"not found: {method} {path}")
        return handler(parts[1:], query, body)

    def _get_server(self, *_: Any) -> Any:
        return {
            "api_extensions": self.extensions,
            "config": self.config,
            "environment": {
                "server_clustered": self.clustered,
                "server_name": self.name,
                "server_pid": self.pid,
                "certificate_fingerprint": self.fingerprint,
                "server_version": "5.21.4",
                "certificate": "PEM",
            },
        }

    def _patch_server(self, _parts: list[str], _query: Query, body: dict[str, Any]) -> None:
        self.config.update(body["config"])
        self.config = {key: value for key, value in self.config.items() if value}

    def _post_internal(self, parts: list[str], _query: Query, body: dict[str, Any]) -> Any:
        if parts == ["sql"]:
            found = [self.urls.get(name, f"{name}:8443") for name in self.members]
            if body["database"] == "local":
                found += self.lost_servers
            return {"Results": [{"rows": [[address] for address in found]}]}
        assert parts == ["cluster", "handover"]
        (heir,) = (name for name in self.members if self.urls[name] != body["address"])
        self.voteless.discard(heir)
        self.leader = heir
        raise Refused(500, "Failed to assign role: not leader (10250)")

    def _delete_internal(self, parts: list[str], *_: Any) -> None:
        assert parts[:2] == ["cluster", "raft-node"]
        self.lost_servers.remove(parts[2])

    def _get_internal(self, *_: Any) -> Any:
        return {}

    def _get_cluster(self, parts: list[str], *_: Any) -> Any:
        if not parts:
            keys = [
                {"entity": "storage-pool", "name": name, "key": "source", "value": ""}
                for name in self.pools
            ]
            if "UPLINK" in self.networks:
                keys.append({"entity": "network", "name": "UPLINK", "key": "parent", "value": ""})
            return {"enabled": self.clustered, "member_config": keys}
        return self._member(parts[1]) if len(parts) > 1 else list(map(self._member, self.members))

    def _member(self, name: str) -> dict[str, Any]:
        return {
            "server_name": name,
            "url": f"https://{self.urls.get(name, f'{name}:8443')}",
            "status": self._state_of(name),
            "roles": ["database-leader"] * (name == self.leader)
            + ["database"] * (name not in self.voteless),
            "failure_domain": self.domains.get(name, "default"),
            "message": "Fully operational",
            "config": self.member_config.get(name, {}),
            "groups": [] if name in self.ungrouped else ["default"],
        }

    def _state_of(self, name: str) -> str:
        if name in self.offline:
            return "Offline"
        return "Evacuated" if name in self.evacuated else "Online"

    def _put_cluster(self, parts: list[str], _query: Query, body: dict[str, Any]) -> Any:
        if parts:
            if not body["groups"]:
                raise Refused(500, "Cluster members need to belong to at least one group")
            self.ungrouped.discard(parts[1])
            self.member_config[parts[1]] = body["config"]
            self.domains[parts[1]] = body["failure_domain"]
            return None
        self.clustered = True
        if "cluster_address" in body:
            had = self.config.get("core.https_address", "")
            self.joined_with = {**body, "https_address": had}
        self.members.append(body["server_name"])
        return ("async", "put-cluster")

    def _post_cluster(self, parts: list[str], _query: Query, body: dict[str, Any]) -> Any:
        if parts[-1] == "state":
            change = self.evacuated.add if body["action"] == "evacuate" else self.evacuated.discard
            change(parts[1])
            return ("async", "state")
        number = f"op{len(self.requests)}"
        token = {
            "serverName": body["server_name"],
            "secret": f"secret-{number}",
            "fingerprint": "f" * 64,
            "addresses": ["10.0.0.1:8443"],
            "expiresAt": "2030-01-01T00:00:00Z",
        }
        self.operations[number] = {"id": number, "metadata": token}
        return {"id": number, "metadata": token}

    def _delete_cluster(self, parts: list[str], *_: Any) -> Any:
        self.members.remove(parts[1])
        self.clustered = self.clustered and parts[1] != self.name
        return ("async", "delete-member")

    def _get_certificates(self, *_: Any) -> Any:
        return self.certificates

    def _delete_certificates(self, parts: list[str], *_: Any) -> None:
        self.certificates = [one for one in self.certificates if one["fingerprint"] != parts[0]]

    def _get_operations(self, parts: list[str], *_: Any) -> Any:
        if parts:
            done = {"id": parts[0], "class": "task", "status": "Success", "status_code": 200}
            code = {"return": int(parts[0][-1])} if parts[0].startswith("exec-") else {}
            return done | {"err": "", "metadata": code, "created_at": "", "updated_at": ""}
        return {"running": list(self.operations.values())} if self.operations else {}

    def _delete_operations(self, parts: list[str], *_: Any) -> None:
        del self.operations[parts[0]]

    def _get_storage_pools(self, parts: list[str], query: Query, _body: Any) -> Any:
        if len(parts) == 4:
            try:
                return self.volumes[parts[3]]
            except KeyError as missing:
                raise Refused(404, "Storage volume not found") from missing
        if len(parts) == 1:
            if parts[0] not in self.pools:
                raise Refused(404, "Storage pool not found")
            return self.pools[parts[0]]
        if parts:
            return list(self.volumes.values())
        if "recursion" not in query:
            return [f"/1.0/storage-pools/{name}" for name in self.pools]
        return list(self.pools.values())

    def _post_storage_pools(self, parts: list[str], query: Query, body: dict[str, Any]) -> Any:
        if len(parts) == 4:
            return {"id": "copy", "metadata": {"control": "secret"}}
        if parts:
            self.volumes[body["name"]] = {**body, "location": query["target"][0]}
        else:
            self._define(self.pools, query, body)
        return None

    def _delete_storage_pools(self, parts: list[str], *_: Any) -> None:
        if not self.volumes.pop(parts[3], None):
            raise Refused(404, "Storage volume not found")

    def _patch_storage_pools(self, parts: list[str], query: Query, body: dict[str, Any]) -> None:
        self.volumes[parts[3]]["config"].update(body["config"])

    def _get_networks(self, parts: list[str], query: Query, _body: Any) -> Any:
        if not parts:
            return [*self.networks.values(), *(self.interfaces if "target" in query else ())]
        if len(parts) == 1:
            if parts[0] not in self.networks:
                raise Refused(404, "Network not found")
            network = self.networks[parts[0]]
            parent = self.parents.get((query.get("target") or [""])[0])
            if parent and parts[0] == "UPLINK":
                network = {**network, "config": {**network["config"], "parent": parent}}
            return {**network, "status": self.local_status or network["status"]}
        if parts[1] == "state":
            found = self.addresses.get(query["target"][0], [])
            return {"addresses": [{"address": ip, "scope": "global"} for ip in found]}
        if parts[1] == "forwards":
            return [{"listen_address": ip} for ip in self.forwards]
        raise Refused(404, "Not found")

    def _patch_networks(self, parts: list[str], _query: Query, body: dict[str, Any]) -> None:
        network = self.networks[parts[0]]
        config = {**network["config"], **body.get("config", {})}
        network |= {**body, "config": {k: v for k, v in config.items() if v}}

    def _get_projects(self, *_: Any) -> Any:
        return ["/1.0/projects/default"]

    def _post_networks(self, _parts: list[str], query: Query, body: dict[str, Any]) -> None:
        if "parent" in body.get("config", {}):
            self.parents[query["target"][0]] = body["config"].pop("parent")
        if body["name"] in self.networks:  # LXD 5.0 forgets it where parts came first
            body = {**body, "description": ""}
        self._define(self.networks, query, body)

    @staticmethod
    def _define(kind: dict[str, dict[str, Any]], query: Query, body: dict[str, Any]) -> None:
        entity = kind.setdefault(body["name"], {**body, "locations": [], "managed": True})
        if "target" in query:
            entity["status"] = "Pending"
            entity["locations"].append(query["target"][0])
        else:
            entity.update({**body, "status": "Created"})

    def _get_profiles(self, *_: Any) -> Any:
        return self.profile

    def _put_profiles(self, _parts: list[str], _query: Query, body: dict[str, Any]) -> None:
        self.profile = body

    def _patch_profiles(self, _parts: list[str], _query: Query, body: dict[str, Any]) -> None:
        self.profile["config"].update(body["config"])
        self.profile["devices"].update(body["devices"])

    def _get_instances(self, parts: list[str], *_: Any) -> Any:
        if not parts:
            return self.instances
        instance = self._instance(parts)
        addresses = [{"address": f"10.9.0.{len(instance['name'])}", "scope": "global"}]
        return {"status": instance["status"], "network": {"eth0": {"addresses": addresses}}}

    def _instance(self, parts: list[str]) -> dict[str, Any]:
        return next(one for one in self.instances if one["name"] == parts[0])

    def _patch_instances(self, parts: list[str], _query: Query, body: dict[str, Any]) -> None:
        self._instance(parts)["config"].update(body["config"])

    def _put_instances(self, parts: list[str], _query: Query, body: dict[str, Any]) -> Any:
        states = {"start": "Running", "stop": "Stopped"}
        self._instance(parts)["status"] = states[body["action"]]
        return ("async", "state")

    def _delete_instances(self, parts: list[str], *_: Any) -> Any:
        self.instances.remove(self._instance(parts))
        return ("async", "delete")

    def _post_instances(self, parts: list[str], query: Query, body: dict[str, Any]) -> Any:
        if not parts:
            self.instances.append({**body, "location": query["target"][0], "status": "Stopped"})
            return ("async", "create")
        instance = self._instance(parts)
        if parts[1:] == ["exec"]:
            self.commands.append(body["command"][-1])
            failed = bool(self.failing) and self.failing in self.commands[-1]
            return {"id": f"exec-{int(failed)}"}
        if instance["name"] in self.immovable or instance["status"] != "Stopped":
            raise Refused(400, "it cannot be moved")
        instance["location"] = query["target"][0]
        return ("async", "move")

    def _get_resources(self, *_: Any) -> Any:
        return {"storage": {"disks": self.disks}}
