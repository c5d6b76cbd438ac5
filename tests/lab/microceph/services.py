"""Placing and removing mon, mgr, mds and rgw on this machine, and the table of who runs what."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.host import service as supervisor
from lab.microceph import network, paths, rados, settings
from lab.microcluster.cluster import Cluster, log
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Row

KIND = "services"
CORE = ("mon", "mgr", "mds")
PLACED_BY_COUNT = 3
QUORUM_DEADLINE = 60
UNSUPPORTED = ("nfs", "rbd-mirror", "cephfs-mirror")
CAPS = {
    "mgr": ["mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"],
    "mds": [
        "mon", "allow profile mds", "mgr", "allow profile mds", "mds", "allow *", "osd", "allow *",
    ],
    "rgw": ["mon", "allow rw", "osd", "allow rwx"],
}  # fmt: skip
RGW_ID = "radosgw.gateway"


def run(*argv: str, timeout: float = 60) -> str:
    """Run one of Ceph's programs; its output, or ApiError with what it said."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ApiError(f"Failed to run: {argv[0]}: it is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise ApiError(f"Failed to run: {' '.join(argv)}: no end within {timeout:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-800:]
        raise ApiError(f"Failed to run: {' '.join(argv)}: exit status {done.returncode} ({said})")
    return done.stdout


def attempt(what: str, function: Callable[[], object]) -> bool:
    """Call a function; an error of it is only worth a line in the log. Whether it worked."""
    try:
        function()
    except (ApiError, OSError) as error:
        log(f"Failed to {what}: {error}")
        return False
    return True


# The snap's services


def snap_service(action: str, name: str) -> None:
    """`snap start|stop|restart ... microceph.NAME`; ApiError with the supervisor's words."""
    try:
        supervisor.act(action, f"snap.microceph.{name}", timeout=60)
    except LabError as error:
        raise ApiError(f"failed to {action} {name}: {error}") from error


def active(name: str) -> bool:
    """Whether a service of the snap runs here."""
    return supervisor.states().get(f"snap.microceph.{name}", {}).get("state") == "active"


def activate(name: str) -> None:
    """Start a service, now and at each boot."""
    snap_service("enable", name)
    snap_service("start", name)


def deactivate(name: str) -> None:
    """Stop a service for good; trouble goes to the log."""
    for action in ("disable", "stop"):
        attempt(f"{action} {name}", lambda a=action: snap_service(a, name))


# The table


def rows(cluster: Cluster) -> list[Row]:
    """`GET /1.0/services`."""
    return [
        {
            "service": row["service"],
            "location": row["member"],
            "group_id": row.get("group_id", ""),
            "info": row.get("info", ""),
        }
        for row in cluster.store.all(KIND).values()
    ]


def count(cluster: Cluster, service: str) -> int:
    """How many members run a service."""
    return sum(row["service"] == service for row in rows(cluster))


def record(cluster: Cluster, service: str) -> None:
    """Note that this member runs a service."""
    row = {"member": cluster.name, "service": service}
    cluster.store.put(KIND, f"{cluster.name}/{service}", row)


def forget(cluster: Cluster, service: str) -> None:
    """Note that it does not."""
    cluster.store.delete(KIND, f"{cluster.name}/{service}")


def check_enough(found: Sequence[Row], member: str, least: dict[str, int]) -> None:
    """ApiError unless the other members run at least so many mon, mds and mgr."""
    for service in ("mon", "mgr", "mds"):
        have = sum(r["service"] == service and r["location"] != member for r in found)
        if have < least[service]:
            raise ApiError(
                f"Insufficient non OSD services: need at least {least['mon']} mon, "
                f"{least['mds']} mds, and {least['mgr']} mgr services in the cluster besides "
                f"those in node '{member}'"
            )


# Keys and data directories


def new_key() -> str:
    """A new secret as keyrings have it: type 1, time, length, 16 random bytes."""
    header = struct.pack("<hiih", 1, int(time.time()), 0, 16)
    return base64.b64encode(header + secrets.token_bytes(16)).decode()


def fresh_directory(path: Path) -> Path:
    """Make a directory that is empty."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write_keyring(path: Path, entity: str, caps: list[str]) -> None:
    """Get a key for an entity from the monitors and keep it in a file."""
    text = rados.mon("auth get-or-create", entity=entity, caps=caps).decode()
    settings.replace(path, text, 0o600)


def make_monitor(member: str, monmap: Path, keyring: Path) -> None:
    """Make the monitor's data directory."""
    fresh_directory(paths.service_data("mon", member))
    run(
        "ceph-mon", "-c", str(paths.CEPH_CONF), "--mkfs", "-i", member,
        "--monmap", str(monmap), "--keyring", str(keyring),
    )  # fmt: skip


# Placing


def place_missing(cluster: Cluster) -> None:
    """On a joiner: each of mon, mgr, mds of which there are fewer than three."""
    for service in CORE:
        if count(cluster, service) < PLACED_BY_COUNT:
            place(cluster, service)
            record(cluster, service)


def place(cluster: Cluster, service: str) -> None:
    """Make and start a mon, mgr or mds; returns when a mon is in the quorum."""
    if service == "mon":
        _place_monitor(cluster)
        return
    directory = fresh_directory(paths.service_data(service, cluster.name))
    write_keyring(directory / "keyring", f"{service}.{cluster.name}", CAPS[service])
    activate(service)


def _place_monitor(cluster: Cluster) -> None:
    address = network.address_in(settings.get(cluster, "public_network"))
    with tempfile.TemporaryDirectory() as name:
        monmap, keyring = Path(name, "mon.map"), Path(name, "mon.keyring")
        monmap.write_bytes(rados.mon("mon getmap"))
        run("monmaptool", "--addv", cluster.name, addresses(cluster, address), str(monmap))
        keyring.touch(0o600)
        keyring.write_bytes(rados.mon("auth get", entity="mon."))
        make_monitor(cluster.name, monmap, keyring)
    activate("mon")
    settings.put(cluster, f"{settings.MON_HOST}{cluster.name}", address)
    settings.write(cluster)


def addresses(cluster: Cluster, address: str) -> str:
    """A monitor's addresses as a monmap has them: both protocols, or the second only."""
    host = settings.bracketed(address)
    v1 = "" if settings.get(cluster, "v2only") == "true" else f",v1:{host}:6789"
    return f"[v2:{host}:3300{v1}]"


def wait_for_quorum(member: str) -> None:
    """Wait until a monitor takes part; ApiError after 60 seconds."""
    deadline = time.monotonic() + QUORUM_DEADLINE
    while member not in rados.mon_json("quorum_status")["quorum_names"]:
        if time.monotonic() > deadline:
            raise ApiError(
                f"mon.{member} is not in the quorum after {QUORUM_DEADLINE} seconds; see "
                f"{paths.LOGS}/ceph-mon.{member}.log"
            )
        time.sleep(0.1)


def enable(cluster: Cluster, body: dict[str, Any]) -> None:
    """`PUT /1.0/services/{service}`; ApiError with the step that failed."""
    service = str(body.get("name") or "")
    if service in UNSUPPORTED:
        raise ApiError(f"{service} is not supported by this stand-in")
    if service not in (*CORE, "rgw"):
        raise ApiError(f"{service} enablement is not supported")
    if active(service):
        raise ApiError(
            f"host failed hospitality check for {service} enablement: {service} service already "
            "active on host"
        )
    try:
        if service == "rgw":
            _place_gateway(str(body.get("payload") or "{}"))
        else:
            place(cluster, service)
        if service == "mon":
            wait_for_quorum(cluster.name)
    except ApiError as error:
        raise ApiError(f"failed to initialise {service} service at host: {error}") from error
    record(cluster, service)
    if service == "mon":
        settings.refresh_all(cluster)


def _place_gateway(payload: str) -> None:
    options = json.loads(payload)
    if options.get("SSLCertificate") or options.get("SSLPrivateKey"):
        raise ApiError("RGW with TLS is not supported by this stand-in")
    directory = fresh_directory(paths.DATA / "radosgw" / "ceph-radosgw.gateway")
    entity = f"client.{RGW_ID}"
    write_keyring(directory / "keyring", entity, CAPS["rgw"])
    port = int(options.get("Port") or 80)
    paths.RGW_CONF.write_text(f"--rgw-frontends=beast port={port}\n")
    activate("rgw")


# Removing


def remove(cluster: Cluster, service: str) -> None:
    """`DELETE /1.0/services/{service}`; ApiError when this member does not run it."""
    if service in UNSUPPORTED:
        raise ApiError(f"{service} is not supported by this stand-in")
    if cluster.store.get(KIND, f"{cluster.name}/{service}") is None:
        raise ApiError(f"{service} service is not enabled on host {cluster.name}", 404)
    if service == "mon":
        _leave_quorum(cluster)
    deactivate(service)
    entity = f"client.{RGW_ID}" if service == "rgw" else f"{service}.{cluster.name}"
    if service in ("mgr", "mds", "rgw"):
        attempt(f"remove the key of {entity}", lambda: rados.mon("auth rm", entity=entity))
        if service == "mds":
            attempt("fail mds", lambda: rados.mon("mds fail", role_or_gid=cluster.name))
    if service != "rgw":
        shutil.rmtree(paths.service_data(service, cluster.name), ignore_errors=True)
    forget(cluster, service)


def _leave_quorum(cluster: Cluster) -> None:
    """Take this monitor out of the map, unless it is the last one."""
    if count(cluster, "mon") > 1:
        rados.mon("mon rm", name=cluster.name)
    cluster.store.delete(settings.KIND, f"{settings.MON_HOST}{cluster.name}")
    settings.write(cluster)


def stop_all() -> None:
    """Stop what a failed bootstrap or join left running here."""
    for service in (*CORE, "rgw"):
        if active(service):
            deactivate(service)


def restart(names: Sequence[str]) -> None:
    """`POST /1.0/services/restart`; ApiError for what is no service."""
    for name in names:
        if name not in (*CORE, "osd", "rgw"):
            raise ApiError(f"{name} is not a valid ceph service")
    for name in names:
        if active(name):
            snap_service("restart", name)


def restart_everywhere(cluster: Cluster, names: Sequence[str]) -> None:
    """Restart services on one member after the other."""
    body = [{"service": name} for name in names]
    for member in cluster.members():
        if names:
            cluster.call(member.name, "POST", "/1.0/services/restart", body, timeout=180)


def alive(pid: int) -> bool:
    """Whether a process runs (a dead one that nobody has reaped does not)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
