"""The world outside the plan: looking at it, and doing the plan's steps in it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ops

import cloud
import formation
import peers
import preflight
import preflight_ceph
import preflight_ovn
import sealing
import snaps
from errors import CharmError, Findings, JoinFailed
from osds import Osds
from recall import recalling
from record import Record, replace
from services import Service
from services.lxd import LEADER, Lxd
from services.marks import Flag
from services.microceph import Microceph
from services.microovn import Microovn
from settings import Settings
from view import Presence, ServiceView, View

if TYPE_CHECKING:
    from cloud.ceph import Ceph
    from cloud.ovn import Ovn

logger = logging.getLogger(__name__)

STATE = Path("/var/lib/microcloud-charm")
# Steps of one hook. A new member takes fewer than 20, a token for another one step; a plan
# that does not come to rest is a defect, which must not run for ever.
STEP_LIMIT = 200
# Seconds. Another leader would hold its lease for 60 s, so who is found to be leader twice
# within less has been all the time.
LEASE = 50.0
BOOT_TIMEOUT = 60.0  # seconds; for the daemons to answer after the machine was started
# Steps that change nothing but what this unit keeps and publishes.
QUIET = (
    formation.MakeKey,
    formation.Introduce,
    formation.Intend,
    formation.Tell,
    formation.Regrant,
)
# When Ceph is asked what takes a while.
DEEP_EVENTS = ("config_changed", "start", "update_status", "upgrade_charm")


class Ticket(Record):
    """All that a daemon needs to join; see `services.Ticket`."""

    name: str
    address: str
    token: str
    revision: int
    member_config: tuple[Mapping[str, str], ...]


def folder_of(charm: ops.CharmBase) -> Path:
    """Where the charm keeps what this machine has to remember from hook to hook."""
    return STATE / charm.unit.name.replace("/", "-")


class World:
    """Juju and the daemons of one machine, for the length of one hook."""

    def __init__(
        self, charm: ops.CharmBase, *, event: str, leaving: bool = False, departed: str = ""
    ) -> None:
        self._charm = charm
        self._event = event
        self._began = time.monotonic()
        self._leaving = leaving
        self._departed = departed
        self._relation = charm.model.get_relation("cluster")
        self._name = socket.gethostname()
        folder = folder_of(charm)
        self._key = sealing.KeyFile(folder / "key")
        self.lxd = Lxd(folder, charm.app.name, charm.model.uuid or "")
        self.microceph = Microceph(folder, self._ceph_options)
        self.microovn = Microovn(folder, self._ovn_options)
        self._ceph_unwell = Flag(folder / "ceph-unwell")
        self._ceph_moved = Flag(folder / "ceph-networks-moved")
        self._snaps_held = Flag(folder / "snaps-held")
        self.refused = Flag(folder / "refused")  # a unit that leaves can no longer tell
        self.osds = Osds(
            self.microceph, self.lxd, self._name, folder, charm.config, self._storages
        )
        self._told: peers.Report | None = None
        self._faults: dict[str, str] = {}
        self._who: peers.Identity | None = None
        self._problems: list[str] = []
        self._settings: Settings | None = None
        try:
            self._settings = preflight.settings(charm.config)
        except Findings as findings:
            self._problems.extend(findings.sentences)
        self._led_until = time.monotonic() if self._is_leader() else 0.0
        self._committed = self._formation()
        self._tasks: dict[str, cloud.Task] = {}
        self._done: set[str] = set()
        self._unsent: dict[str, str] = {}
        self._known: dict[Hashable, Any] = {}  # see `recall`
        self.services = self._services()
        self._settle_joins()
        if leaving:
            self.lxd.end_handover()
        self.view = self._look()
        self._told = self.view.mine.report

    def settle(self) -> formation.Rest:
        """Look, plan and act until nothing is left that this unit may do now."""
        for _ in range(STEP_LIMIT):
            step = formation.plan(self.view)
            if isinstance(step, formation.Rest):
                return step
            logger.debug("step: %s", type(step).__name__)
            worked = self._try(step)
            if not isinstance(step, QUIET):
                self._known.clear()
            self.view = self._look()
            if not worked:
                # The plan would choose it again; another hook may find it possible.
                return formation.look_only(self.view)
        raise RuntimeError(f"the plan does not come to rest after {STEP_LIMIT} steps")

    def _try(self, step: formation.Step) -> bool:
        try:
            self._act(step)
            return True
        except JoinFailed as fault:
            assert isinstance(step, formation.Join)
            logger.warning("joining %s failed: %s", step.service, fault)
            told = formation.failed(self.view, step.service, step.grant.revision, str(fault))
            self._act(told)
            return True
        except CharmError as fault:
            self._fail(type(step).__name__, fault)
            return False

    def _fail(self, what: str, fault: CharmError) -> None:
        logger.warning("%s: %s", what, fault)
        self._faults[what] = str(fault)

    # Looking

    def _services(self) -> Mapping[str, Service]:
        """The drivers of the services that are configured, in joining order.

        One that is left out of the configuration stays in while this machine is a member of its
        cluster, which is a problem to speak of.
        """
        known: dict[str, Service] = {
            "microceph": self.microceph,
            "microovn": self.microovn,
            "lxd": self.lxd,
        }
        found: dict[str, Service] = {}
        for name, driver in known.items():
            if name == "lxd" or (self._settings and name in self._settings.services):
                found[name] = driver
            elif driver.look().presence is Presence.MEMBER:
                found[name] = driver
                if self._settings:
                    self._problems.append(
                        f"{name}-channel is empty, and this machine is a member of a {name} "
                        "cluster; set it again, as a service cannot be turned off while it has "
                        "members"
                    )
        return found

    def _settle_joins(self) -> None:
        """Forget the joins whose success this unit has reported in a hook that ended.

        A hook that died between a join and its end leaves the mark of a join under way. Were it
        kept, a member that does not answer later would be taken for a failed joiner and cleaned.
        """
        for name in self._units()[self._charm.unit.name].report.joined:
            if name in self.services:
                self.services[name].settle()

    def _is_leader(self) -> bool:
        return self._relation is not None and self._charm.unit.is_leader()

    def _formation(self) -> peers.Formation:
        if self._relation is None:
            return peers.Formation()
        return peers.Formation.load(self._relation.data[self._charm.app].get("formation", ""))

    def _units(self) -> peers.Bags:
        relation = self._relation
        others = relation.units if relation else ()
        units = {unit.name: unit for unit in (self._charm.unit, *others)}
        return peers.Bags(
            tuple(units), lambda name: relation.data[units[name]] if relation else self._unsent
        )

    def _look(self) -> View:
        with recalling(self._known):
            return self._view()

    def _view(self) -> View:
        units = self._units()
        me = self._charm.unit.name
        leader = self._is_leader()
        lease = leader and time.monotonic() < self._led_until + LEASE
        self._led_until = time.monotonic() if lease else 0.0
        draft = self._formation()
        services = {
            name: self._answer(driver, tokens=draft.issuer == me)
            for name, driver in self.services.items()
        }
        introduced = self._introduced(units[me], services)  # may find problems
        view = View(
            me=me,
            name=self._name,
            leader=leader,
            settings=self._settings,
            problems=tuple(self._problems),
            formation=self._committed,
            draft=draft,
            units=units,
            services=services,
            has_key=self._key.exists(),
            identity_is_current=introduced,
            idle=self._event == "update_status",
            departed=self._departed,
            lease=lease,
            retry=self._event in ("update_status", "config_changed", "upgrade_charm"),
            now=int(time.time()),
            leaving=self._leaving,
            faults=tuple(self._faults.values()),
            uplink=units[me].report.uplink,
            dying=self._dying(units, services["lxd"]) if draft.issuer == me else (),
            matches=units[me].report.matches,
        )
        if not self._leaving:
            self.refused.put(bool(formation.refusal(view)))
        return self._look_into(view, services["lxd"]) if self._settings else view

    def _dying(self, units: peers.Bags, lxd: ServiceView) -> tuple[str, ...]:
        """The units of members that are offline which Juju is removing and has not removed."""
        lost = {m.unit for m in lxd.members if m.unit and not m.online} - set(units)
        if not lost:
            return ()
        import juju

        return tuple(sorted(lost & juju.units()))

    def _answer(self, driver: Service, *, tokens: bool) -> ServiceView:
        """What the daemon says; in the first hook after a boot it is given time to come up."""
        seen = driver.look(tokens=tokens)
        while self._event == "start" and seen.presence is Presence.BROKEN and not seen.joining:
            if time.monotonic() > self._began + BOOT_TIMEOUT:
                break
            time.sleep(0.5)
            self._known.clear()
            seen = driver.look(tokens=tokens)
        return seen

    def _introduced(self, bag: peers.UnitBag, services: Mapping[str, ServiceView]) -> bool:
        if self._relation is None or self._settings is None:
            return True
        # Addresses are asked for only where they may have changed, or still matter.
        ovn, ceph = services.get("microovn"), services.get("microceph")
        settled = ovn is None or ovn.presence is Presence.MEMBER
        changed = self._event in ("config_changed", "upgrade_charm")
        if bag.identity is not None and settled and not changed:
            return True
        who = self._identify(bag.identity if settled else None, tunnels=ovn is not None)
        zone = preflight_ceph.zone(self._settings, ceph, bag.identity)
        self._who = replace(who, zone=zone)
        return self._key.exists() and bag.identity == self._identity()

    def _identify(self, known: peers.Identity | None, *, tunnels: bool) -> peers.Identity:
        """Who this unit is, but for its key; a member of OVN keeps the tunnels it has."""
        address = self._bound("cluster")
        if not address:
            raise CharmError("Juju gives no address for the binding of `cluster`")
        if not tunnels or known is not None:
            kept = (known.underlay, known.mtu) if known else ("", 0)
            return peers.Identity(self._name, address, "", *kept)
        assert self._settings is not None
        try:
            ends = preflight_ovn.underlay(
                self._settings.underlay, address, self._bound("ovn-underlay")
            )
        except Findings as findings:
            found = (one for one in findings.sentences if one not in self._problems)
            self._problems.extend(found)
            return peers.Identity(self._name, address, "")
        own = ends.address if ends.address != address else ""
        return peers.Identity(self._name, address, "", own, ends.mtu)

    def _identity(self) -> peers.Identity:
        assert self._who is not None
        return replace(self._who, public_key=self._key.public())

    def _bound(self, name: str) -> str:
        """This machine's address by a binding of Juju's, "" if there is none."""
        binding = self._charm.model.get_binding(name)
        address = binding.network.bind_address if binding else None
        return str(address or "")

    def juju_addresses(self) -> tuple[str, ...]:
        """The addresses at which Juju reaches this machine, by the binding of `cluster`."""
        binding = self._charm.model.get_binding("cluster")
        if binding is None:
            return ()
        network = binding.network
        own = (interface.address for interface in network.interfaces)
        return tuple(str(address) for address in (*own, *network.ingress_addresses))

    def _ovn_options(self, _first: bool) -> Mapping[str, str]:
        """How this machine starts or joins MicroOVN."""
        identity = self.view.mine.identity
        ends = identity.underlay if identity else ""
        return {"ovn-encap-ip": ends} if ends else {}

    def _ceph_options(self, first: bool) -> Mapping[str, str]:
        """How this machine starts or joins MicroCeph; its networks a joiner is told."""
        identity = self.view.mine.identity
        zone = {"AvailabilityZone": identity.zone} if identity and identity.zone else {}
        return {**self._ceph_networks().options(), **zone} if first else zone

    def _ceph_networks(self) -> preflight_ceph.Networks:
        assert self._settings is not None
        return preflight_ceph.networks(self._settings, self._bound_subnet)

    def _check_ceph_networks(self) -> None:
        preflight_ceph.check(self._ceph_networks(), self._name)

    def _ceph_networks_are_kept(self) -> None:
        preflight_ceph.unchanged(self._ceph_networks(), self.microceph)

    def _bound_subnet(self, name: str) -> str:
        """The subnet of a binding, "" if it has the same address as the one of `cluster`.

        Raises:
            Findings: this machine has no address in the space that is bound.
        """
        binding = self._charm.model.get_binding(name)
        try:
            if binding is None or self._bound(name) in ("", self._bound("cluster")):
                return ""
            subnets = [interface.subnet for interface in binding.network.interfaces]
        except ops.ModelError as fault:
            raise Findings([f"no address for the binding of {name}: {fault}"]) from fault
        return str(subnets[0] or "") if subnets else ""

    def _asks_ceph(self, wrong: Flag) -> bool:
        """Whether to ask Ceph what takes a while: now and then, and while it was found wrong."""
        return self._event in DEEP_EVENTS or wrong.is_set()

    def _storage_networks(self, view: View) -> View:
        """Whether this machine is in Ceph's networks; a member, whether they are unchanged."""
        ceph = view.services.get("microceph")
        if ceph is not None and ceph.presence is Presence.ALONE:
            found = _findings(self._check_ceph_networks)
        elif ceph is not None and ceph.presence is Presence.MEMBER:
            if not self._asks_ceph(self._ceph_moved):
                return view
            found = _findings(self._ceph_networks_are_kept)
            self._ceph_moved.put(bool(found))
        else:
            return view
        return replace(view, problems=(*view.problems, *found))

    def _look_into(self, view: View, lxd: ServiceView) -> View:
        """What is due inside LXD for a member; whether the machine is fit for another."""
        try:
            view = self._storage_networks(self._zones(_room(view)))
            if lxd.presence is Presence.MEMBER:
                return self._look_at_cloud(view)
            if lxd.joining:
                return view
            checks: list[Callable[[], object]] = [self._uplink_parent]
            if lxd.presence is Presence.ALONE:
                checks.append(self._local_config)
            found = [finding for check in checks for finding in _findings(check)]
            return self._tunnels(replace(view, problems=(*view.problems, *found)))
        except CharmError as fault:
            return replace(view, faults=(*view.faults, str(fault)))

    def _zones(self, view: View) -> View:
        """Whether what Ceph is to be told of this machine's zone fits to what it was told."""
        found = preflight_ceph.against_zone(view, self._who or view.mine.identity)
        return replace(view, problems=(*view.problems, *found))

    def _tunnels(self, view: View) -> View:
        """Whether this unit's tunnels will fit to the others', as long as it has none."""
        ovn = view.services.get("microovn")
        if ovn is None or ovn.presence is Presence.MEMBER:
            return view
        return replace(view, problems=(*view.problems, *preflight_ovn.beside(view)))

    def _look_at_cloud(self, view: View) -> View:
        assert self._settings is not None
        facts = cloud.Facts(self.lxd, self.lxd.seen, view.services["lxd"].members)
        issuer = view.is_whole and view.draft.issuer == view.me
        view = self._tunnels(view)
        problems: tuple[str, ...] = ()
        local = None
        if preflight_ovn.needs_uplink(self._settings, facts, self._name):
            try:
                view = replace(view, uplink=self._uplink_parent(facts))
            except Findings as findings:
                problems = findings.sentences
                view = replace(view, uplink="")
        if preflight.needs_local(self._settings, facts, self._name):
            try:
                local = self._local_config()
            except Findings as findings:
                problems += findings.sentences
        ovn = self._look_at_ovn(view, facts, issuer)
        ceph = self._look_at_ceph(view, issuer)
        lost = self._lost_servers(view)
        inside = cloud.Cloud(
            self._name, view.me, issuer, self._settings, facts, local, ceph, ovn, lost
        )
        over = self._done.union(self._faults)
        due = [*self._take_over(view), *cloud.tasks(inside)]
        self._tasks = {task.name: task for task in due if task.name not in over}
        view = replace(
            view,
            problems=view.problems + problems,
            due=tuple(self._tasks),
            parts=cloud.parts(inside),
            advice=cloud.advice(inside),
        )
        return self._look_at_disks(view) if view.is_whole and "microceph" in view.joined else view

    def _lost_servers(self, view: View) -> tuple[str, ...]:
        """See `Cloud.lost_servers`."""
        leads = any(
            m.name == view.name and LEADER in m.roles for m in view.services["lxd"].members
        )
        if not leads or self._event != "update_status":
            return ()
        try:
            return self.lxd.lost_servers()
        except CharmError as fault:
            logger.info("LXD does not tell of its database: %s", fault)
            return ()

    def _take_over(self, view: View) -> Iterator[cloud.Task]:
        """What a member from before the charm lacks: nobody held its snaps or connected them."""

        def do(_: Lxd) -> None:
            snaps.hold(view.services)
            for driver in (self.microceph, self.microovn):
                if driver.name in view.services:
                    driver.prepare()
            self._snaps_held.put(True)

        if view.is_whole and not self._snaps_held.is_set():
            yield cloud.Task("snaps", do)

    def _look_at_disks(self, view: View) -> View:
        """The disks that are due to become OSDs: all that Juju has attached and config names."""
        assert view.settings is not None
        if self.osds.need_a_look(view.settings, self._event):
            view = replace(view, planned=self._planned)
        try:
            due = self.osds.due(view, self._event, self._told or view.mine.report)
        except CharmError as fault:  # what is due inside LXD goes on
            return replace(view, faults=(*view.faults, str(fault)))
        over = self._done.union(self._faults)
        tasks = {task.name: task for task in due.tasks if task.name not in over}
        self._tasks |= tasks
        return replace(
            view,
            supply=tuple(tasks),
            matches=due.matches,
            faults=view.faults + due.findings,
        )

    def _look_at_ceph(self, view: View, issuer: bool) -> Ceph | None:
        service = view.services.get("microceph")
        if service is None or service.presence is not Presence.MEMBER:
            return None
        from cloud import ceph

        # What a member that has gone ran is looked for where it may have become known.
        some_gone = issuer and self._event in ("update_status", "cluster_relation_departed")
        fit = tuple(_settled(view, service, "microceph")) if some_gone else ()
        deep = self._asks_ceph(self._ceph_unwell)
        zones = {
            bag.identity.name: bag.identity.zone
            for bag in (view.units.values() if issuer else ())
            if bag.identity and bag.identity.zone
        }
        found = ceph.look(self.microceph, service, issuer=issuer, deep=deep, fit=fit, zones=zones)
        if deep:
            self._ceph_unwell.put(not found.is_well)
        return found

    def _look_at_ovn(self, view: View, facts: cloud.Facts, issuer: bool) -> Ovn | None:
        service = view.services.get("microovn")
        if service is None or service.presence is not Presence.MEMBER:
            return None
        from cloud import ovn

        assert self._settings is not None
        default = self._part(facts, ovn.DEFAULT, "ovn")
        uplink = self._part(facts, ovn.UPLINK, "physical") if self._settings.uplink else {}
        more: dict[str, Any] = {
            "status": default.get("status", ""),
            "parent": uplink.get("config", {}).get("parent", ""),
        }
        if issuer:
            if self._settings.uplink and not uplink:
                more["uplinks"] = _uplinks(view)
            more["fit"] = tuple(_settled(view, service, "microovn"))
        deep = self._event == "update_status"
        return ovn.look(self.microovn, service, self._name, deep=deep, **more)

    def _part(self, facts: cloud.Facts, name: str, kind: str) -> Mapping[str, Any]:
        """This member's part of a network that is ready; empty of any other."""
        network = facts.networks.get(name)
        if network is None or network.kind != kind or network.status != cloud.CREATED:
            return {}
        return self.lxd.get(f"/1.0/networks/{name}?target={self._name}")

    def _uplink_parent(self, facts: cloud.Facts | None = None) -> str:
        """This machine's uplink interface; raises Findings if it cannot have one."""
        assert self._settings is not None
        if self._settings.uplink is None:
            return ""
        networks = facts.networks.values() if facts else ()
        managed = [network.name for network in networks if network.managed]
        return preflight_ovn.uplink_parent(
            self._settings, self._name, self.microovn, self.juju_addresses(), managed
        )

    def _local_config(self) -> Mapping[str, str]:
        """This member's part of the pool `local`; raises Findings if it cannot have one."""
        assert self._settings is not None
        locations = list(self._storages("local").values())
        claimed = partial(self.osds.of_ceph, self._settings)
        return preflight.local_config(
            self._settings.local, self.lxd, self._name, locations, claimed
        )

    @cached_property
    def _planned(self) -> int:
        return self._charm.app.planned_units()

    def _storages(self, name: str) -> Mapping[str, str]:
        """Where the attached storages of one name are, by their full names."""
        found = self._charm.model.storages[name]
        return {storage.full_id: str(storage.location) for storage in found}

    # Acting

    def _act(self, step: formation.Step) -> None:
        getattr(self, f"_act_{type(step).__name__.lower()}")(step)

    def _act_installsnaps(self, step: formation.InstallSnaps) -> None:
        assert self._settings is not None
        self.say(f"installing {', '.join(self._settings.channels)}")
        # A member keeps its revision: the others have the same.
        missing = [name for name in self._settings.channels if name not in self.view.joined]
        snaps.install({name: self._settings.channels[name] for name in missing})
        if len(missing) == len(self.services):
            self._snaps_held.put(True)
        for name in missing:
            self.services[name].wait_ready()

    def _act_makekey(self, step: formation.MakeKey) -> None:
        self._key.make()

    def _act_introduce(self, step: formation.Introduce) -> None:
        self._write("identity", peers.dump(self._identity()))

    def _act_intend(self, step: formation.Intend) -> None:
        assert self._relation is not None
        self._relation.data[self._charm.app]["formation"] = peers.dump(step.formation)

    def _act_bootstrap(self, step: formation.Bootstrap) -> None:
        self.say(f"starting the {step.service} cluster on {self._name}")
        self.services[step.service].bootstrap(self._name, self._address())

    def _act_join(self, step: formation.Join) -> None:
        assert self._settings is not None
        self.say(f"joining {step.service}")
        purpose = self._purpose(self._charm.unit.name, step.service, step.grant.revision)
        try:
            token = self._key.open(step.grant.tokens[step.service], purpose)
        except sealing.CannotOpen as fault:
            raise JoinFailed(str(fault)) from fault
        ticket = Ticket(
            self._name,
            self._address(),
            token,
            step.grant.revision,
            self._member_config(step) if step.service == "lxd" else (),
        )
        self.services[step.service].join(ticket, self._settings.join_timeout)

    def _member_config(self, step: formation.Join) -> tuple[Mapping[str, str], ...]:
        from cloud import pools as storage

        pools: dict[str, Mapping[str, str]] = {}
        if any(item["name"] == storage.LOCAL for item in step.grant.member_config):
            extensions = self.lxd.seen["api_extensions"]
            pools[storage.LOCAL] = storage.wiped(self._local_config(), extensions)
        networks = {preflight_ovn.UPLINK: {"parent": self._uplink_parent()}}
        answers = preflight.member_config(step.grant.member_config, pools, networks)
        return (*answers, *self._part_of_files())

    def _part_of_files(self) -> Iterator[Mapping[str, str]]:
        """This member's part of `remote-fs`, even if the pool came after the grant.

        LXD takes no notice of a part of what is not there.
        """
        if "microceph" not in self.services:
            return
        from cloud import ceph, pools

        for key, value in ceph.part(pools.REMOTE_FS, self.lxd.seen["api_extensions"]).items():
            yield {
                "entity": "storage-pool",
                "name": pools.REMOTE_FS,
                "key": key,
                "value": value,
            }

    def _act_reset(self, step: formation.Reset) -> None:
        revision = self.view.services[step.service].joining
        self.services[step.service].reset()
        told = formation.failed(self.view, step.service, revision, "the join was interrupted")
        self._act(told)

    def _act_tell(self, step: formation.Tell) -> None:
        self._write("report", peers.dump(step.report))

    def _act_issue(self, step: formation.Issue) -> None:
        identity = self.view.units[step.unit].identity
        assert identity is not None
        tokens: dict[str, str] = {}
        for name in step.services:
            token = self.services[name].issue_token(identity.name)
            purpose = self._purpose(step.unit, name, step.grant.revision)
            tokens[name] = sealing.seal(token, identity.public_key, purpose)
        wanted = tuple(self.lxd.wanted_of_joiner())
        grant = replace(step.grant, tokens=tokens, member_config=wanted)
        self._grant({**self.view.mine.grants, step.unit: grant})

    def _act_regrant(self, step: formation.Regrant) -> None:
        self._grant({**self.view.mine.grants, step.unit: step.grant})

    def _act_withdraw(self, step: formation.Withdraw) -> None:
        grants = dict(self.view.mine.grants)
        grant = grants.pop(step.unit)
        for name, state in self.view.services.items():
            if grant.name in state.tokens:
                self.services[name].withdraw_token(grant.name)
        self._grant(grants)

    def _act_void(self, step: formation.Void) -> None:
        self.services[step.service].withdraw_token(step.name)

    def _act_forget(self, step: formation.Forget) -> None:
        # Since the plan looked it may have joined again, with another issuer's token.
        members = self.services[step.service].look().members
        if any(member.name == step.name and not member.online for member in members):
            self.forget(step.service, step.name, force=False)

    def forget(self, service: str, name: str, *, force: bool) -> None:
        """Take a machine that is gone out of a service; raises CharmError.

        `force`: even if the only copy of data is on it.
        """
        if service == "microceph":
            import drain_ceph

            drain_ceph.forget(self.microceph, name, force=force)
        if service == "lxd":
            import drain

            drain.rescue(self.lxd, name, self.lxd.members())
        self.services[service].remove(name, force=True)

    def _act_ensure(self, step: formation.Ensure) -> None:
        for name in step.tasks:
            self.say(f"setting up {name}")
            try:
                self._tasks[name].do(self.lxd)
            except CharmError as fault:
                self._fail(name, fault)
                return  # the others may have to wait for more than that
            self._done.add(name)

    def _grant(self, grants: Mapping[str, peers.Grant]) -> None:
        self._write("grants", peers.dump_grants(grants))

    def _write(self, key: str, text: str) -> None:
        # In the install hook there may be no relation yet; a later hook says it again.
        relation = self._relation
        bag = relation.data[self._charm.unit] if relation else self._unsent
        bag[key] = text

    def _address(self) -> str:
        identity = self.view.mine.identity
        assert identity is not None  # the plan introduces this unit before anything else
        return identity.address

    def _purpose(self, unit: str, service: str, revision: int) -> sealing.Purpose:
        return sealing.Purpose(self._charm.model.uuid or "", unit, service, revision)

    def say(self, message: str) -> None:
        """Show what this unit is doing."""
        self._charm.unit.status = ops.MaintenanceStatus(message)


def _room(view: View) -> View:
    """Whether what is still to be started here has room; cleaning a failed join makes some."""
    to_come = (Presence.ABSENT, Presence.ALONE)
    names = [n for n, s in view.services.items() if s.presence in to_come and not s.joining]
    found = _findings(lambda: preflight.room(names, view.name)) if names else ()
    return replace(view, problems=(*view.problems, *found)) if found else view


def _findings(check: Callable[[], object]) -> tuple[str, ...]:
    try:
        check()
    except Findings as findings:
        return findings.sentences
    return ()


def _uplinks(view: View) -> dict[str, str]:
    """The uplink interfaces that units have named, by member."""
    found = {
        bag.identity.name: bag.report.uplink
        for unit, bag in view.units.items()
        if unit != view.me and bag.identity and bag.report.uplink and not bag.report.problems
    }
    if view.uplink:
        found[view.name] = view.uplink
    return found


def _settled(view: View, service: ServiceView, name: str) -> Iterator[str]:
    """The members of a service that may take something over: here to stay, and done joining."""
    online = {member.name for member in service.members if member.online}
    away = {m.name for m in view.services["lxd"].members if not m.is_available}
    for unit, bag in view.units.items():
        joined = unit == view.me or name in bag.report.joined
        if bag.identity and joined and bag.identity.name in online - away:
            yield bag.identity.name
