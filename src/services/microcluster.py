"""What MicroCeph and MicroOVN share: forming a cluster over microcluster's control socket.

The contract is that of microcluster's REST API below `/core`. Not the snaps' commands: only
the API lets a member choose its address, port and the configuration it starts with.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import snaps
from errors import DaemonError, JoinFailed, Unreachable
from services import Ticket
from services.marks import Mark
from services.rest import Rest
from view import Member, Presence, ServiceView

logger = logging.getLogger(__name__)

BOOTSTRAP_TIMEOUT = 120.0  # seconds
CALL_TIMEOUT = 120.0  # seconds; for one request that changes something
READY_TIMEOUT = 120.0  # seconds; for the daemon to answer after it was started
CLUSTER_LETTERS = 12  # of the cluster's certificate
TOKEN_LIFE = 3600  # seconds; for a token that could not be withdrawn
# What is none of these does not answer, or is not who it was.
_ONLINE = ("ONLINE", "UPGRADING", "NEEDS UPGRADE")
_CLUSTER = "/core/1.0/cluster"
# Where a token is withdrawn: in newer versions, and in older ones.
_TOKENS = ("/core/control/tokens", "/core/1.0/tokens")

Options = Callable[[bool], Mapping[str, str]]


def no_options(_first: bool) -> Mapping[str, str]:
    """Start or join with the daemon's own defaults."""
    return {}


class Microcluster:
    """One daemon that is built on microcluster, on this machine.

    `common` is the snap's `$SNAP_COMMON`, `marks` the folder of the charm's marks. `options`
    gives the configuration with which this machine starts (`True`) or joins a cluster. `owned`
    are patterns, as seen from `common`, of what a member has, and a machine that is none has
    not. `plugs` are LXD's for slots of the same name of this snap.
    """

    def __init__(
        self,
        name: str,
        title: str,
        *,
        common: Path,
        port: int,
        marks: Path,
        options: Options = no_options,
        owned: Sequence[str] = ("state/*",),
        plugs: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.title = title
        self.rest = Rest(title, common / "state/control.socket")
        self._common = common
        self._port = port
        self._mark = Mark(marks, name)
        self._options = options
        self._owned = owned
        self._plugs = plugs
        self._cannot_withdraw: set[str] = set()

    # Looking

    def look(self, *, tokens: bool = False) -> ServiceView:
        """How this machine stands to the cluster."""
        if not snaps.is_installed(self.name):
            return ServiceView(Presence.ABSENT)
        try:
            members = self.members()
            names = self._tokens() if tokens else ()
            return ServiceView(Presence.MEMBER, members, tokens=names, cluster=self._cluster())
        except DaemonError as fault:
            if _says_alone(fault):
                return ServiceView(Presence.ALONE, joining=self._mark.read())
            return ServiceView(Presence.BROKEN, joining=self._mark.read(), detail=str(fault))

    def _cluster(self) -> str:
        """The end of the certificate that all members of a cluster share; "" without it."""
        try:
            text = (self._common / "state/cluster.crt").read_text()
        except OSError:
            return ""
        # A signature is at the end, so this tells certificates apart; no hook has to hash.
        body = text.rpartition("-----END")[0]
        return "".join(filter(str.isalnum, body))[-CLUSTER_LETTERS:]

    def members(self) -> tuple[Member, ...]:
        """The members, in the order of their names; raises DaemonError if this is none."""
        found = [
            Member(
                name=member["name"],
                address=host_of(member["address"]),
                online=member["status"] in _ONLINE,
                roles=(member["role"],),
                message=member["status"],
            )
            for member in self.rest.get(_CLUSTER)
        ]
        return tuple(sorted(found, key=lambda member: member.name))

    def _tokens(self) -> tuple[str, ...]:
        """For whom there are tokens; not those that this daemon has no way to withdraw."""
        found = [token["name"] for token in self.rest.get("/core/control/tokens") or ()]
        return tuple(name for name in found if name not in self._cannot_withdraw)

    # Acting

    def bootstrap(self, name: str, address: str) -> None:
        """Make this machine a cluster of one, reachable on `address`."""
        if self.look().presence is Presence.MEMBER:
            return
        self.prepare()
        self._control({"bootstrap": True}, name, address, BOOTSTRAP_TIMEOUT)
        logger.info("bootstrapped %s as %s on %s", self.title, name, address)

    def prepare(self) -> None:
        """Connect LXD to it; the store does so by itself, a snap from a file does not."""
        table = [line.split() for line in snaps.run("connections", "lxd").splitlines()]
        plugs = {row[1]: row[2] for row in table if len(row) > 2}
        for plug in self._plugs:
            if plugs.get(f"lxd:{plug}") == "-":
                snaps.run("connect", f"lxd:{plug}", f"{self.name}:{plug}")

    def _control(
        self, request: Mapping[str, object], name: str, address: str, timeout: float
    ) -> None:
        host = f"[{address}]" if ":" in address else address
        config = dict(self._options("bootstrap" in request))
        body = {"name": name, "address": f"{host}:{self._port}", "config": config}
        self.rest.call("POST", "/core/control", {**request, **body}, timeout=timeout)

    def issue_token(self, name: str) -> str:
        """A join token for `name`, withdrawing an earlier one as far as the daemon can."""
        if any(token["name"] == name for token in self.rest.get("/core/control/tokens") or ()):
            self.withdraw_token(name)
        body = {"name": name, "expire_after": TOKEN_LIFE * 10**9}
        return str(self.rest.call("POST", "/core/control/tokens", body, timeout=CALL_TIMEOUT))

    def withdraw_token(self, name: str) -> None:
        """Make the token for `name` void; some versions cannot, their tokens expire."""
        for path in _TOKENS:
            try:
                self.rest.call("DELETE", f"{path}/{quote(name, safe='')}")
                return
            except Unreachable:
                raise
            except DaemonError as fault:
                logger.info("%s does not withdraw a token by %s: %s", self.title, path, fault)
        self._cannot_withdraw.add(name)

    def wanted_of_joiner(self) -> Sequence[Mapping[str, str]]:
        """Nothing: only LXD asks."""
        return ()

    def join(self, ticket: Ticket, timeout: float) -> None:
        """Join this machine to the cluster of the ticket's token, within `timeout` seconds.

        Raises:
            JoinFailed: it did not come about; this machine's daemon is as new.
        """
        if self.look().presence is Presence.MEMBER:
            return
        self.prepare()
        self._mark.set(ticket.revision)
        try:
            self._control({"join_token": ticket.token}, ticket.name, ticket.address, timeout)
        except DaemonError as fault:
            self.reset()
            if self.look().presence is Presence.MEMBER:
                return
            raise JoinFailed(str(fault)) from fault
        self._mark.clear()
        logger.info("joined %s as %s", self.title, ticket.name)

    def settle(self) -> None:
        """What is here is a member's: it is not to be cleaned, whatever happens."""
        self._mark.clear()

    def reset(self) -> None:
        """Make a daemon that is no member as new.

        Only for one whose join was begun by this charm. A daemon whose join fails restarts
        itself, so it is given time to say that it is a member after all.
        """
        if self._mark.read():
            with contextlib.suppress(Unreachable):
                self.wait_ready()
            if self.look().presence is not Presence.MEMBER:
                self._clean()
        self._mark.clear()

    def _clean(self) -> None:
        logger.warning("cleaning %s after a join that did not finish", self.title)
        snaps.run("stop", "--disable", self.name)
        for pattern in self._owned:
            for path in self._common.glob(pattern):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif not path.is_socket():  # the daemon makes it anew by itself
                    path.unlink(missing_ok=True)
        # The daemon alone: it starts the other services of the snap when they have a task.
        snaps.run("start", "--enable", f"{self.name}.daemon")
        self.wait_ready()

    def remove(self, name: str, *, force: bool) -> None:
        """Take a member out of the cluster.

        Raises:
            DaemonError: it refuses, for example because no other member is left.
        """
        if name not in {member.name for member in self.members()}:
            return
        query = "?force=1" if force else ""
        path = f"{_CLUSTER}/{quote(name, safe='')}{query}"
        self.rest.call("DELETE", path, timeout=CALL_TIMEOUT)

    def wait_ready(self) -> None:
        """Wait until the daemon answers, member or not, at most READY_TIMEOUT seconds."""
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            try:
                self.rest.get("/core/1.0")
                return
            except DaemonError as fault:
                if time.monotonic() > deadline:
                    said = f"{self.title} is not ready after {READY_TIMEOUT:.0f} s"
                    raise Unreachable(said) from fault
                time.sleep(0.1)

    def get(self, path: str) -> Any:
        """The metadata of any `GET`."""
        return self.rest.get(path)


def _says_alone(fault: DaemonError) -> bool:
    return fault.code == 503 and "not yet initialized" in str(fault)


def host_of(address: str) -> str:
    """The address of `address:port`, without brackets."""
    return address.rpartition(":")[0].strip("[]")
