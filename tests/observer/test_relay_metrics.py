"""The gauges that come from the relays' heartbeats."""

from typing import Any

import pytest

from gateway.calls import Heartbeat
from gateway.observer.relay_metrics import RelayMetrics
from tests.observer.events import NOW, Clock, beat, named, value

GAUGES = [
    "mcp_gateway_in_flight_calls",
    "mcp_gateway_upstream_up",
    "mcp_gateway_upstream_last_success_timestamp_seconds",
    "mcp_gateway_tools",
    "mcp_gateway_tools_list_bytes",
]
UPSTREAM = {"workspace": "engineering", "server": "github"}


def ns(seconds: float) -> int:
    return int((NOW + seconds) * 1e9)


def update(relays: RelayMetrics, *heartbeats: Heartbeat) -> None:
    for heartbeat in heartbeats:
        relays.update(heartbeat)


def test_a_relay_says_what_it_knows_of_its_upstreams() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    knows = {"up": True, "last_success_ns": ns(-3), "in_flight": 2, "tools": 7, "tools_list_bytes": 4096}
    update(relays, beat(clock, upstream=knows))

    assert [named(relays, gauge) for gauge in GAUGES] == [[(UPSTREAM, number)] for number in (2, 1, NOW - 3, 7, 4096)]


def test_an_upstream_that_nobody_has_asked_yet_is_neither_up_nor_down() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(relays, beat(clock, upstream={}))

    assert named(relays, "mcp_gateway_upstream_up") == []
    assert named(relays, "mcp_gateway_upstream_last_success_timestamp_seconds") == []
    assert value(relays, "mcp_gateway_in_flight_calls") == 0


def test_calls_in_flight_are_those_of_all_relays_and_a_catalog_is_that_of_any() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(
        relays,
        beat(clock, pid=1, upstream={"in_flight": 9}),
        beat(clock, pid=1, upstream={"in_flight": 2, "tools": 7}),
        beat(clock, pid=2, upstream={"in_flight": 3}),
        beat(clock, pid=2, replica="there", upstream={"in_flight": 4}),
    )

    assert value(relays, "mcp_gateway_in_flight_calls") == 9
    assert value(relays, "mcp_gateway_tools") == 7


@pytest.mark.parametrize(
    ("first", "second", "up"),
    [
        ({"up": True, "last_success_ns": ns(-100)}, {"up": False, "last_success_ns": ns(-200)}, 0),
        ({"up": False}, {"up": True, "last_success_ns": ns(+1)}, 1),
        ({"up": True, "last_success_ns": ns(-1)}, {}, 1),
        ({"up": False}, {}, 0),
    ],
)
def test_an_upstream_is_up_if_the_relay_that_asked_last_says_so(
    first: dict[str, Any], second: dict[str, Any], up: int
) -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(relays, beat(clock, pid=1, upstream=first), beat(clock, pid=2, upstream=second))

    assert value(relays, "mcp_gateway_upstream_up") == up


def test_an_old_failure_does_not_become_newer_by_being_said_again() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(relays, beat(clock, pid=1, upstream={"up": False}))
    clock.now += 2
    good = {"up": True, "last_success_ns": ns(1)}
    update(relays, beat(clock, pid=1, upstream={"up": False}), beat(clock, pid=2, upstream=good))

    assert value(relays, "mcp_gateway_upstream_up") == 1


def test_a_failure_after_a_success_is_new_though_nobody_heard_of_the_success() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(relays, beat(clock, pid=1, upstream={"up": False}))
    clock.now += 1
    of_one = beat(clock, pid=1, upstream={"up": False, "last_success_ns": ns(0.5)})
    of_another = beat(clock, pid=2, upstream={"up": True, "last_success_ns": ns(0.7)})
    update(relays, of_one, of_another)

    assert value(relays, "mcp_gateway_upstream_up") == 0


def test_a_heartbeat_that_is_late_changes_nothing() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    late = beat(clock, upstream={"up": False, "in_flight": 9})
    clock.now += 1
    update(relays, beat(clock, upstream={"up": True, "last_success_ns": ns(1), "in_flight": 1}), late)

    assert value(relays, "mcp_gateway_upstream_up") == 1
    assert value(relays, "mcp_gateway_in_flight_calls") == 1


def test_a_catalog_is_remembered_between_the_heartbeats_that_name_its_tools() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(relays, beat(clock, upstream={"tool_names": ["find"]}), beat(clock, upstream={}))
    before = relays.catalog("engineering")
    update(relays, beat(clock, upstream={"tool_names": []}))

    assert before == {("github", "find")}
    assert relays.catalog("engineering") == set()


def test_a_relay_that_is_silent_for_more_than_5_seconds_no_longer_counts() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(relays, beat(clock, pid=1, upstream={"in_flight": 2}, event_loop_lag_ms=500.0))
    clock.now += 5
    update(relays, beat(clock, pid=2, upstream={"in_flight": 3}))
    both = value(relays, "mcp_gateway_in_flight_calls")
    clock.now += 0.1

    assert both == 5
    assert value(relays, "mcp_gateway_in_flight_calls") == 3
    assert relays.worst_lag_s() == 0
    clock.now += 5
    assert relays.worst_lag_s() is None
    assert [named(relays, gauge) for gauge in GAUGES] == [[]] * len(GAUGES)


def test_the_event_loops_lag_is_the_worst_of_all_relays_in_15_seconds() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    update(relays, beat(clock, pid=1, event_loop_lag_ms=250.0))
    for _ in range(15):
        clock.now += 1
        update(relays, beat(clock, pid=1, event_loop_lag_ms=1.0), beat(clock, pid=2, event_loop_lag_ms=20.0))
    peak = relays.worst_lag_s()
    clock.now += 1
    update(relays, beat(clock, pid=1), beat(clock, pid=2))

    assert peak == 0.25
    assert relays.worst_lag_s() == 0.02


def test_what_is_up_and_what_it_offers_is_what_living_relays_say_whether_anybody_scrapes() -> None:
    clock = Clock()
    relays = RelayMetrics(clock)
    unknown = (relays.upstream_up("engineering", "github"), relays.catalog("engineering"))
    names = ["create_issue", "find"]
    update(relays, beat(clock, upstream={"up": True, "last_success_ns": clock.ns, "tool_names": names}))
    clock.now += 1
    update(relays, beat(clock, upstream={"up": False, "last_success_ns": ns(0)}))
    alive = (relays.upstream_up("engineering", "github"), relays.catalog("engineering"))
    elsewhere = (relays.upstream_up("lab", "github"), relays.catalog("lab"))
    clock.now += 5.1
    silent = (relays.upstream_up("engineering", "github"), relays.catalog("engineering"))

    assert alive == (False, {("github", "create_issue"), ("github", "find")})
    assert unknown == elsewhere == silent == (None, set())
