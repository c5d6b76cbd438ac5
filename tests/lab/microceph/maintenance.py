"""Entering and leaving maintenance: a list of small operations, each with a name and a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.microceph import osds, rados, services
from lab.microcluster.cluster import Cluster
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Row


@dataclass(frozen=True)
class Operation:
    """Something to check or do; `plan` says it in words."""

    name: str
    plan: str
    run: Callable[[], None]


def change(cluster: Cluster, node: str, body: dict[str, Any]) -> list[Row]:
    """`PUT /1.0/ops/maintenance/{node}`: the results; ApiError for an unknown node or status."""
    cluster.member(node)
    if body.get("check_only") and body.get("ignore_check"):
        raise ApiError("'check-only' and 'ignore-check' are mutually exclusive.")
    status = str(body.get("status") or "")
    if status == "maintenance":
        checks, work = _checks(cluster, node), _entering(cluster, node, body)
    elif status == "non-maintenance":
        checks, work = [], _leaving(cluster, node)
    else:
        raise ApiError(f"unknown status encounter: '{status}', can only be 'maintenance' or "
                       "'non-maintenance'")  # fmt: skip
    dry, force = bool(body.get("dry_run")), bool(body.get("force"))
    results: list[Row] = []
    if not body.get("ignore_check"):
        results += _run(checks, dry, force)
        if any(result["error"] for result in results) and not force:
            return results
    if not body.get("check_only"):
        results += _run(work, dry, force=False)
    return results


def _run(operations: list[Operation], dry: bool, force: bool) -> list[Row]:
    results: list[Row] = []
    for operation in operations:
        error = ""
        if not dry:
            try:
                operation.run()
            except ApiError as problem:
                error = str(problem)
        results.append({"name": operation.name, "error": error, "action": operation.plan})
        if error and not force:
            break
    return results


def _checks(cluster: Cluster, node: str) -> list[Operation]:
    mine = [row["osd"] for row in osds.rows(cluster) if row["location"] == node]
    shown = "[" + " ".join(str(number) for number in mine) + "]"

    def ok_to_stop() -> None:
        names = [f"osd.{number}" for number in mine]
        if names and not osds.asks_manager("osd", "ok-to-stop", *names):
            raise ApiError(f"osds.{shown} cannot be safely stopped")

    def enough() -> None:
        mons = services.count(cluster, "mon")
        least = {"mon": mons // 2 + 1, "mgr": 1, "mds": 1}
        services.check_enough(services.rows(cluster), node, least)

    return [
        Operation("check-osd-ok-to-stop-ops",
                  f"Check if osds.{shown} in node '{node}' are ok-to-stop.", ok_to_stop),
        Operation("check-non-osd-svc-enough-ops",
                  "Check if there are at least a majority of mon services, 1 mds service, and 1 "
                  f"mgr service in the cluster besides those in node '{node}'", enough),
    ]  # fmt: skip


def _entering(cluster: Cluster, node: str, body: dict[str, Any]) -> list[Operation]:
    work: list[Operation] = []
    if body.get("set_noout"):
        work += [
            Operation("set-noout-ops", "Run `ceph osd set noout`.",
                      lambda: _call("osd set", key="noout")),
            Operation("assert-noout-flag-set-ops", "Assert osd has 'noout' flag set.",
                      lambda: _assert_noout(wanted=True)),
        ]  # fmt: skip
    if body.get("stop_osds"):
        work.append(
            Operation("stop-osd-ops", f"Stop osd service in node '{node}'.",
                      lambda: _osds(cluster, node, "down"))
        )  # fmt: skip
    return work


def _leaving(cluster: Cluster, node: str) -> list[Operation]:
    return [
        Operation("unset-noout-ops", "Run `ceph osd unset noout`.",
                  lambda: _call("osd unset", key="noout")),
        Operation("assert-noout-flag-unset-ops", "Assert osd has 'noout' flag unset.",
                  lambda: _assert_noout(wanted=False)),
        Operation("start-osd-ops", f"Start osd service in node '{node}'.",
                  lambda: _osds(cluster, node, "up")),
    ]  # fmt: skip


def _call(prefix: str, **arguments: Any) -> None:
    rados.mon(prefix, **arguments)


def _assert_noout(*, wanted: bool) -> None:
    is_set = "noout" in rados.mon_json("osd dump")["flags_set"]
    if is_set != wanted:
        raise ApiError(f"osd has 'noout' flag {'set' if is_set else 'unset'}.")


def _osds(cluster: Cluster, node: str, state: str) -> None:
    cluster.call(node, "PUT", "/1.0/osds", {"state": state})
