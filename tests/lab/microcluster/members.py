"""How members come and go: bootstrap, tokens, join, removal, heartbeat."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import socket
import ssl
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from lab.microcluster import certs, rest
from lab.microcluster.app import Config
from lab.microcluster.cluster import (
    MEMBERS,
    NOT_INITIALIZED,
    TOKENS,
    Cluster,
    Member,
    in_parallel,
    log,
)
from lab.microcluster.rest import ApiError, TlsPeer
from lab.microcluster.roles import SMALLEST, VOTERS, Seat, plan
from lab.microcluster.store import Row, delete_op, expect_op, insert_op
from lab.microcluster.voters import note

LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
JOIN_DEADLINE = 60


def check_name(name: str, what: str) -> None:
    """A name must be made of FQDN labels; ApiError otherwise."""
    if not name or not all(LABEL.fullmatch(label) for label in name.split(".")):
        raise ApiError(f'{what} "{name}" is not a valid FQDN: it must be made of DNS labels', 400)


def initialize(cluster: Cluster, body: Row) -> None:
    """`POST /core/control`: bootstrap or join; on failure the machine is as before."""
    with cluster.lock:
        status = cluster.status()
        if status != NOT_INITIALIZED:
            raise ApiError(f"Unable to initialize cluster: {status}")
        token, name = str(body.get("join_token") or ""), str(body.get("name") or "")
        if body.get("bootstrap") and token:
            raise ApiError("Invalid options - received join token and bootstrap flag", 400)
        check_name(name, "Cluster member name")
        rest.split_address(str(body.get("address") or ""))
        config = {str(k): str(v) for k, v in (body.get("config") or {}).items()}
        cluster.prepare(name)
        if token:
            _join(cluster, name, str(body["address"]), token, config)
        elif body.get("bootstrap"):
            _bootstrap(cluster, name, str(body["address"]), config)
        else:
            raise ApiError("Invalid options - neither bootstrap nor join token was given", 400)
        cluster.started = True


def _bootstrap(cluster: Cluster, name: str, address: str, config: Config) -> None:
    try:
        certs.self_signed(cluster.cluster_cert, cluster.cluster_key, name)
        cluster.identify(name, address)
        cluster.database.create(address)
        cluster.database.start()
        certificate = cluster.server_cert.read_text()
        me = Member(name, address, certificate, votes=True, joined_at=time.time())
        note(cluster.voters_file, [address])
        cluster.store.insert(MEMBERS, name, me.row())
        cluster.listen()
        cluster.app.hooks.on_bootstrap(cluster, config)
    except BaseException:
        _undo(cluster)
        raise


def _undo(cluster: Cluster) -> None:
    try:
        if cluster.initialized:
            cluster.app.hooks.pre_remove(cluster, True)
    except ApiError as error:
        log(f"Failed to run pre-remove hook on initialization error: {error}")
    finally:
        cluster.reset()


# Tokens


def issue_token(cluster: Cluster, name: str, expire_after: float) -> str:
    """A new token for the member-to-be `name`; AlreadyExistsError while it has one.

    `expire_after` is in seconds; 0 is for ever.
    """
    check_name(name, "Token name")
    _drop_expired(cluster)
    expires = (
        datetime.now(timezone.utc) + timedelta(seconds=expire_after) if expire_after else None
    )
    secret = secrets.token_hex(32)
    row = {"name": name, "secret": secret, "expires_at": expires.isoformat() if expires else None}
    cluster.store.insert(TOKENS, name, row)
    return _token(cluster, secret)


def _token(cluster: Cluster, secret: str) -> str:
    others = [member.address for member in cluster.members() if member.name != cluster.name]
    token = {
        "secret": secret,
        "fingerprint": certs.fingerprint(cluster.cluster_cert.read_text()),
        "join_addresses": [cluster.address, *others],
    }
    return base64.b64encode(json.dumps(token).encode()).decode()


def list_tokens(cluster: Cluster) -> list[Row]:
    """The tokens that can still be used."""
    rows = [row for row in cluster.store.all(TOKENS).values() if not _expired(row)]
    return [
        {"name": r["name"], "token": _token(cluster, r["secret"]), "expires_at": r["expires_at"]}
        for r in rows
    ]


def withdraw_token(cluster: Cluster, name: str) -> None:
    """Forget a token; ApiError 404 if there is none for this name."""
    if not cluster.store.delete(TOKENS, name):
        raise ApiError(f'"{TOKENS}" entry not found', 404)


def _expired(row: Row) -> bool:
    end = row["expires_at"]
    return bool(end) and datetime.fromisoformat(end) < datetime.now(timezone.utc)


def _drop_expired(cluster: Cluster) -> None:
    for name, row in cluster.store.all(TOKENS).items():
        if _expired(row):
            cluster.store.delete(TOKENS, name)


# Joining


def admit(cluster: Cluster, body: Row) -> Row:
    """On a member: check a joiner's token, record the joiner, tell it what it needs."""
    name, address = str(body["name"]), str(body["address"])
    token = _find_token(cluster, str(body["secret"]))
    if token is None:
        raise ApiError("Failed to join cluster with the given join token", 403)
    if _expired(token):
        raise ApiError("Token expired", 403)
    if token["name"] != name:
        raise ApiError("Joining server certificate SAN does not contain join token name", 403)
    members = cluster.members()
    if any(member.address == address for member in members):
        raise ApiError(f'Remote with address "{address}" exists')
    joiner = Member(name, address, str(body["certificate"]), joined_at=time.time())
    cluster.store.transact(
        expect_op(TOKENS, name, token),
        insert_op(MEMBERS, name, joiner.row()),
        delete_op(TOKENS, name),
    )
    return {
        "voters": voters(members),
        "cluster_cert": cluster.cluster_cert.read_text(),
        "cluster_key": cluster.cluster_key.read_text(),
        "trusted_member": cluster.address,
    }


def _find_token(cluster: Cluster, secret: str) -> Row | None:
    # A token issued by another member may reach this replica a moment later than its joiner does.
    for _ in range(10):
        for row in cluster.store.all(TOKENS).values():
            if secrets.compare_digest(row["secret"], secret):
                return row
        if cluster.is_leader():
            return None
        time.sleep(0.1)
    return None


def _join(cluster: Cluster, name: str, address: str, token: str, config: Config) -> None:
    accepted = _ask_to_join(cluster, name, address, token)
    try:
        cluster.cluster_cert.write_text(accepted["cluster_cert"])
        cluster.cluster_key.touch(mode=0o600)
        cluster.cluster_key.write_text(accepted["cluster_key"])
        cluster.identify(name, address)
        cluster.listen()
        note(cluster.voters_file, accepted["voters"])
        _wait_for_own_row(cluster)
        _assume_vote(cluster)
        cluster.app.hooks.on_join(cluster, config)
    except BaseException:
        trusted = cluster.peer(accepted["trusted_member"])
        _undo(cluster)
        _forget_me(trusted, name)
        raise
    cluster.call_others("POST", "/core/internal/new-member", {"name": name})


def _ask_to_join(cluster: Cluster, name: str, address: str, token: str) -> Row:
    try:
        decoded = json.loads(base64.b64decode(token, validate=True))
        addresses, fingerprint = decoded["join_addresses"], decoded["fingerprint"]
        secret = decoded["secret"]
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise ApiError(f"Failed to decode join token: {error}", 400) from error
    request = {
        "name": name,
        "address": address,
        "secret": secret,
        "certificate": cluster.server_cert.read_text(),
    }
    last = "no address to join at"
    for target in addresses:
        try:
            return TlsPeer(target, fingerprint).call("POST", "/core/internal/cluster", request)
        except ApiError as error:
            log(f"Unable to complete cluster join request at {target}: {error}")
            last = str(error)
    raise ApiError(f"{len(addresses)} join attempts were unsuccessful. Last error: {last}")


def _wait_for_own_row(cluster: Cluster) -> None:
    deadline = time.monotonic() + JOIN_DEADLINE
    while cluster.store.get(MEMBERS, cluster.name) is None:
        if time.monotonic() > deadline:
            raise ApiError(
                "The cluster's database did not reach this member: context deadline exceeded"
            )
        time.sleep(0.05)


def _assume_vote(cluster: Cluster) -> None:
    """A joiner makes itself a voter if the cluster is large enough and has too few."""
    members = cluster.members()
    if len(members) >= SMALLEST and len(voters(members)) < VOTERS:
        become_voter(cluster, voters(members))
        _set_vote(cluster, cluster.name, True)


def _forget_me(trusted: TlsPeer, name: str) -> None:
    try:
        trusted.call("DELETE", f"/core/1.0/cluster/{name}?force=1", timeout=60)
    except ApiError as error:
        log(f"Failed to clean up cluster state after join failure: {error}")


# Leaving


def remove(cluster: Cluster, name: str, force: bool) -> None:
    """Remove a member: its pre-remove hook, its vote, its rows, its state."""
    gone = cluster.member(name)
    others = [member for member in cluster.members() if member.name != name]
    if not others:
        raise ApiError("Cannot leave a cluster with 1 members")
    if all(member.role == "PENDING" for member in others) and gone.role != "PENDING":
        raise ApiError("Cannot remove cluster members, there are no remaining non-pending members")
    if name == cluster.name or not cluster.database.exists:
        _let_another_remove(cluster, others, name, force)
        return
    peer = cluster.peer(gone.address)
    _step(force, peer, "POST", "/core/internal/pre-remove", {"force": force})
    cluster.database.kick(gone.address)
    doomed = [delete_op(MEMBERS, name), delete_op(TOKENS, name)]
    for kind in cluster.app.cascade:
        rows = cluster.store.all(kind).items()
        doomed += [delete_op(kind, key) for key, row in rows if row.get("member") == name]
    cluster.store.transact(*doomed)
    _spread_voters(cluster)
    _step(force, peer, "POST", "/core/internal/reset", {})
    cluster.app.hooks.post_remove(cluster, name, force)
    cluster.call_others("POST", "/core/internal/post-remove", {"name": name, "force": force})


def _step(force: bool, peer: TlsPeer, method: str, url: str, body: Row) -> None:
    try:
        peer.call(method, url, body, timeout=120)
    except ApiError as error:
        if not force:
            raise
        log(f"{method} {url} on {peer.address} failed, going on by force: {error}")


def _let_another_remove(cluster: Cluster, others: list[Member], name: str, force: bool) -> None:
    """Ask a voter that stays. If only this member, which leaves, votes, make one first."""
    url = f"/core/1.0/cluster/{name}" + ("?force=1" if force else "")
    for member in sorted(others, key=lambda m: not m.votes):
        if not reachable(cluster, member):
            continue
        if not member.votes:
            _give_vote(cluster, member)
        cluster.peer(member.address).call("DELETE", url, timeout=180)
        return
    raise ApiError("Found no voters to transfer leadership to")


# Who is there


def reachable(cluster: Cluster, member: Member) -> bool:
    """Whether the member's daemon answers with an open database (3 seconds)."""
    try:
        cluster.peer(member.address).call("GET", "/core/1.0/ready", timeout=3)
    except (ApiError, ssl.SSLError):
        return False
    return True


def listing(cluster: Cluster) -> list[Row]:
    """`GET /core/1.0/cluster`."""

    def one(member: Member) -> Row:
        return {
            "name": member.name,
            "address": member.address,
            "certificate": member.certificate,
            "role": member.role,
            "schema_internal_version": 1,
            "schema_external_version": 1,
            "last_heartbeat": member.last_heartbeat,
            "status": "ONLINE" if reachable(cluster, member) else "UNREACHABLE",
            "extensions": list(cluster.app.extensions),
            "secret": "",
        }

    return sorted(in_parallel(one, cluster.members()), key=lambda row: row["name"])


def voters(members: list[Member]) -> list[str]:
    """The addresses of the members that vote."""
    return [member.address for member in members if member.votes]


def heartbeat(cluster: Cluster) -> None:
    """On the leader: note who answers, give out votes and roles, run the application's hook."""
    members = cluster.members()
    beat = {"voters": voters(members)}

    def answers(member: Member) -> bool:
        try:
            cluster.peer(member.address).call("POST", "/core/internal/heartbeat", beat, timeout=3)
        except ApiError:
            return False
        return True

    alive = dict(zip([m.name for m in members], in_parallel(answers, members), strict=True))
    wanted = plan([Seat(member.name, member.votes, alive[member.name]) for member in members])
    for member in members:
        if member.name in wanted.promote:
            _give_vote(cluster, member)
    for member in members:
        if member.name in wanted.demote:
            _take_vote(cluster, member)
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    for member in cluster.members():
        role = wanted.roles.get(member.name, member.role)
        beats = now if alive.get(member.name) else member.last_heartbeat
        if alive.get(member.name) or (member.role not in ("PENDING", role)):
            fresh = replace(member, role=role, last_heartbeat=beats)
            cluster.store.swap(MEMBERS, member.name, member.row(), fresh.row())
    if wanted.promote or wanted.demote:
        _spread_voters(cluster)
    cluster.app.hooks.on_heartbeat(cluster)


def _give_vote(cluster: Cluster, member: Member) -> None:
    with cluster.voting:
        known = cluster.members()
        if any(now.votes for now in known if now.name == member.name):
            return
        body = {"voters": voters(known)}
        peer = cluster.peer(member.address)
        peer.call("POST", "/core/internal/promote", body, timeout=JOIN_DEADLINE + 10)
        _set_vote(cluster, member.name, True)


def _take_vote(cluster: Cluster, member: Member) -> None:
    with cluster.voting:
        cluster.database.kick(member.address)
        _set_vote(cluster, member.name, False)


def _set_vote(cluster: Cluster, name: str, votes: bool) -> None:
    for _ in range(10):  # a heartbeat may change the row meanwhile
        now = cluster.member(name)
        if cluster.store.swap(MEMBERS, name, now.row(), replace(now, votes=votes).row()):
            return
    raise ApiError(f"Failed to record the vote of {name}: its row keeps changing")


def _spread_voters(cluster: Cluster) -> None:
    now = voters(cluster.members())
    note(cluster.voters_file, now)
    cluster.call_others("POST", "/core/internal/heartbeat", {"voters": now}, timeout=3)


def heed(cluster: Cluster, beat: Row) -> None:
    """On every member: learn from a heartbeat who votes; stop voting if this member does not."""
    if not cluster.initialized or not beat["voters"]:
        return
    note(cluster.voters_file, beat["voters"])
    if not cluster.database.exists or cluster.address in beat["voters"]:
        return
    # Not while the vote is being given: then the heartbeat is older than that.
    if cluster.voting.acquire(blocking=False):
        try:
            if not cluster.database.backend.connected():
                log("This member's vote was taken while it was away")
                cluster.database.drop()
        finally:
            cluster.voting.release()


def become_voter(cluster: Cluster, addresses: list[str]) -> None:
    """Join the raft cluster of the given voters; ApiError after a minute without success."""
    with cluster.voting:
        if cluster.database.exists:
            return
        cluster.database.join(cluster.address, addresses)
        try:
            cluster.database.start()
            cluster.store.wait_connected(JOIN_DEADLINE)
        except ApiError:
            cluster.database.drop()
            raise


def server_info(cluster: Cluster) -> dict[str, Any]:
    """`GET /core/1.0`: works before initialization."""
    return {
        "name": cluster.name or socket.gethostname(),
        "address": cluster.address,
        "version": cluster.app.version,
        "ready": cluster.initialized and cluster.store.connected(),
        "extensions": list(cluster.app.extensions),
    }
