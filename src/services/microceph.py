"""MicroCeph: the storage beneath LXD's pools `remote` and `remote-fs`.

Membership is microcluster's; what is special are the disks (OSDs), where mon, mgr and mds run,
how often pools keep what they hold, and Ceph's own account of its health.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import DaemonError
from record import EMPTY, Record
from services.microcluster import CALL_TIMEOUT, Microcluster, Options, no_options

COMMON = Path("/var/snap/microceph/common")
BIN = Path("/snap/bin")
PORT = 7443
PLUGS = ("ceph-conf",)
# What a member has and a machine that is none has not; `conf` also says which Ceph is installed.
OWNED = ("state/*", "data/*", "../current/conf/ceph.conf", "../current/conf/*.keyring")
ADD_TIMEOUT = 300.0  # seconds; for one disk, which may have to be wiped
TOOL_TIMEOUT = 30.0  # seconds; for one `ceph` command
STATUS_TIMEOUT = 10.0  # seconds; it hangs where the monitors have no majority
OK = "HEALTH_OK"
BY_ZONE, ZONE = "microceph_auto_rack", "az."  # MicroCeph's rule and buckets for zones


class Osd(Record):
    """A disk that Ceph has: its number, the member that it is in, its path there."""

    number: int
    member: str
    path: str


class Pool(Record):
    """A pool of Ceph: how often it keeps what it holds, and by which CRUSH rule."""

    name: str
    size: int
    rule: str


class Health(Record):
    """Ceph's own account: `status` is HEALTH_OK, _WARN or _ERR, `checks` say why, by code.

    `osds` is how many there are; `up` of them run, `inside` hold data.
    """

    status: str
    checks: Mapping[str, str] = EMPTY
    osds: int = 0
    up: int = 0
    inside: int = 0

    def __str__(self) -> str:
        reasons = "; ".join(self.checks.values())
        return f"Ceph {self.status}: {reasons}" if reasons else f"Ceph {self.status}"


class Microceph(Microcluster):
    """The MicroCeph of this machine."""

    def __init__(self, marks: Path, options: Options = no_options) -> None:
        super().__init__(
            "microceph",
            "MicroCeph",
            common=COMMON,
            port=PORT,
            marks=marks,
            options=options,
            owned=OWNED,
            plugs=PLUGS,
        )

    # Disks

    def disks(self) -> tuple[Osd, ...]:
        """The disks of all members, by number."""
        rows = self.rest.get("/1.0/disks") or ()
        found = (Osd(row["osd"], row["location"], row["path"]) for row in rows)
        return tuple(sorted(found, key=lambda osd: osd.number))

    def add_disks(
        self, paths: Sequence[str], *, wipe: bool = False, encrypt: bool = False
    ) -> None:
        """Give disks of this machine to Ceph, one after the other; each becomes an OSD.

        Raises:
            DaemonError: some were refused; it has a sentence for each. The others are in use.
        """
        refused: list[str] = []
        for path in paths:
            try:
                self._add([path], wipe=wipe, encrypt=encrypt)
            except DaemonError as fault:
                refused.append(str(fault))
        if refused:
            raise DaemonError("; ".join(refused))

    def add_loop(self, spec: str) -> None:
        """Make OSDs of files: `loop,4G,1`; for trying things out. Raises as `add_disks` does."""
        self._add([spec])

    def _add(self, paths: Sequence[str], *, wipe: bool = False, encrypt: bool = False) -> None:
        body = {"path": list(paths), "wipe": wipe, "encrypt": encrypt}
        answer = self.rest.call("POST", "/1.0/disks", body, timeout=ADD_TIMEOUT) or {}
        # The daemon answers that all is well whatever came of it.
        wrong = [f"{self.title}: {answer['validation_error']}"] if _invalid(answer) else []
        wrong += [
            f"{self.title}: {report['path']}: {report['error']}"
            for report in answer.get("report") or ()
            if report.get("error")
        ]
        if wrong:
            raise DaemonError("; ".join(wrong))

    def remove_disk(
        self, number: int, *, force: bool = False, confirm: bool = False, timeout: float = 1800
    ) -> None:
        """Drain an OSD and take its disk out of Ceph, within `timeout` seconds; none: nothing.

        `confirm`: also if copies can then no longer be on different machines; `force`: also if
        data loses redundancy by it, or is lost.

        Raises:
            DaemonError: it refuses, or the OSD is not drained in time.
        """
        member = next((osd.member for osd in self.disks() if osd.number == number), "")
        if not member:
            return
        body = {
            "osdid": number,
            "bypass_safety": force,
            "confirm_downgrade": force or confirm,
            "prohibit_crush_scaledown": False,
            "timeout": int(timeout),
        }
        path = f"/1.0/disks/{number}?target={member}"
        self.rest.call("DELETE", path, body, timeout=timeout + CALL_TIMEOUT)

    # Services and pools

    def placed(self) -> Mapping[str, tuple[str, ...]]:
        """Which members run which of Ceph's services."""
        found: dict[str, list[str]] = {}
        for row in self.rest.get("/1.0/services") or ():
            found.setdefault(row["service"], []).append(row["location"])
        return {service: tuple(sorted(names)) for service, names in sorted(found.items())}

    def enable(self, service: str, member: str) -> None:
        """Run a mon, mgr or mds on a member as well, and wait until it does."""
        body = {"name": service, "bool": True, "payload": ""}
        path = f"/1.0/services/{service}?target={member}"
        self.rest.call("PUT", path, body, timeout=CALL_TIMEOUT)

    def disable(self, service: str, member: str) -> None:
        """Run a service on a member no more."""
        path = f"/1.0/services/{service}?target={member}"
        self.rest.call("DELETE", path, timeout=CALL_TIMEOUT)

    # Maintenance

    def against_maintenance(self, member: str) -> tuple[str, ...]:
        """Why Ceph would not do without a member for a while, by MicroCeph's own checks."""
        return self._maintain(member, "maintenance", check_only=True)

    def enter_maintenance(self, member: str) -> None:
        """Let Ceph leave data where it is while the member is away."""
        self._raise(self._maintain(member, "maintenance", set_noout=True, ignore_check=True))

    def exit_maintenance(self, member: str) -> None:
        """Let Ceph see to the data again."""
        self._raise(self._maintain(member, "non-maintenance"))

    def _maintain(self, member: str, status: str, **how: bool) -> tuple[str, ...]:
        """What went wrong, of all steps."""
        flags = dict.fromkeys(
            ("dry_run", "force", "set_noout", "stop_osds", "check_only", "ignore_check"), False
        )
        body = {"status": status, **flags, **how}
        path = f"/1.0/ops/maintenance/{member}"
        results = self.rest.call("PUT", path, body, timeout=CALL_TIMEOUT) or ()
        return tuple(f"Ceph: {one['error']}" for one in results if one.get("error"))

    @staticmethod
    def _raise(faults: Sequence[str]) -> None:
        if faults:
            raise DaemonError("; ".join(faults))

    def pools(self) -> tuple[Pool, ...]:
        """Ceph's pools, by name."""
        rows = self.rest.get("/1.0/pools", timeout=CALL_TIMEOUT) or ()
        found = (Pool(row["pool"], row["size"], row["crush_rule"]) for row in rows)
        return tuple(sorted(found, key=lambda pool: pool.name))

    def zones(self) -> Mapping[str, str]:
        """The zone of each member with disks, if copies are kept apart by zone; else nothing."""
        if all(pool.rule != BY_ZONE for pool in self.pools()):
            return {}
        nodes = {node["id"]: node for node in self.ceph("osd", "tree")["nodes"]}
        return {
            nodes[child]["name"]: rack["name"].removeprefix(ZONE)
            for rack in nodes.values()
            if rack["type"] == "rack"
            for child in rack["children"]
        }

    def places(self, osds: Iterable[Osd]) -> int:
        """How many copies these disks can keep apart: one each, or one in each zone."""
        found, zones = list(osds), self.zones()
        return len({zones.get(osd.member) for osd in found}) if zones else len(found)

    def replicate(self, size: int, pools: Iterable[str] = ()) -> None:
        """Let new pools keep `size` copies, and these as well."""
        body = {"pools": list(pools) or [""], "size": size}
        self.rest.call("PUT", "/1.0/pools-op", body, timeout=CALL_TIMEOUT)

    def networks(self) -> Mapping[str, str]:
        """Ceph's public and internal network, as far as MicroCeph tells."""
        keys = {"public_network": "public", "cluster_network": "internal"}
        rows = self.rest.call("GET", "/1.0/configs", {"key": ""}, timeout=CALL_TIMEOUT) or ()
        return {keys[row["key"]]: row["value"] for row in rows if row["key"] in keys}

    # Ceph's own command: too slow for every hook

    def health(self) -> Health:
        """How Ceph says it is; raises DaemonError if it does not."""
        told = self.ceph("status", timeout=STATUS_TIMEOUT)
        health, osds = told["health"], told["osdmap"]
        osds = osds.get("osdmap", osds)  # older releases have it one deeper
        checks = health.get("checks") or {}
        return Health(
            health["status"],
            {code: check["summary"]["message"] for code, check in sorted(checks.items())},
            osds.get("num_osds", 0),
            osds.get("num_up_osds", 0),
            osds.get("num_in_osds", 0),
        )

    def ceph(self, *words: str, timeout: float = TOOL_TIMEOUT) -> Any:
        """What a `ceph` command says, None if nothing.

        Raises:
            DaemonError: it fails, or takes more than `timeout` seconds.
        """
        command = f"microceph.ceph {' '.join(words)}"
        try:
            done = subprocess.run(
                [str(BIN / "microceph.ceph"), *words, "--format", "json"],
                capture_output=True,
                text=True,
                check=True,
                timeout=timeout,
            )
            return json.loads(done.stdout) if done.stdout.strip() else None
        except subprocess.CalledProcessError as fault:
            said = fault.stderr.strip() or f"exit code {fault.returncode}"
            raise DaemonError(f"{command} failed: {said}") from fault
        except subprocess.TimeoutExpired as fault:
            said = f"{command} did not end within {timeout:.0f} s"
            raise DaemonError(f"{said}; {self._why_silent()}") from fault
        except (OSError, ValueError) as fault:
            raise DaemonError(f"{command} failed: {fault}") from fault

    def _why_silent(self) -> str:
        """What Ceph waits for that does not answer, and what to do."""
        try:
            where = self.placed().get("mon", ())
            online = {member.name for member in self.members() if member.online}
        except DaemonError:
            return "MicroCeph does not tell where Ceph's monitors are"
        off = [member for member in where if member not in online]
        if not off or 2 * len(off) < len(where):
            return f"the logs of its monitors ({', '.join(where)}) may say why"
        return (
            f"of Ceph's monitors on {', '.join(where)} too few run to be a majority: power on "
            f"{', '.join(off)}; if that cannot be, docs/how-to/members.md says what can be done"
        )


def _invalid(answer: Mapping[str, Any]) -> bool:
    """Whether the request was refused as a whole; of one disk, its report says so as well."""
    text = answer.get("validation_error")
    return bool(text) and not any(r.get("error") == text for r in answer.get("report") or ())
