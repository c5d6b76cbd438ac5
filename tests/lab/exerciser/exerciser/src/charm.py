#!/usr/bin/env python3
"""A charm that records every event it gets and performs planned calls to Juju.

The record is `<log-dir>/<unit>/events.jsonl`: one line when an event begins and one when its
handler ended. A plan is `<log-dir>/<unit>/plan/<event>.json`: `{"steps": [...], "keep": false}`;
its steps are performed in the next event of that name. The same steps can be performed by the
action `perform`. What the steps are, see `steps.py`.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import ops
from steps import Steps

SILENT = {"collect_app_status", "collect_unit_status", "collect_metrics", "pre_series_upgrade"}
SILENT |= {"post_series_upgrade", "leader_settings_changed"}
VERSION = 1


class RecordingCharm(ops.CharmBase):
    """Observes everything; knows nothing."""

    stored = ops.StoredState()

    def __init__(self, framework: ops.Framework) -> None:
        super().__init__(framework)
        self.stored.set_default(notes="")
        self.home = Path(str(self.config["log-dir"])) / self.unit.name.replace("/", "-")
        for name, source in self.on.events().items():
            if name not in SILENT:
                framework.observe(source, self._on_any)

    def _on_any(self, event: ops.EventBase) -> None:
        name = event.handle.kind.replace("_", "-")
        begun = self._describe(event)
        self._record({"phase": "begin", **begun, "env": self._environment()})
        steps = Steps(self, event)
        out: list[Any] = []
        if isinstance(event, ops.ActionEvent):
            out = self._act(event, steps)
        else:
            out = steps.run(self._planned(name))
        self._record({"phase": "end", **begun, "out": out})

    def _describe(self, event: ops.EventBase) -> dict[str, Any]:
        """Tell what ops made of the event."""
        told: dict[str, Any] = {"event": event.handle.kind.replace("_", "-")}
        if isinstance(event, ops.RelationEvent):
            told["relation"] = event.relation.name
            told["app"] = event.app.name
            told["unit"] = event.unit.name if event.unit else None
        if isinstance(event, ops.RelationDepartedEvent):
            told["departing"] = event.departing_unit.name if event.departing_unit else None
        if isinstance(event, ops.SecretEvent):
            told["secret"] = event.secret.id
            told["label"] = event.secret.label
            told["revision"] = getattr(event, "revision", None)
        if isinstance(event, ops.StorageEvent):
            told["storage"] = f"{event.storage.name}/{event.storage.index}"
        return told

    def _environment(self) -> dict[str, str]:
        """Return the whole environment of the hook, as Juju made it."""
        hidden = {"OPERATOR_DISPATCH"}  # set by ops for its own children
        return {key: value for key, value in os.environ.items() if key not in hidden}

    def _record(self, line: dict[str, Any]) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        line = {"time": time.time(), "pid": os.getpid(), "version": VERSION, **line}
        line["hook"] = os.environ.get("JUJU_DISPATCH_PATH", "").rpartition("/")[2]
        with (self.home / "events.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _planned(self, name: str) -> list[Any]:
        path = self.home / "plan" / f"{name}.json"
        if not path.exists():
            return []
        plan = json.loads(path.read_text())
        if not plan.get("keep", False):
            path.unlink()
        return plan["steps"]

    def _act(self, event: ops.ActionEvent, steps: Steps) -> list[Any]:
        name = os.environ["JUJU_ACTION_NAME"]
        if name == "perform":
            out = steps.run(json.loads(event.params["steps"]))
            event.set_results({"out": json.dumps(out)})
            return out
        event.set_results({"params": json.dumps(event.params, sort_keys=True)})
        return []


if __name__ == "__main__":
    ops.main(RecordingCharm)
