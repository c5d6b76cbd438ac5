"""A record of every hook that ran, one JSON line each, for benchmarks and fault tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.juju.agent.context import HookContext


class Trace:
    """Appends to a file that all agents of a lab share (one short write per line is atomic)."""

    def __init__(self, path: Path, unit: str, model: str):
        self._path, self._unit, self._model = path, unit, model

    def write(
        self,
        context: HookContext,
        name: str,
        start: float,
        code: int,
        calls: list[str],
        more: dict[str, Any],
    ) -> None:
        """`start` in seconds since the epoch, `code` the exit code (negative: a signal)."""
        import time

        hook, task = context.hook, context.task
        kind = "hook" if hook else ("action" if task and task.ident else "exec")
        line = {
            "unit": self._unit,
            "model": self._model,
            "kind": kind,
            "hook": name,
            "remote": hook.remote_unit if hook else "",
            "start": round(start, 4),
            "end": round(time.time(), 4),
            "rc": code,
            "calls": len(calls),
            "tools": calls,
            **more,
        }
        with self._path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
