"""The Juju controller of a lab: start it, stop it, reach it.

State lives in `<lab root>/juju/`: state.db (everything), controller.sock (the `juju` command),
hooks.jsonl (a record of every hook), log/ (the models' logs), controller.log (its own).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab.juju.wire import Client, ConnectionLost

DEFAULT_VERSION = "3.6.28"
_started: dict[int, subprocess.Popen[bytes]] = {}  # controllers that are this process's children


class ControllerError(RuntimeError):
    """The controller cannot be started, stopped or reached; says why."""


def root_of(lab: Any) -> Path:
    return Path(lab.root) / "juju"


def socket_of(lab: Any) -> Path:
    return root_of(lab) / "controller.sock"


def connect(lab: Any, timeout: float = 15.0) -> Client:
    """A connection for requests of a user; ConnectionLost if the controller is not running."""
    return Client.unix(str(socket_of(lab)), timeout)


def is_running(lab: Any) -> bool:
    with contextlib.suppress(ConnectionLost):
        connect(lab, 5.0).close()
        return True
    return False


def start(lab: Any, version: str = "", timeout: float = 20.0) -> None:
    """Start the controller unless it runs, and wait until it answers.

    `version` (or the environment's JUJU_LAB_VERSION) counts only for a new lab: 3.6.28 if not
    stated; a 4.x version brings Juju 4's order of departures. `timeout` in seconds.
    """
    if is_running(lab):
        return
    root = root_of(lab)
    root.mkdir(parents=True, exist_ok=True)
    build_hooktool(root)
    wanted = version or os.environ.get("JUJU_LAB_VERSION") or DEFAULT_VERSION
    package_parent = str(Path(__file__).resolve().parents[3])
    with (root / "controller.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.juju.controller", lab.name, wanted],
            env={**os.environ, "PYTHONPATH": package_parent, "LAB_ROOT": str(root.parents[1])},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    _started[process.pid] = process
    (root / "controller.pid").write_text(str(process.pid))
    deadline = time.monotonic() + timeout
    while not is_running(lab):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = (root / "controller.log").read_text()[-2000:]
            raise ControllerError(
                f"the controller of lab {lab.name} did not start; its log "
                f"({root}/controller.log) ends:\n{tail}"
            )
        time.sleep(0.02)


def stop(lab: Any, timeout: float = 10.0, kill: bool = False) -> None:
    """Stop the controller (`kill`: at once, as a crash would). Its state stays on disk."""
    pidfile = root_of(lab) / "controller.pid"
    try:
        pid = int(pidfile.read_text())
        with open(f"/proc/{pid}/cmdline") as stream:
            if "lab.juju.controller" not in stream.read():
                return
    except (OSError, ValueError):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while _runs(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline += timeout
        time.sleep(0.02)
    pidfile.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    if pid in _started:
        if _started[pid].poll() is None:
            return True
        del _started[pid]
        return False
    try:
        with open(f"/proc/{pid}/stat") as stream:
            zombie = stream.read().rpartition(")")[2].split()[0] == "Z"
        # Other threads of a killed process may outlive the first for a moment, and as long as
        # they do its sockets are open: a connection would be taken for a running controller.
        return not zombie or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def build_hooktool(root: Path) -> Path:
    """Compile the hook tools' client, and the library that counts calls; the client's path."""
    _compile("calls.c", root / "calls.so", "-shared", "-fPIC")
    return _compile("hooktool.c", root / "hooktool", "-static")


def _compile(name: str, target: Path, *how: str) -> Path:
    source = Path(__file__).resolve().parents[1] / name
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return target
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    done = subprocess.run(
        ["cc", "-O2", "-Wall", *how, "-o", str(fresh), str(source)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise ControllerError(f"cannot compile {source}: {done.stderr}")
    fresh.rename(target)
    return target
