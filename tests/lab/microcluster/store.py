"""The cluster's rows: (kind, key) -> JSON object, in a raft-replicated OVSDB on every member.

The stand-in for dqlite. It is a database in the ovsdb-servers of up to three voters, so it loses
its quorum when a majority of them is gone, and then neither reads nor writes succeed. Members that
do not vote use it through one that does.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lab.microcluster.rest import ApiError

DATABASE = "MicroCluster"
SCHEMA = {
    "name": DATABASE,
    "version": "1.0.0",
    "tables": {
        "Row": {
            "columns": {
                "kind": {"type": "string"},
                "key": {"type": "string"},
                "value": {"type": "string"},
            },
            "indexes": [["kind", "key"]],
            "isRoot": True,
        }
    },
}
NO_LEADER = "no available dqlite leader server found"
Row = dict[str, Any]
Op = dict[str, Any]


class AlreadyExistsError(ApiError):
    """An insert met a row of the same kind and key."""

    def __init__(self, kind: str) -> None:
        super().__init__(f'This "{kind}" entry already exists', 409)


class ConflictError(ApiError):
    """A row was not as the transaction expected it."""


@dataclass(frozen=True)
class RaftState:
    """What the local server says about itself."""

    connected: bool
    leader: bool
    server_id: str


def rpc(path: Path, method: str, params: list[Any], timeout: float) -> Any:
    """One JSON-RPC call to an ovsdb-server on its unix socket; OSError or ApiError."""
    decoder = json.JSONDecoder()
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(str(path))
        sock.sendall(json.dumps({"method": method, "params": params, "id": 1}).encode())
        text = ""
        while True:
            sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = sock.recv(1 << 16)
            if not data:
                raise ConnectionError(f"ovsdb-server on {path} closed the connection")
            text += data.decode()
            try:
                answer, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                continue
            if answer.get("id") == 1 and "method" not in answer:
                return _result(answer)
            text = text[end:]


def _result(answer: Mapping[str, Any]) -> Any:
    if answer.get("error"):
        raise ApiError(f"Database error: {answer['error']}")
    return answer["result"]


def match(kind: str, key: str | None = None) -> list[list[str]]:
    """An OVSDB condition for one kind, or one row."""
    where = [["kind", "==", kind]]
    return where if key is None else [*where, ["key", "==", key]]


def insert_op(kind: str, key: str, value: Row) -> Op:
    """Insert a row; the transaction fails if it is there."""
    return {
        "op": "insert",
        "table": "Row",
        "row": {"kind": kind, "key": key, "value": dump(value)},
    }


def delete_op(kind: str, key: str) -> Op:
    """Delete a row, if it is there."""
    return {"op": "delete", "table": "Row", "where": match(kind, key)}


def expect_op(kind: str, key: str, value: Row) -> Op:
    """Let the transaction fail (ConflictError) unless the row has exactly this value."""
    return {
        "op": "wait", "table": "Row", "where": match(kind, key), "columns": ["value"],
        "until": "==", "rows": [{"value": dump(value)}], "timeout": 0,
    }  # fmt: skip


def dump(value: Row) -> str:
    """The one text of a value, so that values can be compared as text."""
    return json.dumps(value, sort_keys=True)


class Backend(Protocol):
    """How a member reaches the replicated database."""

    def connected(self) -> bool:
        """Whether there is a majority now."""
        ...

    def send(self, ops: list[Op], timeout: float) -> list[Any]:
        """Run OVSDB operations in one transaction; their results. OSError or ApiError."""
        ...


@dataclass(frozen=True)
class LocalBackend:
    """A voter's own server."""

    path: Path

    def state(self, timeout: float = 2) -> RaftState:
        """How the server sees the cluster; OSError if it does not answer."""
        select = {
            "op": "select", "table": "Database", "where": [["name", "==", DATABASE]],
            "columns": ["connected", "leader", "sid"],
        }  # fmt: skip
        rows = rpc(self.path, "transact", ["_Server", select], timeout)[0].get("rows", [])
        if not rows:
            return RaftState(False, False, "")
        sid = rows[0]["sid"]
        return RaftState(
            rows[0]["connected"], rows[0]["leader"], sid[1] if sid[0] == "uuid" else ""
        )

    def connected(self) -> bool:
        """Whether the server belongs to a majority."""
        try:
            return self.state().connected
        except OSError:
            return False

    def send(self, ops: list[Op], timeout: float) -> list[Any]:
        """Run operations."""
        return rpc(self.path, "transact", [DATABASE, *ops], timeout)


class Store:
    """Rows of the replicated database.

    Every method raises ApiError (503) when there is no quorum within `timeout` seconds.
    """

    def __init__(self, backend: Backend, timeout: float = 10) -> None:
        self.backend = backend
        self.timeout = timeout

    def connected(self) -> bool:
        """Whether there is a majority now."""
        return self.backend.connected()

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait for a majority; ApiError when none is found in time."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not self.connected():
            if time.monotonic() > deadline:
                raise ApiError(f"Failed to get database transaction: {NO_LEADER}", 503)
            time.sleep(0.05)

    def transact(self, *ops: Op) -> list[Any]:
        """Run OVSDB operations in one transaction."""
        self.wait_connected()
        try:
            results = self.backend.send(list(ops), self.timeout)
        except OSError as error:
            text = "Failed to commit transaction: context deadline exceeded"
            raise ApiError(f"{text} ({error})", 503) from error
        for result in results:
            if result and result.get("error"):
                self._raise(result, ops)
        return results

    @staticmethod
    def _raise(result: Mapping[str, Any], ops: tuple[Op, ...]) -> None:
        if result["error"] == "constraint violation":
            kinds = [op["row"]["kind"] for op in ops if op["op"] == "insert"]
            raise AlreadyExistsError(kinds[0] if kinds else "row")
        if result["error"] == "timed out":
            raise ConflictError("Failed to commit transaction: the row has changed", 409)
        raise ApiError(f"Failed to commit transaction: {result['error']}: {result.get('details')}")

    def all(self, kind: str) -> dict[str, Row]:
        """Every row of a kind, by key, sorted."""
        select = {
            "op": "select",
            "table": "Row",
            "where": match(kind),
            "columns": ["key", "value"],
        }
        rows = self.transact(select)[0]["rows"]
        return {
            row["key"]: json.loads(row["value"]) for row in sorted(rows, key=lambda r: r["key"])
        }

    def get(self, kind: str, key: str) -> Row | None:
        """One row, or None."""
        select = {"op": "select", "table": "Row", "where": match(kind, key), "columns": ["value"]}
        rows = self.transact(select)[0]["rows"]
        return json.loads(rows[0]["value"]) if rows else None

    def insert(self, kind: str, key: str, value: Row) -> None:
        """A new row; AlreadyExistsError if there is one."""
        self.transact(insert_op(kind, key, value))

    def put(self, kind: str, key: str, value: Row) -> None:
        """Make or replace a row."""
        self.transact(delete_op(kind, key), insert_op(kind, key, value))

    def swap(self, kind: str, key: str, old: Row, new: Row) -> bool:
        """Replace a row if it still has the value `old`; whether it had."""
        try:
            self.transact(
                expect_op(kind, key, old), delete_op(kind, key), insert_op(kind, key, new)
            )
        except ConflictError:
            return False
        return True

    def delete(self, kind: str, key: str) -> bool:
        """Delete a row; whether it was there."""
        return bool(self.transact(delete_op(kind, key))[0]["count"])
