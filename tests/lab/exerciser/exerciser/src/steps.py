"""The steps a plan or the action `perform` is made of: one call to Juju each.

A step is a mapping with one key, the step's name; its value is the argument. `{"try": STEP}`
turns an error of ops into `{"error": class, "message": text}` instead of failing the event.
"""

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ops

TOOL_TIMEOUT = 60  # seconds: no hook tool may take longer
HOLD_TIMEOUT = 120  # seconds that the step `await` waits at most


class Steps:
    """Performs steps for one event."""

    def __init__(self, charm: Any, event: ops.EventBase) -> None:
        self.charm = charm
        self.event = event
        self.model: ops.Model = charm.model

    def run(self, steps: list[dict[str, Any]]) -> list[Any]:
        """Perform the steps in order and return what each gave."""
        return [self._one(step) for step in steps]

    def _one(self, step: dict[str, Any]) -> Any:
        ((name, argument),) = step.items()
        if name == "try":
            try:
                return self._one(argument)
            except (ops.ModelError, ops.SecretNotFoundError) as error:
                return {"error": type(error).__name__, "message": str(error)}
        return getattr(self, "do_" + name.replace("-", "_"))(argument)

    # --- the process ------------------------------------------------------------------------

    def do_tool(self, argv: list[str]) -> dict[str, Any]:
        """Run one hook tool as it is; the last argument may be {"stdin": text}."""
        text = argv.pop()["stdin"] if isinstance(argv[-1], dict) else None
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=TOOL_TIMEOUT
        )
        return {"rc": done.returncode, "out": done.stdout, "err": done.stderr}

    def do_raise(self, message: str) -> None:
        """End the event with an exception."""
        raise RuntimeError(message)

    def do_exit(self, code: int) -> None:
        """End the process at once, after nothing more than writing out what was printed."""
        sys.stdout.flush()
        os._exit(code)

    def do_print(self, texts: list[str]) -> None:
        """Print one text to stdout and one to stderr."""
        print(texts[0], flush=True)
        print(texts[1], file=sys.stderr, flush=True)

    def do_sleep(self, seconds: float) -> None:
        """Hold the event for some seconds."""
        time.sleep(seconds)

    def do_touch(self, path: str) -> None:
        """Make a file, to tell the test where the event is."""
        Path(path).touch()

    def do_await(self, path: str) -> None:
        """Hold the event until a file exists."""
        deadline = time.monotonic() + HOLD_TIMEOUT
        while not Path(path).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} did not come within {HOLD_TIMEOUT} s")
            time.sleep(0.01)

    def do_defer(self, _: bool) -> None:
        """Defer the event."""
        self.event.defer()

    def do_remember(self, text: str) -> str:
        """Replace the text in ops' stored state and return the former."""
        former = str(self.charm.stored.notes)
        self.charm.stored.notes = text
        return former

    # --- relations --------------------------------------------------------------------------

    def _relation(self, argument: dict[str, Any]) -> ops.Relation:
        relation = self.model.get_relation(argument["endpoint"], argument.get("relation"))
        if relation is None:
            raise RuntimeError(f"no relation {argument['endpoint']}")
        return relation

    def _entity(self, name: str) -> ops.Unit | ops.Application:
        if name in ("unit", "app"):
            return self.charm.unit if name == "unit" else self.charm.app
        return self.model.get_unit(name) if "/" in name else self.model.get_app(name)

    def do_set(self, argument: dict[str, Any]) -> None:
        """Write data into the bag of `of` ("unit" or "app")."""
        bag = self._relation(argument).data[self._entity(argument["of"])]
        bag.update(argument["data"])

    def do_get(self, argument: dict[str, Any]) -> dict[str, str]:
        """Return the bag of `of` ("unit", "app", or the name of one)."""
        return dict(self._relation(argument).data[self._entity(argument["of"])])

    def do_members(self, argument: dict[str, Any]) -> list[str]:
        """Return the remote units of a relation, sorted."""
        return sorted(unit.name for unit in self._relation(argument).units)

    # --- secrets ----------------------------------------------------------------------------

    def _secret(self, argument: dict[str, Any]) -> ops.Secret:
        return self.model.get_secret(id=argument.get("id"), label=argument.get("label"))

    def do_secret_add(self, argument: dict[str, Any]) -> str:
        """Make a secret and return its URI."""
        owner = self.charm.app if argument["owner"] == "app" else self.charm.unit
        expire = argument.get("expire")
        secret = owner.add_secret(
            argument["content"],
            label=argument.get("label"),
            description=argument.get("description"),
            expire=datetime.timedelta(seconds=expire) if expire else None,
            rotate=ops.SecretRotate(argument["rotate"]) if "rotate" in argument else None,
        )
        return str(secret.id)

    def do_secret_set(self, argument: dict[str, Any]) -> None:
        """Give a secret new content."""
        self._secret(argument).set_content(argument["content"])

    def do_secret_get(self, argument: dict[str, Any]) -> dict[str, str]:
        """Return a secret's content: the tracked revision's, or by `refresh` or `peek`."""
        secret = self._secret(argument)
        if argument.get("peek"):
            return secret.peek_content()
        return secret.get_content(refresh=bool(argument.get("refresh")))

    def do_secret_info(self, argument: dict[str, Any]) -> dict[str, Any]:
        """Return what the owner may know of a secret."""
        info = self._secret(argument).get_info()
        return {
            "id": info.id,
            "label": info.label,
            "revision": info.revision,
            "rotation": info.rotation.value if info.rotation else None,
        }

    def do_secret_grant(self, argument: dict[str, Any]) -> None:
        """Grant a secret to the other side of a relation, or to one unit of it."""
        unit = self.model.get_unit(argument["unit"]) if "unit" in argument else None
        self._secret(argument).grant(self._relation(argument), unit=unit)

    def do_secret_revoke(self, argument: dict[str, Any]) -> None:
        """Take a grant back."""
        unit = self.model.get_unit(argument["unit"]) if "unit" in argument else None
        self._secret(argument).revoke(self._relation(argument), unit=unit)

    def do_secret_remove(self, argument: dict[str, Any]) -> None:
        """Remove a secret, or one revision of it."""
        secret = self._secret(argument)
        if "revision" in argument:
            secret.remove_revision(argument["revision"])
        else:
            secret.remove_all_revisions()

    # --- the rest of the model --------------------------------------------------------------

    def do_status(self, argument: list[str]) -> None:
        """Set the unit's status."""
        self.charm.unit.status = ops.StatusBase.from_name(argument[0], argument[1])

    def do_app_status(self, argument: list[str]) -> None:
        """Set the application's status."""
        self.charm.app.status = ops.StatusBase.from_name(argument[0], argument[1])

    def do_version(self, version: str) -> None:
        """Set the workload's version."""
        self.charm.unit.set_workload_version(version)

    def do_leader(self, _: bool) -> bool:
        """Tell whether this unit leads."""
        return self.charm.unit.is_leader()

    def do_planned(self, _: bool) -> int:
        """Return the number of units the application is to have."""
        return self.charm.app.planned_units()

    def do_config(self, _: bool) -> dict[str, Any]:
        """Return the configuration as ops sees it."""
        return {key: getattr(v, "id", v) for key, v in self.charm.config.items()}

    def do_ports(self, ports: list[int]) -> None:
        """Open exactly these ports."""
        self.charm.unit.set_ports(*ports)

    def do_opened(self, _: bool) -> list[str]:
        """Return the ports this unit has open."""
        return sorted(f"{p.port}/{p.protocol}" for p in self.charm.unit.opened_ports())

    def do_storage(self, name: str) -> list[str]:
        """Return the locations of the storages of a name."""
        return sorted(str(s.location) for s in self.model.storages[name])

    def do_storage_add(self, argument: dict[str, int]) -> None:
        """Ask for more storage."""
        for name, count in argument.items():
            self.model.storages.request(name, count)

    def do_network(self, endpoint: str) -> dict[str, Any]:
        """Return an endpoint's network."""
        binding = self.model.get_binding(endpoint)
        if binding is None:
            raise RuntimeError(f"no binding {endpoint}")
        network = binding.network
        return {
            "bind": str(network.bind_address),
            "ingress": [str(address) for address in network.ingress_addresses],
            "egress": [str(subnet) for subnet in network.egress_subnets],
            "interfaces": [[i.name, str(i.address), str(i.subnet)] for i in network.interfaces],
        }
