"""MicroOVN: the OVN cluster beneath LXD's networks.

Membership is microcluster's; what is special are the centrals (the members that run OVN's
databases and northd), the file `ovn.env` that tells everybody where they are, and the content
connections through which LXD reaches Open vSwitch and OVN's certificates.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import snaps
from errors import CharmError, DaemonError
from record import Record
from services.microcluster import CALL_TIMEOUT, Microcluster, Options, host_of, no_options
from view import Member

COMMON = Path("/var/snap/microovn/common")
BIN = Path("/snap/bin")
PROC = Path("/proc")
PORT = 6443
CENTRALS = 3  # as many as MicroOVN makes by itself while members join
# LXD's plugs for MicroOVN's slots of the same name; the last one only newer LXDs have.
PLUGS = ("ovn-certificates", "ovn-chassis", "ovn-env")
TOOL_TIMEOUT = 20.0  # seconds; for one OVN command


class Chassis(Record):
    """A member's part of the tunnels, as OVN's southbound database has it."""

    name: str
    encap: str


class Microovn(Microcluster):
    """The MicroOVN of this machine."""

    def __init__(self, marks: Path, options: Options = no_options) -> None:
        super().__init__(
            "microovn",
            "MicroOVN",
            common=COMMON,
            port=PORT,
            marks=marks,
            options=options,
            owned=("state/*", "data/*"),
            plugs=PLUGS,
        )

    # Centrals

    def centrals(self) -> tuple[str, ...]:
        """The names of the members that run OVN's databases."""
        rows = self.rest.get("/1.0/services")
        return tuple(sorted(r["location"] for r in rows if r["service"] == "central"))

    def enable_central(self, name: str) -> None:
        """Let the member run the databases as well."""
        self.rest.call("PUT", f"/1.0/service/central?target={name}", {}, timeout=CALL_TIMEOUT)
        self.spread_environment()

    def disable_central(self, name: str) -> None:
        """Let the member, which is not the last central, run the databases no more."""
        self.rest.call("DELETE", f"/1.0/service/central?target={name}", {}, timeout=CALL_TIMEOUT)
        self.spread_environment()

    def environment(self) -> Mapping[str, str]:
        """What this member's `ovn.env` says; empty without the file."""
        try:
            lines = (self._common / "data/env/ovn.env").read_text().splitlines()
        except OSError:
            return {}
        pairs = (line.partition("=") for line in lines if not line.startswith("#"))
        return {key: value.strip('"') for key, mark, value in pairs if mark}

    def external_centrals(self) -> str:
        """The addresses of a central outside of this cluster, "" if its own members are."""
        try:
            answer = self.rest.get("/1.0/config?key=ovn.central-ips")
        except DaemonError:
            return ""  # versions that know no such option
        return str((answer or {}).get("value") or "")

    def spread_environment(self) -> None:
        """Let every member write its `ovn.env` anew and act on it."""
        self.rest.call("POST", "/1.0/env", {}, timeout=CALL_TIMEOUT)

    # northd

    def northd_database(self) -> str | None:
        """The northbound addresses that this member's northd was started with.

        None without a northd. One that was started before its member became known as a central
        does not know all, and if it is the active one, changes of networks get stuck.
        """
        try:
            number = (self._common / "run/ovn/ovn-northd.pid").read_text().strip()
            words = (PROC / number / "cmdline").read_text().split("\0")
        except OSError:
            return None
        if not words[0].endswith("ovn-northd"):
            return None
        found = [word.partition("=")[2] for word in words if word.startswith("--ovnnb-db=")]
        return found[0] if found else None

    def restart_northd(self) -> None:
        """Restart this member's northd; another central's takes over meanwhile."""
        snaps.run("restart", "microovn.ovn-northd")

    # Health, by OVN's own commands: too slow for every hook

    def chassis(self) -> tuple[Chassis, ...]:
        """The chassis that the southbound database knows, by name; raises CharmError."""
        encaps = {row["_uuid"][1]: row["ip"] for row in self._rows("Encap", "_uuid,ip")}
        found = [
            Chassis(row["name"], ", ".join(sorted(encaps.get(u, "?") for u in row["encaps"])))
            for row in self._rows("Chassis", "name,encaps")
        ]
        return tuple(sorted(found, key=lambda chassis: chassis.name))

    def forget_chassis(self, name: str) -> None:
        """Take a machine that is gone out of the southbound database."""
        self._tool("ovn-sbctl", "--if-exists", "chassis-del", name)

    def _rows(self, table: str, columns: str) -> list[dict[str, Any]]:
        said = self._tool("ovn-sbctl", "--format=json", f"--columns={columns}", "list", table)
        answer = json.loads(said)
        return [_row(answer["headings"], row) for row in answer["data"]]

    def northd_state(self) -> str:
        """`active`, `standby`, `paused`; "" where no northd runs or it does not answer."""
        sockets = sorted((self._common / "run/ovn").glob("ovn-northd*.ctl"))
        if not sockets:
            return ""
        newest = max(sockets, key=lambda socket: socket.stat().st_mtime)
        try:
            said = self._tool("ovn-appctl", "-t", str(newest), "status")
        except CharmError:
            return ""
        return said.partition("Status:")[2].strip()

    def raft(self, database: str) -> tuple[str, ...]:
        """The servers of a database's cluster, such as `ssl:10.0.0.1:6643`, by this central.

        `database` is nb or sb.
        """
        said = self._tool("ovn-appctl", "-t", *self._control_of(database, "cluster/status"))
        lines = said.partition("Servers:")[2].splitlines()
        places = (line.partition(" at ")[2].split(")")[0].split() for line in lines)
        return tuple(sorted(place[0] for place in places if place))

    def lost_servers(self, members: Iterable[Member]) -> tuple[tuple[str, str], ...]:
        """The databases' servers on machines that are no members any more: (nb or sb, server).

        Only a central can tell. They count for the majority that a database needs.
        """
        hosts = {member.address for member in members}
        found = [(name, server) for name in ("nb", "sb") for server in self.raft(name)]
        return tuple(
            (name, server)
            for name, server in found
            if host_of(server.partition(":")[2]) not in hosts
        )

    def kick(self, database: str, server: str) -> None:
        """Take a server out of a database's cluster (nb or sb)."""
        self._tool("ovn-appctl", "-t", *self._control_of(database, "cluster/kick"), server)

    def _control_of(self, database: str, command: str) -> tuple[str, str, str]:
        full = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}[database]
        return str(self._common / f"run/ovn/ovn{database}_db.ctl"), command, full

    def remote(self) -> str:
        """The southbound addresses that this member's controller uses."""
        said = self._tool("ovs-vsctl", "get", "open", ".", "external_ids:ovn-remote")
        return said.strip().strip('"')

    def uplink_bridge(self, interface: str) -> str:
        """The Open vSwitch bridge that an interface is a port of, "" if of none."""
        try:
            return self._tool("ovs-vsctl", "port-to-br", interface).strip()
        except CharmError:
            return ""

    def _tool(self, name: str, *words: str) -> str:
        command = f"microovn.{name}"
        try:
            done = subprocess.run(
                [str(BIN / command), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=TOOL_TIMEOUT,
            )
        except subprocess.CalledProcessError as fault:
            said = fault.stderr.strip() or f"exit code {fault.returncode}"
            raise DaemonError(f"{command} {' '.join(words)} failed: {said}") from fault
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise DaemonError(f"{command} failed: {fault}") from fault
        return done.stdout


def _row(headings: list[str], row: list[Any]) -> dict[str, Any]:
    """A row of `--format=json`, its sets of UUIDs as plain lists of texts."""
    found = dict(zip(headings, row, strict=True))
    encaps = found.get("encaps")
    if encaps is not None:
        many = encaps[1] if encaps[0] == "set" else [encaps]
        found["encaps"] = [uuid for _, uuid in many]
    return found


def connections(members: Iterable[Member], centrals: Iterable[str], port: int) -> tuple[str, ...]:
    """How to reach the databases: `ssl:10.0.0.1:6641` of each central, in order of names."""
    where = {member.name: member.address for member in members}
    hosts = (where[name] for name in centrals if name in where)
    return tuple(f"ssl:[{host}]:{port}" if ":" in host else f"ssl:{host}:{port}" for host in hosts)
