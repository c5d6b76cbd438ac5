"""The world outside the plan: looking at it, and doing the plan's steps in it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import ops

import cloud
import formation
import peers
import preflight
import sealing
import snaps
from errors import CharmError, DaemonError, Findings, JoinFailed
from record import Record, replace
from services import Service
from services.lxd import Lxd
from settings import Settings
from view import Presence, ServiceView, View

logger = logging.getLogger(__name__)

STATE = Path("/var/lib/microcloud-charm")
# Steps of one hook. A new member takes fewer than 20, a token for another one step; a plan
# that does not come to rest is a defect, which must not run for ever.
STEP_LIMIT = 200
# Seconds. Another leader would hold its lease for 60 s, so who is found to be leader twice
# within less has been all the time.
LEASE = 50.0


class Ticket(Record):
    """All that a daemon needs to join; see `services.Ticket`."""

    name: str
    address: str
    token: str
    revision: int
    member_config: tuple[Mapping[str, str], ...]


class World:
    """Juju and the daemons of one machine, for the length of one hook."""

    def __init__(
        self, charm: ops.CharmBase, *, event: str, leaving: bool = False, departed: str = ""
    ) -> None:
        self._charm = charm
        self._event = event
        self._leaving = leaving
        self._departed = departed
        self._relation = charm.model.get_relation("cluster")
        self._name = socket.gethostname()
        folder = STATE / charm.unit.name.replace("/", "-")
        self._key = sealing.KeyFile(folder / "key")
        self.lxd = Lxd(folder)
        self._faults: dict[str, str] = {}
        self._problems: list[str] = []
        self._settings: Settings | None = None
        try:
            self._settings = preflight.settings(charm.config)
        except Findings as findings:
            self._problems.extend(findings.sentences)
        self._led_until = time.monotonic() if self._is_leader() else 0.0
        self._committed = self._formation()
        self._tasks: dict[str, cloud.Task] = {}
        self.view = self._look()

    def settle(self) -> formation.Rest:
        """Look, plan and act until nothing is left that this unit may do now."""
        for _ in range(STEP_LIMIT):
            step = formation.plan(self.view)
            if isinstance(step, formation.Rest):
                return step
            logger.debug("step: %s", _label(step))
            self._try(step)
            self.view = self._look()
        raise RuntimeError(f"the plan does not come to rest after {STEP_LIMIT} steps")

    def _try(self, step: formation.Step) -> None:
        try:
            self._act(step)
        except JoinFailed as fault:
            assert isinstance(step, formation.Join)
            logger.warning("joining %s failed: %s", step.service, fault)
            told = formation.failed(self.view, step.service, step.grant.revision, str(fault))
            self._act(told)
        except CharmError as fault:
            logger.warning("%s: %s", step, fault)
            self._faults[_label(step)] = str(fault)

    # Looking

    @property
    def services(self) -> Mapping[str, Service]:
        """The drivers of the services that are configured, in joining order."""
        known: dict[str, Service] = {"lxd": self.lxd}
        wanted = self._settings.services if self._settings else known
        return {name: known[name] for name in wanted}

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
            tuple(units), lambda name: relation.data[units[name]] if relation else {}
        )

    def _look(self) -> View:
        units = self._units()
        me = self._charm.unit.name
        leader = self._is_leader()
        lease = leader and time.monotonic() < self._led_until + LEASE
        self._led_until = time.monotonic() if lease else 0.0
        draft = self._formation()
        services = {
            name: driver.look(tokens=draft.issuer == me) for name, driver in self.services.items()
        }
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
            identity_is_current=self._introduced(units[me]),
            idle=self._event == "update_status",
            departed=self._departed,
            lease=lease,
            retry=self._event in ("update_status", "config_changed", "upgrade_charm"),
            now=int(time.time()),
            leaving=self._leaving,
            faults=tuple(self._faults.values()),
        )
        return self._look_into(view, services["lxd"]) if self._settings else view

    def _introduced(self, bag: peers.UnitBag) -> bool:
        if self._relation is None:
            return True
        # The address is asked for only in the hooks that Juju runs when it may have changed.
        if bag.identity is not None and self._event not in ("config_changed", "upgrade_charm"):
            return True
        return self._key.exists() and bag.identity == self._identity()

    def _identity(self) -> peers.Identity:
        binding = self._charm.model.get_binding("cluster")
        address = binding.network.bind_address if binding else None
        if address is None:
            raise CharmError("Juju gives no address for the binding of `cluster`")
        return peers.Identity(self._name, str(address), self._key.public())

    def _look_into(self, view: View, lxd: ServiceView) -> View:
        """What is due inside LXD for a member; whether the machine is fit for another."""
        assert self._settings is not None
        try:
            if lxd.presence is Presence.MEMBER:
                return self._look_at_cloud(view)
            if lxd.presence is Presence.ALONE and not lxd.joining:
                self._local_config()
        except Findings as findings:
            return replace(view, problems=view.problems + findings.sentences)
        except DaemonError as fault:
            return replace(view, faults=(*view.faults, str(fault)))
        return view

    def _look_at_cloud(self, view: View) -> View:
        assert self._settings is not None
        facts = cloud.facts(self.lxd)
        issuer = view.is_whole and view.draft.issuer == view.me
        problems: tuple[str, ...] = ()
        local = None
        if preflight.needs_local(self._settings, facts, self._name):
            try:
                local = self._local_config()
            except Findings as findings:
                problems = findings.sentences
        inside = cloud.Cloud(self._name, issuer, self._settings, facts, local)
        tasks = [task for task in cloud.tasks(inside) if task.name not in self._faults]
        self._tasks = {task.name: task for task in tasks}
        return replace(
            view,
            problems=view.problems + problems,
            due=tuple(self._tasks),
            parts=cloud.parts(inside),
            advice=cloud.advice(inside),
        )

    def _local_config(self) -> Mapping[str, str]:
        """This member's part of the pool `local`; raises Findings if it cannot have one."""
        assert self._settings is not None
        storages = self._charm.model.storages["local"]
        locations = [str(storage.location) for storage in storages]
        return preflight.local_config(self._settings.local, self.lxd, self._name, locations)

    # Acting

    def _act(self, step: formation.Step) -> None:
        getattr(self, f"_act_{type(step).__name__.lower()}")(step)

    def _act_installsnaps(self, step: formation.InstallSnaps) -> None:
        assert self._settings is not None
        self._status(f"installing {', '.join(self._settings.channels)}")
        snaps.install(self._settings.channels)
        self.lxd.wait_ready()

    def _act_makekey(self, step: formation.MakeKey) -> None:
        self._key.make()

    def _act_introduce(self, step: formation.Introduce) -> None:
        self._write("identity", peers.dump(self._identity()))

    def _act_intend(self, step: formation.Intend) -> None:
        assert self._relation is not None
        self._relation.data[self._charm.app]["formation"] = peers.dump(step.formation)

    def _act_bootstrap(self, step: formation.Bootstrap) -> None:
        self._status(f"starting the {step.service} cluster on {self._name}")
        self.services[step.service].bootstrap(self._name, self._address())

    def _act_join(self, step: formation.Join) -> None:
        assert self._settings is not None
        self._status(f"joining {step.service}")
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
            preflight.member_config(step.grant.member_config, {"local": self._local_config()}),
        )
        self.services[step.service].join(ticket, self._settings.join_timeout)

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
        del grants[step.unit]
        self._grant(grants)

    def _act_void(self, step: formation.Void) -> None:
        self.services[step.service].withdraw_token(step.name)

    def _act_forget(self, step: formation.Forget) -> None:
        self.services[step.service].remove(step.name, force=True)

    def _act_ensure(self, step: formation.Ensure) -> None:
        self._status(f"setting up {step.task}")
        self._tasks[step.task].do(self.lxd)

    def _grant(self, grants: Mapping[str, peers.Grant]) -> None:
        self._write("grants", peers.dump_grants(grants))

    def _write(self, key: str, text: str) -> None:
        assert self._relation is not None
        self._relation.data[self._charm.unit][key] = text

    def _address(self) -> str:
        identity = self.view.mine.identity
        assert identity is not None  # the plan introduces this unit before anything else
        return identity.address

    def _purpose(self, unit: str, service: str, revision: int) -> sealing.Purpose:
        return sealing.Purpose(self._charm.model.uuid or "", unit, service, revision)

    def _status(self, message: str) -> None:
        self._charm.unit.status = ops.MaintenanceStatus(message)


def _label(step: formation.Step) -> str:
    return step.task if isinstance(step, formation.Ensure) else type(step).__name__
