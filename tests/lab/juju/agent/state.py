"""What a unit agent remembers of what it did, and the hooks and operations it can do."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Doc = dict[str, Any]


@dataclass(frozen=True)
class Hook:
    """One hook with everything its environment needs.

    `kind` is Juju's kind ("relation-changed"); `name` is what the charm sees
    ("cluster-relation-changed").
    """

    kind: str
    endpoint: str = ""  # of a relation; or the name of a storage
    relation: int = -1
    remote_app: str = ""
    remote_unit: str = ""
    departing: str = ""
    version: int = 0
    storage: str = ""
    storage_kind: str = ""
    location: str = ""
    secret: str = ""
    label: str = ""
    revision: int = 0
    due: float = 0.0

    @property
    def name(self) -> str:
        if self.kind.startswith(("relation-", "storage-")):
            return f"{self.endpoint}-{self.kind}"
        return self.kind

    @property
    def is_relation(self) -> bool:
        return self.relation >= 0


@dataclass
class RelationState:
    """What the unit has been told of one relation."""

    endpoint: str
    app: str
    peer: bool
    members: dict[str, int] = field(default_factory=dict)
    apps: dict[str, int] = field(default_factory=dict)
    changed_pending: str = ""


@dataclass
class LocalState:
    """Saved after every operation, so that an agent that is killed goes on where it was.

    `step` says what is with `hook`: "" nothing, "queued" it is next, "pending" it was begun and
    has not succeeded.
    """

    installed: bool = False
    started: bool = False
    stopped: bool = False
    removed: bool = False
    leader: bool = False
    settings_seen: bool = False
    config_hash: str = ""
    charm: str = ""
    step: str = ""
    hook: Hook | None = None
    attempts: int = 0
    boot: str = ""
    relations: dict[str, RelationState] = field(default_factory=dict)
    storage: list[str] = field(default_factory=list)
    secrets_changed: dict[str, int] = field(default_factory=dict)
    secrets_due: dict[str, float] = field(default_factory=dict)
    secrets_removed: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Replace the file in one step."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(dataclasses.asdict(self)))
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> LocalState:
        if not path.exists():
            return cls()
        doc: Doc = json.loads(path.read_text())
        hook = doc.pop("hook")
        relations = doc.pop("relations")
        state = cls(**doc)
        state.hook = Hook(**hook) if hook else None
        state.relations = {rid: RelationState(**r) for rid, r in relations.items()}
        return state


@dataclass(frozen=True)
class Operation:
    """One thing the agent does next.

    kinds: hook (run it), skip (treat the failed hook as done), action (run task `ident`),
    lead (accept leadership), resign, deploy (unpack a charm), detached (storage that was never
    attached), forget (a relation is over for this unit), dead (tell the controller and end).
    """

    kind: str
    hook: Hook | None = None
    ident: str = ""


@dataclass(frozen=True)
class Signals:
    """What time and the machine add to the decision."""

    retry_due: bool = False
    update_status_due: bool = False
    rebooted: bool = False
