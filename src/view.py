"""The world as one hook sees it, frozen: what `formation.plan` decides from.

`World.look` (world.py) takes it from Juju and from the daemons; tests and the simulation make
their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from peers import Formation, UnitBag
from record import EMPTY, Record
from settings import Settings


class Presence(str, Enum):
    """How a service of this machine stands to the cluster, as its daemon tells."""

    ABSENT = "absent"  # its snap is not installed
    ALONE = "alone"  # it runs and is in no cluster
    BROKEN = "broken"  # it does not answer, or hangs in a join
    MEMBER = "member"


class Member(Record):
    """A member of a cluster, as the daemon lists it.

    LXD tells more: `unit`, which Juju unit it is; `leaving`, that it is about to leave;
    `evacuated`, that it is in maintenance; `domain`, its failure domain.
    """

    name: str
    address: str
    online: bool = True
    roles: tuple[str, ...] = ()
    message: str = ""
    unit: str = ""
    leaving: str = ""
    evacuated: bool = False
    domain: str = ""

    @property
    def is_available(self) -> bool:
        """Whether it may take over what another member gives up."""
        return self.online and not self.leaving and not self.evacuated


class ServiceView(Record):
    """One service on this machine.

    `joining`: the revision of the grant of a join that was begun here and neither finished nor
    cleaned up yet, 0 if there is none. `detail` says
    why it is BROKEN. `used` says what stops an ALONE daemon from joining: things in it that
    are not this charm's. `tokens`: the member names for which there are join tokens; only the
    issuer looks. `cluster` tells the cluster of a MEMBER from any other, "" if that is not known.
    """

    presence: Presence
    members: tuple[Member, ...] = ()
    joining: int = 0
    detail: str = ""
    used: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    cluster: str = ""

    @property
    def names(self) -> frozenset[str]:
        """The names of the cluster's members."""
        return frozenset(member.name for member in self.members)


class View(Record):
    """Everything one look brings back.

    `formation` is what a hook that ended has committed and may be acted upon; `draft` holds
    this hook's own changes to it as well. `problems` are this unit's findings: bad
    configuration or a machine that is not fit. `faults` are what failed in this hook and is
    tried again in a later one. `due` names the tasks inside LXD that are due
    and may be done by this unit now (see cloud/). `idle`: Juju has nothing unread for this unit
    (update-status). `retry` says that this hook may try again what failed repeatedly: it is a
    periodic or a person's one. `now` is in seconds since the epoch. `uplink` is what this unit
    has to say of its interface for the network `UPLINK`. `dying` are units that Juju is removing
    and has not removed yet, as far as their members are offline; the issuer looks.
    `supply` names the tasks that give disks to Ceph, `matches` is peers.Report's, and
    `planned` is how many units Juju means there to be, 0 while that does not matter.
    """

    me: str
    name: str
    leader: bool
    settings: Settings | None
    problems: tuple[str, ...]
    formation: Formation
    draft: Formation
    units: Mapping[str, UnitBag]
    services: Mapping[str, ServiceView]
    has_key: bool = True
    identity_is_current: bool = True
    parts: tuple[str, ...] = ()
    due: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    idle: bool = False
    departed: str = ""
    lease: bool = False
    retry: bool = False
    now: int = 0
    leaving: bool = False
    advice: tuple[str, ...] = ()
    uplink: str = ""
    supply: tuple[str, ...] = ()
    matches: Mapping[str, tuple[int, ...]] = EMPTY
    planned: int = 0
    dying: tuple[str, ...] = ()

    @property
    def mine(self) -> UnitBag:
        """What this unit has published."""
        return self.units[self.me]

    def is_gone(self, unit: str) -> bool:
        """Whether the unit is known to have left, and not just unseen yet."""
        return unit not in self.units and (self.idle or unit == self.departed)

    @property
    def joined(self) -> tuple[str, ...]:
        """The services this unit is a member of."""
        return tuple(
            name for name, service in self.services.items() if service.presence is Presence.MEMBER
        )

    @property
    def is_whole(self) -> bool:
        """Whether this unit is a member of every service."""
        return bool(self.services) and len(self.joined) == len(self.services)
