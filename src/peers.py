"""What the units tell each other over the peer relation, typed.

A bag carries requests and reports only; what a daemon can tell is asked from the daemon. Each
class is one JSON document under one key, so a reader sees a whole document or none.

| bag  | key        | document    | writer                         |
|------|------------|-------------|--------------------------------|
| app  | `formation`| Formation   | the leader                     |
| unit | `identity` | Identity    | each unit, of itself           |
| unit | `report`   | Report      | each unit, of itself           |
| unit | `grants`   | Grant each  | the issuer, one for each joiner|
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from record import EMPTY, Record, plain


class Formation(Record):
    """The leader's intentions: who starts the cloud, and who hands out tokens.

    Each change of it is an event on every unit, so it holds no more. Units join in the order
    of their numbers; which unit a member is, LXD keeps.
    """

    initiator: str = ""
    issuer: str = ""

    @classmethod
    def load(cls, text: str) -> Formation:
        """Read the document; an empty text is the empty Formation."""
        data = json.loads(text or "{}")
        return cls(data.get("initiator", ""), data.get("issuer", ""))


class Identity(Record):
    """Who a unit is: its member name (the host name), cluster address and public key.

    `underlay` is where its OVN tunnels end, "" if at the cluster address; `mtu` (bytes) is that
    interface's, 0 if not known. `zone` is the availability zone with which its MicroCeph starts
    or joins and, in a member, has done so; "" without zones.
    """

    name: str
    address: str
    public_key: str
    underlay: str = ""
    mtu: int = 0
    zone: str = ""


class Failure(Record):
    """A join that did not come about: which grant, which service, and the last error line."""

    revision: int
    service: str
    error: str


class Report(Record):
    """How far a unit is.

    `joined`: the services it is a member of; `parts`: the cluster-wide pools and networks of
    which it has set up its own part; `problems`: what a person has to put right on it first;
    `uplink`: its interface that is fit to be `UPLINK`'s, if the network waits for it; `matches`:
    how many of its disks each filter of `ceph-storage` finds, by a number for that
    configuration; `clusters`: which cluster of a service it is in, by the service.
    """

    joined: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    failure: Failure | None = None
    uplink: str = ""
    matches: Mapping[str, tuple[int, ...]] = EMPTY
    clusters: Mapping[str, str] = EMPTY

    @classmethod
    def load(cls, text: str) -> Report:
        """Read the document; an empty text is the empty Report."""
        data = json.loads(text or "{}")
        failure = data.get("failure")
        return cls(
            tuple(data.get("joined", ())),
            tuple(data.get("parts", ())),
            tuple(data.get("problems", ())),
            Failure(**failure) if failure else None,
            data.get("uplink", ""),
            {key: tuple(counts) for key, counts in data.get("matches", {}).items()},
            data.get("clusters", {}),
        )


class Grant(Record):
    """Leave for one unit, whose machine is `name`, to join: sealed tokens, and when its turn is.

    `revision` tells a fresh grant from one that failed, `attempt` counts from 1. The joiner
    waits for `after`, the unit before it, to report that it has joined ("" for no one).
    `issued` is in seconds since the epoch, by the issuer's clock. `member_config` lists what
    LXD wants to be told of the joiner: `[{"entity", "name", "key"}]`.
    """

    name: str
    revision: int
    attempt: int
    issued: int
    after: str = ""
    tokens: Mapping[str, str] = EMPTY
    member_config: tuple[Mapping[str, str], ...] = ()


class UnitBag(Record):
    """All that one unit has published."""

    identity: Identity | None = None
    report: Report = Report()
    grants: Mapping[str, Grant] = EMPTY

    @classmethod
    def load(cls, bag: Mapping[str, str]) -> UnitBag:
        """Read a unit's databag."""
        identity = bag.get("identity")
        grants: dict[str, dict[str, Any]] = json.loads(bag.get("grants") or "{}")
        return cls(
            Identity(**json.loads(identity)) if identity else None,
            Report.load(bag.get("report", "")),
            {unit: _grant(grant) for unit, grant in grants.items()},
        )


def _grant(data: dict[str, Any]) -> Grant:
    data["member_config"] = tuple(data.get("member_config", ()))
    return Grant(**data)


def dump(document: Formation | Identity | Report) -> str:
    """The document as it goes into a bag: equal documents give equal texts."""
    return json.dumps(plain(document), sort_keys=True)


def dump_grants(grants: Mapping[str, Grant]) -> str:
    """All grants of an issuer as they go into its bag; "" (no key) if there are none."""
    if not grants:
        return ""
    return json.dumps({unit: plain(grant) for unit, grant in grants.items()}, sort_keys=True)


class Bags(Mapping[str, UnitBag]):
    """The units' bags, each read when it is first asked for.

    Reading a bag is a call to Juju; in a large cluster most hooks need few of them.
    """

    def __init__(self, units: tuple[str, ...], read: Callable[[str], Mapping[str, str]]) -> None:
        self._units = dict.fromkeys(units)  # in their order, and found without a search
        self._read = read
        self._bags: dict[str, UnitBag] = {}

    def __getitem__(self, unit: str) -> UnitBag:
        if unit not in self._units:
            raise KeyError(unit)
        if unit not in self._bags:
            self._bags[unit] = UnitBag.load(self._read(unit))
        return self._bags[unit]

    def __iter__(self) -> Iterator[str]:
        return iter(self._units)

    def __len__(self) -> int:
        return len(self._units)


def by_number(unit: str) -> tuple[str, int]:
    """Sort key: `app/2` comes before `app/10`."""
    app, _, number = unit.rpartition("/")
    return app, int(number)
