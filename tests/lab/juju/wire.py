"""One JSON document per line: how agents and the `juju` command talk to the controller."""

from __future__ import annotations

import json
import select
import socket
import time
from typing import Any

Doc = dict[str, Any]


class ConnectionLost(OSError):
    """The controller cannot be reached, or stopped answering."""


class RemoteError(Exception):
    """The controller refused a request; `str()` is the sentence for the user."""

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


def encode(doc: Doc) -> bytes:
    """One line of the protocol."""
    return json.dumps(doc, separators=(",", ":")).encode() + b"\n"


class Client:
    """A blocking connection that also collects what the controller pushes in between.

    `timeout` is in seconds and bounds every call. Pushed documents gather in `pushed`.
    """

    def __init__(self, sock: socket.socket, timeout: float = 15.0):
        self.sock = sock
        self.timeout = timeout
        self.pushed: list[Doc] = []
        self._buffer = bytearray()
        self._answers: dict[int, Doc] = {}
        self._serial = 0

    @classmethod
    def tcp(cls, address: tuple[str, int], timeout: float = 15.0) -> Client:
        """Connect to a controller over TCP, or raise ConnectionLost."""
        try:
            sock = socket.create_connection(address, timeout=min(timeout, 5.0))
        except OSError as err:
            raise ConnectionLost(f"cannot connect to {address[0]}:{address[1]}: {err}") from err
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))
        return cls(sock, timeout)

    @classmethod
    def unix(cls, path: str, timeout: float = 15.0) -> Client:
        """Connect to a controller over its unix socket, or raise ConnectionLost."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError as err:
            sock.close()
            raise ConnectionLost(f"cannot connect to {path}: {err}") from err
        return cls(sock, timeout)

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def call(self, method: str, patience: float | None = None, /, **params: Any) -> Any:
        """Ask and wait for the answer. Raises RemoteError or ConnectionLost."""
        self._serial += 1
        serial = self._serial
        self._send({"id": serial, "m": method, "p": params})
        deadline = time.monotonic() + (self.timeout if patience is None else patience)
        while serial not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise ConnectionLost(f"no answer to {method} from the controller")
            self.receive()
        answer = self._answers.pop(serial)
        if "e" in answer:
            raise RemoteError(answer["e"], answer.get("code", ""))
        return answer.get("r")

    def notify(self, method: str, **params: Any) -> None:
        """Tell without waiting for an answer."""
        self._send({"m": method, "p": params})

    def readable(self) -> bool:
        """Whether `receive` would not block."""
        return bool(select.select([self.sock], [], [], 0)[0])

    def receive(self) -> None:
        """Read what is there (blocks if nothing is). Raises ConnectionLost at the end."""
        try:
            chunk = self.sock.recv(1 << 18)
        except OSError as err:
            raise ConnectionLost(str(err)) from err
        if not chunk:
            raise ConnectionLost("the controller closed the connection")
        self._buffer += chunk
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            doc = json.loads(line)
            if "id" in doc:
                self._answers[doc["id"]] = doc
            else:
                self.pushed.append(doc)

    def _send(self, doc: Doc) -> None:
        try:
            self.sock.settimeout(self.timeout)
            self.sock.sendall(encode(doc))
            self.sock.settimeout(None)
        except OSError as err:
            raise ConnectionLost(str(err)) from err
