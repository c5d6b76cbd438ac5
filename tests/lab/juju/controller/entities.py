"""What a controller remembers, as dataclasses that go to and from JSON.

Every field holds only what JSON can hold. Setting an attribute marks the entity as changed;
whoever changes a container inside one calls `touch()`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

Doc = dict[str, Any]


def _ignore(_entity: Entity) -> None:
    """Where changes go before an entity is added to a store."""


@dataclass
class Entity:
    """Base of all: knows its kind and its key, and reports changes to the store."""

    KIND: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_changed", _ignore)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        changed: Callable[[Entity], None] | None = self.__dict__.get("_changed")
        if changed is not None:
            changed(self)

    def touch(self) -> None:
        """Say that something inside changed."""
        self.__dict__["_changed"](self)

    def watch(self, changed: Callable[[Entity], None]) -> None:
        object.__setattr__(self, "_changed", changed)

    def doc(self) -> Doc:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @property
    def key(self) -> str:
        raise NotImplementedError


@dataclass
class Model(Entity):
    """A model and its counters."""

    KIND: ClassVar[str] = "model"
    uuid: str
    name: str
    created: str
    life: str = "alive"
    config: Doc = field(default_factory=dict)
    constraints: Doc = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    version: str = ""
    destroy_storage: bool = False
    ssh_keys: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.uuid

    def next(self, counter: str, first: int = 0) -> int:
        """The next number of a sequence that is never reused."""
        value = self.counters.get(counter, first)
        self.counters[counter] = value + 1
        self.touch()
        return value


@dataclass
class Charm(Entity):
    """An unpacked charm in the controller's store."""

    KIND: ClassVar[str] = "charm"
    url: str
    name: str
    revision: int
    path: str
    digest: str
    meta: Doc
    options: Doc
    actions: Doc
    version: str = ""

    @property
    def key(self) -> str:
        return self.url


@dataclass
class Machine(Entity):
    """A Juju machine and the lab's machine behind it."""

    KIND: ClassVar[str] = "machine"
    model: str
    id: str
    created: str
    lab_id: str = ""
    life: str = "alive"
    state: str = "pending"  # pending, started, error, gone
    message: str = ""
    hostname: str = ""
    interfaces: list[Doc] = field(default_factory=list)
    since: str = ""
    wanted_off: bool = False
    force: bool = False
    keep: bool = False
    retired: list[str] = field(default_factory=list)
    explicit: bool = False
    base: str = ""
    constraints: Doc = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.model}/{self.id}"


@dataclass
class App(Entity):
    """An application."""

    KIND: ClassVar[str] = "app"
    model: str
    name: str
    charm: str
    created: str
    life: str = "alive"
    config: Doc = field(default_factory=dict)
    trust: bool = False
    exposed: bool = False
    bindings: dict[str, str] = field(default_factory=dict)
    constraints: Doc = field(default_factory=dict)
    storage: dict[str, Doc] = field(default_factory=dict)
    resources: dict[str, Doc] = field(default_factory=dict)
    status: Doc | None = None
    version: str = ""
    leader: str = ""
    lease_until: float = 0.0
    next_unit: int = 0
    channel: str = ""
    base: str = "ubuntu@24.04"
    forced_charm: bool = False
    destroy_storage: bool = False

    @property
    def key(self) -> str:
        return f"{self.model}/{self.name}"


@dataclass
class Unit(Entity):
    """A unit."""

    KIND: ClassVar[str] = "unit"
    model: str
    name: str
    app: str
    machine: str
    password: str
    created: str
    life: str = "alive"
    agent: Doc = field(default_factory=dict)
    workload: Doc = field(default_factory=dict)
    resolved: str = ""
    ports: dict[str, list[str]] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    charm: str = ""
    destroy_storage: bool = False
    deployed: bool = False
    lost: str = ""

    @property
    def key(self) -> str:
        return f"{self.model}/{self.name}"

    @property
    def number(self) -> int:
        return int(self.name.rpartition("/")[2])


@dataclass
class Relation(Entity):
    """A relation: one endpoint for peers, two otherwise.

    `scope` maps a unit to "in" or, while it leaves, "departing". `bags` maps a unit or an
    application to {"version": n, "data": {...}}; a version of 0 means it was never written.
    """

    KIND: ClassVar[str] = "relation"
    model: str
    id: int
    endpoints: list[dict[str, str]]
    created: str
    life: str = "alive"
    scope: dict[str, str] = field(default_factory=dict)
    bags: dict[str, Doc] = field(default_factory=dict)
    forced: bool = False

    @property
    def key(self) -> str:
        return f"{self.model}/{self.id}"

    @property
    def is_peer(self) -> bool:
        return len(self.endpoints) == 1

    def endpoint(self, app: str) -> dict[str, str]:
        """The endpoint of an application that takes part."""
        return next(e for e in self.endpoints if e["app"] == app)

    def other(self, app: str) -> dict[str, str]:
        """The endpoint on the other side; for peers the application's own."""
        if self.is_peer:
            return self.endpoints[0]
        return next(e for e in self.endpoints if e["app"] != app)

    def bag(self, who: str) -> dict[str, str]:
        return self.bags.get(who, {"data": {}})["data"]

    def version(self, who: str) -> int:
        return self.bags.get(who, {"version": 0})["version"]

    def write(self, who: str, changes: dict[str, str | None]) -> bool:
        """Apply changes (None or "" deletes); a new version only if something differs."""
        old = self.bag(who)
        new = {k: v for k, v in {**old, **changes}.items() if v}
        if new == old and who in self.bags:
            return False
        if new == old and not new:
            return False
        self.bags[who] = {"version": self.version(who) + 1, "data": new}
        self.touch()
        return True


@dataclass
class Secret(Entity):
    """A secret with its revisions, consumers and grants. Values are base64, as Juju keeps them.

    `revisions`: {"1": {"content", "checksum", "created", "expires", "removed_sent"}}.
    `consumers`: unit -> {"tracked": n, "label": str}; `grants`: list of {"target", "scope",
    "role", "relation"}.
    """

    KIND: ClassVar[str] = "secret"
    model: str
    id: str
    owner: str  # "unit:x/0", "app:x" or "model"
    created: str
    updated: str = ""
    label: str = ""
    description: str = ""
    rotate: str = "never"
    next_rotate: float = 0.0
    expire: float = 0.0
    next_expire: float = 0.0
    latest: int = 0
    auto_prune: bool = False
    revisions: dict[str, Doc] = field(default_factory=dict)
    consumers: dict[str, Doc] = field(default_factory=dict)
    grants: list[Doc] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.model}/{self.id}"

    @property
    def uri(self) -> str:
        return f"secret:{self.id}"


@dataclass
class Storage(Entity):
    """A storage instance and its attachment."""

    KIND: ClassVar[str] = "storage"
    model: str
    id: str
    name: str
    kind: str
    pool: str
    size: int
    created: str
    owner: str = ""
    life: str = "alive"
    machine: str = ""
    disk: str = ""
    location: str = ""
    link: str = ""
    hardware_id: str = ""
    state: str = "pending"  # pending, attached, detached, error
    message: str = ""
    attachment_life: str = ""  # "", alive, dying
    destroy: bool = False
    number: int = 0
    read_only: bool = False

    @property
    def key(self) -> str:
        return f"{self.model}/{self.id}"


@dataclass
class Task(Entity):
    """An action or a `juju exec` command for one unit or machine."""

    KIND: ClassVar[str] = "task"
    model: str
    id: str
    operation: str
    receiver: str
    name: str
    params: Doc
    enqueued: str
    status: str = "pending"
    started: str = ""
    completed: str = ""
    message: str = ""
    results: Doc = field(default_factory=dict)
    log: list[Doc] = field(default_factory=list)
    parallel: bool = False

    @property
    def key(self) -> str:
        return f"{self.model}/{self.id}"


@dataclass
class Operation(Entity):
    """What one `juju run` or `juju exec` asked for: a group of tasks."""

    KIND: ClassVar[str] = "operation"
    model: str
    id: str
    summary: str
    enqueued: str
    tasks: list[str]

    @property
    def key(self) -> str:
        return f"{self.model}/{self.id}"


@dataclass
class Settings(Entity):
    """What belongs to the controller itself: identity, the lab's knobs."""

    KIND: ClassVar[str] = "settings"
    uuid: str
    version: str
    current_model: str = ""
    knobs: Doc = field(default_factory=dict)

    @property
    def key(self) -> str:
        return "settings"


ALL: tuple[type[Entity], ...] = (
    Settings,
    Model,
    Charm,
    Machine,
    App,
    Unit,
    Relation,
    Secret,
    Storage,
    Task,
    Operation,
)
