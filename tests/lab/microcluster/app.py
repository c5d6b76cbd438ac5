"""What a stand-in declares about itself: its name, hooks, routes and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.microcluster.rest import Route

if TYPE_CHECKING:
    from lab.microcluster.cluster import Cluster

Config = Mapping[str, str]


def _nothing(*_: object) -> None:
    """The hook of an application that has nothing to do here."""


@dataclass(frozen=True)
class Hooks:
    """Called by the framework; an ApiError raised in one is the caller's error.

    on_bootstrap, on_join   on the new member, its database open; a failure resets it
    on_new_member           on every other member, after the join
    pre_remove              on the member that leaves (forced after a failed bootstrap, join)
    post_remove             on one of the others, after the removal
    on_heartbeat            on the leader, after every heartbeat
    on_start                on a member whose daemon has started and whose database is open
    """

    on_bootstrap: Callable[[Cluster, Config], None] = _nothing
    on_join: Callable[[Cluster, Config], None] = _nothing
    on_new_member: Callable[[Cluster, str], None] = _nothing
    pre_remove: Callable[[Cluster, bool], None] = _nothing
    post_remove: Callable[[Cluster, str, bool], None] = _nothing
    on_heartbeat: Callable[[Cluster], None] = _nothing
    on_start: Callable[[Cluster], None] = _nothing


@dataclass(frozen=True)
class App:
    """One application: `cascade` names the kinds whose rows go with their member.

    `tables` gives the columns of the kinds that `cluster sql` shows, for example
    `{"services": ("member", "service")}`.
    """

    name: str
    default_port: int
    version: str
    extensions: tuple[str, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    routes: tuple[Route[Cluster], ...] = ()
    cascade: tuple[str, ...] = ()
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
