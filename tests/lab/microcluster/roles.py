"""Who votes: the rules by which the leader hands out dqlite's roles. Pure.

As with dqlite: fewer than three members keep the voters they have, so a second member is a spare
and its loss is harmless, while the loss of the only voter is the loss of the database. From three
members on three vote, two more stand by, the rest are spares. A voter that does not answer is
replaced by a member that does.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

VOTER, STANDBY, SPARE, PENDING = "voter", "stand-by", "spare", "PENDING"
VOTERS, STANDBYS, SMALLEST = 3, 2, 3


@dataclass(frozen=True)
class Seat:
    """One member, as far as roles matter: in the order in which the members joined."""

    name: str
    votes: bool
    online: bool


@dataclass(frozen=True)
class Plan:
    """What the leader is to do: first promote, then demote; and the roles that result."""

    promote: tuple[str, ...]
    demote: tuple[str, ...]
    roles: dict[str, str]


def plan(seats: Sequence[Seat]) -> Plan:
    """Choose the voters and everybody's role."""
    voters = {seat.name for seat in seats if seat.votes}
    alive = {seat.name for seat in seats if seat.votes and seat.online}
    waiting = [seat.name for seat in seats if seat.online and not seat.votes]
    promote: list[str] = []
    demote: list[str] = []
    if len(seats) >= SMALLEST:
        promote = waiting[: max(0, VOTERS - len(alive))]
        # A dead voter makes room only for one that lives: fewer voters would not be safer.
        dead = [seat.name for seat in seats if seat.votes and not seat.online]
        demote = dead[: max(0, len(voters) + len(promote) - VOTERS)]
    voters = (voters | set(promote)) - set(demote)
    return Plan(tuple(promote), tuple(demote), _roles(seats, voters))


def _roles(seats: Sequence[Seat], voters: Set[str]) -> dict[str, str]:
    roles = {seat.name: VOTER for seat in seats if seat.name in voters}
    others = sorted((s for s in seats if s.name not in voters), key=lambda s: not s.online)
    room = STANDBYS if len(seats) >= SMALLEST else 0
    roles |= {seat.name: STANDBY if i < room else SPARE for i, seat in enumerate(others)}
    return roles
