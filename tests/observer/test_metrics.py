"""The metrics sink: what it counts, exactly, and how it exposes what is new."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.calls import PHASES, UNKNOWN, ErrorType, Phases, ToolCall
from gateway.config import Metrics
from gateway.observer.call_metrics import CallMetrics
from gateway.observer.signals import DURATION_BUCKETS, FINE_BUCKETS
from tests.observer.events import (
    AT_ONCE,
    NOW,
    Clock,
    Samples,
    batch,
    beat,
    call,
    named,
    operation,
    sample_key,
    samples,
    sink_at,
    value,
)

NOT_UPSTREAM: dict[str, Any] = {"duration_ms": 0.0, "total_ms": 1.0, "phases": Phases(authenticate=0.5, route=0.5)}
MILLISECONDS = st.sampled_from([0.0, 0.4, 1.0, 9.999, 10.0, 10.001, 50.0, 300_000.0, 400_000.0]) | st.floats(0, 1e6)


class PlainFold:
    """What must be exposed of calls, sample by sample: the slow, obvious twin of the sink."""

    def __init__(self, calls: Iterable[ToolCall]) -> None:
        self.samples: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
        for one in calls:
            self.add(one)

    def add(self, one: ToolCall) -> None:
        error = one.error_type or ""
        tool = one.tool_name if one.server_slug == UNKNOWN else f"{one.server_slug}__{one.tool_name}"
        call_labels = {
            "workspace": one.workspace_id,
            "token": one.token_id,
            "server": one.server_slug,
            "tool": one.tool_name,
        }
        key = sample_key("mcp_gateway_tool_calls_total", **call_labels, status=one.status, error_type=str(error))
        self.samples[key] += 1
        self.observe("mcp_gateway_tool_call_duration_seconds", DURATION_BUCKETS, one.duration_ms, call_labels)
        self.observe(
            "mcp_gateway_overhead_seconds",
            FINE_BUCKETS,
            max(one.total_ms - one.duration_ms, 0.0),
            {"workspace": one.workspace_id},
        )
        for bar in one.waterfall():
            labels = {"phase": bar.phase, "server": one.server_slug}
            self.observe("mcp_gateway_phase_duration_seconds", FINE_BUCKETS, bar.duration_ms, labels)
        labels = {
            "mcp_method_name": "tools/call",
            "gen_ai_tool_name": tool,
            "error_type": str(error),
            "network_transport": "tcp",
        }
        self.observe("mcp_server_operation_duration_seconds", DURATION_BUCKETS, one.total_ms, labels)
        if one.duration_ms > 0 or any(bar.phase in {"acquire", "send", "wait", "receive"} for bar in one.waterfall()):
            own = {"rate_limited", "quota_exceeded", "unknown_tool", "gateway_error"}
            labels["error_type"] = "" if error in own else str(error)
            labels["gen_ai_tool_name"] = one.tool_name
            labels["network_transport"] = "pipe" if one.transport == "stdio" else "tcp"
            self.observe("mcp_client_operation_duration_seconds", DURATION_BUCKETS, one.duration_ms, labels)

    def observe(self, name: str, buckets: tuple[float, ...], ms: float, labels: dict[str, str]) -> None:
        for bound in buckets:
            self.samples[sample_key(f"{name}_bucket", **labels, le=str(bound))] += ms / 1000 <= bound
        self.samples[sample_key(f"{name}_bucket", **labels, le="+Inf")] += 1
        self.samples[sample_key(f"{name}_count", **labels)] += 1
        self.samples[sample_key(f"{name}_sum", **labels)] += ms / 1000  # type: ignore[assignment]  # a sum is no count


def of_calls(exposed: Samples) -> Samples:
    """The samples that count calls and what they took."""
    prefixes = ("mcp_gateway_tool_call", "mcp_gateway_phase", "mcp_gateway_overhead", "mcp_server_", "mcp_client_")
    return {key: number for key, number in exposed.items() if key[0].startswith(prefixes)}


@st.composite
def some_call(draw: st.DrawFn) -> ToolCall:
    error = draw(st.none() | st.sampled_from(ErrorType))
    duration = draw(MILLISECONDS)
    server = draw(st.sampled_from(["github", "jira", UNKNOWN]))
    return call(
        workspace_id=draw(st.sampled_from(["engineering", "lab"])),
        token_id=draw(st.sampled_from(["alice", "bob"])),
        server_slug=server,
        tool_name=UNKNOWN if server == UNKNOWN else draw(st.sampled_from(["find", "create_issue"])),
        status="success" if error is None else "error",
        error_type=error,
        duration_ms=duration,
        total_ms=duration + draw(MILLISECONDS),
        transport=draw(st.sampled_from(["http", "stdio"])),
        phases=Phases(**{phase: draw(MILLISECONDS) for phase in draw(st.sets(st.sampled_from(PHASES)))}),
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(some_call(), min_size=1, max_size=25))
def test_every_sample_is_what_a_plain_fold_of_the_calls_gives(calls: list[ToolCall]) -> None:
    with TemporaryDirectory() as folder:
        sink = sink_at(Path(folder), Clock())
        sink.process(batch(*calls))

        exposed = of_calls(samples(sink))
    expected = {key: pytest.approx(number) for key, number in PlainFold(calls).samples.items()}
    assert exposed == expected


def test_a_call_that_the_gateway_refused_is_counted_and_is_no_operation_of_a_client(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock())
    sink.process(batch(call(status="error", error_type=ErrorType.RATE_LIMITED, **NOT_UPSTREAM)))

    assert value(sink, "mcp_gateway_tool_calls_total", error_type="rate_limited") == 1
    assert value(sink, "mcp_server_operation_duration_seconds_count", error_type="rate_limited") == 1
    assert named(sink, "mcp_client_operation_duration_seconds_count") == []


def test_operations_are_counted_by_side_method_error_and_transport(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock())
    failed = operation(side="client", server_slug="github", error_type="upstream_timeout", transport="stdio")
    sink.process(batch(operation(), operation(), operation(method="initialize"), failed))

    nothing = {"gen_ai_tool_name": "", "error_type": "", "network_transport": "tcp"}
    listed, initialized = named(sink, "mcp_server_operation_duration_seconds_count")
    assert listed == ({"mcp_method_name": "tools/list", **nothing}, 2)
    assert initialized == ({"mcp_method_name": "initialize", **nothing}, 1)
    labels = {"error_type": "upstream_timeout", "network_transport": "pipe", "gen_ai_tool_name": ""}
    failures = named(sink, "mcp_client_operation_duration_seconds_count")
    assert failures == [({"mcp_method_name": "tools/list", **labels}, 1)]


def test_what_heartbeats_count_is_added_up(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock)
    sink.process(
        batch(
            beat(clock, rejected={"unauthorized": 2, "too_large": 1}, usage_unknown={"lab": {"refused": 1}}),
            beat(clock, pid=2, rejected={"unauthorized": 3}, dropped=4),
            beat(clock, usage_unknown={"lab": {"refused": 2, "allowed": 5}, "engineering": {"allowed": 7}}),
        )
    )

    assert value(sink, "mcp_gateway_requests_rejected_total", reason="unauthorized") == 5
    assert value(sink, "mcp_gateway_requests_rejected_total", reason="too_large") == 1
    assert value(sink, "mcp_gateway_records_dropped_total", sink="journal", reason="disk") == 4
    assert value(sink, "mcp_gateway_usage_unknown_total", workspace="lab", decision="refused") == 3
    assert value(sink, "mcp_gateway_usage_unknown_total", workspace="lab", decision="allowed") == 5
    assert value(sink, "mcp_gateway_usage_unknown_total", workspace="engineering", decision="allowed") == 7


def test_a_token_was_last_used_by_its_newest_request_whatever_its_kind_and_order(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock(), Metrics())
    later = int((NOW + 7) * 1e9)
    sink.process(batch(operation(token_id="alice", timestamp_ns=later), call(), call(token_id="bob"), operation()))

    last_used = named(sink, "mcp_gateway_token_last_used_timestamp_seconds")
    assert sorted((labels["token"], number) for labels, number in last_used) == [("alice", NOW + 7), ("bob", NOW)]


def test_a_batch_that_comes_again_changes_nothing(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock())
    sink.process(batch(call(), call()))
    sink.process(batch(call(), call()))
    sink.process(batch(call(), call(), call()))

    assert value(sink, "mcp_gateway_tool_calls_total") == 3


def test_an_older_batch_that_comes_again_makes_nothing_count_twice(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock())
    sink.process(batch(call(), call()))
    sink.process(batch(call()))
    sink.process(batch(call(), call(), call()))

    assert value(sink, "mcp_gateway_tool_calls_total") == 3


def test_more_combinations_of_labels_than_are_cached_count_as_well() -> None:
    metrics = CallMetrics(AT_ONCE, max_cached=2)
    for i in range(20):
        metrics.call(call(tool_name=f"tool{i % 5}"), NOW)

    assert [series.value for series in metrics.values["mcp_gateway_tool_calls_total"].series.values()] == [4] * 5
    assert len(metrics._call_series) <= 2


# -- new series


def test_a_new_series_is_0_until_the_birth_interval_has_passed_and_has_its_whole_value_then(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock, Metrics(birth_interval=10))
    sink.process(batch(call()))
    clock.now += 9.9
    sink.process(batch(call(1), start=100))
    new = of_calls(samples(sink))
    clock.now += 0.1
    established = of_calls(samples(sink))

    assert set(new.values()) == {0}
    assert new.keys() == established.keys()
    assert established == {key: pytest.approx(number) for key, number in PlainFold([call(), call(1)]).samples.items()}


def test_only_the_series_that_is_new_is_0(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock, Metrics(birth_interval=10))
    sink.process(batch(call()))
    clock.now += 10
    sink.process(batch(call(1), call(2, token_id="bob"), start=100))

    assert value(sink, "mcp_gateway_tool_calls_total", token="alice") == 2
    assert value(sink, "mcp_gateway_tool_calls_total", token="bob") == 0


def test_a_clock_that_is_set_back_makes_no_established_series_0(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock, Metrics(birth_interval=10))
    sink.process(batch(call()))
    clock.now += 10
    assert value(sink, "mcp_gateway_tool_calls_total") == 1
    clock.now -= 5

    assert value(sink, "mcp_gateway_tool_calls_total") == 1


def test_a_clock_that_is_set_back_by_an_hour_keeps_no_series_at_0_for_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock, Metrics(birth_interval=10))
    sink.process(batch(call()))
    clock.now -= 3600

    assert value(sink, "mcp_gateway_tool_calls_total") == 1


# -- the series budget


def spilled(sink_samples: list[tuple[dict[str, str], float]]) -> dict[str, float]:
    return {labels["metric"]: number for labels, number in sink_samples if number}


def test_over_the_budget_the_token_becomes_other_then_the_tool_and_no_call_is_left_out(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock(), Metrics(birth_interval=0, max_series=3))
    sink.process(batch(*(call(token_id=f"t{i}", tool_name=f"tool{i}") for i in range(5))))

    calls = {
        (labels["token"], labels["tool"]): number for labels, number in named(sink, "mcp_gateway_tool_calls_total")
    }
    assert calls == {
        ("t0", "tool0"): 1,
        ("t1", "tool1"): 1,
        ("__other__", "tool2"): 1,
        ("__other__", "__other__"): 2,
    }


@settings(deadline=None, max_examples=40)
@given(st.lists(some_call(), min_size=1, max_size=25), st.integers(1, 4), st.integers(1, 4))
def test_a_budget_changes_no_sum(calls: list[ToolCall], max_series: int, label_sets: int) -> None:
    within = Metrics(birth_interval=0, max_series=max_series, max_duration_label_sets=label_sets)
    with TemporaryDirectory() as folder:
        sink = sink_at(Path(folder), Clock(), within)
        sink.process(batch(*calls))

        exposed = of_calls(samples(sink))

    def totals(every: Samples) -> dict[tuple[str, str], float]:
        sums: dict[tuple[str, str], float] = {}
        for (name, labels), number in every.items():
            key = (name, dict(labels).get("le", ""))
            sums[key] = sums.get(key, 0) + number
        return sums

    expected = totals(dict(PlainFold(calls).samples))
    assert totals(exposed) == {key: pytest.approx(number) for key, number in expected.items()}


def test_each_call_over_a_metrics_budget_is_counted_once_for_the_metric(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock(), Metrics(birth_interval=0, max_duration_label_sets=2))
    sink.process(batch(call(), *(call(token_id=token) for token in ("bob", "carol", "bob"))))

    assert spilled(named(sink, "mcp_gateway_series_overflow_total")) == {"mcp_gateway_tool_call_duration_seconds": 3}


def test_a_call_with_many_phases_over_the_budget_is_counted_once(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock(), Metrics(birth_interval=0, max_series=20 * 8))
    sink.process(batch(call(), call(server_slug="jira"), call(server_slug="jira")))

    phases = named(sink, "mcp_gateway_phase_duration_seconds_count")
    assert sum(number for _, number in phases) == 21
    assert {labels["server"] for labels, _ in phases} == {"github", "__other__"}
    overflow = spilled(named(sink, "mcp_gateway_series_overflow_total"))
    assert overflow["mcp_gateway_phase_duration_seconds"] == 2


def test_an_operation_over_the_budget_is_counted_once_for_the_metric(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock(), Metrics(birth_interval=0, max_series=17))
    sink.process(batch(operation(), operation(), operation(side="client")))

    assert spilled(named(sink, "mcp_gateway_series_overflow_total")) == {
        "mcp_server_operation_duration_seconds": 2,
        "mcp_client_operation_duration_seconds": 1,
    }


def test_what_counts_overflow_and_loss_is_there_from_the_start(tmp_path: Path) -> None:
    sink = sink_at(tmp_path, Clock(), Metrics())
    overflow = named(sink, "mcp_gateway_series_overflow_total")

    assert value(sink, "mcp_gateway_records_dropped_total", sink="journal", reason="disk") == 0

    assert {labels["metric"] for labels, _ in overflow} == {
        "mcp_gateway_tool_calls_total",
        "mcp_gateway_tool_call_duration_seconds",
        "mcp_gateway_phase_duration_seconds",
        "mcp_gateway_overhead_seconds",
        "mcp_server_operation_duration_seconds",
        "mcp_client_operation_duration_seconds",
        "mcp_gateway_token_last_used_timestamp_seconds",
    }
