"""The replicated database as a member sees it that does not vote: through one that does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.microcluster.rest import ApiError, TlsPeer
from lab.microcluster.store import NO_LEADER, Op


@dataclass(frozen=True)
class VotersBackend:
    """Asks the voters that `file` lists, one after the other."""

    file: Path
    peer: Callable[[str], TlsPeer]

    def addresses(self) -> list[str]:
        """The voters this member has heard of last."""
        return json.loads(self.file.read_text()) if self.file.exists() else []

    def connected(self) -> bool:
        """Whether a voter can be reached that belongs to a majority."""
        try:
            return bool(self._ask("GET", "/core/internal/database", None, 3))
        except ApiError:
            return False

    def send(self, ops: list[Op], timeout: float) -> list[Any]:
        """Let a voter run operations; ApiError 503 when none can."""
        return self._ask("POST", "/core/internal/database", {"ops": ops}, timeout)

    def _ask(self, method: str, url: str, body: object, timeout: float) -> Any:
        last = f"Failed to get database transaction: {NO_LEADER}"
        for address in self.addresses():
            try:
                return self.peer(address).call(method, url, body, timeout)
            except ApiError as error:
                last = f"Failed to get database transaction: {NO_LEADER} ({error})"
        raise ApiError(last, 503)


def note(file: Path, addresses: Sequence[str]) -> None:
    """Remember the voters."""
    text = json.dumps(list(addresses))
    if not file.exists() or file.read_text() != text:
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(file)
