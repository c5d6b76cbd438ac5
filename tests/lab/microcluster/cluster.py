"""A member as hooks and routes see it: its name, directories, store and the other members."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.microcluster import certs, rest
from lab.microcluster.app import App
from lab.microcluster.database import Database, Spawner
from lab.microcluster.rest import ApiError, TlsPeer
from lab.microcluster.store import Row, Store
from lab.microcluster.voters import VotersBackend

MEMBERS = "core_cluster_members"
TOKENS = "core_token_records"
NEVER = "0001-01-01T00:00:00Z"
NOT_INITIALIZED = "Database is not yet initialized"
STARTING = "Database is still starting"
ONLINE = "Database is online"


@dataclass(frozen=True)
class Member:
    """One row of the members' table."""

    name: str
    address: str
    certificate: str
    role: str = "PENDING"
    votes: bool = False
    last_heartbeat: str = NEVER
    joined_at: float = 0.0

    @property
    def ip(self) -> str:
        """The address without its port."""
        return rest.split_address(self.address)[0]

    def row(self) -> Row:
        """As the store keeps it."""
        return asdict(self)


class Cluster:
    """This machine's member: state on disk below `/var/snap/NAME/common`."""

    def __init__(self, app: App, common: Path, spawner: Spawner) -> None:
        self.app = app
        self.state_dir = common / "state"
        self.data_dir = common / "data"
        self.name = ""
        self.address = ""
        self.lock = threading.RLock()
        self.voting = threading.Lock()
        self.database = Database(
            self.state_dir / "database", self.cluster_cert, self.cluster_key, spawner
        )
        self.listener: rest.Server | None = None
        self.started = False
        self.dispatch: rest.Dispatch | None = None

    @property
    def socket(self) -> Path:
        return self.state_dir / "control.socket"

    @property
    def cluster_cert(self) -> Path:
        return self.state_dir / "cluster.crt"

    @property
    def cluster_key(self) -> Path:
        return self.state_dir / "cluster.key"

    @property
    def server_cert(self) -> Path:
        return self.state_dir / "server.crt"

    @property
    def store(self) -> Store:
        """The replicated rows; ApiError 503 while this machine is no member."""
        if not self.initialized:
            raise ApiError(NOT_INITIALIZED, 503)
        if self.database.exists:
            return Store(self.database.backend)
        return Store(VotersBackend(self.voters_file, self.peer))

    @property
    def voters_file(self) -> Path:
        return self.state_dir / "voters.json"

    @property
    def initialized(self) -> bool:
        """Whether this machine is a member, or becoming one."""
        return bool(self.name)

    @property
    def ip(self) -> str:
        """This member's address without its port."""
        return rest.split_address(self.address)[0]

    def status(self) -> str:
        """The database's state in a word, as the daemon says it."""
        if not self.initialized:
            return NOT_INITIALIZED
        return ONLINE if self.store.connected() else STARTING

    def is_leader(self) -> bool:
        """Whether the local database leads the cluster now."""
        try:
            return self.database.process is not None and self.database.backend.state().leader
        except OSError:
            return False

    def members(self) -> list[Member]:
        """All members, in the order they joined."""
        found = [Member(**row) for row in self.store.all(MEMBERS).values()]
        return sorted(found, key=lambda member: member.joined_at)

    def member(self, name: str) -> Member:
        """One member; ApiError 404 for a name that is none."""
        row = self.store.get(MEMBERS, name)
        if row is None:
            raise ApiError(f"No remote exists with the given name {name!r}".replace("'", '"'), 404)
        return Member(**row)

    def peer(self, address: str) -> TlsPeer:
        """Another member's listener, with mutual trust by the cluster's certificate."""
        fingerprint = certs.fingerprint(self.cluster_cert.read_text())
        return TlsPeer(address, fingerprint, self.cluster_cert, self.cluster_key)

    def call(
        self, member: str, method: str, url: str, body: object = None, timeout: float = 120
    ) -> Any:
        """Ask a member (or this one) over TLS; ApiError with its text or why it is unreachable."""
        return self.peer(self.member(member).address).call(method, url, body, timeout)

    def call_others(self, method: str, url: str, body: object = None, timeout: float = 30) -> None:
        """Tell every other member at once; for one that cannot be reached there is a log line."""

        def tell(member: Member) -> None:
            try:
                self.peer(member.address).call(method, url, body, timeout)
            except ApiError as error:
                log(f"{method} {url} on {member.name} failed: {error}")

        in_parallel(tell, [member for member in self.members() if member.name != self.name])

    # State of this machine

    def identify(self, name: str, address: str) -> None:
        """Become the member `name`, on disk too."""
        rest.split_address(address)
        self.name, self.address = name, address
        (self.state_dir / "daemon.yaml").write_text(json.dumps({"name": name, "address": address}))

    def load(self) -> bool:
        """Read who this machine is; whether it is a member."""
        file = self.state_dir / "daemon.yaml"
        if file.exists():
            known = json.loads(file.read_text())
            self.name, self.address = known["name"], known["address"]
        return self.initialized

    def prepare(self, hostname: str) -> None:
        """Make the directories and this machine's own certificate, if they are missing."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if not self.server_cert.exists():
            certs.self_signed(self.server_cert, self.state_dir / "server.key", hostname)

    def listen(self) -> None:
        """Open the listener for other members; ApiError when the address is not this machine's."""
        assert self.dispatch
        try:
            self.listener = rest.serve_tls(
                self.address, self.cluster_cert, self.cluster_key, self.dispatch
            )
        except OSError as error:
            raise ApiError(
                f"Failed to listen on {self.address}: {error.strerror or error}"
            ) from error

    def reset(self) -> None:
        """Forget the cluster: no database, no listener, an empty state directory."""
        listener, self.listener = self.listener, None
        rest.stop(listener)
        self.database.stop()
        self.name = self.address = ""
        self.started = False
        for path in self.state_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != self.socket:
                path.unlink(missing_ok=True)


def in_parallel(function: Any, items: Iterable[Any]) -> list[Any]:
    """Map with one thread per item."""
    todo = list(items)
    if not todo:
        return []
    with ThreadPoolExecutor(max_workers=len(todo)) as pool:
        return list(pool.map(function, todo))


def log(text: str) -> None:
    """A line in the service's log."""
    print(text, flush=True)
