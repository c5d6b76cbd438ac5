"""Hooks that are to be killed, by a plan for a whole deployment; and a count of their calls.

`kills.json` beside the trace, while it is there, says for each unit at which calls its hooks are
killed; it may be there before the unit is. All calls are counted then: those of hook tools by the
agent, those of daemons and commands by the library of `calls.c`. The trace says what was called,
and where a hook was killed.

A point `{at, call, when, nth, hook, what}` is the unit's first hook that reaches the call; with
`nth` (counted from 1, over hooks that ended) or `hook` (a name) only such a hook. With `what`, a
request as the trace has it, `call` counts such requests only. Each is played once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Doc = dict[str, Any]


class Kills:
    """One agent's part of the plan."""

    def __init__(self, root: Path, unit: str, tools: Path, record: Path) -> None:
        self._plan = root / "kills.json"
        self._library = root / "calls.so"
        self._unit = unit
        self._tools = tools
        self._record = record
        self._played: list[Doc] = []
        self._ended = 0

    def next(self, name: str) -> Hunt | None:
        """What is planned for the hook that begins now; None if nothing is counted."""
        if not self._plan.exists():
            return None
        who = {"hook": name, "nth": self._ended + 1}
        plan = json.loads(self._plan.read_text()).get(self._unit, [])
        points = [
            point
            for point in plan
            if point not in self._played
            and all(point.get(key, value) == value for key, value in who.items())
        ]
        self._record.unlink(missing_ok=True)
        return Hunt(self, points)

    def ended(self, point: Doc | None) -> None:
        """The hook is over; one that was killed comes again."""
        if point is None:
            self._ended += 1
        else:
            self._played.append(point)

    def environment(self, points: list[Doc]) -> dict[str, str]:
        """What the library wants to know."""
        found = {
            "LD_PRELOAD": str(self._library),
            "LAB_CALLS": str(self._record),
            "LAB_CALLS_IGNORE": str(self._tools),
        }
        lines = (f"{p['when']} {p['call']} {p.get('what', '')}" for p in points)
        return found | ({"LAB_CALLS_KILL": "\n".join(lines)} if points else {})

    def requests(self) -> list[str]:
        """What the library has written of the last hook."""
        if not self._record.exists():
            return []
        return self._record.read_text(errors="replace").splitlines()


class Hunt:
    """One hook that is counted, and killed at the first of the points that it reaches."""

    def __init__(self, kills: Kills, points: list[Doc]) -> None:
        self._kills = kills
        tools = [point for point in points if point["at"] == "tool"]
        self._tool = min(tools, key=lambda point: point["call"], default=None)
        self._requests = [point for point in points if point["at"] == "request"]
        self.environment = kills.environment(self._requests)
        self._killed: Doc | None = None

    @property
    def faults(self) -> list[Doc]:
        """The agent's own fault, if one of the points is a call of a hook tool."""
        point = self._tool
        if point is None:
            return []
        where = {key: point[key] for key in ("call", "when")}
        return [{"type": "kill-hook", "id": "", "hook": "", **where}]

    def played(self) -> None:
        """The agent has killed the hook at a tool's call."""
        self._killed = self._tool

    def over(self) -> Doc:
        """What the trace says of it."""
        requests = self._kills.requests()
        if requests and requests[-1].startswith("killed"):
            self._killed = self._requests[int(requests.pop().split()[1])]
        self._kills.ended(self._killed)
        return {"requests": requests, "killed": self._killed}
