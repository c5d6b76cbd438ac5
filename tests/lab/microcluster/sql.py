"""`cluster sql`: the replicated rows as SQL tables, for one statement.

The rows are loaded into an SQLite database in memory, the statement is run there, and what it
deleted is deleted in one transaction. Tables: core_cluster_members and those of `App.tables`; a
table whose rows have a member has a `member_id` column, as in the real schema.
"""

from __future__ import annotations

import sqlite3

from lab.microcluster.cluster import MEMBERS, Cluster
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Op, Row, delete_op

CORE_COLUMNS = ("name", "address", "certificate", "role", "last_heartbeat")


def run(cluster: Cluster, query: str) -> Row:
    """Run one statement: type, columns, rows, rows_affected; ApiError with SQLite's text."""
    if query.strip(" ;").startswith("."):
        raise ApiError(
            f"{query.strip()} is not supported by this stand-in: give an SQL statement", 400
        )
    tables = {MEMBERS: CORE_COLUMNS, **cluster.app.tables}
    rows = {kind: cluster.store.all(kind) for kind in tables}
    with sqlite3.connect(":memory:") as db:
        for kind, columns in tables.items():
            _load(db, kind, columns, rows)
        before = {kind: _keys(db, kind) for kind in tables}
        try:
            cursor = db.execute(query)
        except sqlite3.Error as error:
            raise ApiError(f"Failed to execute query: {error}", 400) from error
        if cursor.description:
            columns = [column[0] for column in cursor.description]
            return {
                "type": "select",
                "columns": columns,
                "rows": [list(r) for r in cursor],
                "rows_affected": 0,
            }
        if not query.lstrip().lower().startswith("delete"):
            raise ApiError("This stand-in supports select and delete statements only", 400)
        doomed: list[Op] = []
        for kind in tables:
            doomed += [delete_op(kind, key) for key in sorted(before[kind] - _keys(db, kind))]
        if doomed:
            cluster.store.transact(*doomed)
        return {"type": "exec", "columns": [], "rows": [], "rows_affected": cursor.rowcount}


def _load(
    db: sqlite3.Connection, kind: str, columns: tuple[str, ...], rows: dict[str, dict[str, Row]]
) -> None:
    shown = [c for c in columns if c != "member"]
    extra = ["member_id INTEGER"] if "member" in columns else []
    spec = ", ".join(
        ["id INTEGER PRIMARY KEY", *(f'"{c}"' for c in shown), "row_key HIDDEN TEXT", *extra]
    )
    db.execute(f'CREATE TABLE "{kind}" ({spec})')
    ids = {name: number for number, name in enumerate(_by_age(rows[MEMBERS]), 1)}
    ordered = _by_age(rows[kind]) if kind == MEMBERS else sorted(rows[kind])
    for number, key in enumerate(ordered, 1):
        row = rows[kind][key]
        values = [number, *(_plain(row.get(c)) for c in shown), key]
        if extra:
            values.append(ids.get(str(row.get("member"))))
        db.execute(f'INSERT INTO "{kind}" VALUES ({", ".join("?" * len(values))})', values)


def _by_age(rows: dict[str, Row]) -> list[str]:
    return sorted(rows, key=lambda name: rows[name].get("joined_at", 0))


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | None) else str(value)


def _keys(db: sqlite3.Connection, kind: str) -> set[str]:
    return {key for (key,) in db.execute(f'SELECT row_key FROM "{kind}"')}
