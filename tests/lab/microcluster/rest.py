"""REST over a unix socket and over TLS, with LXD's envelope around every answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

T = TypeVar("T")


class ApiError(Exception):
    """An error that the caller of the REST API sees: a sentence and an HTTP status."""

    def __init__(self, message: str, code: int = 500) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """One request, its JSON body decoded (None without a body)."""

    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    over_network: bool
    trusted: bool

    def mapping(self) -> dict[str, Any]:
        """The body as an object; ApiError 400 for anything else."""
        if not isinstance(self.body, dict):
            raise ApiError(f"{self.method} {self.path} needs a JSON object as its body", 400)
        return cast("dict[str, Any]", self.body)


@dataclass(frozen=True)
class Route(Generic[T]):
    """A method and a path (`/1.0/disks/{id}`) and the function that answers it."""

    method: str
    path: str
    handler: Callable[[T, Request], object]
    before_init: bool = False
    untrusted: bool = False

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The path's parameters when this route answers the request, else None."""
        if method != self.method:
            return None
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        found = re.fullmatch(pattern, path)
        return {k: unquote(v) for k, v in found.groupdict().items()} if found else None


@dataclass
class Answer:
    """What goes back: the metadata, and what to do when it has been sent."""

    metadata: object
    after: Callable[[], None] | None = None


Dispatch = Callable[[Request], "Answer"]


def envelope(metadata: object) -> dict[str, object]:
    """A successful answer."""
    return {
        "type": "sync", "status": "Success", "status_code": 200, "operation": "",
        "error_code": 0, "error": "", "metadata": metadata,
    }  # fmt: skip


def error_envelope(error: ApiError) -> dict[str, object]:
    """A failed one."""
    return {
        "type": "error", "status": "", "status_code": 0, "operation": "",
        "error_code": error.code, "error": str(error), "metadata": None,
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(20)
            self.request.do_handshake()
        super().setup()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        after = None
        code = 200
        try:
            try:
                body = json.loads(raw) if raw.strip() else None
            except json.JSONDecodeError as error:
                raise ApiError(f"Malformed JSON in the request's body: {error}", 400) from error
            peer = isinstance(self.request, ssl.SSLSocket) and bool(self.request.getpeercert())
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            network = self.server.network
            trusted = peer or not network
            request = Request(self.command, url.path, {}, query, body, network, trusted)
            answer = self.server.dispatch(request)
            after = answer.after
            payload = envelope(answer.metadata)
        except ApiError as error:
            code, payload = error.code, error_envelope(error)
        except Exception as error:
            # A server's last line of defence: a bug must become an answer, not a hanging client.
            code, payload = 500, error_envelope(ApiError(f"{type(error).__name__}: {error}"))
            self.server.report(self.command, url.path)
        self._send(code, payload)
        if after:
            after()

    def _send(self, code: int, payload: dict[str, object]) -> None:
        data = json.dumps(payload).encode() + b"\n"
        with contextlib.suppress(OSError):
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: their bodies hold tokens."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One thread per connection; made by serve_unix and serve_tls."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
    dispatch: Dispatch
    network: bool

    def report(self, method: str, path: str) -> None:
        import traceback

        print(f"{method} {path} failed:\n{traceback.format_exc()}", flush=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off, or speaks no TLS, is no news."""


class UnixServer(Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(cast("str", self.server_address))


def _run(server: Server) -> Server:
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True
    ).start()
    return server


def serve_unix(path: Path, dispatch: Dispatch) -> Server:
    """Answer on a unix socket that only root may use; a stale socket is replaced."""
    path.unlink(missing_ok=True)
    server = UnixServer(cast("Any", str(path)), _Handler)
    os.chmod(path, 0o600)
    server.dispatch, server.network = dispatch, False
    return _run(server)


def serve_tls(address: str, cert: Path, key: Path, dispatch: Dispatch) -> Server:
    """Answer on `ip:port`; who shows the certificate itself is trusted. OSError if it is taken."""
    host, port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(cert)
    context.verify_mode = ssl.CERT_OPTIONAL
    kind = type("TlsServer", (Server,), {"address_family": _family(host)})
    server = kind((host, port), _Handler)
    # The handshake is left to the connection's thread: a silent client must not stop the others.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.dispatch, server.network = dispatch, True
    return _run(server)


def stop(server: Server | None) -> None:
    """Stop a server made by serve_unix or serve_tls."""
    if server:
        server.shutdown()
        server.server_close()


def split_address(address: str) -> tuple[str, int]:
    """`10.0.0.1:6443` or `[fd42::1]:6443` as host and port; ApiError when it is neither."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ApiError(f"Invalid address {address!r}: it must be IP:PORT", 400)
    return host.strip("[]"), int(port)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call_unix(path: Path, method: str, url: str, body: object = None, timeout: float = 60) -> Any:
    """Ask a daemon on its unix socket; its metadata, or ApiError with its text.

    OSError: the daemon does not run, or does not answer within `timeout` seconds.
    """
    return _ask(_UnixConnection(path, timeout), method, url, body)


@dataclass(frozen=True)
class TlsPeer:
    """Another member's listener, and how to know it and be known by it."""

    address: str
    fingerprint: str | None = None
    cert: Path | None = None
    key: Path | None = None
    context: ssl.SSLContext = field(init=False, compare=False)

    def __post_init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # pinned by fingerprint in call()
        if self.cert and self.key:
            context.load_cert_chain(self.cert, self.key)
        object.__setattr__(self, "context", context)

    def call(self, method: str, url: str, body: object = None, timeout: float = 30) -> Any:
        """Ask the peer; ApiError with its text, or with the reason why it could not be reached."""
        host, port = split_address(self.address)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self.context)
        try:
            # Connecting has a shorter deadline than the work that is asked for.
            connection.timeout = min(timeout, 5)
            connection.connect()
            connection.sock.settimeout(timeout)
            self._check(cast("ssl.SSLSocket", connection.sock))
            return _ask(connection, method, url, body)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            text = f'{method.title()} "https://{self.address}{url}": {reason}'
            raise ApiError(text, 503) from error
        finally:
            connection.close()

    def _check(self, sock: ssl.SSLSocket) -> None:
        from lab.microcluster import certs

        der = sock.getpeercert(binary_form=True) or b""
        if self.fingerprint and certs.fingerprint_of(der) != self.fingerprint:
            raise ApiError(
                f"Cluster certificate token does not match that of cluster member {self.address}"
            )


def with_query(url: str, query: Mapping[str, str]) -> str:
    """`url` with a query string, if there is anything to say."""
    return f"{url}?{urlencode(query)}" if query else url


def _ask(connection: http.client.HTTPConnection, method: str, url: str, body: object) -> Any:
    payload = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if payload else {}
    try:
        connection.request(method, url, payload, headers)
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    try:
        answer = json.loads(raw)
    except json.JSONDecodeError as error:
        raise ApiError(f"{method} {url} gave no JSON but {raw[:80]!r}") from error
    if answer.get("type") == "error":
        raise ApiError(str(answer.get("error")), int(answer.get("error_code") or response.status))
    return answer.get("metadata")
