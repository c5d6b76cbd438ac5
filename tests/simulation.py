"""A pure simulation of N units under Juju: the plan is real, the daemons are sets of names.

It keeps the rules that formation depends on (see docs/explanation/design.md): a hook's writes
are committed when it ends well and lost when it dies; a unit sees a peer's bag as it was in
its last joined or changed hook for that peer; the application's bag is read fresh; hooks of
different units interleave step by step, while what they do to the daemons is seen at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import formation
import peers
from record import replace
from settings import LocalStorage, Settings
from view import Member, Presence, ServiceView, View

APP = "cloud"


def settings(services: tuple[str, ...]) -> Settings:
    return Settings(
        channels={name: "stable" for name in services},
        local=LocalStorage(),
        instance_network="none",
        join_timeout=300,
    )


class Crash(Exception):
    """The hook dies here."""


@dataclass
class Faults:
    """What goes wrong, as probabilities for each step or hook."""

    crash: float = 0.0
    join_fails: float = 0.0
    half_joins: float = 0.0  # of those that fail: the cluster keeps a member that is none
    leader_changes: float = 0.0
    lost_units: float = 0.0


@dataclass
class Cluster:
    """The truth about one service: who is a member, and which tokens would let in whom."""

    members: set[str] = field(default_factory=set)
    half: set[str] = field(default_factory=set)
    tokens: dict[str, int] = field(default_factory=dict)
    bootstraps: int = 0
    most_tokens: int = 0


@dataclass
class Unit:
    """One unit: what it has committed, what it has seen, what is on its machine."""

    name: str
    bag: dict[str, str] = field(default_factory=dict)
    version: int = 0
    seen: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    seen_app: int = 0
    first: list[str] = field(
        default_factory=lambda: ["install", "cluster_relation_created", "config_changed", "start"]
    )
    queued: list[str] = field(default_factory=list)
    installed: bool = False
    has_key: bool = False
    joining: dict[str, int] = field(default_factory=dict)
    hooks: int = 0
    steps: int = 0
    running: Iterator[None] | None = None
    read: set[str] = field(default_factory=set)  # whose bags the present hook has read
    loaded: dict[str, tuple[Mapping[str, str], peers.UnitBag]] = field(default_factory=dict)
    lost: bool = False
    tick: bool = False
    lease: bool = False  # leader since the hook began, and no long step since

    @property
    def host(self) -> str:
        return "host-" + self.name.rpartition("/")[2]


class _Bags(peers.Bags):
    """What a unit sees of the others, read once as long as it is the same."""

    def __init__(self, unit: Unit, bags: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(tuple(bags), bags.__getitem__)
        self._unit, self._all = unit, bags

    def __getitem__(self, name: str) -> peers.UnitBag:
        if name == self._unit.name or name not in self._all:
            return super().__getitem__(name)
        self._unit.read.add(name)
        bag = self._all[name]
        known = self._unit.loaded.get(name)
        if known is None or known[0] is not bag:
            known = self._unit.loaded[name] = bag, peers.UnitBag.load(bag)
        return known[1]


class Simulation:
    """All units, the databags, and the clusters."""

    def __init__(
        self,
        count: int,
        services: tuple[str, ...] = ("lxd",),
        seed: int = 0,
        faults: Faults | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.settings = settings(services)
        self.clusters = {name: Cluster() for name in services}
        # Clusters that were there before Juju and are not the cloud's.
        self.rivals: dict[str, Cluster] = {}
        self.units = {f"{APP}/{n}": Unit(f"{APP}/{n}") for n in range(count)}
        self.app_bag: dict[str, str] = {}
        self.app_version = 0
        self.leader = f"{APP}/0"
        self.units[self.leader].queued.append("leader_elected")
        self.clock = 0
        self.tokens_issued = 0
        self.bags_read: list[int] = []  # by each hook, as each is a call to Juju
        self._changed = True
        self._perhaps: list[Unit] = []
        self.joins_now: set[str] = set()
        self.most_joins = 0

    # Juju

    def add_unit(self) -> str:
        number = 1 + max(int(name.rpartition("/")[2]) for name in self.units)
        name = f"{APP}/{number}"
        self.units[name] = Unit(name)
        return name

    def elect(self, name: str) -> None:
        if name != self.leader:
            self.leader = name
            self._changed = True
            self.units[name].queued.append("leader_elected")

    def next_event(self, unit: Unit) -> tuple[str, str] | None:
        """The event Juju would run now, with the unit it is about; None when idle."""
        if unit.first and unit.first[0] != "config_changed":
            return unit.first[0], ""
        if unit.queued:
            return unit.queued[0], ""
        if unit.first:
            return unit.first[0], ""
        others = [other for other in self.units if other != unit.name]
        for other in unit.seen:
            if other not in self.units:
                return "cluster_relation_departed", other
        if unit.seen_app != self.app_version:
            return "cluster_relation_changed", ""
        for other in others:
            if other not in unit.seen:
                return "cluster_relation_joined", other
            if unit.seen[other][0] != self.units[other].version:
                return "cluster_relation_changed", other
        return ("update_status", "") if unit.tick else None

    def run(self, rounds: int, *, update_status: bool = True) -> bool:
        """Let hooks run until nothing is left to run; False if `rounds` were not enough."""
        quiet = 0
        self._changed = True
        for _ in range(rounds):
            self.clock += 1
            self._disturb()
            unit = self._pick()
            if unit is None:
                if not update_status or quiet == 2:
                    return True
                quiet += 1
                self.clock += 300
                for unit in self.units.values():
                    unit.tick = not unit.lost
                self._changed = True
                continue
            before = len(self.tokens())
            try:
                next(unit.running)
            except StopIteration:
                unit.running = None
            except Crash:
                unit.running = None
                self.joins_now.discard(unit.name)
            if unit.hooks and len(self.tokens()) != before:
                quiet = 0
        return False

    def _pick(self) -> Unit | None:
        """A unit at random of those that have something to do; its hook runs then.

        Who was found idle stays so until something is committed: looking at everybody in each
        round would take longer than the hooks.
        """
        if self._changed:
            self._perhaps = [unit for unit in self.units.values() if not unit.lost]
            self._changed = False
        while self._perhaps:
            place = self.random.randrange(len(self._perhaps))
            unit = self._perhaps[place]
            if unit.running is None:
                event = self.next_event(unit)
                if event is None:
                    self._perhaps[place] = self._perhaps[-1]
                    self._perhaps.pop()
                    continue
                unit.running = self._hook(unit, *event)
            return unit
        return None

    def _disturb(self) -> None:
        leader = self.units.get(self.leader)
        if leader and leader.running and leader.lease:
            return
        if self.random.random() < self.faults.leader_changes:
            self.elect(self.random.choice([u.name for u in self.units.values() if not u.lost]))

    def _hook(self, unit: Unit, event: str, about: str) -> Iterator[None]:
        unit.hooks += 1
        unit.read.clear()
        unit.lease = self.leader == unit.name
        self._receive(unit, event, about)
        app_seen = self.app_version
        committed = peers.Formation.load(self.app_bag.get("formation", ""))
        draft = _Draft(dict(unit.bag), dict(self.app_bag))
        for _ in range(200):
            view = self._look(unit, event, about, committed, draft)
            step = formation.plan(view)
            if isinstance(step, formation.Rest):
                break
            unit.steps += 1
            if isinstance(step, formation.InstallSnaps | formation.Join | formation.Bootstrap):
                unit.lease = False
            yield
            self._maybe_crash()
            yield from self._act(unit, view, step, draft)
            self._maybe_crash()
        else:
            raise AssertionError(f"{unit.name} does not come to rest")
        if draft.wrote_app and self.leader != unit.name:
            raise Crash  # Juju refuses the commit
        self.bags_read.append(len(unit.read))
        self._commit(unit, draft)
        self._handled(unit, event, about, app_seen)

    def _receive(self, unit: Unit, event: str, about: str) -> None:
        if about and event != "cluster_relation_departed":
            other = self.units.get(about)
            if other:
                unit.seen[about] = (unit.seen.get(about, (-1, {}))[0], dict(other.bag))

    def _handled(self, unit: Unit, event: str, about: str, app_seen: int) -> None:
        if unit.first and unit.first[0] == event:
            unit.first.pop(0)
        elif event == "update_status":
            unit.tick = False
        elif event in unit.queued:
            unit.queued.remove(event)
        elif event == "cluster_relation_departed":
            unit.seen.pop(about, None)
        elif about:
            bag = unit.seen[about][1]
            other = self.units.get(about)
            version = other.version if other and other.bag == bag else -1
            unit.seen[about] = (version, bag)
        else:
            unit.seen_app = app_seen

    def _commit(self, unit: Unit, draft: _Draft) -> None:
        if draft.wrote_app and draft.app != self.app_bag:
            self.app_bag = draft.app
            self.app_version += 1
            self._changed = True
        if draft.own != unit.bag:
            unit.bag = draft.own
            unit.version += 1
            self._changed = True

    def _maybe_crash(self) -> None:
        if self.random.random() < self.faults.crash:
            raise Crash

    # The world of one unit

    def _look(
        self,
        unit: Unit,
        event: str,
        about: str,
        committed: peers.Formation,
        draft: _Draft,
    ) -> View:
        bags: dict[str, Mapping[str, str]] = {unit.name: draft.own}
        bags |= {name: bag for name, (_, bag) in unit.seen.items() if name in self.units}
        me = peers.UnitBag.load(draft.own)
        return View(
            me=unit.name,
            name=unit.host,
            leader=self.leader == unit.name,
            settings=self.settings,
            problems=(),
            formation=committed,
            draft=peers.Formation.load(draft.app.get("formation", "")),
            units=_Bags(unit, bags),
            services={name: self._service(unit, name) for name in self.clusters},
            has_key=unit.has_key,
            identity_is_current=me.identity is not None,
            idle=event == "update_status",
            lease=unit.lease,
            departed=about if event == "cluster_relation_departed" else "",
            retry=event in ("update_status", "config_changed"),
            now=self.clock,
        )

    def _service(self, unit: Unit, name: str) -> ServiceView:
        if not unit.installed:
            return ServiceView(Presence.ABSENT)
        rival = self.rivals.get(name, Cluster())
        cluster = rival if unit.host in rival.members else self.clusters[name]
        if unit.host in cluster.members:
            found = {**dict.fromkeys(cluster.members, True), **dict.fromkeys(cluster.half, False)}
            members = tuple(Member(host, host, online) for host, online in sorted(found.items()))
            which = "theirs" if cluster is rival else "ours"
            tokens = tuple(cluster.tokens)
            return ServiceView(Presence.MEMBER, members, tokens=tokens, cluster=which)
        return ServiceView(Presence.ALONE, joining=unit.joining.get(name, 0))

    def _act(  # noqa: C901 - one branch a step
        self, unit: Unit, view: View, step: formation.Step, draft: _Draft
    ) -> Iterator[None]:
        if isinstance(step, formation.InstallSnaps):
            unit.installed = True
        elif isinstance(step, formation.MakeKey):
            unit.has_key = True
        elif isinstance(step, formation.Introduce):
            draft.own["identity"] = peers.dump(
                peers.Identity(unit.host, unit.host, f"key of {unit.name}")
            )
        elif isinstance(step, formation.Intend):
            draft.app["formation"] = peers.dump(step.formation)
            draft.wrote_app = True
        elif isinstance(step, formation.Bootstrap):
            cluster = self.clusters[step.service]
            cluster.bootstraps += 1
            if cluster.members:
                cluster = self.rivals.setdefault(step.service, Cluster())
            cluster.members.add(unit.host)
        elif isinstance(step, formation.Join):
            yield from self._join(unit, view, step, draft)
        elif isinstance(step, formation.Reset):
            revision = unit.joining.pop(step.service)
            told = formation.failed(view, step.service, revision, "interrupted")
            draft.own["report"] = peers.dump(told.report)
        elif isinstance(step, formation.Tell):
            draft.own["report"] = peers.dump(step.report)
        elif isinstance(step, formation.Issue):
            self._issue(view, step, draft)
        elif isinstance(step, formation.Regrant):
            self._grant(draft, {**view.mine.grants, step.unit: step.grant})
        elif isinstance(step, formation.Withdraw):
            grants = dict(view.mine.grants)
            gone = grants.pop(step.unit)
            for cluster in self.clusters.values():
                cluster.tokens.pop(gone.name, None)
            self._grant(draft, grants)
        elif isinstance(step, formation.Void):
            self.clusters[step.service].tokens.pop(step.name, None)
        elif isinstance(step, formation.Forget):
            cluster = self.clusters[step.service]
            # The step looks again: it may have become a member since the plan looked.
            if step.name in cluster.half or self.host_is_gone(step.name):
                cluster.members.discard(step.name)
                cluster.half.discard(step.name)
        else:
            raise AssertionError(step)

    def _issue(self, view: View, step: formation.Issue, draft: _Draft) -> None:
        identity = view.units[step.unit].identity
        assert identity is not None
        tokens: dict[str, str] = {}
        for service in step.services:
            self.tokens_issued += 1
            cluster = self.clusters[service]
            cluster.tokens[identity.name] = self.tokens_issued
            cluster.most_tokens = max(cluster.most_tokens, len(cluster.tokens))
            tokens[service] = f"sealed {self.tokens_issued} to {identity.public_key}"
        grant = replace(step.grant, tokens=tokens)
        self._grant(draft, {**view.mine.grants, step.unit: grant})

    def _join(self, unit: Unit, view: View, step: formation.Join, draft: _Draft) -> Iterator[None]:
        cluster = self.clusters[step.service]
        unit.joining[step.service] = step.grant.revision
        number = int(step.grant.tokens[step.service].split()[1])
        if cluster.tokens.get(unit.host) == number:  # a void token is refused at the door
            self.joins_now.add(unit.name)
        self.most_joins = max(self.most_joins, len(self.joins_now))
        for _ in range(3):
            yield
            self._maybe_crash()
        self.joins_now.discard(unit.name)
        fits = cluster.tokens.get(unit.host) == number and unit.host not in cluster.half
        if not fits or self.random.random() < self.faults.join_fails:
            del unit.joining[step.service]
            if fits and self.random.random() < self.faults.half_joins:
                del cluster.tokens[unit.host]
                cluster.half.add(unit.host)
            told = formation.failed(view, step.service, step.grant.revision, "refused")
            draft.own["report"] = peers.dump(told.report)
            return
        del cluster.tokens[unit.host]
        cluster.members.add(unit.host)
        self._maybe_crash()
        del unit.joining[step.service]

    @staticmethod
    def _grant(draft: _Draft, grants: Mapping[str, peers.Grant]) -> None:
        draft.own["grants"] = peers.dump_grants(grants)

    def turn_on(self, service: str) -> None:
        """Configure one more service, to be joined before the others."""
        self.clusters = {service: Cluster(), **self.clusters}
        self.settings = settings(tuple(self.clusters))
        for unit in self.units.values():
            unit.queued.append("config_changed")

    def cluster_before(self, service: str, *numbers: int, rival: bool = False) -> None:
        """Make these units' daemons a cluster by hand, before Juju comes."""
        found = self.rivals.setdefault(service, Cluster()) if rival else self.clusters[service]
        for number in numbers:
            unit = self.units[f"{APP}/{number}"]
            unit.installed = True
            found.members.add(unit.host)

    def message(self, name: str) -> str:
        """What the unit would say now."""
        unit = self.units[name]
        app = peers.Formation.load(self.app_bag.get("formation", ""))
        view = self._look(unit, "", "", app, _Draft(dict(unit.bag), dict(self.app_bag)))
        rest = formation.look_only(view)
        return f"{rest.status}: {rest.message}"

    def host_is_gone(self, host: str) -> bool:
        return host not in {unit.host for unit in self.units.values()}

    def tokens(self) -> list[int]:
        return [n for cluster in self.clusters.values() for n in cluster.tokens.values()]

    def is_formed(self) -> bool:
        """Whether every unit that is not lost is a member of every service."""
        hosts = {unit.host for unit in self.units.values() if not unit.lost}
        return all(hosts <= cluster.members for cluster in self.clusters.values())


@dataclass
class _Draft:
    own: dict[str, str]
    app: dict[str, str]
    wrote_app: bool = False
