"""Which hook is killed at which of its calls: points for many formations, from one undisturbed.

A formation carries many points: each hook of each unit may be killed, and is then run again. A
point names a unit and a call, counted in one hook, of a hook tool ("tool") or of a daemon or a
command ("request"), and whether the hook dies before the call or when it has taken effect.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Point = dict[str, Any]
# Another leader, an agent that dies, a machine that loses power for a moment or is cut off, a unit
# that waits before every hook.
TROUBLES = ("leader", "agent", "power", "link", "slow")
LIGHT = 16  # calls of one kind; hooks that make more are those that form the cloud
WHEN = ("before", "after")


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

    def __init__(self, undisturbed: Iterable[Counts], seed: int) -> None:
        self._seed = seed
        self._light: dict[tuple[str, int], list[Point]] = {}
        self._heavy: dict[str, list[Point]] = {}
        nth: dict[str, int] = {}
        for hook in undisturbed:
            nth[hook.unit] = nth.get(hook.unit, 0) + 1
            self._add(hook, nth[hook.unit])
        for name, points in [*self._light.items(), *self._heavy.items()]:
            random.Random(f"{seed} {name}").shuffle(points)

    def _add(self, hook: Counts, nth: int) -> None:
        light = self._light.setdefault((hook.unit, nth), [])
        heavy = self._heavy.setdefault(hook.unit, [])
        for at, number in (("tool", hook.tool), ("request", hook.request)):
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
        """Formations until every point has been planned once."""
        light = max((len(points) for points in self._light.values()), default=0)
        heavy = max(((len(points) + 1) // 2 for points in self._heavy.values()), default=0)
        return max(light, heavy)

    @property
    def total(self) -> int:
        """All points there are."""
        return sum(len(points) for points in [*self._light.values(), *self._heavy.values()])
