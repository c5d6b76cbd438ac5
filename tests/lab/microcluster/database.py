"""The member's own ovsdb-server: one raft member, a child of the daemon, that dies with it."""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.microcluster.rest import ApiError, split_address
from lab.microcluster.store import DATABASE, SCHEMA, LocalBackend

RAFT_OFFSET = 20000
ELECTION_MS = "2000"


def raft_address(address: str) -> str:
    """The raft listener that belongs to a member's `ip:port`."""
    host, port = split_address(address)
    raft = port + RAFT_OFFSET if port + RAFT_OFFSET < 65536 else port - RAFT_OFFSET
    return f"ssl:[{host}]:{raft}" if ":" in host else f"ssl:{host}:{raft}"


class Spawner:
    """Starts children from the main thread.

    A child that is to die with its parent dies, to be exact, with the thread that made it.
    """

    def __init__(self) -> None:
        # Simple: a signal handler may put into it while the main thread gets from it.
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def start(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a process that is killed when the daemon ends; OSError if it cannot be started."""
        result: queue.Queue[subprocess.Popen[bytes] | OSError] = queue.Queue()

        def job() -> None:
            try:
                with log.open("ab") as out:
                    process = subprocess.Popen(
                        ["setpriv", "--pdeathsig", "KILL", *argv],
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=out,
                    )
                result.put(process)
            except OSError as error:
                result.put(error)

        if threading.current_thread() is threading.main_thread():
            job()
        else:
            self._jobs.put(job)
        made = result.get(timeout=30)
        if isinstance(made, OSError):
            raise made
        return made

    def run(self) -> None:
        """Serve start requests until `finish`: what the main thread does."""
        while job := self._jobs.get():
            job()

    def finish(self) -> None:
        """Let `run` return."""
        self._jobs.put(None)


@dataclass
class Database:
    """The database below `directory`; certificates are those of the cluster."""

    directory: Path
    cert: Path
    key: Path
    spawner: Spawner
    process: subprocess.Popen[bytes] | None = None

    @property
    def file(self) -> Path:
        return self.directory / "cluster.db"

    @property
    def exists(self) -> bool:
        """Whether this member is a voter."""
        return self.file.exists()

    @property
    def backend(self) -> LocalBackend:
        return LocalBackend(self.directory / "db.sock")

    def create(self, address: str) -> None:
        """A new cluster of one."""
        self._fresh()
        schema = self.directory / "schema.json"
        schema.write_text(json.dumps(SCHEMA))
        self._tool(
            f"--election-timer={ELECTION_MS}", "create-cluster",
            str(self.file), str(schema), raft_address(address),
        )  # fmt: skip

    def join(self, address: str, remotes: Sequence[str]) -> None:
        """A member that will join the cluster of those at `remotes`, as soon as it is started."""
        self._fresh()
        others = [raft_address(remote) for remote in remotes]
        self._tool("join-cluster", str(self.file), DATABASE, raft_address(address), *others)

    def start(self) -> None:
        """Start the server and wait for its socket (10 seconds); ApiError if it ends instead."""
        for name in ("db.sock", "ctl.sock"):
            (self.directory / name).unlink(missing_ok=True)
        self.process = self.spawner.start(
            [
                "ovsdb-server", "--no-chdir", "-vconsole:off", "-vsyslog:off",
                f"--remote=punix:{self.directory}/db.sock", f"--unixctl={self.directory}/ctl.sock",
                f"--log-file={self.directory}/ovsdb.log", f"--private-key={self.key}",
                f"--certificate={self.cert}", f"--ca-cert={self.cert}", str(self.file),
            ],
            self.directory / "ovsdb.out",
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not (self.directory / "db.sock").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                out = (self.directory / "ovsdb.out").read_text(errors="replace")[-300:]
                raise ApiError(f"Failed to start the database in {self.directory}: {out.strip()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, if it runs."""
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def drop(self) -> None:
        """Be no voter any more."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def servers(self) -> list[str]:
        """The raft addresses of all servers, as the local one knows them."""
        return re.findall(
            r"^ +\w+ \(\w+ at (\S+?)\)", self._control("cluster/status", DATABASE), re.M
        )

    def kick(self, address: str, timeout: float = 15) -> None:
        """Remove the server of the member at `address`; ApiError without quorum."""
        target = raft_address(address)
        if target not in self.servers():
            return
        self._control("cluster/kick", DATABASE, target)
        deadline = time.monotonic() + timeout
        while target in self.servers():
            if time.monotonic() > deadline:
                raise ApiError(
                    f"Failed to remove {address} from the database: context deadline exceeded", 503
                )
            time.sleep(0.05)

    def _fresh(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)

    def _tool(self, *args: str) -> None:
        done = subprocess.run(["ovsdb-tool", *args], capture_output=True, text=True, timeout=20)
        if done.returncode:
            raise ApiError(f"Failed to make the database: {done.stderr.strip()}")

    def _control(self, *args: str) -> str:
        argv = ["ovs-appctl", "--timeout=10", "-t", f"{self.directory}/ctl.sock", *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=15)
        if done.returncode:
            raise ApiError(f"Database control {args[0]} failed: {done.stderr.strip()}")
        return done.stdout
