"""Which points of the fault matrix a formation carries: all of them in the end, none for ever."""

from __future__ import annotations

import pytest

from integration.faults_plan import EACH, TRIES, Change, Counts, Plans, changes, key

HOOKS = [
    Counts("microcloud/0", 20, 40),
    Counts("microcloud/1", 3, 5),
    Counts("microcloud/0", 2, 1),
]
CHANGES = [Change("microcloud/0", f"request a.socket PUT /{n} HTTP/1.1", 2) for n in range(5)]


@pytest.mark.parametrize("plans", [Plans(HOOKS, 1), Plans((), 1, CHANGES)])
def test_every_point_is_reached_in_the_end(plans: Plans):
    reached = set()
    formations = 0
    while plan := plans.left(reached):
        formations += 1
        fresh = {key(unit, point) for unit, points in plan.items() for point in points}
        assert not fresh & reached
        reached |= fresh
    assert len(reached) == plans.total
    assert formations < plans.total / 2


def test_a_point_that_nothing_reaches_is_given_up():
    plans = Plans((), 1, CHANGES)
    tries = 0
    while plans.left(()):
        tries += 1
    assert tries == -(-plans.total * TRIES // EACH)


def test_only_what_changes_something_is_a_change():
    def row(*requests: str) -> dict[str, object]:
        return {"kind": "hook", "unit": "microcloud/0", "requests": requests}

    put, tell = "request a.socket PUT /1.0 HTTP/1.1", "request a.socket GET /1.0 HTTP/1.1"
    commands = ("command /usr/sbin/ip -json", "command /usr/bin/snap connections")
    install = "command /usr/bin/snap install"
    rows = [row(put, tell, put), row(put, *commands, install)]
    assert changes(rows) == [
        Change("microcloud/0", install, 1),
        Change("microcloud/0", put, 2),
    ]


@pytest.mark.parametrize("plans", [Plans(HOOKS, 1), Plans((), 1, CHANGES)])
def test_a_kill_tells_its_point(plans: Plans):
    for unit, points in plans.left(()).items():
        kills = [{**point, "unit": unit, "hook": "start", "made": "a call"} for point in points]
        assert plans.reached(kills) == {key(unit, point) for point in points}
