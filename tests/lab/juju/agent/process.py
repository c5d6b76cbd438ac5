"""Run one hook, action or command, and serve its hook tools while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from lab.juju.agent import secret_tools, tools
from lab.juju.agent.context import HookContext
from lab.juju.agent.flags import ToolError
from lab.juju.wire import ConnectionLost, RemoteError

Doc = dict[str, Any]
assert secret_tools.secret_add  # imported for the tools it registers


class Pump(Protocol):
    """The agent's event loop."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None: ...

    def unwatch(self, fd: int) -> None: ...

    def pump(self, seconds: float) -> None: ...


@dataclass
class Outcome:
    """How a process ended: its exit code (negative: the signal) and what it printed."""

    code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False


@dataclass
class Run:
    """A process in the making: what to run, in which context."""

    context: HookContext
    ident: str
    argv: list[str]
    env: dict[str, str]
    folder: str
    logger: str
    faults: list[Doc]
    fault_played: Callable[[str], None]
    started: Callable[[int], None]
    calls: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """Kill the hook with everything it started in its process group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def execute(run: Run, listener: socket.socket, pump: Pump, timeout: float = 0.0) -> Outcome:
    """Run to the end (or to the time-out in seconds, if one is given)."""
    outcome = Outcome()
    run.context.kill = run.kill
    process = subprocess.Popen(
        run.argv,
        cwd=run.folder,
        env=run.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    run.process = process
    run.started(process.pid)
    out = _Stream(process.stdout, "DEBUG", run, pump)
    err = _Stream(process.stderr, "WARNING", run, pump)
    pidfd = os.pidfd_open(process.pid)
    ended: list[bool] = []
    pump.watch(pidfd, lambda: ended.append(True))
    pump.watch(listener.fileno(), lambda: _serve(run, listener))
    deadline = time.monotonic() + timeout if timeout else float("inf")
    try:
        while not ended:
            left = deadline - time.monotonic()
            if left <= 0:
                outcome.timed_out = True
                run.kill()
                deadline = float("inf")
            pump.pump(min(max(left, 0.0), 1.0))
    finally:
        pump.unwatch(pidfd)
        pump.unwatch(listener.fileno())
        os.close(pidfd)
        outcome.stdout, outcome.stderr = out.finish(), err.finish()
    outcome.code = process.wait()
    return outcome


class _Stream:
    """A pipe from the hook: collected, and logged line by line."""

    def __init__(self, pipe: Any, level: str, run: Run, pump: Pump):
        self._pipe, self._level, self._run, self._pump = pipe, level, run, pump
        self._all = bytearray()
        self._logged = 0
        os.set_blocking(pipe.fileno(), False)
        pump.watch(pipe.fileno(), self._ready)
        self._open = True

    def _ready(self) -> None:
        try:
            chunk = os.read(self._pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self._stop()
            return
        self._all += chunk
        self._log_lines(final=False)

    def _log_lines(self, final: bool) -> None:
        text = bytes(self._all[self._logged :])
        end = len(text) if final else text.rfind(b"\n") + 1
        for line in text[:end].decode(errors="replace").splitlines():
            self._run.context.log(self._level, self._run.logger, line)
        self._logged += end

    def _stop(self) -> None:
        if self._open:
            self._open = False
            self._pump.unwatch(self._pipe.fileno())

    def finish(self) -> bytes:
        """Take what is there and close: a daemon the hook left may keep the other end open."""
        while self._open:
            before = len(self._all)
            self._ready()
            if len(self._all) == before:
                self._stop()
        self._log_lines(final=True)
        self._pipe.close()
        return bytes(self._all)


def _serve(run: Run, listener: socket.socket) -> None:
    """One call of a hook tool, from accept to answer."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10.0)
        try:
            context, folder, stdin, name, *args = read_request(connection)
            reply = _answer(run, context, folder, stdin, name, args)
            connection.sendall(reply)
        except OSError:
            return  # the tool was killed with its hook


def _answer(run: Run, context: str, folder: str, stdin: str, name: str, args: list[str]) -> bytes:
    if context != run.ident:
        return pack_answer(1, "", f'ERROR unknown context id "{context}"\n')
    run.calls.append(name)
    if _fault(run, "before"):
        return b""
    try:
        answer = pack_answer(0, tools.run(run.context, name, args, stdin, folder), "")
    except (ToolError, RemoteError, ConnectionLost) as err:
        code = err.code if isinstance(err, ToolError) else 1
        message = "connection is shut down" if isinstance(err, ConnectionLost) else str(err)
        answer = pack_answer(code, "", f"ERROR {message}\n")
    if _fault(run, "after"):
        return b""
    return answer


def _fault(run: Run, when: str) -> bool:
    """Play a "kill the hook at its n-th call" fault if this is the moment."""
    hook = (
        run.context.hook.name
        if run.context.hook
        else (run.context.task.name if run.context.task else "")
    )
    for fault in run.faults:
        if (
            fault["type"] == "kill-hook"
            and fault["when"] == when
            and fault["call"] == len(run.calls)
            and fault["hook"] in ("", hook)
        ):
            run.kill()
            run.fault_played(fault["id"])
            return True
    return False


def read_request(connection: socket.socket) -> list[str]:
    """The strings of a tool's request."""
    stream = connection.makefile("rb")
    count = struct.unpack("!I", _exactly(stream, 4))[0]
    found: list[str] = []
    for _ in range(count):
        size = struct.unpack("!I", _exactly(stream, 4))[0]
        found.append(_exactly(stream, size).decode(errors="surrogateescape"))
    return found


def _exactly(stream: Any, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ConnectionResetError("the tool closed its connection")
    return data


def pack_answer(code: int, out: str, err: str) -> bytes:
    first, second = out.encode(errors="surrogateescape"), err.encode(errors="surrogateescape")
    return struct.pack("!II", code, len(first)) + first + struct.pack("!I", len(second)) + second
