"""Relations between two applications, and secrets that are granted over them."""

from __future__ import annotations

import json
from collections.abc import Callable

import jubilant
import pytest

from lab.exerciser.story import Story

HOST, GUEST = "visitor/0", "exerciser/0"


@pytest.fixture(scope="module")
def related(story: Story, deploy: Callable[..., None]) -> Story:
    """Deploy two applications of two and one units and integrate them."""
    deploy("exerciser", units=2)
    deploy("visitor")
    story.juju.integrate("exerciser:visit", "visitor:host")
    for unit in story.units():
        story.sent(unit, f"visit-relation-changed {HOST}")
    story.sent(HOST, "host-relation-changed exerciser/1")
    story.sent(HOST, "host-relation-changed exerciser/0")
    story.settle()
    return story


def visit(of: str, **data: str) -> dict[str, object]:
    return (
        {"endpoint": "visit", "of": of, "data": data} if data else {"endpoint": "visit", "of": of}
    )


def host(of: str, **data: str) -> dict[str, object]:
    return {**visit(of, **data), "endpoint": "host"}


def test_created_comes_before_joined(related: Story) -> None:
    events = related.events(HOST)
    created = events.index("host-relation-created exerciser")
    joined = [i for i, event in enumerate(events) if "-joined" in event]
    assert len(joined) == 2
    assert created < min(joined)
    for place in joined:
        assert events[place + 1] == events[place].replace("-joined", "-changed")


def test_no_peer_events_for_a_single_unit(related: Story) -> None:
    assert not [event for event in related.events(HOST) if event.startswith("cluster")]


def test_unit_data_crosses(related: Story) -> None:
    mark = related.mark(HOST, *related.units())
    related.one("exerciser/1", set=visit("unit", word="from one"))
    related.sent(HOST, "host-relation-changed exerciser/1", mark)
    related.settle()
    assert related.since(mark) == {
        HOST: ["host-relation-changed exerciser/1"],
        "exerciser/0": [],
        "exerciser/1": [],
    }
    assert related.one(HOST, get=host("exerciser/1"))["word"] == "from one"


def test_application_data_crosses(related: Story) -> None:
    mark = related.mark(HOST, *related.units())
    related.one(HOST, set=host("app", word="to all"))
    for unit in related.units():
        related.sent(unit, "visit-relation-changed visitor", mark)
    related.settle()
    assert related.since(mark)[HOST] == []
    assert related.one(GUEST, get=visit("visitor"))["word"] == "to all"
    env = related.last(GUEST, "visit-relation-changed").env
    assert env["JUJU_REMOTE_APP"] == "visitor"
    assert env.get("JUJU_REMOTE_UNIT", "") == ""


def test_first_data_of_a_unit(related: Story) -> None:
    bag = related.one(HOST, get=host("exerciser/1"))
    address = related.juju.status().apps["exerciser"].units["exerciser/1"].public_address
    assert bag["ingress-address"] == address
    assert bag["egress-subnets"] == f"{address}/32"
    assert bag["private-address"] == address  # 3.6 only


def test_followers_cannot_read_their_own_bag_of_another_relation(related: Story) -> None:
    follower = related.others()[0]
    relation = related.last(follower, "visit-relation-created").env["JUJU_RELATION_ID"]
    done = related.tool(
        follower, "relation-get", "--format=json", "-r", relation, "--app", "-", "exerciser"
    )
    assert done["rc"] == 1
    assert "permission denied" in done["err"]


def test_show_unit_of_a_relation(related: Story) -> None:
    (info,) = [r for r in related.juju.show_unit(HOST).relation_info if r.endpoint == "host"]
    assert info.related_endpoint == "visit"
    assert set(info.related_units) == {"exerciser/0", "exerciser/1"}
    assert info.related_units["exerciser/1"].data["word"] == "from one"
    assert info.local_unit is None


def test_status_shows_the_relation(related: Story) -> None:
    app = related.juju.status().apps["exerciser"]
    (relation,) = app.relations["visit"]
    assert (relation.related_app, relation.interface) == ("visitor", "visit")


def test_integrating_twice_is_refused(related: Story) -> None:
    with pytest.raises(jubilant.CLIError) as caught:
        related.juju.integrate("exerciser:visit", "visitor:host")
    assert "already exists" in caught.value.stderr


def test_a_new_unit_joins_both_relations(related: Story) -> None:
    mark = related.mark(HOST)
    related.juju.add_unit("exerciser")
    related.sent(HOST, "host-relation-changed exerciser/2", mark)
    related.sent("exerciser/2", f"visit-relation-changed {HOST}")
    related.sent("exerciser/2", "cluster-relation-changed exerciser/0")
    related.settle()
    new = related.events("exerciser/2")
    place = new.index("config-changed")
    assert new[0] == "install"
    assert set(new[1:place]) == {
        "cluster-relation-created exerciser",
        "visit-relation-created visitor",
    }
    assert new[place : place + 2] == ["config-changed", "start"]
    assert new[place + 2 : place + 5] == [
        "visit-relation-changed visitor",  # its bag has data, which comes before its units
        f"visit-relation-joined {HOST}",
        f"visit-relation-changed {HOST}",
    ]  # and peers come last
    assert related.since(mark)[HOST] == [
        "host-relation-joined exerciser/2",
        "host-relation-changed exerciser/2",
    ]


def test_departing_unit_is_named_and_its_data_stays_readable(related: Story) -> None:
    related.plan(
        HOST,
        "host-relation-departed",
        {"get": host("exerciser/2")},
        {"members": {"endpoint": "host"}},
    )
    mark = related.mark(HOST, *related.units())
    related.juju.remove_unit("exerciser/2")
    related.sent(HOST, "host-relation-departed", mark)
    related.sent("exerciser/2", "remove", mark)
    related.settle()
    bag, members = related.last(HOST, "host-relation-departed", "end").out
    assert "ingress-address" in bag
    assert members == ["exerciser/0", "exerciser/1"]
    left = related.since(mark)
    departed = "host-relation-departed exerciser/2 (exerciser/2 departs)"
    assert left[HOST] == [departed]
    leaver = left["exerciser/2"]
    assert leaver[:2] == [
        f"visit-relation-departed {HOST} (exerciser/2 departs)",
        "visit-relation-broken visitor",
    ]
    assert sorted(leaver[2:4]) == [
        "cluster-relation-departed exerciser/0 (exerciser/2 departs)",
        "cluster-relation-departed exerciser/1 (exerciser/2 departs)",
    ]
    assert leaver[4:] == ["stop", "remove"]


# --- secrets over a relation --------------------------------------------------------------------


@pytest.fixture(scope="module")
def secret(related: Story) -> str:
    """Have the visitor make a secret and grant it over the relation."""
    uri = related.one(
        HOST, secret_add={"owner": "app", "label": "pass", "content": {"word": "one"}}
    )
    related.one(HOST, secret_grant={"id": uri, "endpoint": "host"})
    return uri


def test_secret_without_a_grant(related: Story) -> None:
    uri = related.one(HOST, secret_add={"owner": "app", "content": {"word": "hidden"}})
    done = related.tool(GUEST, "secret-get", "--format=json", uri)
    assert (done["rc"], done["err"].strip()) == (1, "ERROR permission denied")


def test_granted_secret_is_tracked(related: Story, secret: str) -> None:
    assert related.one(GUEST, secret_get={"id": secret, "label": "seen"}) == {"word": "one"}
    mark = related.mark(GUEST, HOST)
    related.one(HOST, secret_set={"id": secret, "content": {"word": "two"}})
    changed = related.sent(GUEST, "secret-changed", mark)
    assert str(changed) == "secret-changed seen"
    assert changed.env["JUJU_SECRET_ID"].startswith("secret:")
    assert changed.env["JUJU_SECRET_LABEL"] == "seen"
    assert "JUJU_SECRET_REVISION" not in changed.env
    related.settle()
    assert related.one(GUEST, secret_get={"label": "seen"}) == {"word": "one"}
    assert related.one(GUEST, secret_get={"label": "seen", "peek": True}) == {"word": "two"}
    assert related.one(GUEST, secret_get={"label": "seen"}) == {"word": "one"}


def test_unused_revision_is_offered_for_removal(related: Story, secret: str) -> None:
    mark = related.mark(HOST)
    assert related.one(GUEST, secret_get={"label": "seen", "refresh": True}) == {"word": "two"}
    related.settle()
    assert "secret-remove pass r1" not in related.since(mark)[HOST]  # the owner read it as well
    related.one(HOST, secret_get={"label": "pass", "refresh": True})
    removed = related.sent(HOST, "secret-remove", mark)
    assert str(removed) == "secret-remove pass r1"
    assert removed.env["JUJU_SECRET_REVISION"] == "1"


def test_only_consumers_hear_of_a_change(related: Story, secret: str) -> None:
    assert not [e for e in related.events("exerciser/1") if e.startswith("secret-changed")]


def test_revoked_secret(related: Story, secret: str) -> None:
    related.one(HOST, secret_revoke={"id": secret, "endpoint": "host"})
    done = related.tool(GUEST, "secret-get", "--format=json", secret, "--peek")
    assert (done["rc"], done["err"].strip()) == (1, "ERROR permission denied")
    related.one(HOST, secret_grant={"id": secret, "endpoint": "host", "unit": "exerciser/1"})
    assert related.one("exerciser/1", secret_get={"id": secret}) == {"word": "two"}
    done = related.tool(GUEST, "secret-get", "--format=json", secret, "--peek")
    assert done["rc"] == 1


def test_grant_dies_with_the_relation(related: Story, secret: str) -> None:
    mark = related.mark(HOST)
    related.juju.remove_relation("exerciser:visit", "visitor:host")
    related.sent(HOST, "host-relation-broken", mark)
    related.settle()
    done = related.tool("exerciser/1", "secret-get", "--format=json", secret, "--peek")
    assert (done["rc"], done["err"].strip()) == (1, "ERROR permission denied")


def test_broken_comes_last_and_names_no_unit(related: Story) -> None:
    for unit, event in ((GUEST, "visit-relation-broken"), (HOST, "host-relation-broken")):
        env = related.last(unit, event).env
        assert env.get("JUJU_REMOTE_UNIT", "") == ""
        events = [e for e in related.events(unit) if e.startswith(event.rpartition("-")[0])]
        assert events[-1].startswith(event)
    ids = related.tool(GUEST, "relation-ids", "visit", "--format=json")
    assert json.loads(ids["out"]) == []


def test_models_are_apart(related: Story, charms: dict) -> None:
    """Two models have units of the same name that share nothing."""
    other = jubilant.Juju(wait_timeout=120)
    other.add_model("apart")
    try:
        other.deploy(charms["empty"], "exerciser")
        other.wait(lambda s: jubilant.all_agents_idle(s, "exerciser"), delay=0.2, successes=1)
        assert set(other.status().apps) == {"exerciser"}
        assert set(related.juju.status().apps) == {"exerciser", "visitor"}
        assert other.show_model().model_uuid != related.juju.show_model().model_uuid
        assert other.show_unit("exerciser/0").charm != related.juju.show_unit(GUEST).charm
    finally:
        other.destroy_model("apart", destroy_storage=True, force=True)
    names = json.loads(related.juju.cli("models", "--format", "json", include_model=False))
    assert "apart" not in [model["short-name"] for model in names["models"]]
