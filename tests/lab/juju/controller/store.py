"""The controller's memory: all entities in dictionaries, every change in SQLite.

A request changes entities and then calls `flush()`: one SQLite transaction (WAL, so a killed
controller finds the state of its last finished request).
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TypeVar, cast

from lab.juju.controller.entities import ALL, Entity

T = TypeVar("T", bound=Entity)


class Store:
    """Entities by kind and key."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=off")
        self._db.execute(
            "create table if not exists entity"
            " (kind text, key text, doc text, primary key (kind, key)) without rowid"
        )
        self._tables: dict[str, dict[str, Entity]] = {kind.KIND: {} for kind in ALL}
        self._changed: dict[tuple[str, str], Entity] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._load()

    def _load(self) -> None:
        kinds = {kind.KIND: kind for kind in ALL}
        for kind, key, doc in self._db.execute("select kind, key, doc from entity"):
            entity = kinds[kind](**json.loads(doc))
            entity.watch(self._note)
            self._tables[kind][key] = entity

    def _note(self, entity: Entity) -> None:
        self._changed[(entity.KIND, entity.key)] = entity

    @property
    def dirty(self) -> bool:
        return bool(self._changed or self._deleted)

    def all(self, kind: type[T]) -> dict[str, T]:
        """Every entity of a kind, by key."""
        return cast("dict[str, T]", self._tables[kind.KIND])

    def get(self, kind: type[T], key: str) -> T | None:
        return self.all(kind).get(key)

    def add(self, entity: T) -> T:
        """Remember a new entity and every change of it from now on."""
        entity.watch(self._note)
        self._tables[entity.KIND][entity.key] = entity
        self._deleted.discard((entity.KIND, entity.key))
        self._note(entity)
        return entity

    def remove(self, entity: Entity) -> None:
        entity.watch(lambda _entity: None)
        self._tables[entity.KIND].pop(entity.key, None)
        self._changed.pop((entity.KIND, entity.key), None)
        self._deleted.add((entity.KIND, entity.key))

    def flush(self) -> None:
        """Write what changed since the last flush, in one transaction."""
        if not self.dirty:
            return
        self._db.execute("begin")
        self._db.executemany(
            "insert or replace into entity values (?, ?, ?)",
            [(*key, json.dumps(entity.doc())) for key, entity in self._changed.items()],
        )
        self._db.executemany("delete from entity where kind = ? and key = ?", self._deleted)
        self._db.execute("commit")
        self._changed.clear()
        self._deleted.clear()

    def unsaved(self) -> list[str]:
        """Keys whose saved form differs from the one in memory: forgotten `touch()` calls."""
        saved = {(k, key): doc for k, key, doc in self._db.execute("select * from entity")}
        return [
            f"{kind} {key}"
            for kind, table in self._tables.items()
            for key, entity in table.items()
            if saved.get((kind, key)) != json.dumps(entity.doc())
        ]

    def close(self) -> None:
        self.flush()
        self._db.close()
