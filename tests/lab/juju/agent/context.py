"""One hook's view of the model: what it reads is cached, what it writes waits for its success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from lab.juju.agent.flags import ToolError
from lab.juju.agent.state import Hook, LocalState

Doc = dict[str, Any]


class Link(Protocol):
    """The controller as a hook sees it."""

    def call(self, method: str, **params: Any) -> Any: ...


@dataclass
class Task:
    """The action that runs, if one does."""

    ident: str
    name: str
    params: Doc
    results: Doc = field(default_factory=dict)
    failed: bool = False
    message: str = ""


class HookContext:
    """Caches, buffered changes and the facts of one hook, action or command."""

    def __init__(
        self,
        unit: str,
        link: Link,
        local: LocalState,
        remote: Doc,
        facts: Doc,
        interfaces: list[Doc],
        bags: dict[tuple[int, str], dict[str, str]],
        hook: Hook | None = None,
        task: Task | None = None,
    ):
        self.unit = unit
        self.app = unit.rpartition("/")[0]
        self.link = link
        self.local = local
        self.remote = remote
        self.facts = facts
        self.interfaces = interfaces
        self.hook = hook
        self.task = task
        self.logs: list[tuple[str, str, str]] = []
        self.log: Callable[[str, str, str], None] = lambda *line: self.logs.append(line)
        self.status_set = False
        self.never_leader = False
        self.reboot = ""
        self.kill: Callable[[], None] = lambda: None
        self._bags = bags
        self._read: dict[tuple[int, str], dict[str, str]] = {}
        self._config: Doc | None = None
        self._writes: dict[int, dict[str, dict[str, str]]] = {}
        self._ports: dict[str, list[str]] | None = None
        self._state: dict[str, str] | None = None
        self._storage: list[list[str]] = []
        self.secrets: list[Doc] = []

    # -- relations ------------------------------------------------------------------------

    def relations(self, endpoint: str = "") -> list[int]:
        """Ids of the relations the unit knows; a broken one is not among them."""
        broken = self.hook.relation if self.hook and self.hook.kind == "relation-broken" else -1
        return sorted(
            int(rid)
            for rid, state in self.local.relations.items()
            if int(rid) != broken and (not endpoint or state.endpoint == endpoint)
        )

    def relation_id(self, text: str) -> int:
        """The id in `endpoint:5` or `5`; the hook's own relation if nothing is given."""
        if not text:
            if self.hook and self.hook.is_relation:
                return self.hook.relation
            raise ToolError("no relation id specified", 2)
        number = text.rpartition(":")[2]
        if not number.isdigit():
            raise ToolError(f'invalid value "{text}" for option -r: invalid relation id', 2)
        if number not in self.local.relations:
            raise ToolError(f'invalid value "{text}" for option -r: relation not found', 2)
        return int(number)

    def members(self, relation: int) -> list[str]:
        """The remote units of a relation as this unit has been told of them."""
        found = set(self.local.relations[str(relation)].members)
        hook = self.hook
        if hook and hook.relation == relation and hook.remote_unit:
            if hook.kind == "relation-departed":
                found.discard(hook.remote_unit)
            else:
                found.add(hook.remote_unit)
        return sorted(found)

    def bag(self, relation: int, who: str) -> dict[str, str]:
        """A bag as this hook sees it, its own unflushed writes included.

        The bags of remote units are kept across hooks and read again only in joined and changed
        hooks for that unit (the agent drops them there): elsewhere they may be old.
        """
        member = (
            "/" in who and who != self.unit and who in self.local.relations[str(relation)].members
        )
        store = self._bags if member else self._read
        if (relation, who) not in store:
            store[(relation, who)] = self.link.call("settings", relation=relation, who=who)
        return _merged(store[(relation, who)], self._writes.get(relation, {}).get(who, {}))

    def write(self, relation: int, who: str, values: dict[str, str]) -> None:
        self._writes.setdefault(relation, {}).setdefault(who, {}).update(values)

    # -- the rest of the model ------------------------------------------------------------

    def config(self) -> Doc:
        if self._config is None:
            self._config = self.link.call("config")
        return self._config or {}

    def is_leader(self) -> bool:
        """Whether this unit leads for the next half lease at least; "no" stays "no"."""
        if not self.never_leader and not self.link.call("claim"):
            self.never_leader = True
        return not self.never_leader

    @property
    def ports(self) -> dict[str, list[str]]:
        """Opened ports by endpoint ("" for all), as they will be after the hook."""
        if self._ports is None:
            self._ports = {k: list(v) for k, v in self.link.call("ports").items()}
        return self._ports

    @property
    def state(self) -> dict[str, str]:
        if self._state is None:
            self._state = dict(self.link.call("state"))
        return self._state

    def add_storage(self, name: str, directive: str) -> None:
        self._storage.append([name, directive])

    def changes(self) -> Doc:
        """Everything buffered, as the controller's `commit` takes it; empty if nothing is."""
        doc: Doc = {}
        relations = {
            str(rid): {
                "app" if who == self.app else "unit": values for who, values in writes.items()
            }
            for rid, writes in self._writes.items()
            if str(rid) in self.local.relations
        }
        parts = (
            ("relations", relations),
            ("ports", self._ports),
            ("state", self._state),
            ("storage", self._storage),
            ("secrets", self.secrets),
        )
        for name, value in parts:
            if value or (value is not None and name in ("ports", "state")):
                doc[name] = value
        if self.hook and self.hook.kind == "config-changed":
            doc["network"] = True
        return doc


def _merged(base: dict[str, str], writes: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in {**base, **writes}.items() if v}
