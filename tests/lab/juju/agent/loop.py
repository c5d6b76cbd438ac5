"""The unit agent: look at the remote state, do one operation, remember it, again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import selectors
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.juju.agent import network
from lab.juju.agent.charmdir import install_charm
from lab.juju.agent.context import HookContext, Task
from lab.juju.agent.environment import hook_environment
from lab.juju.agent.kills import Kills
from lab.juju.agent.process import Outcome, Run, execute, pack_answer, read_request
from lab.juju.agent.resolver import commit_hook, next_operation
from lab.juju.agent.state import Hook, LocalState, Operation, RelationState, Signals
from lab.juju.agent.tools import TOOLS
from lab.juju.agent.trace import Trace
from lab.juju.wire import Client, ConnectionLost, RemoteError

Doc = dict[str, Any]


@dataclass
class Options:
    """The agent's command line."""

    unit: str
    model: str
    controller: tuple[str, int]
    tool: Path
    trace: Path
    data_dir: Path = Path("/var/lib/juju")
    interfaces: str = ""


class Gone(Exception):
    """The controller does not know this unit any more."""


class Agent:
    """One unit's agent. Single-threaded: hook tools are served from the same loop."""

    def __init__(self, options: Options, password: str):
        self.options = options
        self.unit = options.unit
        self.app = options.unit.rpartition("/")[0]
        self._password = password
        tag = "unit-" + options.unit.replace("/", "-")
        self.dir = options.data_dir / "agents" / tag
        self.tools_dir = options.data_dir / "tools" / tag
        self.charm_dir = self.dir / "charm"
        self._state_file = self.dir / "state.json"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.local = LocalState.load(self._state_file)
        self.trace = Trace(options.trace, options.unit, options.model)
        record = self.dir / "calls"
        self._kills = Kills(options.trace.parent, options.unit, self.tools_dir, record)
        self.remote: Doc = {}
        self.facts: Doc = {}
        self._client: Client | None = None
        self._selector = selectors.DefaultSelector()
        self._bags: dict[tuple[int, str], dict[str, str]] = {}
        self._interfaces: list[Doc] = []
        self._interfaces_due = 0.0
        self._log: list[list[Any]] = []
        self._status = ("", "")
        self._claim_due = 0.0
        self._ping_due = 0.0
        self._retry_at = 0.0
        self._update_at = 0.0
        self._requests: list[tuple[socket.socket, str, list[str]]] = []
        self._boot = _boot_id()
        self._prepare_machine()

    # -- set-up ---------------------------------------------------------------------------

    def _prepare_machine(self) -> None:
        (self.dir / "agent.pid").write_text(str(os.getpid()))
        self._kill_leftover()
        self.tools_dir.mkdir(parents=True, exist_ok=True)
        tool = self.tools_dir / "juju-tool"
        shutil.copy2(self.options.tool, tool)
        for name in [*TOOLS, "juju-exec", "juju-run"]:
            link = self.tools_dir / name
            if not link.is_symlink():
                link.symlink_to("juju-tool")
        if self.options.data_dir == Path("/var/lib/juju"):
            for name in ("juju-exec", "juju-run"):
                with contextlib.suppress(OSError):
                    Path("/usr/bin", name).unlink(missing_ok=True)
                    Path("/usr/bin", name).symlink_to(tool)
        self._listener = self._listen("agent.socket")
        runs = self._listen("run.socket")
        self.watch(runs.fileno(), lambda: self._run_request(runs))
        if not self.options.interfaces:
            netlink = network.watch_socket()
            self.watch(netlink.fileno(), lambda: self._network_changed(netlink))

    def _listen(self, name: str) -> socket.socket:
        path = self.dir / name
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(path))
        path.chmod(0o700)
        listener.listen(16)
        return listener

    def _kill_leftover(self) -> None:
        """A hook that outlived a killed agent must not run beside its own repetition."""
        with contextlib.suppress(OSError, ValueError):
            pid, ident = (self.dir / "hook.pid").read_text().split()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if f"JUJU_CONTEXT_ID={ident}".encode() in environment.split(b"\0"):
                os.killpg(int(pid), signal.SIGKILL)
        (self.dir / "hook.pid").unlink(missing_ok=True)

    # -- the event loop -------------------------------------------------------------------

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, ready)

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def pump(self, seconds: float) -> None:
        """Handle what arrives within some seconds, at most one round; then what time brings."""
        for key, _ in self._selector.select(max(0.0, min(seconds, self._next_due()))):
            key.data()
        self._take_pushed()
        self._on_time()

    def _next_due(self) -> float:
        due = min(self._claim_due, self._ping_due)
        if self._interfaces_due:
            due = min(due, self._interfaces_due)
        return max(due - time.monotonic(), 0.0) if self._client else 1.0

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._client is None:
            return
        try:
            if now >= self._ping_due:
                self._client.notify("ping")
                self._ping_due = now + float(self.remote.get("ping", 5.0))
            if now >= self._claim_due:
                self._claim(self._client, now)
            if self._interfaces_due and now >= self._interfaces_due:
                self._report_interfaces()
            self._send_log()
        except ConnectionLost:
            self._disconnected()

    def _claim(self, client: Client, now: float) -> None:
        """Take the lease when it is free, keep it while it is ours."""
        leader = self.remote.get("leader")
        if leader == self.unit:
            client.notify("claim")
            self._claim_due = now + self.remote["lease"] / 2
        elif leader == "" and self.remote.get("life") == "alive":
            client.notify("claim")
            self._claim_due = now + 0.25
        else:
            self._claim_due = now + 3600.0

    def _network_changed(self, netlink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while netlink.recv(1 << 16):
                pass
        if not self._interfaces_due:
            self._interfaces_due = time.monotonic() + 0.3

    def _report_interfaces(self) -> None:
        self._interfaces_due = 0.0
        found = (
            network.given(self.options.interfaces)
            if self.options.interfaces
            else network.interfaces(self.facts["networks"])
        )
        if found != self._interfaces and self._client:
            self._interfaces = found
            self._client.call("interfaces", found=found, hostname=socket.gethostname())

    # -- the controller -------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> Any:
        """Ask the controller; ConnectionLost at once while there is no connection."""
        if self._client is None:
            raise ConnectionLost("connection is shut down")
        try:
            return self._client.call(method, **params)
        except ConnectionLost:
            self._disconnected()
            raise
        finally:
            self._take_pushed()

    def _readable(self) -> None:
        try:
            # What came may have been read already, by a hook tool's request of the same round.
            if self._client and self._client.readable():
                self._client.receive()
        except ConnectionLost:
            self._disconnected()

    def _take_pushed(self) -> None:
        if self._client and self._client.pushed:
            before = self.remote.get("leader")
            for doc in self._client.pushed:
                if doc.get("state"):
                    self.remote = doc["state"]
            self._client.pushed.clear()
            if self.remote.get("leader") != before:
                self._claim_due = 0.0

    def _disconnected(self) -> None:
        if self._client:
            with contextlib.suppress(KeyError, ValueError):
                self.unwatch(self._client.fileno())
            self._client.close()
            self._client = None

    def _connect(self) -> None:
        """Connect and log in, however long it takes."""
        wait = 0.1
        while self._client is None:
            try:
                client = Client.tcp(self.options.controller)
                self.facts = client.call(
                    "login", model=self.options.model, unit=self.unit, password=self._password
                )
                self.facts["agent_dir"] = str(self.dir)
                self._client = client
            except RemoteError as err:
                raise Gone(str(err)) from err
            except ConnectionLost:
                time.sleep(wait * random.uniform(0.8, 1.2))
                wait = min(wait * 2, 2.0)
        self.watch(self._client.fileno(), self._readable)
        self._claim_due = self._ping_due = 0.0
        self._interfaces = []
        self._take_pushed()
        self._report_interfaces()
        self._status = ("", "")
        if self.local.step == "pending" and self.local.hook:
            self._hook_failed(self.local.hook)

    # -- log and status -------------------------------------------------------------------

    def log(self, level: str, module: str, message: str) -> None:
        self._log.append([time.time(), level, module, message])
        if len(self._log) > 200:
            with contextlib.suppress(ConnectionLost):
                self._send_log()

    def _send_log(self) -> None:
        if self._log and self._client:
            lines, self._log = self._log, []
            self._client.notify("log", lines=lines)

    def _set_status(self, current: str, message: str = "", data: Doc | None = None) -> None:
        if (current, message) != self._status and self._client:
            self._status = (current, message)
            with contextlib.suppress(ConnectionLost):
                self._client.notify(
                    "set_status", which="agent", current=current, message=message, data=data
                )

    # -- the endless loop -----------------------------------------------------------------

    def run(self) -> None:
        """Until the unit is dead (returns) or the controller has forgotten it (Gone)."""
        while True:
            if self._client is None:
                self._connect()
            self._take_pushed()
            if self.remote.get("gone"):
                raise Gone("unit not found")
            if self.remote.get("faults"):
                self._play_faults()
            if self._requests and self.local.installed:
                self._run_command(*self._requests.pop(0))
                continue
            if not self.local.started and not self.local.installed:
                self.local.boot = self._boot
            operation = next_operation(self.unit, self.remote, self.local, self._signals())
            try:
                if operation is None:
                    self._idle()
                elif self._perform(operation):
                    return
            except ConnectionLost:
                continue

    def _signals(self) -> Signals:
        now = time.monotonic()
        if not self._update_at and self.local.started:
            self._plan_update_status()
        return Signals(
            retry_due=bool(self._retry_at) and now >= self._retry_at,
            update_status_due=bool(self._update_at) and now >= self._update_at,
            rebooted=self.local.boot != self._boot,
        )

    def _plan_update_status(self) -> None:
        interval = float(self.remote["update_status"])
        self._update_at = (
            time.monotonic() + interval * random.uniform(0.8, 1.2) if interval else 0.0
        )

    def _idle(self) -> None:
        if self.local.step != "pending":
            self._set_status("idle" if self.local.installed else "allocating")
        now = time.monotonic()
        timers = [
            t - now
            for t in (self._retry_at if self.local.step == "pending" else 0.0, self._update_at)
            if t and t > now
        ]
        self.pump(min([*timers, 60.0]))

    def _play_faults(self) -> None:
        """Faults that are not about a running hook."""
        for fault in self.remote["faults"]:
            if fault["type"] == "redeliver":
                for state in self.local.relations.values():
                    if fault["endpoint"] in ("", state.endpoint):
                        state.members = dict.fromkeys(state.members, -1)
                        state.apps = {}
                self.call("fault_done", ident=fault["id"])

    def _slow(self, name: str) -> None:
        """A "slow unit" fault: wait before the hook."""
        for fault in self.remote.get("faults", []):
            if fault["type"] == "delay" and fault["hook"] in ("", name):
                end = time.monotonic() + float(fault["seconds"])
                while (left := end - time.monotonic()) > 0:
                    self.pump(left)

    # -- operations -----------------------------------------------------------------------

    def _perform(self, operation: Operation) -> bool:
        """Do an operation; True when it was the last."""
        hook, ident = operation.hook or Hook(""), operation.ident
        doings: dict[str, Callable[[], object]] = {
            "hook": lambda: self._hook(hook),
            "skip": lambda: self._skip(hook),
            "action": lambda: self._action(ident),
            "lead": self._lead,
            "resign": self._resign,
            "deploy": lambda: self._deploy(ident == "forced"),
            "detached": lambda: self.call("storage_detached", ident=ident),
            "forget": lambda: self._forget(ident),
            "dead": self._dead,
        }
        doings[operation.kind]()
        self.local.save(self._state_file)
        return operation.kind == "dead"

    def _lead(self) -> None:
        self.local.leader = self.local.settings_seen = True
        self._queue(Hook("leader-elected"))

    def _resign(self) -> None:
        self.local.leader = False

    def _forget(self, ident: str) -> None:
        """A peer relation is over for this unit; in Juju 4 the others learn it only at the end."""
        self.local.relations.pop(ident, None)
        if not self.facts["v4"]:
            self.call("leave_scope", relation=int(ident))

    def _dead(self) -> None:
        self._send_log()
        self.call("dead")

    def _queue(self, hook: Hook) -> None:
        self.local.step, self.local.hook = "queued", hook

    def _deploy(self, forced: bool) -> None:
        """Unpack a charm; afterwards an upgrade runs upgrade-charm before anything else."""
        upgrade = bool(self.local.charm)
        charm = self.remote["charm"]
        self._set_status("executing", "upgrading charm" if upgrade else "installing charm")
        install_charm(Path(charm["path"]), self.charm_dir, self.dir / "manifest.json")
        self.local.charm = charm["url"]
        self.call("charm_is", url=charm["url"])
        if upgrade and self.local.installed:
            self._retry_at = 0.0
            self._queue(Hook("upgrade-charm"))
        elif forced:
            self.local.step = "pending"

    @contextlib.contextmanager
    def _machine_lock(self) -> Iterator[None]:
        """Hooks of all units on a machine take turns."""
        folder = self.options.data_dir / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "machine-lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self.pump(0.02)
            yield

    # -- hooks ----------------------------------------------------------------------------

    def _hook(self, hook: Hook) -> None:
        config_hash = self.remote["config_hash"]
        if self.remote["resolved"]:
            self.call("clear_resolved")
        self._slow(hook.name)
        with self._machine_lock():
            attempts = self.local.attempts
            self.local.step, self.local.hook = "pending", hook
            self.local.save(self._state_file)
            self._set_status("executing", f"running {hook.name} hook")
            self._before(hook)
            context = self._context(hook=hook)
            outcome = self._run(context, hook.name, self._dispatch("hooks", hook.name))
            error = "" if outcome.code else self._flush(context)
        if outcome.code < 0 or context.reboot == "now":
            self._terminated(hook, context)
            return
        if outcome.code or error:
            if error:
                self.log("ERROR", f"unit.{self.unit}.{hook.name}", error)
            self.local.attempts = attempts + 1
            self._hook_failed(hook)
            return
        if hook.kind == "config-changed":
            self.local.config_hash = config_hash
        commit_hook(self.local, hook, self.remote, self.unit)
        self.local.save(self._state_file)
        self._after(hook, context)

    def _terminated(self, hook: Hook, context: HookContext) -> None:
        """Killed by a signal: not an error; the hook comes again."""
        self.log("WARNING", "juju.worker.uniter.operation", f'hook "{hook.name}" was terminated')
        self._queue(hook)
        self.local.save(self._state_file)
        if context.reboot:
            self._reboot()

    def _reboot(self) -> None:
        self._send_log()
        self.call("reboot")
        while True:  # the machine goes down under us
            self.pump(60.0)

    def _hook_failed(self, hook: Hook) -> None:
        self.local.step, self.local.hook = "pending", hook
        self.local.save(self._state_file)
        delay = min(
            self.remote["retry_delay"] * 2 ** max(self.local.attempts - 1, 0),
            self.remote["retry_limit"],
        )
        self._retry_at = time.monotonic() + delay * random.uniform(0.8, 1.2)
        self._set_status("error", f'hook failed: "{hook.name}"', {"hook": hook.name})

    def _skip(self, hook: Hook) -> None:
        """`resolved --no-retry`: go on as if the hook had succeeded."""
        self.call("clear_resolved")
        if hook.kind == "config-changed":
            self.local.config_hash = self.remote["config_hash"]
        commit_hook(self.local, hook, self.remote, self.unit)
        self.local.save(self._state_file)
        self._after(hook, None)

    def _before(self, hook: Hook) -> None:
        """What Juju itself does just before a hook."""
        if hook.kind == "install":
            self._workload("maintenance", "installing charm software")
        elif hook.kind == "stop":
            self._workload("maintenance", "stopping charm software")
        elif hook.kind == "remove":
            self._workload("maintenance", "cleaning up prior to charm deletion")
        elif hook.kind == "relation-created" and str(hook.relation) not in self.local.relations:
            self.call("enter_scope", relation=hook.relation)
            shown = self.remote["relations"][str(hook.relation)]
            self.local.relations[str(hook.relation)] = RelationState(
                hook.endpoint, hook.remote_app, bool(shown["peer"])
            )
            self.local.save(self._state_file)
        elif hook.kind in ("relation-joined", "relation-changed") and hook.remote_unit:
            self._bags.pop((hook.relation, hook.remote_unit), None)

    def _workload(self, current: str, message: str) -> None:
        self.call("set_status", which="workload", current=current, message=message)

    def _after(self, hook: Hook, context: HookContext | None) -> None:
        """What follows a hook that is done."""
        if hook.kind == "start":
            self.local.boot = self._boot
            if context is not None and not context.status_set:
                self.call("started")
        elif hook.kind == "stop":
            self._workload("terminated", "")
        elif hook.kind == "relation-broken":
            self._bags = {k: v for k, v in self._bags.items() if k[0] != hook.relation}
            self.call("leave_scope", relation=hook.relation)
        elif hook.kind == "relation-departed":
            self._bags.pop((hook.relation, hook.remote_unit), None)
        elif hook.kind == "storage-detaching":
            self.call("storage_detached", ident=hook.storage)
        elif hook.kind in ("secret-expired", "secret-rotate"):
            self.call("secret_rearm", uri=hook.secret, kind=hook.kind.removeprefix("secret-"))
        elif hook.kind == "update-status":
            self._plan_update_status()
        if context is not None and context.reboot:
            self._reboot()

    # -- actions and commands -------------------------------------------------------------

    def _action(self, ident: str) -> None:
        began = self.call("task_begin", ident=ident)
        if began is None:
            return
        task = Task(ident, began["name"], began["params"])
        parallel = dict(self.remote["actions"]).get(ident, False)
        before = self._status
        with contextlib.nullcontext() if parallel else self._machine_lock():
            self._set_status("executing", f"running action {task.name}")
            if task.name == "juju-exec":
                outcome, error = self._exec(task)
            else:
                outcome, error = self._charm_action(task)
        results: Doc = {
            **task.results,
            "return-code": max(outcome.code, 0) or int(bool(error) or outcome.code < 0),
        }
        for key, data in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
            if data:
                results[key] = data.decode(errors="replace")
        if error:
            results["stderr"] = results.get("stderr", "") + error
        status, message = self._verdict(task, outcome, error)
        self._send_log()
        self.call("task_end", ident=ident, status=status, message=message, results=results)
        if before[0] == "error":
            self._set_status(*before)

    def _verdict(self, task: Task, outcome: Outcome, error: str) -> tuple[str, str]:
        if task.name == "juju-exec" and not error:
            return ("failed", "command timed out") if outcome.timed_out else ("completed", "")
        if task.failed:
            return "failed", task.message
        if outcome.code < 0:
            return "failed", "action terminated"
        if outcome.code or error:
            return "failed", error or f"exit status {outcome.code}"
        return "completed", ""

    def _charm_action(self, task: Task) -> tuple[Outcome, str]:
        context = self._context(task=task)
        outcome = self._run(context, task.name, self._dispatch("actions", task.name))
        return outcome, "" if outcome.code else self._flush(context)

    def _exec(self, task: Task) -> tuple[Outcome, str]:
        """`juju exec`: a shell command with a hook's environment, flushed like a hook."""
        context = self._context(task=Task("", "juju-exec", {}))
        command = ["/bin/bash", "-c", str(task.params["command"])]
        outcome = self._run(context, "juju-exec", command, float(task.params.get("timeout") or 0))
        return outcome, "" if outcome.code else self._flush(context)

    def _run_request(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(10.0)
        with contextlib.suppress(OSError):
            _context, folder, _stdin, _name, *args = read_request(connection)
            self._requests.append((connection, folder, args))

    def _run_command(self, connection: socket.socket, _folder: str, args: list[str]) -> None:
        """juju-exec called by a process outside hooks: run between two operations."""
        words = [a for a in args[1:] if a != "--"]
        command = words[0] if len(words) == 1 else " ".join(words)
        context = self._context(task=Task("", "juju-exec", {}))
        with self._machine_lock():
            self._set_status("executing", "running commands")
            outcome = self._run(context, "juju-exec", ["/bin/bash", "-c", command])
            error = "" if outcome.code else self._flush(context)
        with connection, contextlib.suppress(OSError):
            code = outcome.code if outcome.code >= 0 else 128 - outcome.code
            connection.sendall(
                pack_answer(
                    1 if error else code,
                    outcome.stdout.decode(errors="replace"),
                    outcome.stderr.decode(errors="replace")
                    + (f"ERROR {error}\n" if error else ""),
                )
            )

    # -- running --------------------------------------------------------------------------

    def _context(self, hook: Hook | None = None, task: Task | None = None) -> HookContext:
        return HookContext(
            self.unit,
            self,
            self.local,
            self.remote,
            self.facts,
            self._interfaces,
            self._bags,
            hook,
            task,
        )

    def _dispatch(self, folder: str, name: str) -> list[str]:
        """What to execute; nothing if a charm without `dispatch` has no such hook."""
        if (self.charm_dir / "dispatch").exists():
            return [str(self.charm_dir / "dispatch")]
        file = self.charm_dir / folder / name
        return [str(file)] if file.exists() else []

    def _run(
        self, context: HookContext, name: str, argv: list[str], timeout: float = 0.0
    ) -> Outcome:
        if not argv:
            return Outcome()
        ident = f"{self.unit}-{name}-{secrets.token_hex(16)}"
        logger = f"unit.{self.unit}.{name}"
        context.log = lambda level, module, message: self.log(
            level,
            f"{logger.removesuffix(name)}{module}" if module == "juju-log" else module,
            message,
        )
        hunt = self._kills.next(name) if context.hook else None
        run = Run(
            context,
            ident,
            argv,
            {
                **hook_environment(self, context, ident, name),
                **(hunt.environment if hunt else {}),
            },
            str(self.charm_dir),
            logger,
            [*self.remote.get("faults", []), *(hunt.faults if hunt else [])],
            lambda fault: hunt.played() if hunt and not fault else self._fault_played(fault),
            lambda pid: self._note_hook(pid, ident),
        )
        start = time.time()
        try:
            outcome = execute(run, self._listener, self, timeout)
        except OSError as err:
            outcome = Outcome(126, b"", f"cannot run {argv[0]}: {err}\n".encode())
            self.log("ERROR", logger, f"cannot run {argv[0]}: {err}")
        more = hunt.over() if hunt else {}
        self.trace.write(context, name, start, outcome.code, run.calls, more)
        with contextlib.suppress(ConnectionLost):
            self._send_log()
        return outcome

    def _note_hook(self, pid: int, ident: str) -> None:
        (self.dir / "hook.pid").write_text(f"{pid} {ident}")

    def _fault_played(self, ident: str) -> None:
        with contextlib.suppress(ConnectionLost):
            self.call("fault_done", ident=ident)

    def _flush(self, context: HookContext) -> str:
        """Commit what the hook buffered; returns why that failed."""
        changes = context.changes()
        if not changes:
            return ""
        try:
            self.call("commit", changes=changes)
        except (RemoteError, ConnectionLost) as err:
            return f"cannot commit the hook's changes: {err}"
        return ""


def _boot_id() -> str:
    """Differs after each boot of the machine: the start time of its PID 1."""
    with open("/proc/1/stat") as stream:
        return stream.read().rpartition(")")[2].split()[19]
