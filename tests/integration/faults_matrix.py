"""`make faults`: form clouds, kill their hooks at planned calls, compare with an undisturbed one.

    python -m integration.faults_matrix [--points N | --all] [--seed S] [--labs N]
                                        [--single | --combined | --changes]
    python -m integration.faults_matrix --report

Each formation is one line in build/faults/<kind>-<seed>.jsonl; what is there already is not done
again. `--changes` does all points there are of that kind, `--all` all of any other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import jubilant

from integration import cloud, faults_plan, faults_state, ovn
from integration.cloud import APP
from integration.faults import Faults
from lab.layout import Lab
from lab.pack import pack

REPO = Path(__file__).parent.parent.parent
LAB = REPO / "tests/lab/bin/lab"
FOLDER = REPO / "build/faults"
CHARM = FOLDER / "microcloud.charm"
REFERENCE = FOLDER / "reference.json"
CONFIG: ovn.Config = {"local-driver": "btrfs", "microceph-channel": "squid/stable", **ovn.UPLINK}
UNITS = 3
SETTLE = 400.0  # seconds until every unit is active; Juju's update-status comes every 300 s
AGREE = 60.0  # seconds more until nothing differs from the undisturbed formation
AWAY = 8.0  # seconds without power, or without a network
SLOW = 2.0  # seconds before each hook of a slow unit
Result = dict[str, Any]
Plan = dict[str, list[faults_plan.Point]]


def begin(names: Queue[str]) -> None:
    """A process of its own for each lab: `juju` and `lab` take the lab from the environment."""
    os.environ["LAB"] = names.get()
    os.environ["PATH"] = f"{LAB.parent}:{os.environ['PATH']}"


def down() -> None:
    """Take this process's lab away."""
    _lab("down")


def _lab(*words: str) -> None:
    subprocess.run([LAB, *words], check=True, timeout=180, capture_output=True)


def form(plan: Plan) -> tuple[jubilant.Juju, Faults, float]:
    """Begin a formation in a new lab, disturbed as planned; when it began."""
    down()
    _lab("up", "--shape", str(Path(__file__).parent / "shape.yaml"))
    file = FOLDER / f"{os.environ['LAB']}.plan"
    file.write_text(json.dumps(plan))
    _lab("fault", "plan-kills", str(file))
    juju = jubilant.Juju(wait_timeout=60)
    juju.add_model("faults")
    began = time.time()
    juju.deploy(CHARM, APP, config=CONFIG)
    # The plan is for a leader that is the first unit, as with a Juju that is slower.
    juju.wait(lambda s: any(unit.leader for unit in s.apps[APP].units.values()), delay=0.05)
    juju.add_unit(APP, num_units=UNITS - 1)
    return juju, Faults(LAB, juju), began


def trace() -> list[dict[str, Any]]:
    """Every hook that has ended."""
    return _read(Lab.from_environment().root / "juju/hooks.jsonl")


def befall(trouble: faults_plan.Trouble, faults: Faults) -> float:
    """Wait for its moment and let it happen; when it was over."""
    deadline = time.monotonic() + SETTLE
    while len(trace()) < trouble.hooks and time.monotonic() < deadline:
        time.sleep(0.05)
    if trouble.kind == "leader":
        faults.elect(trouble.unit)
    elif trouble.kind == "agent":
        faults.kill_agent(trouble.unit)
    elif trouble.kind == "power":
        faults.power_off(trouble.unit)
        time.sleep(AWAY)
        faults.power_on(trouble.unit)
    elif trouble.kind == "link":
        faults.cut(trouble.unit, "mgmt")
        time.sleep(AWAY)
        faults.heal(trouble.unit, "mgmt")
    else:
        faults.fault("delay", trouble.unit, str(SLOW))
    return time.time()


def undisturbed(reference: Path) -> None:
    """Write down what a formation without faults does and leads to."""
    juju, faults, began = form({})
    cloud.wait_active(juju, UNITS, timeout=SETTLE)
    rows = trace()
    took = max(row["end"] for row in rows) - began
    found = {
        "took": took,
        "hooks": [vars(hook) for hook in faults_plan.counts(rows)],
        "changes": [vars(change) for change in faults_plan.changes(rows)],
        "state": faults_state.look(juju, faults),
    }
    fresh = reference.with_suffix(".new")
    fresh.write_text(json.dumps(found, indent=1))
    fresh.rename(reference)


def _expected(reference: Path) -> dict[str, Any]:
    """The state that another process may still be about to write down."""
    deadline = time.monotonic() + SETTLE
    while not reference.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    return json.loads(reference.read_text())["state"]


def disturbed(
    number: int, plan: Plan, reference: Path, trouble: faults_plan.Trouble | None = None
) -> Result:
    """One formation with faults: where hooks died, whether it converged, how long it took."""
    juju, faults, began = form(plan)
    wrong: list[str] = []
    over = began
    try:
        if trouble:
            over = befall(trouble, faults)
        cloud.wait_active(juju, UNITS, timeout=SETTLE)
        expected = _expected(reference)
        deadline = time.monotonic() + AGREE
        while wrong := faults_state.differences(expected, faults_state.look(juju, faults)):
            if time.monotonic() > deadline:
                break
            time.sleep(2)
    except (TimeoutError, jubilant.WaitError) as fault:
        wrong = [f"not active: {fault}"]
    except (subprocess.SubprocessError, KeyError) as fault:
        wrong = [f"cannot look: {fault} {getattr(fault, 'stderr', '')}"]
    rows = trace()
    ended = max(row["end"] for row in rows)
    kills = list(_kills(rows))
    last = max([over, *(kill["time"] for kill in kills)])
    if wrong:
        _keep(juju)
    return {
        "number": number,
        "kills": kills,
        "trouble": vars(trouble) if trouble else None,
        "converged": not wrong,
        "wrong": wrong,
        "took": round(ended - began, 1),
        "recovery": round(ended - last, 1),
    }


def _kills(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        point = row.get("killed")
        if point is not None:
            calls = row["tools" if point["at"] == "tool" else "requests"]
            made = calls[-1] if calls else ""
            who = {"unit": row["unit"], "hook": row["hook"], "time": row["end"]}
            yield {**point, **who, "made": made}


def _keep(juju: jubilant.Juju) -> None:
    log = FOLDER / f"failed-{os.environ['LAB']}-{int(time.time())}.log"
    log.write_text(f"{juju.cli('status')}\n{juju.debug_log()}")
    print(f"{os.environ['LAB']}: not converged; see {log}", flush=True)


def run(arguments: argparse.Namespace) -> int:
    """Do as many formations as are wanted, in several labs at once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pack(REPO, CHARM)
    names: Queue[str] = multiprocessing.Queue()
    for number in range(arguments.labs):
        names.put(f"{os.environ.get('LAB', 'flt')[:6]}{number}")
    with ProcessPoolExecutor(arguments.labs, initializer=begin, initargs=(names,)) as pool:
        if not REFERENCE.exists():
            pool.submit(undisturbed, REFERENCE).result()
        good = _run(arguments, pool)
        for _ in range(arguments.labs):
            pool.submit(down)
    return 0 if good else 1


def _run(arguments: argparse.Namespace, pool: ProcessPoolExecutor) -> bool:
    found = json.loads(REFERENCE.read_text())
    hooks = [faults_plan.Counts(**hook) for hook in found["hooks"]]
    changes = [faults_plan.Change(**change) for change in found["changes"]]
    if arguments.kind == "changes":
        plans = faults_plan.Plans((), arguments.seed, changes)
    else:
        plans = faults_plan.Plans(hooks, arguments.seed)
    whole = arguments.all or arguments.kind == "changes"
    results = FOLDER / f"{arguments.kind}-{arguments.seed}.jsonl"
    done = _read(results)
    print(f"seed {arguments.seed}: {plans.total} points; {_points(done)} done", flush=True)
    old = {result["number"] for result in done}
    todo = iter(number for number in range(10**6) if number not in old)
    pending: dict[Future[Result], Plan] = {}
    while True:
        while len(pending) < arguments.labs:
            if _points(done) >= arguments.points and not whole:
                break
            number = next(todo)
            if arguments.kind == "single":
                plan = plans.single(number)
            elif whole and number >= plans.rounds:
                plan = plans.left(_reached(plans, done) | _planned(pending.values()))
            else:
                plan = plans.many(number)
            if not plan:
                break
            trouble = plans.trouble(number) if arguments.kind == "combined" else None
            pending[pool.submit(disturbed, number, plan, REFERENCE, trouble)] = plan
        if not pending:
            print(f"{len(_reached(plans, done))} of {plans.total} points were reached")
            return all(result["converged"] for result in done)
        ended, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in ended:
            del pending[future]
            result = future.result()
            done.append(result)
            with results.open("a") as stream:
                stream.write(json.dumps(result) + "\n")
            print(_line(result), flush=True)


def _reached(plans: faults_plan.Plans, results: Iterable[Result]) -> set[faults_plan.Key]:
    return plans.reached(kill for result in results for kill in result["kills"])


def _planned(plans: Iterable[Plan]) -> set[faults_plan.Key]:
    found = ((unit, point) for plan in plans for unit, points in plan.items() for point in points)
    return {faults_plan.key(unit, point) for unit, point in found}


def _read(path: Path) -> list[Result]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _points(results: list[Result]) -> int:
    return sum(len(result["kills"]) for result in results)


def _line(result: Result) -> str:
    said = (
        "converged" if result["converged"] else "NOT CONVERGED: " + "; ".join(result["wrong"][:5])
    )
    trouble = result["trouble"]
    besides = f"{trouble['kind']} of {trouble['unit']}, " if trouble else ""
    return (
        f"formation {result['number']}: {len(result['kills'])} kills, {besides}"
        f"{result['took']:.0f} s, "
        f"{result['recovery']:.0f} s after the last; {said}"
    )


def report() -> int:
    """The table of docs/explanation/faults.md, from all results that are here."""
    for path in sorted(FOLDER.glob("*.jsonl")):
        results = _read(path)
        kills: Counter[tuple[str, str]] = Counter()
        whole: Counter[tuple[str, str]] = Counter()
        for result in results:
            for kill in result["kills"]:
                kills[(kill["at"], kill["when"])] += 1
                whole[(kill["at"], kill["when"])] += result["converged"]
        good = [result for result in results if result["converged"]]
        print(f"\n{path.stem}: {len(results)} formations, {len(good)} converged\n")
        print("| killed at | points | converged |\n|---|---|---|")
        for (at, when), count in sorted(kills.items()):
            print(f"| {at}, {when} | {count} | {whole[(at, when)]} |")
        for kind in faults_plan.TROUBLES:
            met = [r["converged"] for r in results if (r["trouble"] or {}).get("kind") == kind]
            if met:
                print(f"| formations with: {kind} | {len(met)} | {sum(met)} |")
        longest = max((result["recovery"] for result in good), default=0.0)
        print(f"\nLongest recovery after the last kill: {longest:.0f} s")
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    kind = parser.add_mutually_exclusive_group()
    for name in ("single", "combined", "changes"):
        kind.add_argument(f"--{name}", dest="kind", action="store_const", const=name)
    parser.set_defaults(kind="many")
    parser.add_argument("--labs", type=int, default=1)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    return report() if arguments.report else run(arguments)


if __name__ == "__main__":
    sys.exit(main())
