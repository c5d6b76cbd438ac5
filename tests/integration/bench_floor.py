"""The floor: the cloud that the charm forms, made by direct calls and nothing else.

What can be done at once is: machines, snaps, and what a member sets up by itself. Joins are
made one after the other, as LXD's may hang otherwise; the charm has to do that, too.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from integration.bench_rest import LXD, MICROOVN, Rest
from lab.host.machine import Machine
from lab.layout import Lab

MEMBERS = 3
INSTALL_TIMEOUT = 300.0  # seconds
PLUGS = ("ovn-certificates", "ovn-chassis", "ovn-env")
VOLUMES = {"images": "storage.images_volume", "backups": "storage.backups_volume"}


@dataclass
class Floor:
    """One formation without Juju; `phases` are seconds since its begin, by what was reached."""

    lab: Lab
    channels: Mapping[str, str]  # by snap; LXD last
    phases: dict[str, float] = field(default_factory=dict[str, float])

    def form(self) -> float:
        """Make the machines and the cloud on them; seconds it took.

        Raises:
            LabError, BenchError: the lab or a daemon refuses something.
        """
        self._began = time.monotonic()
        with ThreadPoolExecutor(MEMBERS * 2) as workers:
            ready = [workers.submit(self.prepare, str(i)) for i in range(MEMBERS)]
            first = self._begin(ready[0].result())
            settling: list[Future[None]] = []
            for number, future in enumerate(ready[1:], 2):
                joiner = future.result()
                self.join(first, joiner)
                self._mark(f"member {number} joined")
                settling.append(workers.submit(self._volumes, joiner))
            if self._ovn:
                self._tell_ovn(first)
            for future in settling:
                future.result()
        self._mark("all set up")
        return self.phases["all set up"]

    @property
    def _ovn(self) -> bool:
        return "microovn" in self.channels

    def _mark(self, what: str) -> None:
        self.phases[what] = round(time.monotonic() - self._began, 3)

    def prepare(self, machine_id: str) -> Machine:
        """A machine that is on and has the snaps; raises BenchError and LabError."""
        machine = Machine.create(self.lab, machine_id)
        machine.power_on()
        if machine_id == "0":
            self._mark("first machine on")
        with ThreadPoolExecutor(len(self.channels)) as workers:
            installs = [
                workers.submit(
                    machine.run,
                    *("snap", "install", snap, f"--channel={channel}", "--cohort=+"),
                    timeout=INSTALL_TIMEOUT,
                )
                for snap, channel in self.channels.items()
            ]
            for install in installs:
                install.result()
        machine.run("snap", "refresh", "--hold", *self.channels)
        if self._ovn:
            Rest(machine, MICROOVN).wait_for("/core/1.0")
            _connect(machine)
        Rest(machine, LXD).wait_for("/internal/ready")
        if machine_id == "0":
            self._mark("first machine's snaps ready")
        return machine

    # The first member

    def _begin(self, machine: Machine) -> Machine:
        if self._ovn:
            _control(machine, {"bootstrap": True})
            self._mark("OVN begun")
        lxd, name, address = Rest(machine, LXD), machine.hostname, _address(machine)
        config = {"core.https_address": "[::]:8443", "cluster.https_address": f"{address}:8443"}
        if "instances_migration_stateful" in lxd.get("/1.0")["api_extensions"]:
            config["instances.migration.stateful"] = "true"
        lxd.call("PATCH", "/1.0", {"config": config})
        lxd.call("PUT", "/1.0/cluster", {"server_name": name, "enabled": True})
        self._mark("LXD begun")
        pool = {"name": "local", "driver": "btrfs"}
        lxd.call("POST", f"/1.0/storage-pools?target={name}", pool)
        lxd.call("POST", "/1.0/storage-pools", {**pool, "description": "Local storage on BTRFS"})
        self._volumes(machine)
        network = {"name": "lxdbr0", "type": "bridge"}
        about = {"description": "Default bridge, one on every member"}
        lxd.call("POST", f"/1.0/networks?target={name}", network)
        lxd.call("POST", "/1.0/networks", {**network, **about})
        devices = {
            "root": {"type": "disk", "path": "/", "pool": "local"},
            "eth0": {"type": "nic", "name": "eth0", "network": "lxdbr0"},
        }
        lxd.call("PATCH", "/1.0/profiles/default", {"devices": devices})
        self._mark("first member set up")
        return machine

    def _volumes(self, machine: Machine) -> None:
        lxd = Rest(machine, LXD)
        path = f"/1.0/storage-pools/local/volumes/custom?target={machine.hostname}"
        for volume, key in VOLUMES.items():
            lxd.call("POST", path, {"name": volume, "config": {}})
            lxd.call("PATCH", "/1.0", {"config": {key: f"local/{volume}"}})

    def join(self, first: Machine, joiner: Machine) -> None:
        """Let a machine that is prepared join the first one's cluster; raises BenchError."""
        if self._ovn:
            body = {"name": joiner.hostname, "expire_after": 3600 * 10**9}
            token = Rest(first, MICROOVN).call("POST", "/core/control/tokens", body)
            _control(joiner, {"join_token": token})
        cluster, lxd = Rest(first, LXD), Rest(joiner, LXD)
        # Its operation ends when the token is used.
        body = {"server_name": joiner.hostname}
        told = cluster.call("POST", "/1.0/cluster/members", body, wait=False)["metadata"]
        request = {
            "server_name": joiner.hostname,
            "enabled": True,
            "cluster_address": f"{_address(first)}:8443",
            "cluster_certificate": cluster.get("/1.0")["environment"]["certificate"],
            "server_address": f"{_address(joiner)}:8443",
            "member_config": [],  # a loop file of LXD's default size needs no answer
            "cluster_password": _token(told),
        }
        lxd.call("PUT", "/1.0/cluster", request)
        lxd.call("PATCH", "/1.0", {"config": {"core.https_address": "[::]:8443"}})

    def _tell_ovn(self, first: Machine) -> None:
        ovn = Rest(first, MICROOVN)
        where = {m["name"]: m["address"].rpartition(":")[0] for m in ovn.get("/core/1.0/cluster")}
        rows = ovn.get("/1.0/services")
        centrals = sorted(row["location"] for row in rows if row["service"] == "central")
        value = ",".join(f"ssl:{where[name]}:6641" for name in centrals)
        config = {"network.ovn.northbound_connection": value}
        Rest(first, LXD).call("PATCH", "/1.0", {"config": config})
        self._mark("OVN told to LXD")


def _token(told: Mapping[str, Any]) -> str:
    renamed = {"serverName": "server_name", "expiresAt": "expires_at"}
    kept = ("serverName", "fingerprint", "addresses", "secret", "expiresAt")
    content = {renamed.get(key, key): told[key] for key in kept}
    return base64.b64encode(json.dumps(content).encode()).decode()


def _address(machine: Machine) -> str:
    """The machine's address on its first network, without asking the machine."""
    return f"10.71.0.{10 + int(machine.id)}"


def _connect(machine: Machine) -> None:
    rows = [r.split() for r in machine.run("snap", "connections", "lxd").stdout.splitlines()]
    slots = {row[1]: row[2] for row in rows if len(row) > 2}
    for plug in PLUGS:
        if slots.get(f"lxd:{plug}") == "-":
            machine.run("snap", "connect", f"lxd:{plug}", f"microovn:{plug}")


def _control(machine: Machine, request: Mapping[str, object]) -> None:
    body = {"name": machine.hostname, "address": f"{_address(machine)}:6443", "config": {}}
    Rest(machine, MICROOVN).call("POST", "/core/control", {**request, **body})
