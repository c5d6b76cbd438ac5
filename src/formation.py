"""The plan: from one view of the world, this unit's next step. Pure; the heart of the charm.

`plan` is asked again after each step until it rests. What it must guarantee, from any mixture
of states and any order of events:

* no two units bootstrap the same service: the initiator is written down in the app databag in
  one hook and acts in a later one, and who becomes initiator after a cloud has existed is
  decided only when this unit has nothing unread;
* joins are taken one after the other: a grant names the unit before it, whose report has to be
  there first;
* every unit gets as far as it can: what failed is cleaned, reported and granted anew, at the
  end of the queue, so that one broken machine does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Union

import adoption
from peers import Failure, Formation, Grant, Report, by_number
from record import Record, replace
from view import Presence, View

WINDOW = 2  # grants at a time: the unit that joins and the one after it
PATIENCE = 3  # failed joins of one unit before only a periodic or a person's hook tries again


class InstallSnaps(Record):
    """Install the snaps of all services on this machine."""


class MakeKey(Record):
    """Make this unit's key pair."""


class Introduce(Record):
    """Publish who this unit is."""


class Intend(Record):
    """Write the leader's intentions down."""

    formation: Formation


class Bootstrap(Record):
    """Make the service a cluster of one on this machine."""

    service: str


class Join(Record):
    """Join this machine to the service's cluster with the grant's token."""

    service: str
    grant: Grant


class Reset(Record):
    """Clean what an interrupted join left of the service on this machine."""

    service: str


class Tell(Record):
    """Publish how far this unit is."""

    report: Report


class Issue(Record):
    """Issue tokens for the unit and seal them to it; `grant` has none yet."""

    unit: str
    grant: Grant
    services: tuple[str, ...]


class Regrant(Record):
    """Publish a grant again with another turn, or as the mere record of a failed one."""

    unit: str
    grant: Grant


class Withdraw(Record):
    """Take the unit's grant out of the databag, and its tokens out of the daemons."""

    unit: str


class Void(Record):
    """Make the daemon's token for this member name void: no grant stands for it."""

    service: str
    name: str


class Forget(Record):
    """Remove the member of a unit that is gone, or has failed to join, from the cluster."""

    service: str
    name: str


class Ensure(Record):
    """Do what is due inside LXD, in this order (see the package cloud)."""

    tasks: tuple[str, ...]


class Rest(Record):
    """Nothing to do now: `status` is a Juju status, `message` says what is waited for."""

    status: str
    message: str = ""


if TYPE_CHECKING:  # building it would cost every hook more than planning does
    Step = Union[
        InstallSnaps,
        MakeKey,
        Introduce,
        Intend,
        Bootstrap,
        Join,
        Reset,
        Tell,
        Issue,
        Regrant,
        Withdraw,
        Void,
        Forget,
        Ensure,
    ]


def plan(view: View) -> Step | Rest:
    """This unit's next step, or why there is none."""
    for rule in _RULES:
        choice = rule(view)
        if choice is not None:
            return choice
    return _at_rest(view)


def look_only(view: View) -> Rest:
    """What to say of this unit without doing anything."""
    choice = plan(view)
    return choice if isinstance(choice, Rest) else _at_rest(view)


def is_whole(view: View, unit: str) -> bool:
    """Whether the unit has reported to be a member of every service."""
    joined = view.units[unit].report.joined
    return all(service in joined for service in view.services)


def _leaving(view: View) -> Rest | None:
    return Rest("maintenance", "leaving the cloud") if view.leaving else None


def _problems(view: View) -> Step | Rest | None:
    """A machine that is not fit stays out; a member goes on and says what is wrong."""
    if not view.problems or (view.is_whole and view.settings):
        return None
    return _report(view) or Rest("blocked", "; ".join(view.problems))


def _prepare(view: View) -> Step | None:
    if any(service.presence is Presence.ABSENT for service in view.services.values()):
        return InstallSnaps()
    if not view.has_key:
        return MakeKey()
    if not view.identity_is_current:
        return Introduce()
    return None


def _lead(view: View) -> Step | None:
    # Without a sure lease another leader may have written since this hook read the databag.
    if not (view.leader and view.lease):
        return None
    wanted = _intentions(view)
    return Intend(wanted) if wanted != view.draft else None


def _intentions(view: View) -> Formation:
    return Formation(initiator=_initiator(view), issuer=_issuer(view))


def _initiator(view: View) -> str:
    draft = view.draft
    if draft.initiator and not view.is_gone(draft.initiator):
        return draft.initiator
    members = [unit for unit in sorted(view.units, key=by_number) if _has_joined(view, unit)]
    if members:
        return members[0]
    # Some unit may be a member of the lost initiator's cloud and its report not read yet; Juju
    # runs update-status only when nothing is unread.
    if draft.initiator and not view.idle:
        return draft.initiator
    return view.me


def _has_joined(view: View, unit: str) -> bool:
    return bool(view.joined if unit == view.me else view.units[unit].report.joined)


def _issuer(view: View) -> str:
    if view.is_whole:
        return view.me
    issuer = view.draft.issuer or _initiator(view)
    if issuer in view.units and issuer != view.me and is_whole(view, issuer):
        return issuer
    whole = [unit for unit in sorted(view.units, key=by_number) if is_whole(view, unit)]
    return next((unit for unit in whole if unit != view.me), issuer)


def _apart(view: View) -> Step | Rest | None:
    """Existing clusters that are not one: this unit changes nothing, and says so."""
    wrong = adoption.misnamed(view) or refusal(view)
    return (_report(view) or Rest("blocked", wrong)) if wrong else None


def refusal(view: View) -> str:
    """Why this unit's clusters are not the cloud's, "" if they are, or nobody has told yet."""
    first = (view.draft.issuer, view.draft.initiator)
    other = next((unit for unit in first if unit in view.units and unit != view.me), "")
    return adoption.refusal(view, other) if other and view.me not in first else ""


def _unsure(view: View) -> Rest | None:
    """Nothing is changed in a cluster from before that may have to be refused."""
    if not adoption.unsure(view):
        return None
    first = view.draft.issuer or view.draft.initiator or "the leader"
    return Rest("waiting", f"waiting for {first} to tell which cluster is the cloud's")


def _clean_up(view: View) -> Step | None:
    """A join that a dead hook left behind is cleaned before anything else is tried."""
    for name, service in view.services.items():
        if service.joining and service.presence is not Presence.MEMBER:
            return Reset(name)
    return None


def _broken(view: View) -> Rest | None:
    broken = [
        f"{name} on {view.name}: {service.detail}"
        for name, service in view.services.items()
        if service.presence is Presence.BROKEN
    ]
    return Rest("blocked", "; ".join(broken)) if broken else None


def _bootstrap(view: View) -> Step | Rest | None:
    if view.formation.initiator != view.me or view.is_whole:
        return None
    for name in view.services:
        if name in view.joined:
            continue
        if view.services[name].presence is not Presence.ALONE:
            return None  # a member, for all that can be told
        there = [unit for unit in _others(view) if name in view.units[unit].report.joined]
        if not there:
            return Bootstrap(name)
        if any(is_whole(view, unit) for unit in _others(view)):
            return None  # it will grant this unit what is missing
        return _report(view) or Rest(
            "blocked",
            f"{name} is in a cluster on {' and '.join(there)} already, but not on {view.name}, "
            f"and no unit is in clusters of all of {', '.join(view.services)}; join "
            f"{view.name} to that cluster by hand",
        )
    return None


def _others(view: View) -> list[str]:
    """The other units, without those whose clusters are not this unit's."""
    return [unit for unit in view.units if unit != view.me and not adoption.apart(view, unit)]


def _join(view: View) -> Step | Rest | None:
    if view.is_whole:
        return None
    used = [fault for service in view.services.values() for fault in service.used]
    if used:
        return _report(view) or Rest("blocked", "; ".join(used))
    formation = view.formation
    if formation.issuer not in view.units or formation.issuer == view.me:
        return None
    grants = view.units[formation.issuer].grants
    grant, failure = grants.get(view.me), view.mine.report.failure
    if grant is None and failure is None and view.idle:
        return _passed_over(view, grants)
    if grant is None or not grant.tokens or (failure and failure.revision == grant.revision):
        return None
    if _is_waited_for(view, grant.after):
        return _report(view) or Rest("waiting", f"waiting for {grant.after} to join first")
    name = next(name for name in view.services if name not in view.joined)
    if view.services[name].presence is not Presence.ALONE:
        return None
    if name in grant.tokens:
        return Join(name, grant)
    return failed(view, name, grant.revision, "its cluster has a member of this name")


def _passed_over(view: View, grants: Mapping[str, Grant]) -> Step | None:
    """The issuer has room and gives no token: to it, this unit is a member of everything.

    A join that failed half and was never reported can leave that behind. Told as a failure, it
    is removed.
    """
    if sum(1 for grant in grants.values() if grant.tokens) >= WINDOW:
        return None
    if not is_whole(view, view.formation.issuer):
        return None  # it gives no tokens yet; perhaps it never will
    for name, service in view.services.items():
        if service.presence is Presence.ALONE and not service.joining:
            return failed(view, name, 0, "no member gives a token for it")
    return None


def _report(view: View) -> Step | None:
    failure = view.mine.report.failure
    if failure and failure.service in view.joined:
        failure = None
    used = tuple(fault for service in view.services.values() for fault in service.used)
    clusters = {name: s.cluster for name, s in view.services.items() if s.cluster}
    report = Report(
        view.joined,
        view.parts,
        view.problems + used,
        failure,
        view.uplink,
        view.matches,
        clusters,
    )
    return Tell(report) if report != view.mine.report else None


def failed(view: View, service: str, revision: int, error: str) -> Tell:
    """The report of a join that did not come about."""
    failure = Failure(revision, service, error)
    return Tell(replace(view.mine.report, joined=view.joined, failure=failure))


def _issue(view: View) -> Step | None:
    grants = view.mine.grants
    if view.draft.issuer != view.me or not view.is_whole:
        return Withdraw(next(iter(grants))) if grants else None
    for unit in grants:
        if view.is_gone(unit) or (unit in view.units and is_whole(view, unit)):
            return Withdraw(unit)
    window = _window(view)
    for unit, grant in grants.items():
        if unit not in window and grant.tokens:
            return Regrant(unit, replace(grant, tokens={}, after=""))
    for place, unit in enumerate(window):
        step = _grant(view, unit, window[place - 1] if place else "")
        if step is not None:
            return step
    return _void(view)


def _void(view: View) -> Step | None:
    """A token that no grant stands for: the hook that issued it died before it could say so."""
    granted = {grant.name for grant in view.mine.grants.values() if grant.tokens}
    bags = (view.units[unit] for unit in view.units)
    ours = {bag.identity.name for bag in bags if bag.identity} - granted
    for name, service in view.services.items():
        for member in service.tokens:
            if member in ours:
                return Void(name, member)
    return None


def _grant(view: View, unit: str, after: str) -> Step | None:
    grant = view.mine.grants.get(unit)
    if grant is not None and grant.tokens and not _has_failed(view, unit):
        if grant.after == after or (not after and not _is_waited_for(view, grant.after)):
            return None
        return Regrant(unit, replace(grant, after=after))
    failure = view.units[unit].report.failure
    left = _left_behind(view, unit)
    if left is not None:
        return left if _joins_no_more(view, unit) else None
    past = (grant.revision if grant else 0, failure.revision if failure else 0)
    identity = view.units[unit].identity
    if identity is None:
        return None
    fresh = Grant(identity.name, max(past) + 1, _tries(view, unit) + 1, view.now, after)
    missing = tuple(
        name for name, service in view.services.items() if identity.name not in service.names
    )
    # The unit is a member of all in fact and has only not said so yet.
    return Issue(unit, fresh, missing) if missing else None


def _left_behind(view: View, unit: str) -> Forget | None:
    """The member that a failed join of the unit has left in a cluster, for it to go.

    Only one that is offline: the report of the failure may be older than a join that worked.
    """
    failure, identity = view.units[unit].report.failure, view.units[unit].identity
    service = view.services.get(failure.service) if failure else None
    if failure is None or identity is None or service is None:
        return None
    if failure.service in view.units[unit].report.joined:
        return None
    for member in service.members:
        if member.name == identity.name and not member.online:
            return Forget(failure.service, identity.name)
    return None


def _joins_no_more(view: View, unit: str) -> bool:
    """Whether the failure that the unit reports was its last try, and no other is under way."""
    grant, failure = view.mine.grants.get(unit), view.units[unit].report.failure
    if grant is None:
        return view.idle  # a former issuer's grant may still be in use
    return failure is not None and failure.revision == grant.revision


def _window(view: View) -> list[str]:
    """The units whose turn it is, in the order in which they join."""
    queue = [unit for unit in sorted(view.units, key=by_number) if _may_join(view, unit)]
    queue.sort(key=lambda unit: (_place(view, unit), _tries(view, unit)))
    return queue[:WINDOW]


def _place(view: View, unit: str) -> int:
    """A grant that is out keeps its place: its unit may be joining at this very moment.

    So whose turn it is stays first, and who comes after it second, whoever has appeared since;
    the rest follow by failures, then by number.
    """
    grant = view.mine.grants.get(unit)
    if grant is None or _has_failed(view, unit):
        return 2
    return 1 if _is_waited_for(view, grant.after) else 0


def _may_join(view: View, unit: str) -> bool:
    if unit == view.me or unit not in view.units or is_whole(view, unit):
        return False
    bag = view.units[unit]
    if bag.identity is None or bag.report.problems or _shares_name(view, unit):
        return False
    if adoption.apart(view, unit):
        return False
    return _tries(view, unit) < PATIENCE or view.retry or not _has_failed(view, unit)


def _tries(view: View, unit: str) -> int:
    """How many joins of this unit have failed, as far as this issuer knows."""
    grant = view.mine.grants.get(unit)
    if grant is None:
        return 0
    return grant.attempt if _has_failed(view, unit) else grant.attempt - 1


def _has_failed(view: View, unit: str) -> bool:
    grant = view.mine.grants[unit]
    failure = view.units[unit].report.failure
    if failure is not None and failure.revision == grant.revision:
        return True
    if not grant.tokens:
        return True
    limit = view.settings.join_timeout * len(view.services) if view.settings else 0
    waits = grant.after and _is_waited_for(view, grant.after)
    return not waits and view.now > grant.issued + 2 * limit


def _is_waited_for(view: View, unit: str) -> bool:
    """Whether the unit before this one has still to join; one that is gone has not."""
    if not unit or view.is_gone(unit):
        return False
    return unit not in view.units or not is_whole(view, unit)


def _shares_name(view: View, unit: str) -> bool:
    return len(same_name(view, unit)) > 1


def same_name(view: View, unit: str) -> list[str]:
    """The units whose machine has the same host name as this unit's, itself included."""
    mine = view.units[unit].identity
    if mine is None:
        return [unit]
    found = []
    for other, bag in view.units.items():
        if bag.identity is not None and bag.identity.name == mine.name:
            found.append(other)
    return sorted(found, key=by_number)


def _equal_names(view: View) -> Step | Rest | None:
    if view.is_whole or len(view.units) == 1:
        return None
    same = same_name(view, view.me)
    if len(same) == 1:
        return None
    return _report(view) or Rest(
        "blocked",
        f"{' and '.join(same)} are both on machines called {view.name}; "
        "give one of them another host name, or remove it",
    )


def _forget(view: View) -> Step | None:
    """Members whose unit is gone from Juju leave the clusters once they are offline; LXD last.

    LXD keeps which unit a member is, so that it is known as long as LXD has the member.
    """
    if view.draft.issuer != view.me or not view.is_whole:
        return None
    gone = {
        member.name
        for member in view.services["lxd"].members
        if member.unit
        and not member.online
        and view.is_gone(member.unit)
        and member.unit not in view.dying  # it may only have no power for a moment
    }
    for service, state in view.services.items():
        for member in state.members:
            if member.name in gone and not member.online:
                return Forget(service, member.name)
    return None


def _ensure(view: View) -> Step | None:
    return Ensure(view.due) if view.due else None


def others_join(view: View) -> bool:
    """Whether other units are on their way into the cloud, those not in sight yet included.

    Not one that cannot join, or has failed to; and nobody is waited for longer than until the
    next periodic hook.
    """
    if view.idle:
        return False
    if view.planned > len(view.units):
        return True
    return any(
        unit != view.me
        and not is_whole(view, unit)
        and not (bag.report.problems or bag.report.failure)
        for unit, bag in view.units.items()
    )


def _supply(view: View) -> Step | None:
    """Disks for Ceph, when everybody has joined: nobody's join waits while they are made.

    They come before what is made of them, so that it is made of all of them.
    """
    return Ensure(view.supply[:1]) if view.supply and not others_join(view) else None


def _at_rest(view: View) -> Rest:
    wrong = view.problems + view.faults
    if wrong:
        return Rest("blocked", "; ".join(wrong))
    if view.is_whole:
        mine = next((m for m in view.services["lxd"].members if m.name == view.name), None)
        if mine is not None and mine.evacuated:
            return Rest("maintenance", "in maintenance until the action exit-maintenance")
        return Rest("active", _summary(view))
    failure = view.mine.report.failure
    if failure is not None:
        return Rest("waiting", _failed(view, failure))
    first, issuer = view.formation.initiator, view.formation.issuer
    if first in ("", view.me):
        return Rest("waiting", "waiting for the leader to choose the initiator")
    if issuer in view.units and (issuer != first or _has_joined(view, issuer)):
        return Rest("waiting", f"waiting for a token from {issuer}")
    return Rest("waiting", _not_started(view, first))


def _not_started(view: View, first: str) -> str:
    """What is waited for while there is no cloud yet; its initiator may never come back."""
    if view.is_gone(first):
        return f"{first} is gone; the leader chooses another with its next update-status"
    text = f"waiting for {first} to start the cloud"
    if first not in view.units:  # not seen yet, or gone in a hook before this one
        return f"{text}; if it is gone, the leader chooses another with its next update-status"
    if view.idle:
        return f"{text}; if its machine is gone for good: juju remove-unit --force {first}"
    return text


def _failed(view: View, failure: Failure) -> str:
    """What failed, where, why, how often, and when it is tried again."""
    issuer = view.formation.issuer
    grants = view.units[issuer].grants if issuer in view.units else {}
    tries = grants[view.me].attempt if view.me in grants else 1
    often = f", {tries} times" if tries > 1 else ""
    then = f"waiting for a new token from {issuer or 'a member'}"
    if tries >= PATIENCE:
        then = f"{issuer} tries it again with its next update-status"
    return f"joining {failure.service} on {view.name} failed{often}: {failure.error}; {then}"


def _summary(view: View) -> str:
    count = len(view.services["lxd"].members)
    text = f"{count} members" if count != 1 else "1 member"
    if view.draft.issuer == view.me:
        waiting = [unit for unit in view.units if unit != view.me and not is_whole(view, unit)]
        text += f", {len(waiting)} to join" if waiting else ""
        apart = ((unit, adoption.apart(view, unit)) for unit in view.units)
        foreign = [f"{unit} is in another {name} cluster" for unit, name in apart if name]
        return "; ".join([text, *_away(view), *foreign, *view.advice])
    return "; ".join([text, *view.advice])


def _away(view: View) -> Iterator[str]:
    """The members that are not there, or are going."""
    for member in view.services["lxd"].members:
        if not member.online and member.unit in view.dying:
            yield (
                f"{member.name} is offline and cannot leave; if it is gone for good: "
                f"juju remove-unit --force {member.unit}"
            )
        elif not member.online:
            yield f"{member.name} is offline"
        elif member.evacuated:
            yield f"{member.name} is in maintenance"
        elif member.leaving:
            yield f"{member.name} is leaving"


_RULES: tuple[Callable[[View], Step | Rest | None], ...] = (
    _leaving,
    _problems,
    _prepare,
    _clean_up,
    _apart,
    _lead,
    _equal_names,
    _bootstrap,
    _join,
    _broken,
    _report,
    _lead,
    _unsure,
    _forget,
    _supply,
    _ensure,
    _issue,
)
