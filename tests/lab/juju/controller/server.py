"""The controller's process: connections of agents (TCP) and of `juju` (unix socket)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from lab.juju import clock
from lab.juju.controller import agent_api, secret_rules, snapshot, user_api
from lab.juju.controller.core import Controller
from lab.juju.controller.entities import App, Unit
from lab.juju.controller.errors import Refused
from lab.juju.controller.provision import Provisioner
from lab.juju.wire import encode

Doc = dict[str, Any]
_CLONE_NEWNET = 0x40000000
_LINE_LIMIT = 1 << 26
# How a connection may end: broken, a line that is no JSON, or the controller stops.
_ENDS = (OSError, ValueError, asyncio.IncompleteReadError, asyncio.CancelledError)


def listen_in(netns: str, address: tuple[str, int]) -> socket.socket:
    """A listening TCP socket, made inside a network namespace (empty: the present one)."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if netns:
            there = os.open(f"/run/netns/{netns}", os.O_RDONLY)
            if libc.setns(there, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter network namespace {netns}")
            os.close(there)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
        return sock
    finally:
        libc.setns(here, _CLONE_NEWNET)
        os.close(here)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line, empty at the connection's end, however that comes about.

    A failure of what a line asks for is another matter: it belongs in the controller's log.
    """
    with contextlib.suppress(*_ENDS):
        return await reader.readline()
    return b""


class AgentLink:
    """One connected agent: its requests, and the last remote state it was sent."""

    def __init__(self, writer: asyncio.StreamWriter):
        self.writer = writer
        self.unit = ""
        self.sent: Doc | None = None
        self.heard = time.monotonic()


class Server:
    """Serves until told to stop."""

    def __init__(self, ctl: Controller):
        self.ctl = ctl
        self.links: dict[str, AgentLink] = {}
        self._publish_due = False
        self._silent: dict[str, float] = {}  # unit -> since when it has no connection
        ctl.publish = self._publish_soon
        ctl.connected = lambda unit: unit in self.links

    # -- announcing -----------------------------------------------------------------------

    def _publish_soon(self) -> None:
        if not self._publish_due:
            self._publish_due = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._publish_due = False
        for link in list(self.links.values()):
            self._show(link)

    def _show(self, link: AgentLink) -> None:
        """Send an agent its remote state if that changed."""
        unit = self.ctl.store.get(Unit, link.unit)
        doc = snapshot.of_unit(self.ctl, unit) if unit else {"gone": True}
        if doc != link.sent:
            # Containers inside may be the entities' own: keep what was sent, not what they become.
            line = encode({"state": doc})
            link.sent = json.loads(line)["state"]
            link.writer.write(line)

    # -- agents ---------------------------------------------------------------------------

    async def agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One agent's connection, from login to its end."""
        link = AgentLink(writer)
        try:
            while line := await _line(reader):
                link.heard = time.monotonic()
                self._agent_request(link, json.loads(line))
        finally:
            self._ended(link)

    def _ended(self, link: AgentLink) -> None:
        if self.links.get(link.unit) is link:
            del self.links[link.unit]
            self._silent[link.unit] = link.heard
            unit = self.ctl.store.get(Unit, link.unit)
            if unit is not None:
                self.ctl.log(
                    unit.model, unit.name, "WARNING", "juju.apiserver", "agent disconnected"
                )
            self.ctl.changed.set()
        link.writer.close()

    def _agent_request(self, link: AgentLink, doc: Doc) -> None:
        try:
            if doc["m"] == "login":
                answer = self._login(link, **doc["p"])
            elif doc["m"] == "ping":
                answer = None
            else:
                unit = self.ctl.store.get(Unit, link.unit)
                if unit is None:
                    raise Refused("unit not found", "gone")
                answer = agent_api.HANDLERS[doc["m"]](self.ctl, unit, **doc["p"])
            reply: Doc = {"r": answer}
        except Refused as err:
            reply = {"e": str(err), "code": err.code}
        if self.ctl.store.dirty:
            self.ctl.commit()
            self._show(link)  # before the reply: the agent must not decide on an older state
        if "id" in doc:
            link.writer.write(encode({"id": doc["id"], **reply}))

    def _login(self, link: AgentLink, model: str, unit: str, password: str) -> Doc:
        entity = self.ctl.store.get(Unit, f"{model}/{unit}")
        if entity is None:
            raise Refused(f'unit "{unit}" not found', "gone")
        if entity.password != password:
            raise Refused("invalid entity name or password", "unauthorized access")
        old = self.links.pop(entity.key, None)
        if old is not None:
            old.unit = ""
            old.writer.close()
        link.unit = entity.key
        self.links[entity.key] = link
        entity.lost = ""
        self._silent.pop(entity.key, None)
        agent_api.HANDLERS["tasks_interrupted"](self.ctl, entity)
        self.ctl.changed.set()
        self._show(link)
        return agent_api.HANDLERS["facts"](self.ctl, entity)

    # -- users ----------------------------------------------------------------------------

    async def user(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One `juju` command's connection; answers may take long, so each is a task."""
        try:
            with contextlib.suppress(*_ENDS):
                while line := await reader.readline():
                    doc = json.loads(line)
                    writer.write(encode({"id": doc.get("id", 0), **await self._user_reply(doc)}))
                    await writer.drain()
        finally:
            writer.close()

    async def _user_reply(self, doc: Doc) -> Doc:
        try:
            answer = user_api.HANDLERS[doc["m"]](self.ctl, **doc["p"])
            self.ctl.commit()
            if asyncio.iscoroutine(answer):
                answer = await answer
            return {"r": answer}
        except Refused as err:
            return {"e": str(err), "code": err.code}
        except KeyError as err:
            return {"e": f"the controller does not know {err}", "code": "unsupported"}
        finally:
            self.ctl.commit()

    # -- time -----------------------------------------------------------------------------

    async def tick(self) -> None:
        """Leases that run out, secrets that fall due, agents that fell silent."""
        due = 0.0
        while True:
            await asyncio.sleep(0.2)
            now = time.time()
            for app in self.ctl.store.all(App).values():
                if app.leader and app.lease_until <= now:
                    self.ctl.log(
                        app.model,
                        app.name,
                        "INFO",
                        "juju.worker.lease",
                        f"leadership of {app.leader} expired",
                    )
                    app.leader = ""
            if now >= due:
                self._publish_soon()
                due = secret_rules.next_due(self.ctl)
            due = min(due, secret_rules.next_due(self.ctl))
            for link in list(self.links.values()):
                if time.monotonic() - link.heard > self.ctl.knob("lost-after"):
                    link.writer.transport.abort()
                    self._ended(link)
            self._note_lost(time.monotonic())
            self.ctl.commit()

    def _note_lost(self, now: float) -> None:
        """Units whose agent has been away too long count as lost."""
        for unit in self.ctl.store.all(Unit).values():
            if not unit.deployed or unit.lost or unit.key in self.links:
                continue
            if now - self._silent.setdefault(unit.key, now) > self.ctl.knob("lost-after"):
                unit.lost = clock.now()


async def serve(ctl: Controller, socket_path: Path) -> None:
    """Run the controller until SIGTERM."""
    server = Server(ctl)
    sock = listen_in(ctl.provider.controller_netns(), ctl.provider.controller_address())
    socket_path.unlink(missing_ok=True)
    listeners = [
        await asyncio.start_server(server.agent, sock=sock, limit=_LINE_LIMIT),
        await asyncio.start_unix_server(server.user, str(socket_path), limit=_LINE_LIMIT),
    ]
    socket_path.chmod(0o600)
    jobs = [
        asyncio.create_task(Provisioner(ctl).run()),
        asyncio.create_task(server.tick()),
    ]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *jobs], return_when=asyncio.FIRST_COMPLETED)
    for listener in listeners:
        listener.close()
    for job in jobs:
        if job.done():
            job.result()  # a bug: let it be seen in the controller's log
        job.cancel()
    ctl.commit()
    ctl.store.close()
