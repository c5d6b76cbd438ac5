"""Which hook is killed at which of its calls: points for many formations, from one undisturbed.

A formation carries many points: each hook of each unit may be killed, and is then run again. A
point names a unit and a call, counted in one hook, of a hook tool ("tool") or of a daemon or a
command ("request"), and whether the hook dies before the call or when it has taken effect. Most
calls only ask. Those of daemons and commands that change something are points of their own too,
named by what they say, so that they are met however much is asked before them.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Point = dict[str, Any]
# Another leader, an agent that dies, a machine that loses power for a moment or is cut off, a unit
# that waits before every hook.
TROUBLES = ("leader", "agent", "power", "link", "slow")
LIGHT = 16  # calls of one kind; hooks that make more are those that form the cloud
TRIES = 3  # of a point that no hook reaches, as a hook that goes on has less to do
WHEN = ("before", "after")
AT = ("tool", "request")


EACH = 6  # points of a unit in a formation, of those that are calls that change something
# Daemons are changed by every request but GET; these commands only tell.
TELLS = re.compile(
    r"request \S+ GET |command \S*/(ip|lsblk|udevadm|findmnt) |.*/snap connections$"
)
Key = tuple[str, str, int, str, int, str]


def key(unit: str, point: Mapping[str, Any]) -> Key:
    """What tells a point from all others."""
    rest = (point.get("nth", 0), point.get("what", ""))
    return unit, point["at"], point["call"], point["when"], *rest


@dataclass(frozen=True)
class Change:
    """A call that changes something, and how often a hook of an undisturbed formation makes it."""

    unit: str
    what: str
    often: int


def changes(rows: Iterable[Mapping[str, Any]]) -> list[Change]:
    """From the lab's record of hooks."""
    often: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["kind"] == "hook":
            told = Counter((row["unit"], what) for what in row.get("requests", ()))
            often |= told
    return [Change(*call, n) for call, n in sorted(often.items()) if not TELLS.match(call[1])]


@dataclass(frozen=True)
class Counts:
    """The calls of one hook of an undisturbed formation."""

    unit: str
    tool: int
    request: int


@dataclass(frozen=True)
class Trouble:
    """What happens to a unit besides, when so many hooks of the formation have ended."""

    kind: str
    unit: str
    hooks: int


def counts(rows: Iterable[Mapping[str, Any]]) -> list[Counts]:
    """From the lab's record of hooks, in the order in which they began."""
    hooks = sorted((row for row in rows if row["kind"] == "hook"), key=lambda row: row["start"])
    return [Counts(row["unit"], row["calls"], len(row.get("requests", ()))) for row in hooks]


class Plans:
    """The points of each formation, the same for the same seed."""

    def __init__(
        self, undisturbed: Iterable[Counts], seed: int, changes: Iterable[Change] = ()
    ) -> None:
        self._seed = seed
        self._light: dict[tuple[str, int], list[Point]] = {}
        self._heavy: dict[str, list[Point]] = {}
        self._changes: dict[str, list[Point]] = {}
        self._tried: Counter[Key] = Counter()
        nth: dict[str, int] = {}
        for hook in undisturbed:
            nth[hook.unit] = nth.get(hook.unit, 0) + 1
            self._add(hook, nth[hook.unit])
        for change in changes:
            self._changes.setdefault(change.unit, []).extend(
                {"at": "request", "call": call, "when": when, "what": change.what}
                for call in range(1, change.often + 1)
                for when in WHEN
            )
        for name, points in [
            *self._light.items(),
            *self._heavy.items(),
            *((f"{unit} changes", points) for unit, points in self._changes.items()),
        ]:
            random.Random(f"{seed} {name}").shuffle(points)

    def _add(self, hook: Counts, nth: int) -> None:
        light = self._light.setdefault((hook.unit, nth), [])
        heavy = self._heavy.setdefault(hook.unit, [])
        for at, number in zip(AT, (hook.tool, hook.request), strict=True):
            for call in range(1, number + 1):
                for when in WHEN:
                    point: Point = {"at": at, "call": call, "when": when}
                    if call <= LIGHT:
                        light.append({**point, "nth": nth})
                    elif point not in heavy:
                        heavy.append(point)

    def many(self, number: int, heavy: int = 2) -> dict[str, list[Point]]:
        """Formation `number`, from 0: one point for each hook, `heavy` more for each unit."""
        found: dict[str, list[Point]] = {}
        for (unit, _), points in self._light.items():
            if points:
                found.setdefault(unit, []).append(points[number % len(points)])
        for unit, points in self._heavy.items():
            start = number * heavy
            chosen = (points[(start + i) % len(points)] for i in range(min(heavy, len(points))))
            found.setdefault(unit, []).extend(chosen)
        return found

    def left(self, reached: Collection[Key]) -> dict[str, list[Point]]:
        """As many of the points that are left as a formation is likely to reach; {} for none.

        A hook that is killed half-way has half of its calls still to make when it goes on.
        """
        found: dict[str, list[Point]] = defaultdict(list)
        for unit, points in self._changes.items():
            found[unit] += self._todo(unit, points, reached)[:EACH]
        for (unit, _), points in self._light.items():
            found[unit] += self._todo(unit, points, reached)[:1]
        for unit, points in self._heavy.items():
            most = {at: max((p["call"] for p in points if p["at"] == at), default=1) for at in AT}
            room = 1.0
            for point in self._todo(unit, points, reached):
                part = point["call"] / most[point["at"]]
                if part <= room:
                    room -= part
                    found[unit].append(point)
        for unit, points in found.items():
            self._tried.update(key(unit, point) for point in points)
        return {unit: points for unit, points in found.items() if points}

    def _todo(self, unit: str, points: list[Point], reached: Collection[Key]) -> list[Point]:
        todo = [point for point in points if key(unit, point) not in reached]
        todo = [point for point in todo if self._tried[key(unit, point)] < TRIES]
        return sorted(todo, key=lambda point: self._tried[key(unit, point)])

    def single(self, number: int) -> dict[str, list[Point]]:
        """Formation `number`, from 0, that is disturbed once, in a hook that forms the cloud."""
        points = list(self._all_heavy())
        unit, point = points[number % len(points)]
        return {unit: [point]}

    def trouble(self, number: int) -> Trouble:
        """What happens to formation `number` besides; its machines are on by then."""
        choice = random.Random(f"{self._seed} trouble {number}")
        units = sorted(self._heavy)
        hooks = choice.randrange(len(units), len(self._light))
        return Trouble(TROUBLES[number % len(TROUBLES)], choice.choice(units), hooks)

    def _all_heavy(self) -> Iterator[tuple[str, Point]]:
        longest = max((len(points) for points in self._heavy.values()), default=0)
        for place in range(longest):
            for unit, points in self._heavy.items():
                if place < len(points):
                    yield unit, points[place]

    @property
    def rounds(self) -> int:
        """Formations until every point of a hook that makes few calls has been planned once."""
        return max((len(points) for points in self._light.values()), default=0)

    def reached(self, kills: Iterable[Mapping[str, Any]]) -> set[Key]:
        """Those of the points at which hooks were killed."""
        known = {key(unit, point) for unit, points in self._all() for point in points}
        return {key(kill["unit"], kill) for kill in kills} & known

    def _all(self) -> Iterator[tuple[str, list[Point]]]:
        yield from ((unit, points) for (unit, _), points in self._light.items())
        yield from self._heavy.items()
        yield from self._changes.items()

    @property
    def total(self) -> int:
        """All points there are."""
        return sum(len(points) for _, points in self._all())
