"""Adding and removing OSDs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.host import service as supervisor
from lab.microceph import blockdevs, crush, launch, paths, pools, rados, services
from lab.microcluster.cluster import Cluster, log
from lab.microcluster.rest import ApiError
from lab.microcluster.store import AlreadyExistsError, Row

KIND = "disks"
LOOP = re.compile(r"loop,([1-9][0-9]*)([MGT]),([1-9][0-9]*)")
MEGABYTES = {"M": 1, "G": 1 << 10, "T": 1 << 20}
MIN_OSDS = 3
CAPS = ["mgr", "allow profile osd", "mon", "allow profile osd", "osd", "allow *"]
MATCHERS = ("osd_match", "wal_match", "db_match", "wal_size", "db_size", "dry_run")
_lock = threading.Lock()


@dataclass(frozen=True)
class Part:
    """One device of an OSD: its data, WAL (`wal`) or DB (`db`)."""

    path: str
    wipe: bool
    encrypt: bool
    role: str = "data"

    def check_encryption(self) -> None:
        """ApiError when it is to be encrypted: there is no device-mapper to do it with."""
        if not self.encrypt:
            return
        control = "/dev/mapper/control"
        if not os.path.exists(control):
            reason = f"missing {control}: stat {control}: no such file or directory"
        elif not os.path.isdir("/sys/module/dm_crypt"):
            reason = (
                "missing dm_crypt module: stat /sys/module/dm_crypt: no such file or directory"
            )
        else:
            reason = "it is not supported by this stand-in"
        raise ApiError(f"encryption unsupported on this machine: {reason}")


def rows(cluster: Cluster) -> list[Row]:
    """`GET /1.0/disks`."""
    found = [
        {"osd": row["osd"], "path": row["path"], "location": row["member"]}
        for row in cluster.store.all(KIND).values()
    ]
    return sorted(found, key=lambda row: row["osd"])


# Adding


def add(cluster: Cluster, body: dict[str, Any]) -> Row:
    """`POST /1.0/disks`: a report per disk; a wrong request is a `validation_error`."""
    answer: Row = {
        "validation_error": "", "report": [], "warnings": None, "dry_run_devices": None,
        "dry_run_plan": None,
    }  # fmt: skip
    wanted = body.get("path") or []
    if not isinstance(wanted, list) or not all(isinstance(p, str) for p in wanted):
        raise ApiError(
            "json: cannot unmarshal into Go struct field DisksPost.path of type []string"
        )
    refused = _validate(wanted, body)
    if refused:
        failed = [{"path": path, "report": "Failure", "error": ""} for path in wanted]
        return {**answer, "validation_error": refused, "report": failed}
    for path in wanted:
        try:
            if path.startswith("loop,"):
                _add_loops(cluster, path, body)
            else:
                with _lock:
                    _add_device(cluster, path, body)
            report = {"path": path, "report": "Success", "error": ""}
        except (ApiError, OSError) as error:
            log(f"failed to add disk: path {path}, err {error}")
            report = {"path": path, "report": "Failure", "error": str(error)}
        answer["report"].append(report)
    return answer


def _validate(wanted: list[str], body: dict[str, Any]) -> str:
    """What is wrong with the request as a whole, '' for nothing."""
    given = [name for name in MATCHERS if body.get(name)]
    if given:
        if wanted:
            return (
                "--osd-match/--wal-match/--db-match cannot be used with positional device "
                "arguments"
            )
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        return f"{flags}: not supported by this stand-in, name the devices"
    if not wanted:
        return "no disks were given: name at least one device or loop spec"
    if len(wanted) == 1:
        return ""
    if body.get("waldev") or body.get("dbdev"):
        return "wal/db devices are not supported in batch disk addition"
    for path in wanted:
        if path.startswith("loop,"):
            return (
                f"loop spec {path} is not supported as an argument to batch disk addition, use "
                "separately"
            )
    return ""


def _add_loops(cluster: Cluster, spec: str, body: dict[str, Any]) -> None:
    match = LOOP.fullmatch(spec)
    if not match:
        raise ApiError(f"illegal spec: {spec}")
    if body.get("waldev") or body.get("dbdev"):
        raise ApiError("loopback and WAL/DB are mutually exclusive")
    if body.get("encrypt"):
        raise ApiError("encryption is not supported on loop devices")
    size, number = int(match[1]) * MEGABYTES[match[2]], int(match[3])
    free = shutil.disk_usage(paths.COMMON).free >> 20
    if free < size * number:
        raise ApiError(f"insufficient free space for {number} loopback files of size {size}MB")
    for _ in range(number):
        with _lock:
            _make(cluster, None, size)


def _add_device(cluster: Cluster, path: str, body: dict[str, Any]) -> None:
    inventory = blockdevs.resources()
    parts = [Part(path, bool(body.get("wipe")), bool(body.get("encrypt")))]
    for role in ("wal", "db"):
        if body.get(f"{role}dev"):
            wipe, encrypt = bool(body.get(f"{role}wipe")), bool(body.get(f"{role}encrypt"))
            parts.append(Part(str(body[f"{role}dev"]), wipe, encrypt, role))
    stable = [
        Part(blockdevs.stable_path(p.path, inventory), p.wipe, p.encrypt, p.role) for p in parts
    ]
    if any(row["member"] == cluster.name and row["path"] == stable[0].path
           for row in cluster.store.all(KIND).values()):  # fmt: skip
        raise ApiError('failed to record disk: This "disks" entry already exists')
    for part in stable:
        what = "data" if part.role == "data" else part.role.upper()
        blockdevs.check(part.path, inventory, wipe=part.wipe, what=what)
        part.check_encryption()
        if blockdevs.used_by_ceph(Path(part.path)):
            raise ApiError(f"device {part.path} is used by another OSD of this machine - aborting")
    for part in stable:
        if part.wipe:
            blockdevs.wipe(part.path)
    _make(cluster, stable, 0)


def _make(cluster: Cluster, parts: list[Part] | None, megabytes: int) -> None:
    """Record, make and start an OSD; on failure nothing of it is left."""
    number = _reserve(cluster, parts[0].path if parts else "")
    directory = services.fresh_directory(paths.osd_data(number))
    try:
        if parts is None:
            backing = directory / "osd-backing.img"
            with open(backing, "wb") as handle:
                handle.truncate(megabytes << 20)
            parts = [Part(str(backing), False, False)]
            row = {"member": cluster.name, "osd": number, "path": str(backing)}
            cluster.store.put(KIND, str(number), row)
        _format(number, directory, parts)
    except (ApiError, OSError):
        services.attempt(f"purge osd.{number}", lambda: _purge(number))
        shutil.rmtree(directory, ignore_errors=True)
        cluster.store.delete(KIND, str(number))
        raise
    crush.scale_up(cluster)
    services.attempt("make the manager's pool", pools.ensure_manager_pool)


def _reserve(cluster: Cluster, path: str) -> int:
    """Record a disk under the next free number (they start at 1)."""
    for _ in range(20):
        number = max((int(key) for key in cluster.store.all(KIND)), default=0) + 1
        try:
            row = {"member": cluster.name, "osd": number, "path": path}
            cluster.store.insert(KIND, str(number), row)
            return number
        except AlreadyExistsError:
            continue  # another member took it at the same moment
    raise ApiError("failed to record disk: other members add disks faster than this one")


def _format(number: int, directory: Path, parts: list[Part]) -> None:
    identity = str(uuid.uuid4())
    rados.mon("osd new", uuid=identity, id=number)
    (directory / "fsid").write_text(f"{identity}\n")
    services.write_keyring(directory / "keyring", f"osd.{number}", CAPS)
    (directory / "block").symlink_to(parts[0].path)
    extra: list[str] = []
    for part in parts[1:]:
        extra += [f"--bluestore-block-{part.role}-path", part.path]
    services.run(
        "ceph-osd", "-c", str(paths.CEPH_CONF), "--mkfs", "--no-mon-config", "-i", str(number),
        "--osd-uuid", identity, *extra,
    )  # fmt: skip
    (directory / "ready").touch(0o600)
    reload_service()


def reload_service() -> None:
    """Have the OSD service start what is new; ApiError when it does not come up."""
    name = "snap.microceph.osd"
    if not services.active("osd"):
        services.activate("osd")
        return
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        pid = int(supervisor.states().get(name, {}).get("pid", 0))
        try:
            # Before it says so it does not understand the signal, and would die of it.
            if pid and launch.ready_file().read_text() == str(pid):
                os.kill(pid, signal.SIGHUP)
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise ApiError("failed to reload the osd service within 15 seconds: see its log")


# Removing


def remove(cluster: Cluster, number: int, body: dict[str, Any]) -> None:
    """`DELETE /1.0/disks/{osdid}`, on its member; ApiError says what stands against it."""
    row = cluster.store.get(KIND, str(number))
    if row is None:
        raise ApiError(f"osd.{number} not found", 404)
    if row["member"] != cluster.name:
        raise ApiError(
            f"osd.{number} is on {row['member']}, not here: ask with ?target={row['member']}", 400
        )
    confirmed, prohibited = (
        bool(body.get("confirm_downgrade")),
        body.get("prohibit_crush_scaledown"),
    )
    if confirmed and prohibited:
        raise ApiError("confirm_downgrade and prohibit_crush_scaledown exclude each other", 400)
    bypass = bool(body.get("bypass_safety"))
    limit = float(body.get("timeout") or 1800)
    with _lock:
        _check_removal(cluster, number, bypass=bypass, confirmed=confirmed, keep=bool(prohibited))
        _drain_and_destroy(cluster, number, row, bypass, time.monotonic() + limit, limit)


def _check_removal(
    cluster: Cluster, number: int, *, bypass: bool, confirmed: bool, keep: bool
) -> None:
    downgrade = crush.downgrade_needed(cluster, number)
    if downgrade and not confirmed and not keep:
        raise ApiError(
            f"Removing osd.{number} would require a downgrade of the automatic crush rule from "
            "'host' to 'osd' level. Likely this will result in additional data movement. Please "
            "confirm by setting the '--confirm-failure-domain-downgrade' flag to true"
        )
    if not bypass:
        crush.check_zones(cluster, number)
    disks = len(cluster.store.all(KIND))
    if not bypass and disks <= MIN_OSDS:
        raise ApiError(
            f"cannot remove osd.{number} we need at least {MIN_OSDS} OSDs, have {disks}"
        )
    if downgrade and not keep:
        crush.switch("host", "osd")


def _drain_and_destroy(
    cluster: Cluster, number: int, row: Row, bypass: bool, deadline: float, limit: float
) -> None:
    present = number in crush.osd_numbers()
    name = f"osd.{number}"
    if present:
        services.attempt(
            f"reweight {name}", lambda: rados.mon("osd crush reweight", name=name, weight=0.0)
        )
        if not bypass:
            _wait_safe("ok-to-stop", number, deadline, limit)
        for command in ("osd out", "osd down"):
            rados.mon(command, ids=[str(number)])
    (paths.osd_data(number) / "ready").unlink(missing_ok=True)
    stop_process(number)
    if present:
        if not bypass:
            _wait_safe("safe-to-destroy", number, deadline, limit)
        _purge(number)
    _clear(number, str(row["path"]))
    cluster.store.delete(KIND, str(number))


def _wait_safe(question: str, number: int, deadline: float, limit: float) -> None:
    """Ask the manager until it says yes."""
    pause = 0.2
    while not _says_yes(question, number):
        if time.monotonic() + pause > deadline:
            raise ApiError(
                f"timeout ({limit:g}s) reached while removing osd.{number}, abort: osd.{number} "
                f"failed to reach {question}"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 5)


def _says_yes(question: str, number: int) -> bool:
    # A question for the manager, which librados' monitor commands do not reach.
    return asks_manager("osd", question, f"osd.{number}")


def asks_manager(*words: str) -> bool:
    """Whether a `ceph` command succeeds within 20 seconds."""
    try:
        services.run(
            "ceph", "-c", str(paths.CEPH_CONF), "--connect-timeout", "10", *words, timeout=20
        )
    except ApiError as error:
        log(str(error))
        return False
    return True


def stop_process(number: int) -> None:
    """End an OSD's process, by force after 10 seconds; ApiError if it survives."""
    try:
        pid = int(paths.osd_pid(number).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if b"ceph-osd" not in command:
        return
    for kill, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        try:
            os.kill(pid, kill)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while services.alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not services.alive(pid):
            return
    raise ApiError(f"timed out waiting for osd.{number} to exit after SIGKILL")


def _purge(number: int) -> None:
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 0):
        try:
            rados.mon("osd purge-actual", id=number, yes_i_really_mean_it=True)
            return
        except rados.CephError as error:
            if not pause:
                raise ApiError(f"failed to purge osd.{number}: {error}") from error
            time.sleep(pause)


def _clear(number: int, path: str) -> None:
    """Wipe the devices and remove the directory; a broken device does not stop a removal."""
    directory = paths.osd_data(number)
    for link in directory.glob("block*"):
        if link.is_symlink() and link.resolve().is_block_device():
            services.attempt(f"wipe {link}", lambda p=link: blockdevs.wipe(str(p)))
    if Path(path).is_block_device():
        services.attempt(f"wipe {path}", lambda: blockdevs.wipe(path))
    shutil.rmtree(directory, ignore_errors=True)
    paths.osd_pid(number).unlink(missing_ok=True)


def set_state(state: str) -> None:
    """`PUT /1.0/osds`: start (`up`) or stop (`down`) this machine's OSD service."""
    if state not in ("up", "down"):
        raise ApiError(f"unknown state encounter: {state}.")
    services.snap_service("start" if state == "up" else "stop", "osd")
