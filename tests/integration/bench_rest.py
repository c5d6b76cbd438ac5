"""The benchmark's way to a daemon: REST over the unix socket of a lab's machine, no Juju."""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

from lab.host.machine import Machine

LXD = Path("var/snap/lxd/common/lxd/unix.socket")
MICROOVN = Path("var/snap/microovn/common/state/control.socket")
TIMEOUT = 120.0  # seconds; for one request, and for a daemon to come up
PAUSE = 0.02  # seconds between two questions whether a daemon is up


class BenchError(Exception):
    """The benchmark cannot go on; the message says what, where and what was answered."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Rest:
    """One daemon of one machine; asynchronous answers are waited for."""

    def __init__(self, machine: Machine, path: Path) -> None:
        self._machine = machine
        self._path = path

    def get(self, url: str) -> Any:
        """The metadata of a `GET`."""
        return self.call("GET", url)

    def call(self, method: str, url: str, body: object = None, *, wait: bool = True) -> Any:
        """Ask, wait for the operation if there is one, and give the metadata.

        Raises:
            BenchError: the daemon does not answer within TIMEOUT seconds, or refuses.
        """
        where = f"{method} {url} on {self._machine.hostname}"
        # Through PID 1's root, since the machine's mounts are its own.
        socket_path = Path(f"/proc/{self._machine.pid}/root") / self._path
        connection = _Connection(socket_path)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, url, content, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as fault:
            raise BenchError(f"{where}: no answer: {fault}") from fault
        finally:
            connection.close()
        if answer.get("type") == "error":
            raise BenchError(f"{where}: refused: {answer['error']}")
        if answer.get("type") == "async" and wait:
            return self._waited(where, answer["operation"])
        return answer["metadata"]

    def _waited(self, where: str, operation: str) -> Any:
        ended = self.get(f"{operation}/wait?timeout={TIMEOUT:.0f}")
        if ended["status"] != "Success":
            raise BenchError(f"{where}: {ended['status']}: {ended['err']}")
        return ended["metadata"]

    def wait_for(self, url: str) -> None:
        """Wait until the daemon answers; BenchError after TIMEOUT seconds."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                self.get(url)
                return
            except BenchError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)
