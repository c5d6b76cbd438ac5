"""The controller's state with the look-ups everything else is built on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lab.juju import clock
from lab.juju.controller.entities import (
    App,
    Charm,
    Machine,
    Model,
    Operation,
    Relation,
    Secret,
    Settings,
    Storage,
    Task,
    Unit,
)
from lab.juju.controller.errors import NotFound
from lab.juju.controller.store import Store
from lab.juju.provider import Provider

Doc = dict[str, Any]
CONTROLLER = "lab"
DEFAULT_MODEL = "default"
KNOBS: Doc = {
    "lease": 60.0,  # seconds of leadership granted by a claim
    "retry-delay": 5.0,  # seconds before a failed hook's first retry; doubled each time
    "retry-limit": 300.0,  # its upper bound
    "force-wait": 60.0,  # seconds a forced unit has to go in order if it seems able to
    "lost-after": 30.0,  # seconds without connection before an agent counts as lost
    "keep-machines": False,  # leave a machine as it is when its last unit is removed
    "secret-repeat": 300.0,  # seconds before secret-expired or -rotate is sent again
}


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key: "app/10" after "app/9"."""
    import re

    return [(int(p), "") if p.isdigit() else (0, p) for p in re.split(r"(\d+)", text)]


class Controller:
    """State, the provider of machines, and the means to announce changes."""

    def __init__(self, root: Path, provider: Provider, version: str):
        self.root = root
        self.provider = provider
        self.store = Store(root / "state.db")
        self.background: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()
        self.publish: Callable[[], None] = lambda: None
        self.wake_provisioner: Callable[[], None] = lambda: None
        self.reboot_machine: Callable[[Machine], None] = lambda _machine: None
        self.barred: dict[str, tuple[str, float]] = {}  # app -> unit kept from claiming, until
        self.connected: Callable[[str], bool] = lambda _unit: False
        self._bootstrap(version)

    def _bootstrap(self, version: str) -> None:
        known = self.store.get(Settings, "settings")
        if known is None:
            known = self.store.add(Settings(uuid=str(uuid.uuid4()), version=version))
            self.add_model("controller")
            known.current_model = self.add_model(DEFAULT_MODEL).uuid
            self.store.flush()
        self.settings = known

    def add_model(self, name: str) -> Model:
        version = self.store.all(Settings)["settings"].version
        model = Model(uuid=str(uuid.uuid4()), name=name, created=clock.now(), version=version)
        return self.store.add(model)

    # -- the lab's knobs ------------------------------------------------------------------

    def knob(self, name: str) -> Any:
        return self.settings.knobs.get(name, KNOBS[name])

    @property
    def version(self) -> str:
        return self.settings.version

    @property
    def is_v4(self) -> bool:
        return self.settings.version.startswith("4.")

    # -- look-ups -------------------------------------------------------------------------

    def model_named(self, ref: str) -> Model:
        """A model by `[controller:][user/]name` or uuid; empty means the current one."""
        if not ref:
            current = self.store.get(Model, self.settings.current_model)
            if current is None:
                raise NotFound('no model is selected: use "juju switch" or --model')
            return current
        name = ref.rpartition(":")[2].rpartition("/")[2]
        for model in self.store.all(Model).values():
            if name in (model.name, model.uuid):
                return model
        raise NotFound(f"model {CONTROLLER}:admin/{name} not found")

    def app(self, model: str, name: str) -> App:
        found = self.store.get(App, f"{model}/{name}")
        if found is None:
            raise NotFound(f'application "{name}" not found')
        return found

    def unit(self, model: str, name: str) -> Unit:
        found = self.store.get(Unit, f"{model}/{name}")
        if found is None:
            raise NotFound(f'unit "{name}" not found')
        return found

    def machine(self, model: str, ident: str) -> Machine:
        found = self.store.get(Machine, f"{model}/{ident}")
        if found is None:
            raise NotFound(f"machine {ident} not found")
        return found

    def relation(self, model: str, ident: int) -> Relation:
        found = self.store.get(Relation, f"{model}/{ident}")
        if found is None:
            raise NotFound("relation not found")
        return found

    def charm(self, url: str) -> Charm:
        return self.store.all(Charm)[url]

    def apps(self, model: str) -> list[App]:
        return sorted(
            (a for a in self.store.all(App).values() if a.model == model), key=lambda a: a.name
        )

    def units(self, model: str, app: str = "") -> list[Unit]:
        found = [
            u
            for u in self.store.all(Unit).values()
            if u.model == model and (not app or u.app == app)
        ]
        return sorted(found, key=lambda u: natural(u.name))

    def machines(self, model: str) -> list[Machine]:
        found = [m for m in self.store.all(Machine).values() if m.model == model]
        return sorted(found, key=lambda m: int(m.id))

    def relations(self, model: str, app: str = "") -> list[Relation]:
        found = [
            r
            for r in self.store.all(Relation).values()
            if r.model == model and (not app or any(e["app"] == app for e in r.endpoints))
        ]
        return sorted(found, key=lambda r: r.id)

    def storages(self, model: str, owner: str = "") -> list[Storage]:
        found = [
            s
            for s in self.store.all(Storage).values()
            if s.model == model and (not owner or s.owner == owner)
        ]
        return sorted(found, key=lambda s: natural(s.id))

    def secrets(self, model: str) -> list[Secret]:
        found = [s for s in self.store.all(Secret).values() if s.model == model]
        return sorted(found, key=lambda s: s.created)

    def tasks(self, model: str, receiver: str = "") -> list[Task]:
        found = [
            t
            for t in self.store.all(Task).values()
            if t.model == model and (not receiver or t.receiver == receiver)
        ]
        return sorted(found, key=lambda t: int(t.id))

    def operations(self, model: str) -> list[Operation]:
        found = [o for o in self.store.all(Operation).values() if o.model == model]
        return sorted(found, key=lambda o: int(o.id))

    # -- derived facts --------------------------------------------------------------------

    def config(self, app: App) -> Doc:
        """The application's effective config: set values over the charm's defaults."""
        options = self.charm(app.charm).options
        values = {
            name: app.config.get(name, spec.get("default")) for name, spec in options.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    def leader(self, app: App) -> str:
        """The unit that holds the lease now, or nothing."""
        return app.leader if app.leader and app.lease_until > time.time() else ""

    def address(self, machine: Machine, space: str) -> str:
        """The machine's first address in a space, or nothing."""
        subnet = self.provider.networks().get(space, "")
        return next(iter(addresses_in(machine, subnet)), "")

    def bound_space(self, app: App, endpoint: str) -> str:
        return app.bindings.get(endpoint) or app.bindings.get("") or "alpha"

    def log(self, model: str, entity: str, level: str, module: str, message: str) -> None:
        """Append to the model's log (unit agents write theirs through here as well)."""
        self.log_lines(model, entity, [[time.time(), level, module, message]])

    def log_lines(self, model: str, entity: str, lines: Iterable[list[Any]]) -> None:
        folder = self.root / "log"
        folder.mkdir(exist_ok=True)
        with (folder / f"{model}.jsonl").open("a") as stream:
            for stamp, level, module, message in lines:
                stream.write(json.dumps([stamp, entity, level, module, message]) + "\n")

    # -- background -----------------------------------------------------------------------

    def commit(self) -> None:
        """Make the changes of a finished request durable and announce them."""
        if self.store.dirty:
            self.store.flush()
            self.publish()
            self.changed.set()

    async def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition of the state holds; False when the time is up."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except TimeoutError:
                return condition()
        return True


def addresses_in(machine: Machine, subnet: str) -> list[str]:
    """The machine's addresses inside a subnet, as reported by its agents."""
    import ipaddress

    if not subnet:
        return []
    network = ipaddress.ip_network(subnet)
    return [
        ip
        for nic in machine.interfaces
        for ip, _cidr in nic["addresses"]
        if ipaddress.ip_address(ip) in network
    ]


def stable_hash(value: Any) -> str:
    """A short digest of a JSON value that does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def secret_id() -> str:
    """Twenty characters of 0-9a-v, the look of Juju's secret ids."""
    alphabet = "0123456789abcdefghijklmnopqrstuv"
    return "".join(secrets.choice(alphabet) for _ in range(20))
