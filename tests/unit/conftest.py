"""The charm under ops.testing, with fake daemons and a fake `snap` on a machine of its own."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ops import testing

import peers
import services.lxd
import services.microceph
import services.microovn
import snaps
import world
from charm import MicrocloudCharm
from machine import diskprobe, interfaces
from unit.fake_daemon import serve
from unit.fake_lxd import FakeLxd
from unit.fake_microceph import FakeMicroceph
from unit.fake_microovn import FakeMicroovn
from unit.fake_probe import FakeProbe

REPO = Path(__file__).parent.parent.parent
SNAP = """#!/bin/sh
# A `snap` that says yes, and writes down what it was asked.
echo "$@" >> "{machine}/snap.log"
case "$1" in
  connections) cat "{machine}/connections";;
  install) mkdir -p "{machine}/snap/$2/1"; ln -sfn 1 "{machine}/snap/$2/current";;
esac
"""


MODEL = "4b2e5f6a-0000-4000-8000-000000000001"
# Of a member, as far as its fingerprint goes.
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


class Machine:
    """What one unit's machine holds, and how to run the charm on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lxd = FakeLxd()
        self.microovn = FakeMicroovn(common=folder / "microovn")
        self.microceph = FakeMicroceph()
        self.probe = FakeProbe()
        self.links: list[dict[str, Any]] = []
        self.routes: list[dict[str, Any]] = []
        self.context = testing.Context(
            MicrocloudCharm,
            meta=_yaml("charmcraft.yaml"),
            config=_yaml("config.yaml"),
            actions=_yaml("actions.yaml"),
            app_name="microcloud",
            unit_id=0,
        )
        self.model = testing.Model(uuid=MODEL)

    def install(self, *names: str, held: bool = True) -> None:
        """As if the snaps had been installed before; `held`: by the charm."""
        if held:
            (self.folder / "state/microcloud-0").mkdir(parents=True, exist_ok=True)
            (self.folder / "state/microcloud-0/snaps-held").touch()
        for name in names or ("lxd",):
            (self.folder / f"snap/{name}/1").mkdir(parents=True)
            (self.folder / f"snap/{name}/current").symlink_to("1")

    def interface(self, name: str, *addresses: str, **more: Any) -> None:
        """Give the machine an interface, as `ip -json address` tells it."""
        found = [ip.split("/") for ip in addresses]
        info = [{"local": ip, "prefixlen": int(n), "scope": "global"} for ip, n in found]
        link = {"ifname": name, "flags": ["BROADCAST", "UP"], "mtu": 1500, "addr_info": info}
        self.links.append({**link, "link_type": "ether", "address": "00:16:3e:0:0:1", **more})

    def disk(self, name: str, size: int = 10, **more: Any) -> str:
        """Give the machine a disk of `size` GiB; its stable path."""
        self.lxd.disks.append(self.probe.disk(name, size, **more))
        return f"/dev/disk/by-id/scsi-{name}"

    @property
    def connections(self) -> list[str]:
        """The lines of `snap connections`."""
        path = self.folder / "connections"
        return path.read_text().splitlines() if path.exists() else []

    @connections.setter
    def connections(self, lines: list[str]) -> None:
        (self.folder / "connections").write_text("\n".join(lines) + "\n")

    @property
    def snap_calls(self) -> list[str]:
        log = self.folder / "snap.log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def key(self) -> Path:
        return self.folder / "state/microcloud-0/key"

    def state(self, *, relation: testing.PeerRelation | None = None, **more: Any):
        """A state of Juju's in which this unit is deployed."""
        relation = relation or testing.PeerRelation("cluster")
        # LXD alone, where a test does not ask for more.
        alone = {"microceph-channel": "", "microovn-channel": ""}
        more["config"] = {**alone, **more.get("config", {})}
        more.setdefault("planned_units", 1 + len(relation.peers_data))
        return testing.State(model=self.model, relations={relation}, **more)

    def tool(self, name: str, output: str) -> None:
        """Let a command of a snap, such as `microceph.ceph`, say this."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
        path.chmod(0o755)

    def juju_has(self, *units: str) -> None:
        """The units that Juju still has, which `goal-state` tells, others than in relations."""
        states = {unit: {"status": "dying", "since": "2026-01-01 00:00:00Z"} for unit in units}
        path = self.folder / "juju-tools/goal-state"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{json.dumps({'units': states, 'relations': {}})}'\n")
        path.chmod(0o755)

    def run(self, event: Any, state: testing.State) -> testing.State:
        return self.context.run(event, state)


def _yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPO / name).read_text())


def noted(unit: str) -> dict[str, str]:
    """What LXD is told of a member: which unit of which model it is."""
    return {"user.microcloud.unit": unit, "user.microcloud.model": MODEL}


def bag(relation: testing.PeerRelation) -> peers.UnitBag:
    """What the unit has published."""
    return peers.UnitBag.load(relation.local_unit_data)


def formation(relation: testing.PeerRelation) -> peers.Formation:
    return peers.Formation.load(relation.local_app_data.get("formation", ""))


def published(number: int, **documents: Any) -> dict[str, str]:
    """The bag of another unit, whose host is micro<number+1>."""
    identity = peers.Identity(
        f"micro{number + 1}", f"10.0.0.{number + 1}", documents.pop("key", "")
    )
    found = {"identity": peers.dump(identity)}
    if "report" in documents:
        found["report"] = peers.dump(documents["report"])
    if "grants" in documents:
        found["grants"] = peers.dump_grants(documents["grants"])
    return found


def app(**formation: Any) -> dict[str, str]:
    return {"formation": json.dumps(formation)}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(services.lxd, "COMMON", tmp_path / "lxd")
    monkeypatch.setattr(snaps, "MOUNTS", tmp_path / "snap")
    monkeypatch.setattr(snaps, "SNAP", str(tmp_path / "snap-command"))
    monkeypatch.setattr(world, "STATE", tmp_path / "state")
    monkeypatch.setattr(socket, "gethostname", lambda: "micro1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'juju-tools'}:{os.environ['PATH']}")
    (tmp_path / "connections").touch()
    command = tmp_path / "snap-command"
    command.write_text(SNAP.format(machine=tmp_path))
    command.chmod(0o755)
    found = Machine(tmp_path)
    found.juju_has()
    ip = tmp_path / "juju-tools/ip"
    ip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "ip.log"}\n')
    ip.chmod(0o755)
    (tmp_path / "lxd").mkdir(exist_ok=True)
    for name in ("server", "cluster"):
        (tmp_path / f"lxd/{name}.crt").write_text(CERTIFICATE)
    monkeypatch.setattr(services.microceph, "COMMON", tmp_path / "microceph/common")
    monkeypatch.setattr(services.microceph, "BIN", tmp_path / "bin")
    monkeypatch.setattr(services.microovn, "COMMON", tmp_path / "microovn")
    monkeypatch.setattr(services.microovn, "BIN", tmp_path / "bin")
    monkeypatch.setattr(services.microovn, "PROC", tmp_path / "proc")
    monkeypatch.setattr(diskprobe, "HostProbe", lambda: found.probe)
    monkeypatch.setattr(interfaces.HostProbe, "links", lambda _: found.links)
    monkeypatch.setattr(interfaces.HostProbe, "default_routes", lambda _: found.routes)
    stops = [
        serve(found.lxd, tmp_path / "lxd/unix.socket"),
        serve(found.microceph, tmp_path / "microceph/common/state/control.socket"),
        serve(found.microovn, tmp_path / "microovn/state/control.socket"),
    ]
    yield found
    for stop in stops:
        stop()
