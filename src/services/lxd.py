"""LXD: clustering through its REST API.

Looking is done with the small client of `rest.py`, since it happens in every hook; acting is
done through pylxd, imported only then. The contract is LXD's documentation of the REST API
(`/1.0/cluster`, `/1.0/cluster/members`) and of clustering; versions are told apart by
`api_extensions`, never by number.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import snaps
from errors import DaemonError, JoinFailed, Unreachable
from services import Ticket
from services.marks import Flag, Mark
from services.rest import LOOK_TIMEOUT, Remote, Rest
from version import VERSION
from view import Member, Presence, ServiceView

if TYPE_CHECKING:
    import pylxd

logger = logging.getLogger(__name__)

COMMON = Path("/var/snap/lxd/common/lxd")
PORT = 8443
# In a member's configuration: which unit it is, of which of Juju's models; that it is leaving.
UNIT_KEY = "user.microcloud.unit"
MODEL_KEY = "user.microcloud.model"
LEAVING_KEY = "user.microcloud.leaving"
SNAP_NAMESPACE = Path("/run/snapd/ns/lxd.mnt")  # where the snap's daemon mounts its pools
CALL_TIMEOUT = 120.0  # seconds; for one request that changes something
READY_TIMEOUT = 120.0  # seconds; for the daemon to come up
VOTER, LEADER = "database", "database-leader"  # roles: who has a vote in LXD's database, and leads
HANDOVERS = 3  # tries
RESTARTS = 3  # of an LXD that has no database after it handed it over
FORBIDDEN = 403  # what a machine is told that is not, or no more, a member
CLUSTER_DIGITS = 12  # of the cluster certificate's fingerprint; LXD itself shows as many


class Lxd:
    """The LXD of this machine.

    `app` in Juju's model with the UUID `model` is whose units its members are told to be.
    """

    name = "lxd"

    def __init__(self, marks: Path, app: str = "", model: str = "") -> None:
        self._app = app
        self._model = model
        self._common = COMMON
        self._rest = Rest("LXD", COMMON / "unix.socket")
        self._marks = marks
        self._mark = Mark(marks, self.name)
        self._unfinished = Flag(marks / "unfinished-lxd")
        self._handing_over = Flag(marks / "handing-over-lxd")
        # The certificate and the addresses of the cluster that this member is about to leave.
        self._staying = marks / "leaving-lxd"
        self.seen: Mapping[str, Any] = {}  # what the last look saw of `GET /1.0`

    # Looking

    def look(self, *, tokens: bool = False) -> ServiceView:
        """How this machine stands to the LXD cluster."""
        if not snaps.is_installed(self.name):
            return ServiceView(Presence.ABSENT)
        joining = self._mark.read()
        try:
            self.seen = self.server()
            environment = self.seen["environment"]
            if environment.get("server_clustered"):
                names = tuple(self._tokens()) if tokens else ()
                # All members of a cluster show the same certificate.
                cluster = environment.get("certificate_fingerprint", "")[:CLUSTER_DIGITS]
                return ServiceView(Presence.MEMBER, self.members(), tokens=names, cluster=cluster)
            used = () if joining else self._used()
            return ServiceView(Presence.ALONE, joining=joining, used=used)
        except DaemonError as fault:
            return ServiceView(Presence.BROKEN, joining=joining, detail=str(fault))

    def server(self) -> Mapping[str, Any]:
        """`GET /1.0`: environment, api_extensions, and configuration as this member sees it."""
        return self._rest.get("/1.0")

    def members(self) -> tuple[Member, ...]:
        """The members, in the order of their names."""
        found = [
            Member(
                name=member["server_name"],
                address=member["url"].removeprefix("https://"),
                online=member["status"] != "Offline",
                roles=tuple(member["roles"]),
                message=member["message"],
                unit=self._unit_of(member.get("config") or {}),
                leaving=(member.get("config") or {}).get(LEAVING_KEY, ""),
                evacuated=member["status"] == "Evacuated",
                domain=member.get("failure_domain", ""),
            )
            for member in self._rest.get("/1.0/cluster/members?recursion=1")
        ]
        return tuple(sorted(found, key=lambda member: member.name))

    def _unit_of(self, config: Mapping[str, str]) -> str:
        """The unit that a member is; "" if another model, or application, knew it."""
        unit = config.get(UNIT_KEY, "")
        ours = config.get(MODEL_KEY) == self._model and unit.startswith(f"{self._app}/")
        return unit if ours else ""

    def own(self, unit: str) -> Mapping[str, str]:
        """What a member's configuration says of it as this unit."""
        return {UNIT_KEY: unit, MODEL_KEY: self._model}

    def get(self, path: str, timeout: float = LOOK_TIMEOUT) -> Any:
        """The metadata of any `GET`, for the tasks of the package cloud."""
        return self._rest.get(path, timeout)

    def _used(self) -> tuple[str, ...]:
        """What is in this LXD that a join would have to throw away."""
        kinds = {
            "storage pool": "/1.0/storage-pools",
            "instance": "/1.0/instances?all-projects=true",
            "managed network": "/1.0/networks?recursion=1",
        }
        found: list[str] = []
        for kind, path in kinds.items():
            for item in self._rest.get(path):
                if isinstance(item, str):
                    found.append(f"{kind} {item.rpartition('/')[2]}")
                elif item["managed"]:
                    found.append(f"{kind} {item['name']}")
        if not found:
            return ()
        return (f"LXD on this machine is in use already ({', '.join(found)}); empty it first",)

    # Acting

    def bootstrap(self, name: str, address: str) -> None:
        """Make this machine a cluster of one, reachable on `address`."""
        if self.server()["environment"].get("server_clustered"):
            return
        host = bracketed(address)
        with self.calls() as client:
            client.api.patch(json={"config": self._server_keys(f"{host}:{PORT}")})
            answer = client.api.cluster.put(json={"server_name": name, "enabled": True})
            self._wait(client, answer)
        logger.info("bootstrapped LXD as %s on %s", name, host)

    def _server_keys(self, cluster_address: str) -> dict[str, str]:
        keys = {"core.https_address": f"[::]:{PORT}", "cluster.https_address": cluster_address}
        keys["user.microcloud"] = VERSION
        if "instances_migration_stateful" in self.server()["api_extensions"]:
            keys["instances.migration.stateful"] = "true"
        return keys

    def issue_token(self, name: str) -> str:
        """A join token for `name`: LXD cancels an earlier one for the same name.

        The operation behind it ends only when the token is used or expires; nobody waits.
        """
        with self.calls() as client:
            answer = client.api.cluster.members.post(json={"server_name": name}).json()
        secret = answer["metadata"]["metadata"]
        content = {
            "server_name": name,
            "fingerprint": secret["fingerprint"],
            "addresses": secret["addresses"],
            "secret": secret["secret"],
            "expires_at": secret["expiresAt"],
        }
        return base64.b64encode(json.dumps(content).encode()).decode()

    def withdraw_token(self, name: str) -> None:
        """Cancel the operation that stands for the token for `name`."""
        operation = self._tokens().get(name)
        if operation is not None:
            with contextlib.suppress(DaemonError):  # used or expired in this moment
                self._rest.call("DELETE", f"/1.0/operations/{operation}")

    def _tokens(self) -> Mapping[str, str]:
        """The operations that stand for unused tokens, by the joiner's name."""
        running = self._rest.get("/1.0/operations?recursion=1").get("running", [])
        facts = {operation["id"]: operation.get("metadata") or {} for operation in running}
        return {
            fact["serverName"]: operation
            for operation, fact in facts.items()
            if "serverName" in fact and "secret" in fact
        }

    def wanted_of_joiner(self) -> Sequence[Mapping[str, str]]:
        """The member-specific keys of the cluster's pools and networks."""
        return [
            {"entity": item["entity"], "name": item["name"], "key": item["key"]}
            for item in self._rest.get("/1.0/cluster")["member_config"] or []
        ]

    def join(self, ticket: Ticket, timeout: float) -> None:
        """Join this machine to the cluster of the ticket's token, within `timeout` seconds.

        Raises:
            JoinFailed: it did not come about; this machine's LXD is as new.
        """
        self._mark.set(ticket.revision)
        self._unfinished.put(True)
        try:
            self._join(ticket, timeout)
        except DaemonError as fault:
            self.reset()
            raise JoinFailed(str(fault)) from fault
        self._mark.clear()
        self._finish()
        logger.info("joined LXD as %s", ticket.name)

    def _join(self, ticket: Ticket, timeout: float) -> None:
        token = json.loads(base64.b64decode(ticket.token))
        target, certificate = _trusted_member(token)
        extensions = self.server()["api_extensions"]
        field = "cluster_token" if "explicit_trust_token" in extensions else "cluster_password"
        request = {
            "server_name": ticket.name,
            "enabled": True,
            "cluster_address": target,
            "cluster_certificate": certificate,
            "server_address": f"{bracketed(ticket.address)}:{PORT}",
            "member_config": list(ticket.member_config),
            field: ticket.token,
        }
        # One that has left a cluster has it still, and LXD 5.0 would take it as cluster address.
        self.patch("", {"config": {"core.https_address": ""}})
        with self.calls(timeout) as client:
            self._wait(client, client.api.cluster.put(json=request))

    def settle(self) -> None:
        """What is here is a member's: it is not to be cleaned, whatever happens."""
        self._mark.clear()
        if self._unfinished.is_set():  # the hook that joined died
            try:
                self._finish()
            except DaemonError as fault:
                logger.warning("the join of LXD is finished by a later hook: %s", fault)

    def _finish(self) -> None:
        """What a new member is still to be given."""
        # As on the bootstrap member; joining leaves it at the cluster address.
        self.patch("", {"config": {"core.https_address": f"[::]:{PORT}"}})
        name = self.server()["environment"]["server_name"]
        self._distrust(name, keep=self._own_certificate())
        self._unfinished.put(False)

    def reset(self) -> None:
        """Make a LXD that is no member as new.

        Only for one whose join was begun by this charm: it was empty then, so its database
        is all there is to lose. If the join succeeded after all, nothing is done.
        """
        if self._mark.read() and self.look().presence is not Presence.MEMBER:
            logger.warning("cleaning LXD after a join that did not finish")
            self._renew()
            self._unfinished.put(False)
        self._mark.clear()

    def _renew(self) -> None:
        # A stop waits minutes for a join that hangs, and one that was killed before is
        # started again and hangs anew; there is nothing here to be lost.
        snaps.stop("lxd", self._kill)
        self._forget_everything()
        snaps.run("start", "lxd")
        self.wait_ready()

    def _kill(self) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                name = (folder / "comm").read_text().strip()
            except OSError:
                continue  # it ended
            # The daemon, and the dnsmasq of the networks that it made.
            own = "logs" if name == "lxd" else "networks"
            if any(str(self._common / own).encode() in word for word in command):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(folder.name), signal.SIGKILL)

    def _forget_everything(self) -> None:
        for path in (*self._common.glob("*.crt"), *self._common.glob("*.key")):
            path.unlink()
        # The join made this member's part of each pool before it failed.
        for mount in sorted((self._common / "storage-pools").glob("*")):
            inside = ["nsenter", f"--mount={SNAP_NAMESPACE}"] if SNAP_NAMESPACE.exists() else []
            subprocess.run([*inside, "umount", "-l", str(mount)], capture_output=True, check=False)
        for network in (self._common / "networks").glob("*"):
            subprocess.run(
                ["ip", "link", "delete", network.name], capture_output=True, check=False
            )
        for name in ("database", "storage-pools", "disks", "networks"):
            shutil.rmtree(self._common / name, ignore_errors=True)
        for link in ("images", "backups"):  # into a pool, where they were in a volume
            if (self._common / link).is_symlink():
                (self._common / link).unlink()

    def remove(self, name: str, *, force: bool) -> None:
        """Take a member out of the cluster.

        Raises:
            DaemonError: LXD refuses, for example because the member has instances.
        """
        members = self.members()
        if name not in {member.name for member in members}:
            return
        if not force:  # this one leaves
            self._staying.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            others = [member.address for member in members if member.name != name]
            certificate = (self._common / "cluster.crt").read_text()
            self._staying.write_text(json.dumps([certificate, others]))
        with self.calls() as client:
            params = {"force": "1"} if force else {}
            answer = client.api.cluster.members[name].delete(params=params)
            self._wait(client, answer)
        if force:  # this member stays
            self._distrust(name)
        else:
            self._staying.unlink()

    def give_up_database(self, name: str, heir: str) -> None:
        """Let this member, one of two, not be the one that has LXD's database.

        Of two members one has a vote. If it leaves, nobody has a database any more: LXD 5.0 means
        to give its vote to the other one before, and does not. So the leader is asked to hand its
        role over, as any voter asks it that shuts down. It does, can do no more once it does not
        lead, and answers with an error; nor has it a database then, until it is restarted.

        Raises:
            DaemonError: this member keeps it.
        """
        for _ in range(HANDOVERS):
            members = {member.name: member for member in self.members()}
            if VOTER in members[heir].roles and LEADER not in members[name].roles:
                return
            self._handing_over.put(True)
            try:
                body = {"address": members[name].address}
                self._rest.call("POST", "/internal/cluster/handover", body, timeout=CALL_TIMEOUT)
            except DaemonError as fault:
                logger.info("LXD hands its database over, and says: %s", fault)
            self._restart()
        raise DaemonError(f"LXD: {name} has the database still")

    def lost_servers(self) -> tuple[str, ...]:
        """The addresses of servers of LXD's database that are no member's.

        LXD 5.0 may leave one behind when a member leaves. Only the member that leads the database
        knows all, and may remove one. What is asked here `lxd sql` asks as well.

        Raises:
            DaemonError: LXD does not tell.
        """
        # In this order: who joins is a member, if a pending one, before it has a server.
        servers = self._column("local", "SELECT address FROM raft_nodes")
        members = self._column("global", "SELECT address FROM nodes")
        return tuple(address for address in servers if address not in members)

    def _column(self, database: str, query: str) -> tuple[str, ...]:
        body = {"database": database, "query": query}
        (found,) = self._rest.call("POST", "/internal/sql", body)["Results"]
        return tuple(row[0] for row in found["rows"])

    def forget_servers(self) -> None:
        """Remove the servers of LXD's database that are no member's.

        Raises:
            DaemonError: LXD refuses, as where this member does not lead its database.
        """
        for address in self.lost_servers():
            logger.warning("removing %s, no member's, from LXD's database", address)
            path = f"/internal/cluster/raft-node/{address}"
            self._rest.call("DELETE", path, timeout=CALL_TIMEOUT)

    def end_handover(self) -> None:
        """Restart a LXD that hangs since a hook died that handed the database over."""
        if self._handing_over.is_set():
            with contextlib.suppress(DaemonError):  # who looks at it next is told the same
                self._restart()

    def _restart(self) -> None:
        """Restart LXD until it has its database again, which may take a second time.

        Now and then it finds the new leader, starts, and then does not get at the database any
        more, while the other member does.
        """
        for tries_left in reversed(range(RESTARTS)):
            logger.warning("restarting LXD")
            snaps.run("restart", "--reload", "lxd.daemon")
            self.wait_ready()
            try:
                self.members()
                break
            except DaemonError as fault:
                if not tries_left:
                    raise
                logger.info("LXD was restarted, and says: %s", fault)
        self._handing_over.put(False)

    def has_left(self, name: str) -> bool:
        """Whether this machine, whose LXD cannot tell, is out of the cluster.

        Its database ends while it leaves, and the answer to that may be lost. Then only the
        others know: if one has a database without this machine, what is left of it there is
        removed, and LXD here is made as new. Only for a machine whose removal was begun here.
        """
        with contextlib.suppress(FileNotFoundError):
            certificate, addresses = json.loads(self._staying.read_text())
            for address in addresses:
                if self._is_out(name, Remote("LXD", address, certificate, self._common)):
                    self._renew()
                    self._staying.unlink()
                    return True
        return False

    def _is_out(self, name: str, other: Rest) -> bool:
        try:
            members = other.get("/1.0/cluster/members?recursion=1")
            if name in {member["server_name"] for member in members}:
                path = f"/1.0/cluster/members/{name}?force=1"
                other.call("DELETE", path, timeout=CALL_TIMEOUT)
                self._distrust(name, of=other)
        except DaemonError as fault:
            logger.warning("whether %s is a member still: %s", name, fault)
            return fault.code == FORBIDDEN
        return True

    def _own_certificate(self) -> str:
        """The fingerprint by which the other members know this one."""
        pem = (self._common / "server.crt").read_text()
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def _distrust(self, name: str, *, keep: str = "", of: Rest | None = None) -> None:
        """Take certificates of a member out of the trust store that it has no more.

        A join that failed, or a machine that was replaced by one of its name, leaves its own.
        """
        rest = of or self._rest
        for entry in rest.get("/1.0/certificates?recursion=1"):
            known = entry["type"] == "server" and entry["name"] == name
            if known and entry["fingerprint"] != keep:
                rest.call("DELETE", f"/1.0/certificates/{entry['fingerprint']}")

    def restart(self, interval: float) -> float:
        """Restart the daemon, not the instances, unless it was less than `interval` s ago.

        Returns how many seconds ago it was, 0.0 if it was done now. The stamp says which
        process was to end: as long as that one runs, the hook that wrote it died too early.
        """
        stamp = self._marks / "restarted-lxd"
        process = str(self.server()["environment"].get("server_pid", ""))
        if stamp.exists() and stamp.read_text() != process:
            ago = time.time() - stamp.stat().st_mtime
            if ago < interval:
                return ago
        stamp.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        stamp.write_text(process)
        self._restart()
        return 0.0

    def wait_ready(self) -> None:
        """Wait until the daemon answers, at most READY_TIMEOUT seconds."""
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            try:
                self._rest.get("/internal/ready", timeout=READY_TIMEOUT)
                return
            except DaemonError as fault:
                if time.monotonic() > deadline:
                    raise Unreachable(f"LXD is not ready after {READY_TIMEOUT:.0f} s") from fault
                time.sleep(0.1)

    @contextlib.contextmanager
    def calls(self, timeout: float = CALL_TIMEOUT) -> Iterator[pylxd.Client]:
        """A pylxd client; what it raises comes out as `DaemonError`."""
        import pylxd
        import requests.exceptions
        from pylxd import exceptions

        # Each line would be a call to Juju.
        logging.getLogger("urllib3").setLevel(logging.WARNING)
        try:
            yield pylxd.Client(
                endpoint=f"http+unix://{quote(str(self._rest.path), safe='')}", timeout=timeout
            )
        except exceptions.ClientConnectionFailed as fault:
            raise Unreachable(f"LXD does not answer: {fault}") from fault
        except exceptions.LXDAPIException as fault:
            raise DaemonError(f"LXD: {fault}") from fault
        except requests.exceptions.Timeout as fault:
            raise Unreachable(f"LXD did not finish within {timeout:.0f} s") from fault
        except requests.exceptions.RequestException as fault:
            raise Unreachable(f"LXD does not answer: {fault}") from fault

    def _wait(self, client: pylxd.Client, answer: Any) -> None:
        from pylxd.models import Operation

        body = answer.json()
        if body["type"] == "async":
            Operation.wait_for_operation(client, body["operation"])

    # For the tasks of the package cloud

    def post(self, path: str, body: Mapping[str, object], **where: Any) -> None:
        """`POST path`, waiting for it where LXD answers asynchronously (6.8 and later).

        `where`: the `target` member and the `project`, and the `timeout` if it takes long.
        """
        self._do("post", path, body, **where)

    def begin(self, path: str, body: Mapping[str, object], **where: Any) -> Mapping[str, Any]:
        """The operation that `POST path` starts, which goes on by itself."""
        return self._do("post", path, body, wait=False, **where)

    def put(self, path: str, body: Mapping[str, object], **where: Any) -> None:
        """`PUT path`, waiting as `post` does."""
        self._do("put", path, body, **where)

    def patch(self, path: str, body: Mapping[str, object], **where: Any) -> None:
        """`PATCH path`, waiting as `post` does."""
        self._do("patch", path, body, **where)

    def delete(self, path: str, **where: Any) -> None:
        """`DELETE path`, waiting as `post` does."""
        self._do("delete", path, None, **where)

    def _do(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        *,
        target: str = "",
        project: str = "",
        timeout: float = CALL_TIMEOUT,
        wait: bool = True,
    ) -> Any:
        given = {"target": target, "project": project}
        params = {key: value for key, value in given.items() if value}
        more = {} if body is None else {"json": body}
        with self.calls(timeout) as client:
            answer = getattr(_node(client, path), method)(params=params, **more)
            if wait:
                self._wait(client, answer)
            return answer.json()["metadata"]


def bracketed(address: str) -> str:
    """An address as it stands before `:port`."""
    return f"[{address}]" if ":" in address else address


def _node(client: pylxd.Client, path: str) -> Any:
    node: Any = client.api
    for part in path.split("/"):
        node = node[part] if part else node
    return node


def _trusted_member(token: Mapping[str, Any]) -> tuple[str, str]:
    """The first member of the token that answers with the certificate the token names.

    Raises:
        DaemonError: none does.
    """
    faults: list[str] = []
    for address in token["addresses"]:
        host, _, port = address.rpartition(":")
        try:
            pem = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=10)
        except OSError as fault:
            faults.append(f"{address}: {fault}")
            continue
        seen = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        if seen == token["fingerprint"]:
            return address, pem
        faults.append(f"{address} shows another certificate ({seen[:12]}) than the token names")
    raise DaemonError("no LXD member to join was found: " + "; ".join(faults))
