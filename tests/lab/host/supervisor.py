"""The service supervisor in a machine's PID 1: starts, restarts and stops daemons, reaps orphans.

Services are JSON files in the machine's directory, so they come back at every power-on. Requests
come as one JSON object per connection over a unix socket; the answer is one JSON object as well.
Everything happens in one thread that never blocks: who asks to stop a service is answered when
it has stopped.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BASE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}
FIRST_DELAY = 0.1
LAST_DELAY = 5.0
# A service that ran this long is thought to be healthy again: the next delay is the first one.
HEALTHY_AFTER = 10.0
CLEAN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


@dataclass(frozen=True)
class Service:
    """What to run and how. ``kill`` is ``group`` or ``process``: whom a stop signals, with
    ``stop_signal``. ``stop_timeout`` is in seconds; after it the service is killed.
    """

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict[str, str])
    restart: str = "always"
    cwd: str = "/"
    kill: str = "group"
    stop_timeout: float = 10.0
    stop_signal: str = "SIGTERM"
    enabled: bool = True


Reply = Callable[[dict[str, Any]], None]


@dataclass
class Running:
    """A service and how it is doing."""

    spec: Service
    pid: int = 0
    state: str = "inactive"
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float | None = None
    status: int = 0
    starts: int = 0
    wanted_down: bool = False
    again: bool = False
    signal: str = "SIGTERM"
    waiting: list[Reply] = field(default_factory=list[Reply])


class Supervisor:
    """All services of one machine. ``home`` holds ``services/``; logs go to ``logs``."""

    def __init__(self, home: Path, logs: Path) -> None:
        self._files = home / "services"
        self._logs = logs
        self._services: dict[str, Running] = {}
        self.selector = selectors.DefaultSelector()
        self.operations: dict[str, Callable[[], dict[str, Any]]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    # ---- the loop ---------------------------------------------------------------------------

    def serve(self, listener: socket.socket) -> None:
        """Start the enabled services, then answer requests for ever."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.selector.register(wake_read, selectors.EVENT_READ, lambda: self._woken(wake_read))
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        for path in sorted(self._files.glob("*.json")):
            self._load(path)
        for service in list(self._services.values()):
            if service.spec.enabled:
                self._launch(service)
        self._reap()
        while True:
            for key, _ in self.selector.select(self._pause()):
                self._guarded(key.data)
            self._guarded(self._due)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Go on after what may go wrong in a damaged machine: the end of PID 1 is its end."""
        try:
            step()
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"supervisor: {type(error).__name__}: {error}", flush=True)

    def _pause(self) -> float | None:
        dues = [s.due for s in self._services.values() if s.due is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _woken(self, descriptor: int) -> None:
        try:
            while os.read(descriptor, 512):
                pass
        except BlockingIOError:
            pass
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in list(self._services.values()):
                if service.pid == pid:
                    self._ended(service, os.waitstatus_to_exitcode(status))

    def _due(self) -> None:
        now = time.monotonic()
        for service in list(self._services.values()):
            if service.due is not None and service.due <= now:
                service.due = None
                if service.state == "deactivating":
                    self._signal(service, signal.SIGKILL)
                elif service.state == "activating":
                    self._launch(service)

    # ---- processes --------------------------------------------------------------------------

    def _launch(self, service: Running) -> None:
        spec = service.spec
        self._logs.mkdir(parents=True, exist_ok=True)
        log = os.open(
            self._logs / f"{spec.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        null = os.open("/dev/null", os.O_RDONLY)
        pid = os.fork()
        if pid == 0:
            _become(spec, null, log)
        os.close(log)
        os.close(null)
        service.pid, service.state = pid, "active"
        service.started, service.due, service.wanted_down = time.monotonic(), None, False
        service.starts += 1

    def _ended(self, service: Running, status: int) -> None:
        if service.spec.kill == "group":
            _kill_group(service.pid, signal.SIGKILL)  # what it left behind must not run twice
        service.pid, service.status, service.due = 0, status, None
        if service.wanted_down:
            service.state = "inactive"
            if service.again:
                service.again = False
                self._launch(service)
            self._answer(service, {"ok": True})
            return
        clean = status == 0 or -status in CLEAN_SIGNALS
        if service.spec.restart == "always" or (service.spec.restart != "no" and not clean):
            if time.monotonic() - service.started > HEALTHY_AFTER:
                service.delay = FIRST_DELAY
            service.state = "activating"
            service.due = time.monotonic() + service.delay
            service.delay = min(service.delay * 2, LAST_DELAY)
        else:
            service.state = "inactive" if clean else "failed"

    def _signal(self, service: Running, number: int) -> None:
        if service.spec.kill == "group" or number == signal.SIGKILL:
            _kill_group(service.pid, number)
        elif service.pid:
            os.kill(service.pid, number)

    def _answer(self, service: Running, answer: dict[str, Any]) -> None:
        waiting, service.waiting = service.waiting, []
        for reply in waiting:
            reply(answer)

    # ---- requests ---------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(2)  # local and written in one go; a stuck client is cut off
        try:
            with connection.makefile("r", encoding="utf-8") as stream:
                request = dict(json.loads(stream.readline()))
        except (OSError, ValueError, TypeError) as error:
            _send(connection, {"ok": False, "error": f"bad request: {error}"})
            return
        try:
            self._handle(request, lambda answer: _send(connection, answer))
        except (OSError, ValueError, KeyError, TypeError) as error:
            _send(connection, {"ok": False, "error": f"{type(error).__name__}: {error}"})

    def _handle(self, request: dict[str, Any], reply: Reply) -> None:
        operation = str(request.get("op"))
        if operation in self.operations:
            try:
                reply({"ok": True, **self.operations[operation]()})
            except OSError as error:
                reply({"ok": False, "error": str(error)})
        elif operation == "list":
            reply({"ok": True, "services": {n: _report(s) for n, s in self._services.items()}})
        elif operation == "add":
            self._add(Service(**request["service"]), bool(request.get("start", True)), reply)
        elif operation in ("start", "stop", "restart", "remove", "enable", "disable"):
            service = self._services.get(str(request.get("name")))
            if service is None:
                reply({"ok": False, "error": f"there is no service {request.get('name')!r}"})
            else:
                service.signal = str(request.get("signal") or service.spec.stop_signal)
                self._change(operation, service, reply)
        else:
            reply({"ok": False, "error": f"unknown operation {operation!r}"})

    def _add(self, spec: Service, start: bool, reply: Reply) -> None:
        old = self._services.get(spec.name)
        if old is not None and old.pid:
            old.spec, old.signal = spec, spec.stop_signal
            self._save(spec)
            if start:
                self._restart(old, reply)
            else:
                reply({"ok": True})
            return
        service = Running(spec)
        self._services[spec.name] = service
        self._save(spec)
        if start:
            self._launch(service)
        reply({"ok": True})

    def _change(self, operation: str, service: Running, reply: Reply) -> None:
        if operation in ("enable", "disable"):
            changed = {**asdict(service.spec), "enabled": operation == "enable"}
            service.spec = Service(**changed)
            self._save(service.spec)
            reply({"ok": True})
        elif operation == "start":
            if not service.pid:
                service.delay = FIRST_DELAY
                self._launch(service)
            reply({"ok": True})
        elif operation == "restart":
            self._restart(service, reply)
        else:
            if operation == "remove":
                (self._files / f"{service.spec.name}.json").unlink(missing_ok=True)
                del self._services[service.spec.name]
                self._services[f"{service.spec.name} (removed)"] = service
                service.waiting.append(lambda _answer: self._forget(service))
            service.waiting.append(reply)
            self._stop(service)

    def _forget(self, service: Running) -> None:
        self._services.pop(f"{service.spec.name} (removed)", None)

    def _restart(self, service: Running, reply: Reply) -> None:
        service.delay = FIRST_DELAY
        if service.pid:
            service.waiting.append(reply)
            service.again = True
            self._stop(service)
        else:
            self._launch(service)
            reply({"ok": True})

    def _stop(self, service: Running) -> None:
        service.wanted_down = True
        if not service.pid:
            service.state, service.due = "inactive", None
            self._answer(service, {"ok": True})
            return
        service.state = "deactivating"
        service.due = time.monotonic() + service.spec.stop_timeout
        self._signal(service, signal.Signals[service.signal])

    # ---- files ------------------------------------------------------------------------------

    def _load(self, path: Path) -> None:
        try:
            spec = Service(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            print(f"service file {path} is left out: {error}", flush=True)
            return
        self._services[spec.name] = Running(spec)

    def _save(self, spec: Service) -> None:
        save(self._files, spec)


def save(directory: Path, spec: Service) -> None:
    """Write a service's file, whole or not at all."""
    directory.mkdir(exist_ok=True)
    partial = directory / f".{spec.name}.new"
    partial.write_text(json.dumps(asdict(spec)), encoding="utf-8")
    partial.replace(directory / f"{spec.name}.json")


def _report(service: Running) -> dict[str, Any]:
    return {
        "state": service.state,
        "pid": service.pid,
        "status": service.status,
        "starts": service.starts,
        "enabled": service.spec.enabled,
    }


def _kill_group(pid: int, number: int) -> None:
    try:
        if pid:
            os.killpg(pid, number)
    except ProcessLookupError:
        pass  # nobody left in it


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    try:
        with connection:
            connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        pass  # the asker is gone; the deed is done all the same


def _become(spec: Service, null: int, log: int) -> None:
    """Turn the forked child into the service. Never returns."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (*CLEAN_SIGNALS, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(spec.cwd)
        os.execvpe(spec.argv[0], spec.argv, {**BASE_ENVIRONMENT, **spec.env})
    except OSError as error:
        os.write(2, f"cannot run {spec.argv}: {error}\n".encode())
    finally:
        os._exit(127)
