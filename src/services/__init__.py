"""The daemons the charm drives, one driver each behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from view import ServiceView


class Service(Protocol):
    """What formation asks of every daemon.

    Every call is bounded in time. `address` is this machine's, without a port. Errors are
    `DaemonError`s; a failed `join` has cleaned this machine's side and raises `JoinFailed`.
    """

    name: str

    def look(self, *, tokens: bool = False) -> ServiceView:
        """How this machine stands to the service's cluster; never raises.

        Cheap, as it is done in every hook; whose tokens are out is told only if asked for.
        """
        ...

    def bootstrap(self, name: str, address: str) -> None:
        """Make this machine a cluster of one; nothing if it is a member already."""
        ...

    def issue_token(self, name: str) -> str:
        """A join token for a machine of this name; an earlier one for it is void."""
        ...

    def withdraw_token(self, name: str) -> None:
        """Make the token for this name void, if there is one."""
        ...

    def wanted_of_joiner(self) -> Sequence[Mapping[str, str]]:
        """What a joiner has to tell besides its token: `[{"entity", "name", "key"}]`."""
        ...

    def join(self, ticket: Ticket, timeout: float) -> None:
        """Join this machine; nothing if it is a member already."""
        ...

    def reset(self) -> None:
        """Clean what a failed or interrupted join left here, unless it succeeded after all."""
        ...

    def settle(self) -> None:
        """The join that was begun here has come about; `reset` has nothing to clean any more."""
        ...

    def remove(self, name: str, *, force: bool) -> None:
        """Take a member out of the cluster; nothing if it is not one."""
        ...

    def wait_ready(self) -> None:
        """Wait until the daemon answers, a bounded time."""
        ...


class Ticket(Protocol):
    """All that a daemon needs to join: who this machine is, and what lets it in."""

    @property
    def name(self) -> str:
        """The member name."""
        ...

    @property
    def address(self) -> str:
        """This machine's cluster address."""
        ...

    @property
    def token(self) -> str:
        """The join token, readable."""
        ...

    @property
    def revision(self) -> int:
        """The revision of the grant that it came with."""
        ...

    @property
    def member_config(self) -> Sequence[Mapping[str, str]]:
        """The answers to `wanted_of_joiner`, with a `value` each."""
        ...
