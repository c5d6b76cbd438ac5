"""Faults that real Juju has no command for. Used by `lab fault ...`; never by `juju`.

All functions take the lab, and a unit by name (in `model`, empty for the current one).
They raise LabError with a sentence when something does not exist.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.juju.controller import connect, root_of
from lab.juju.wire import ConnectionLost, RemoteError

Doc = dict[str, Any]


def _call(lab: Any, method: str, **params: Any) -> Any:
    try:
        client = connect(lab, 30.0)
    except ConnectionLost as err:
        raise LabError(f"lab {lab.name} has no running controller: {err}") from err
    try:
        return client.call(method, **params)
    except RemoteError as err:
        raise LabError(str(err)) from err
    finally:
        client.close()


def kill_hook(
    lab: Any, unit: str, call: int, *, hook: str = "", when: str = "before", model: str = ""
) -> str:
    """Kill the unit's next hook (of that name, if given) at its `call`-th hook-tool call, once.

    `when`: "before" the call takes effect or "after" it did, in both cases without an answer.
    Returns the fault's id.
    """
    if when not in ("before", "after") or call < 1:
        raise LabError('when must be "before" or "after", call at least 1')
    fault = {"type": "kill-hook", "call": call, "hook": hook, "when": when}
    return str(_call(lab, "add_fault", model=model, unit=unit, fault=fault))


def plan_kills(lab: Any, file: str = "") -> None:
    """Count all calls of hooks from now on, and kill them where the file says; none: stop that.

    The file: `{unit: [{at, call, when, nth, hook}]}`, see `agent/kills.py`; `at` is "tool" or
    "request" (of a daemon or a command), `nth` and `hook` may be missing.
    """
    plan = root_of(lab) / "kills.json"
    if not file:
        plan.unlink(missing_ok=True)
        return
    fresh = plan.with_suffix(".new")
    fresh.write_text(json.dumps(json.loads(Path(file).read_text())))
    fresh.rename(plan)


def delay(lab: Any, unit: str, seconds: float, *, hook: str = "", model: str = "") -> str:
    """A slow unit: wait before every hook (or those of that name), until faults are cleared."""
    fault = {"type": "delay", "seconds": seconds, "hook": hook}
    return str(_call(lab, "add_fault", model=model, unit=unit, fault=fault))


def redeliver(lab: Any, unit: str, *, endpoint: str = "", model: str = "") -> str:
    """Send relation-changed again for everything the unit has seen already."""
    return str(
        _call(
            lab,
            "add_fault",
            model=model,
            unit=unit,
            fault={"type": "redeliver", "endpoint": endpoint},
        )
    )


def clear(lab: Any) -> None:
    """Forget all faults that wait or last."""
    _call(lab, "clear_faults")


def pending(lab: Any) -> Doc:
    """The faults that wait or last, by unit."""
    return dict(_call(lab, "list_faults"))


def freeze(lab: Any, unit: str, *, model: str = "") -> None:
    """Stop the agent's process (its hook goes on, but gets no answers)."""
    _call(lab, "signal_agent", model=model, unit=unit, number=int(signal.SIGSTOP))


def thaw(lab: Any, unit: str, *, model: str = "") -> None:
    """Let a frozen agent go on."""
    _call(lab, "signal_agent", model=model, unit=unit, number=int(signal.SIGCONT))


def kill_agent(lab: Any, unit: str, *, model: str = "") -> None:
    """Kill the agent's process; its supervisor starts it again."""
    _call(lab, "signal_agent", model=model, unit=unit, number=int(signal.SIGKILL))


def expire_lease(lab: Any, app: str, *, seconds: float = 3.0, model: str = "") -> None:
    """End the present leadership; the old leader may not claim it again for some seconds."""
    _call(lab, "set_leader", model=model, app=app, unit="", seconds=seconds)


def give_lease(lab: Any, app: str, unit: str, *, model: str = "") -> None:
    """Make that unit the leader."""
    _call(lab, "set_leader", model=model, app=app, unit=unit, seconds=0.0)


def knobs(lab: Any) -> Doc:
    """Name and value of every setting that makes the lab's Juju faster or stricter than real."""
    return dict(_call(lab, "knobs"))


def set_knob(lab: Any, name: str, value: str) -> None:
    """Set `lease`, `retry-delay`, `retry-limit`, `lost-after`, `force-wait`, `secret-repeat`
    (seconds) or `keep-machines` (on, off)."""
    words: dict[str, bool] = {"on": True, "true": True, "off": False, "false": False}
    try:
        parsed = words[value] if value in words else float(value)
    except ValueError as err:
        raise LabError(f"{name}: {value!r} is neither a number nor on or off") from err
    _call(lab, "set_knob", name=name, value=parsed)


def keep_machines(lab: Any, on: bool) -> None:
    """Leave machines as they are when their last unit is removed, to look at them."""
    set_knob(lab, "keep-machines", "on" if on else "off")


def trace_file(lab: Any) -> str:
    """The file with the record of every hook.

    JSON lines: unit, model, kind, hook, remote, start, end, rc, calls, tools.
    """
    return str(root_of(lab) / "hooks.jsonl")


def hooks(lab: Any, *, unit: str = "") -> list[Doc]:
    """The record of every hook, action and command that ran, oldest first."""
    file = Path(trace_file(lab))
    lines = file.read_text().splitlines() if file.exists() else []
    found = [json.loads(line) for line in lines]
    return [h for h in found if not unit or h["unit"] == unit]
