"""Servers with LXD's envelope, for the fake daemons of the unit tests."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseServer, TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Any, Protocol

Query = dict[str, list[str]]


class Refused(Exception):
    """An error answer."""

    def __init__(self, code: int, error: str) -> None:
        self.code = code
        super().__init__(error)


class Daemon(Protocol):
    """What can be served."""

    def answer(self, method: str, url: str, body: dict[str, Any]) -> Any:
        """The metadata of the answer; ("async", id) for an operation that is over already."""
        ...


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


class _TcpServer(ThreadingMixIn, TCPServer):
    daemon_threads = True


def _handler(daemon: Daemon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "{}")
            code, reply = 200, {"type": "sync", "status": "Success", "status_code": 200}
            try:
                found = daemon.answer(self.command, self.path, body)
                if isinstance(found, tuple):
                    code = 202
                    reply |= {"type": "async", "operation": f"/1.0/operations/{found[1]}"}
                reply["metadata"] = found
            except Refused as fault:
                code = fault.code
                reply = {"type": "error", "error": str(fault), "error_code": code}
            data = json.dumps(reply).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _do

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def serve(daemon: Daemon, path: Path) -> Callable[[], None]:
    """Answer on the socket `path` until the function that is given back is called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stop = _start(_Server(str(path), _handler(daemon)))

    def end() -> None:
        stop()
        path.unlink()

    return end


def serve_members(daemon: Daemon, folder: Path) -> tuple[str, Callable[[], None]]:
    """Answer, at the address that is given back, whoever has the certificate in `folder`.

    A new one, as both the cluster's and the member's.
    """
    names = [folder / name for name in ("server.key", "server.crt", "cluster.crt")]
    options = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(names[0]), "-out", str(names[1]), "-subj", "/CN=another")
    subprocess.run(["openssl", "req", *options, *files], check=True, capture_output=True)
    shutil.copy(names[1], names[2])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(names[2]))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(names[1], names[0])
    server = _TcpServer(("127.0.0.1", 0), _handler(daemon))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return f"127.0.0.1:{server.server_address[1]}", _start(server)


def _start(server: BaseServer) -> Callable[[], None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
