"""The library that counts a hook's calls of daemons and commands, and kills it at one."""

from __future__ import annotations

import contextlib
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.juju.controller import build_hooktool

# Asks the daemon twice on one connection, the second time in two pieces; then runs a command
# that is found along the PATH, which asks the daemon as well.
HOOK = """
import os, socket, subprocess, sys
here = sys.argv[1]
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(f"{here}/daemon.socket")
daemon.sendall(b"GET /one\\n"); daemon.recv(100)
daemon.sendall(b"PUT "); daemon.sendall(b"/two\\n"); daemon.recv(100)
subprocess.run(["touch", f"{here}/touched"], check=True)
subprocess.run([f"{here}/tools/tool"], check=True)
ask = "from socket import *; s = socket(AF_UNIX); s.connect('daemon.socket'); s.send(b'a')"
subprocess.run([sys.executable, "-c", ask], cwd=here, check=True)
"""


class _Daemon(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # the hook is dead
            for line in self.rfile:
                self.server.heard.append(line.decode().strip())  # type: ignore[attr-defined]
                self.wfile.write(b"yes\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[list[str]]:
    """A daemon on a unix socket; what it was asked."""
    server = _Server(str(tmp_path / "daemon.socket"), _Daemon)
    server.heard = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.heard  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return build_hooktool(tmp_path).with_name("calls.so")


def run(folder: Path, library: Path, kill: str = "") -> tuple[int, list[str]]:
    """Run the hook as the agent does; its exit code and the calls that were written down."""
    tool = folder / "tools/tool"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "LAB_CALLS": str(folder / "calls"),
        "LAB_CALLS_IGNORE": str(tool.parent),
        **({"LAB_CALLS_KILL": kill} if kill else {}),
    }
    hook = ["/bin/sh", "-c", 'exec "$@"', "sh", sys.executable, "-S", "-c", HOOK, str(folder)]
    done = subprocess.run(hook, env=environment, start_new_session=True, timeout=60, check=False)
    return done.returncode, (folder / "calls").read_text().splitlines()


def test_counts_requests_and_commands_of_the_hook_alone(
    tmp_path: Path, library: Path, heard: list[str]
) -> None:
    code, calls = run(tmp_path, library)
    assert code == 0
    daemon = f"request {tmp_path}/daemon.socket"
    assert calls[:2] == [f"{daemon} GET /one", f"{daemon} PUT "]
    assert [call.split()[0] for call in calls[2:]] == ["command", "command"]
    assert calls[2].endswith(f"touch {tmp_path}/touched")
    assert heard[:2] == ["GET /one", "PUT /two"]


@pytest.mark.parametrize(
    ("kill", "asked", "touched"),
    [
        ("before 1", [], False),
        ("after 1", ["GET /one"], False),
        ("before 2", ["GET /one"], False),
        ("after 2", ["GET /one", "PUT /two"], False),
        ("before 3", ["GET /one", "PUT /two"], False),
        ("after 3", ["GET /one", "PUT /two"], True),
    ],
)
def test_kills_before_a_call_and_after_it_took_effect(
    tmp_path: Path, library: Path, heard: list[str], kill: str, asked: list[str], touched: bool
) -> None:
    code, calls = run(tmp_path, library, kill)
    assert code == -signal.SIGKILL
    assert heard == asked
    assert (tmp_path / "touched").exists() is touched
    assert calls[-1].startswith("killed")
    assert len(calls) == int(kill.split()[1]) + 1


@pytest.mark.parametrize(
    ("kill", "met", "asked"),
    [
        ("after 1 {daemon} PUT ", 0, ["GET /one", "PUT /two"]),
        ("before 2 {daemon} GET /one\nbefore 1 {daemon} PUT ", 1, ["GET /one"]),
        ("after 9\nafter 2\nbefore 1 {daemon} PUT ", 2, ["GET /one"]),
    ],
)
def test_kills_at_the_first_that_comes_about(
    tmp_path: Path, library: Path, heard: list[str], kill: str, met: int, asked: list[str]
) -> None:
    daemon = f"request {tmp_path}/daemon.socket"
    code, calls = run(tmp_path, library, kill.format(daemon=daemon))
    assert code == -signal.SIGKILL
    assert calls[-1] == f"killed {met}"
    assert heard == asked
