"""What the fakes of MicroCeph's and MicroOVN's daemons share: microcluster's requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlparse

from unit.fake_daemon import Query, Refused

ALONE = "Database is not yet initialized"


@dataclass
class FakeMicrocluster:
    """The state of one microcluster daemon and of the cluster that it is in.

    `refuse` has an error for each beginning of a call, such as `POST /core`.
    """

    members: dict[str, str] = field(default_factory=dict)
    status: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    controls: list[dict[str, Any]] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    joins_anyway: bool = False

    def answer(self, method: str, url: str, body: dict[str, Any]) -> Any:
        """The metadata of the answer; raises Refused."""
        parsed = urlparse(url)
        call = f"{method} {parsed.path}"
        self.requests.append(f"{method} {url}")
        for start, (code, error) in self.refuse.items():
            if call.startswith(start):
                if call == "POST /core/control" and self.joins_anyway:
                    self._control(body)
                raise Refused(code, error)
        if call == "GET /core/1.0":
            return {"name": "", "version": "1"}
        if call == "POST /core/control":
            return self._control(body)
        if not self.members:
            raise Refused(503, ALONE)
        if " /core/" in call:
            return self._core(call, body)
        return self.more(call, parse_qs(parsed.query), body)

    def _control(self, body: dict[str, Any]) -> None:
        self.controls.append(body)
        self.members[body["name"]] = body["address"]
        self.joined(body["name"])

    def _core(self, call: str, body: dict[str, Any]) -> Any:
        name = call.rpartition("/")[2]
        if call == "GET /core/1.0/cluster":
            return [
                {
                    "name": member,
                    "address": address,
                    "role": "voter",
                    "status": self.status.get(member, "ONLINE"),
                }
                for member, address in self.members.items()
            ]
        if call == "GET /core/control/tokens":
            return [{"name": n, "token": t} for n, t in self.tokens.items()] or None
        if call == "POST /core/control/tokens":
            self.tokens[body["name"]] = f"secret-{len(self.requests)}"
            return self.tokens[body["name"]]
        if call.startswith("DELETE /core/control/tokens/"):
            del self.tokens[name]
        elif call.startswith("DELETE /core/1.0/cluster/"):
            del self.members[name]
            self.left(name)
        else:
            raise Refused(404, f"not found: {call}")
        return None

    def joined(self, name: str) -> None:
        """What else a new member brings about."""

    def left(self, name: str) -> None:
        """What else goes with a member."""

    def more(self, call: str, query: Query, body: dict[str, Any]) -> Any:
        """The daemon's own requests."""
        raise Refused(404, f"not found: {call}")
