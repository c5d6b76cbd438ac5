"""A small client for the REST sockets that LXD and the microcluster daemons share.

They speak the same envelope over a unix socket, and LXD over the network as well. Looking at a
daemon happens in every hook, so it has to be cheap: this needs the standard library only, a few
milliseconds a request.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import DaemonError, Unreachable
from recall import recall

LOOK_TIMEOUT = 10.0  # seconds; a healthy daemon answers in milliseconds


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Rest:
    """Requests to one daemon; `name` is what it is called in error sentences."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        return _UnixConnection(self.path, timeout)

    def exists(self) -> bool:
        """Whether the daemon has made its socket."""
        return self.path.exists()

    def get(self, path: str, timeout: float = LOOK_TIMEOUT) -> Any:
        """The metadata of `GET path`; while looking, as it was when it was asked first.

        Raises:
            Unreachable: no answer within `timeout` seconds.
            DaemonError: the daemon answered with an error.
        """
        return recall((self.name, path), lambda: self.call("GET", path, timeout=timeout))

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        timeout: float = LOOK_TIMEOUT,
    ) -> Any:
        """Do one request and give the answer's metadata; raises as `get` does."""
        connection = self._connect(timeout)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as fault:
            said = f"{self.name} does not answer {method} {path}: {fault or 'time-out'}"
            raise Unreachable(said) from fault
        finally:
            connection.close()
        if answer.get("type") == "error":
            raise DaemonError(f"{self.name}: {answer.get('error')}", answer.get("error_code", 0))
        return answer.get("metadata")


class Remote(Rest):
    """Requests to the daemon of another member at `address`, a host and port.

    All members show `certificate`, a PEM text; `folder` has this one's own, if it has not lost it.
    """

    def __init__(self, name: str, address: str, certificate: str, folder: Path) -> None:
        super().__init__(f"{name} at {address}", folder)
        self._address = address
        self._certificate = certificate

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        context = ssl.create_default_context(cadata=self._certificate)
        context.check_hostname = False  # it names whoever began the cluster
        own = self.path / "server.crt"
        if own.exists():
            context.load_cert_chain(own, own.with_suffix(".key"))
        host, _, port = self._address.rpartition(":")
        return http.client.HTTPSConnection(
            host.strip("[]"), int(port), timeout=timeout, context=context
        )
