"""Whatever goes wrong and in whatever order: one cluster, one joiner at a time, all get in."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import formation
from simulation import APP, Faults, Simulation

ALL = ("microceph", "microovn", "lxd")


def check(simulation: Simulation) -> None:
    for cluster in simulation.clusters.values():
        assert cluster.bootstraps == 1
        assert cluster.most_tokens <= 2 * formation.WINDOW  # an old and a new issuer
        assert not cluster.half
    assert simulation.is_formed()
    assert not simulation.tokens()
    for unit in simulation.units.values():
        assert "sealed" not in unit.bag.get("grants", "")


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("services", [("lxd",), ALL])
def test_forms_undisturbed_in_a_single_pass(count, services):
    simulation = Simulation(count, services)
    assert simulation.run(100_000, update_status=False)
    check(simulation)
    assert simulation.most_joins <= 1
    assert simulation.tokens_issued == (count - 1) * len(services)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 6),
    services=st.sampled_from([("lxd",), ALL]),
    seed=st.integers(0, 2**32),
    crash=st.sampled_from([0.0, 0.02, 0.1]),
    join_fails=st.sampled_from([0.0, 0.3]),
    half_joins=st.sampled_from([0.0, 0.5]),
    leader_changes=st.sampled_from([0.0, 0.02, 0.1]),
)
def test_converges_whatever_goes_wrong(
    count, services, seed, crash, join_fails, half_joins, leader_changes
):
    faults = Faults(crash, join_fails, half_joins, leader_changes)
    simulation = Simulation(count, services, seed, faults)
    simulation.run(3000)
    simulation.faults = Faults()
    assert simulation.run(100_000), "it does not come to rest"
    check(simulation)


@pytest.mark.parametrize(("count", "seed"), [(6, 3548), (7, 2800775222)])
def test_a_half_join_that_was_never_reported_is_cleaned_and_done_again(count, seed):
    services = ("microceph", "microovn", "lxd")
    simulation = Simulation(count, services, seed, Faults(0.1, 0.3, 0.5, 0.1))
    simulation.run(3000)
    simulation.faults = Faults()
    assert simulation.run(100_000)
    check(simulation)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), crash=st.sampled_from([0.0, 0.05]))
def test_joins_are_serial_while_no_leader_changes(seed, crash):
    simulation = Simulation(5, ("lxd",), seed, Faults(crash=crash))
    simulation.run(100_000)
    assert simulation.most_joins <= 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), leader=st.integers(0, 3))
def test_grows_by_a_unit_under_any_leader(seed, leader):
    simulation = Simulation(3, ("lxd",), seed)
    assert simulation.run(100_000)
    simulation.add_unit()
    simulation.elect(f"{APP}/{leader}")
    assert simulation.run(100_000)
    check(simulation)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    leader=st.integers(0, 3),
    crash=st.sampled_from([0.0, 0.05]),
    join_fails=st.sampled_from([0.0, 0.3]),
)
def test_a_service_is_added_to_a_running_cloud(seed, leader, crash, join_fails):
    simulation = Simulation(4, ("lxd",), seed)
    assert simulation.run(100_000)
    simulation.elect(f"{APP}/{leader}")
    simulation.faults = Faults(crash, join_fails)
    simulation.turn_on("microovn")
    simulation.run(3000)
    simulation.faults = Faults()
    assert simulation.run(100_000)
    check(simulation)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    whole=st.sets(st.integers(0, 4), min_size=1),
    some=st.sets(st.integers(0, 4)),
    crash=st.sampled_from([0.0, 0.05]),
    leader_changes=st.sampled_from([0.0, 0.05]),
)
def test_a_cluster_from_before_is_adopted_and_joined(seed, whole, some, crash, leader_changes):
    """By all units; the leader is in it, so that it is known from the first hook."""
    simulation = Simulation(5, ALL, seed, Faults(crash=crash))
    simulation.elect(f"{APP}/{min(whole)}")
    for service in ALL:
        simulation.cluster_before(service, *whole)
    simulation.cluster_before("lxd", *some)
    while not simulation.app_bag:
        simulation.run(1)
    simulation.faults = Faults(crash=crash, leader_changes=leader_changes)
    simulation.run(3000)
    simulation.faults = Faults()
    assert simulation.run(100_000)
    assert simulation.is_formed()
    assert not simulation.tokens()
    assert [cluster.bootstraps for cluster in simulation.clusters.values()] == [0, 0, 0]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), crash=st.sampled_from([0.0, 0.05]))
def test_two_clusters_that_meet_are_not_mixed(seed, crash):
    simulation = Simulation(5, ("microovn", "lxd"), seed, Faults(crash=crash))
    for service in ("microovn", "lxd"):
        simulation.cluster_before(service, 0, 1)
        simulation.cluster_before(service, 2, 3, rival=True)
    simulation.run(3000)
    simulation.faults = Faults()
    assert simulation.run(100_000)
    ours, theirs = simulation.clusters["lxd"], simulation.rivals["lxd"]
    assert ours.members == {"host-0", "host-1", "host-4"}
    assert theirs.members == {"host-2", "host-3"}
    for unit in (2, 3):
        said = simulation.message(f"{APP}/{unit}")
        assert "blocked" in said
        assert "microovn cluster theirs (host-2, host-3)" in said
        assert "microovn cluster ours (host-0, host-1" in said


def test_a_cluster_from_before_that_lacks_a_service_gets_it():
    simulation = Simulation(3, ("microovn", "lxd"))
    simulation.cluster_before("lxd", 0, 1)
    assert simulation.run(100_000)
    assert simulation.is_formed()
    assert simulation.clusters["lxd"].bootstraps == 0
    assert simulation.clusters["microovn"].bootstraps == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_clusters_that_no_unit_has_all_of_are_said(seed):
    simulation = Simulation(2, ("microovn", "lxd"), seed)
    simulation.cluster_before("lxd", 0)
    simulation.cluster_before("microovn", 1)
    assert simulation.run(100_000)
    said = simulation.message(f"{APP}/0"), simulation.message(f"{APP}/1")
    if simulation.clusters["microovn"].bootstraps:  # before it could know of the other
        assert "microovn cluster theirs (host-0)" in said[1]
    else:
        assert "microovn is in a cluster on cloud/1 already" in said[0]
