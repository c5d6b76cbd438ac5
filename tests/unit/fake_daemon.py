"""A server on a unix socket with LXD's envelope, for the fake daemons of the unit tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
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


def serve(daemon: Daemon, path: Path) -> Callable[[], None]:
    """Answer on the socket `path` until the function that is given back is called."""

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

    path.parent.mkdir(parents=True, exist_ok=True)
    server = _Server(str(path), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()
        path.unlink()

    return stop
