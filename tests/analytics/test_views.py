"""Every answer of the API against a plain fold over the same calls."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.calls import ErrorType, ToolCall
from tests.analytics import reference_views
from tests.analytics.service import CONFIG, NOW_NS, Service, bearer
from tests.ledger.records import call

pytestmark = pytest.mark.usefixtures("both_ledgers")

S = 10**9
DST_ENDS_IN_BERLIN = 1_792_889_999 * S
"""2026-10-25 00:59:59 UTC, the last second of summer time."""

DST_BEGINS_IN_BERLIN = 1_774_745_999 * S
"""2026-03-29 00:59:59 UTC, the last second of winter time."""
MOMENTS = [
    NOW_NS,
    *(moment + days * 86_400 * S for moment in (DST_ENDS_IN_BERLIN, DST_BEGINS_IN_BERLIN) for days in (0, 1)),
]

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
PERIODS = ["today", "week", "month", "30m", "1h", "24h", "7d", "30d", "2w"]
NAMES = {
    "server": ["github", "jira", "gone"],
    "tool": ["create_issue", "list", "search"],
    "token": ["alice", "bob", "revoked"],
    "status": ["success", "error"],
    "error_type": [str(kind) for kind in ErrorType],
}


@st.composite
def drawn_calls(draw: st.DrawFn, now_ns: int) -> list[ToolCall]:
    ages = st.one_of(
        st.integers(-2 * S, 2 * S),
        st.integers(0, 60 * 86_400 * S),
        st.sampled_from([s * S for s in (0, 1800, 3600, 86_400, 604_800, 2_592_000)]),
        st.builds(lambda d, q: (d * 86_400 + q * 900) * S, st.sampled_from([0, 1, 12, 40]), st.integers(-8, 104)),
    )
    drawn: list[ToolCall] = []
    for _ in range(draw(st.integers(0, 14))):
        error = draw(st.none() | st.sampled_from(ErrorType))
        drawn.append(
            call(
                timestamp_ns=now_ns - draw(ages),
                workspace_id=draw(st.sampled_from(["engineering", "engineering", "engineering", "sales"])),
                server_slug=draw(st.sampled_from(NAMES["server"])),
                tool_name=draw(st.sampled_from(NAMES["tool"])),
                token_id=draw(st.sampled_from(NAMES["token"])),
                status="success" if error is None else "error",
                error_type=error,
                duration_ms=draw(st.sampled_from([0.0, 1.5, 20.0]) | st.floats(0, 1e6)),
            )
        )
    return drawn


@st.composite
def drawn_filters(draw: st.DrawFn) -> dict[str, set[str]]:
    return {
        name: draw(st.sets(st.sampled_from(values), min_size=1, max_size=2))
        for name, values in NAMES.items()
        if draw(st.integers(0, 3)) == 0
    }


@st.composite
def drawn_ranges(draw: st.DrawFn, now_ns: int, tz: str) -> tuple[dict[str, str], Callable[[ToolCall], bool]]:
    """The parameters of a range, and whether a call is in it."""
    if draw(st.booleans()):
        period = draw(st.sampled_from(PERIODS))
        return {"period": period}, reference_views.within(period, tz, now_ns)
    to_ns = now_ns - draw(st.integers(0, 40 * 86_400 * S))
    from_ns = to_ns - draw(st.integers(1, 40 * 86_400 * S))
    written = {name: f"{ns // S}.{ns % S:09d}" for name, ns in (("from", from_ns), ("to", to_ns))}
    return written, lambda call: from_ns <= call.timestamp_ns < to_ns


def query(filters: dict[str, set[str]], **single: str) -> list[tuple[str, str]]:
    return [*single.items(), *((name, value) for name, values in filters.items() for value in sorted(values))]


def same(answer: Any, expected: Any) -> bool:
    """Equal, but for the last digits of floats."""
    match expected:
        case dict():
            return (
                isinstance(answer, dict)
                and answer.keys() == expected.keys()
                and all(same(answer[key], value) for key, value in expected.items())
            )
        case list() | tuple():
            return len(answer) == len(expected) and all(map(same, answer, expected))
        case float():
            return bool(answer == pytest.approx(expected, rel=1e-9, abs=1e-9))
        case _:
            return bool(answer == expected)


def check(answer: Any, expected: Any) -> None:
    assert same(answer, expected), f"{answer}\nis not\n{expected}"


def pages(service: Service, asked: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The calls of all pages."""
    page = service.get("/calls", asked)
    calls = list(page["calls"])
    while page["next_cursor"] is not None:
        page = service.get("/calls", [*asked, ("cursor", page["next_cursor"])])
        calls += page["calls"]
    return calls


# The names that a filter may have: a filter for what never was is refused, and has its own test.
KNOWN = [
    call(server_slug=server, tool_name=tool, token_id=token, timestamp_ns=1)
    for server, tool, token in zip(NAMES["server"], NAMES["tool"], NAMES["token"], strict=True)
]


@pytest.mark.slow
@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_view_equals_the_reference_over_the_calls_that_it_covers(data: st.DataObject) -> None:
    now_ns = data.draw(st.sampled_from(MOMENTS))
    calls = [*KNOWN, *data.draw(drawn_calls(now_ns))]
    tz = data.draw(st.sampled_from(ZONES))
    span, inside = data.draw(drawn_ranges(now_ns, tz))
    filters = data.draw(drawn_filters())
    by = data.draw(st.lists(st.sampled_from(list(NAMES)), unique=True))
    limit = data.draw(st.none() | st.integers(1, 5))
    asked = query(filters, tz=tz, **span, **({} if limit is None else {"limit": str(limit)}))

    ours = [c for c in calls if c.workspace_id == "engineering"]
    filtered = list(filter(reference_views.passes(filters), ours))
    chosen = list(filter(inside, filtered))
    workspace = CONFIG.workspaces["engineering"]

    with Service(calls, now_ns=now_ns) as service:
        whole = service.get("", asked)
        check(whole["overview"], reference_views.overview(chosen, filtered, tz, now_ns))
        check(whole["tools"], reference_views.tools(chosen, ours, filters, now_ns)[:limit])
        check(whole["members"], reference_views.members(chosen, workspace, filters)[:limit])
        check(whole["servers"], reference_views.servers(chosen, workspace, filters)[:limit])
        assert whole["usage"]["usage"]["mcp_proxy_calls"]["used"] == reference_views.used(ours, now_ns)
        for part in ("overview", "tools", "members", "servers", "usage"):
            assert service.get(f"/{part}", asked) == whole[part]
        check(
            service.get("/groups", [*asked, ("by", ",".join(by))]),
            {"by": by, "groups": reference_views.groups(chosen, by)[:limit]},
        )
        newest_first = sorted(chosen, key=lambda c: (c.timestamp_ns, c.call_id), reverse=True)
        assert [c["call_id"] for c in pages(service, asked)] == [c.call_id for c in newest_first]
        exported = service.request("/export", [*query(filters, tz=tz, **span), ("format", "jsonl")]).text.splitlines()
        assert [json.loads(line)["call_id"] for line in exported] == [c.call_id for c in reversed(newest_first)]


def test_an_average_is_the_same_number_in_every_view() -> None:
    durations = [1.2080589549150318, 992945.8481883797, 55631.0]  # their sum depends on the order, in the last digit
    calls = [
        call(timestamp_ns=NOW_NS - 1, token_id=token_id, duration_ms=duration_ms)
        for token_id, duration_ms in zip(["bob", "alice", "alice"], durations, strict=True)
    ]
    with Service(calls) as service:
        whole = service.get("")
        assert [service.get(f"/{part}") for part in ("overview", "tools", "members", "servers")] == [
            whole[part] for part in ("overview", "tools", "members", "servers")
        ]


TIMELINES = [
    ("1h", 60), ("24h", 3600), ("7d", 900), ("2w", 7000), ("30d", 86_400), ("30d", 43_200), ("9w", 172_800),
    ("9w", 604_800), ("30d", 3 * 604_800),
]  # fmt: skip
CLOCK_CHANGES = [(NOW_NS, tz) for tz in ZONES] + [
    (moment + days * 86_400 * S, tz)
    for tz, moments in {
        "Europe/Berlin": (DST_ENDS_IN_BERLIN, DST_BEGINS_IN_BERLIN),
        "America/Havana": (1_793_509_200 * S, 1_772_946_000 * S),  # midnight comes twice; midnight is skipped
        "Asia/Beirut": (1_792_875_600 * S, 1_774_735_200 * S),  # the 25th hour is before midnight; midnight is skipped
    }.items()
    for moment in moments
    for days in (0, 1, 12, 40)
]


@pytest.mark.slow
@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_timeline_counts_each_call_of_the_range_in_its_bucket(data: st.DataObject) -> None:
    now_ns, tz = data.draw(st.sampled_from(CLOCK_CHANGES))
    calls = data.draw(drawn_calls(now_ns))
    by = data.draw(st.none() | st.sampled_from(list(NAMES)))
    period, step_s = data.draw(st.sampled_from(TIMELINES))
    asked = query({}, period=period, step=f"{step_s}s", tz=tz, **({"by": by} if by else {}))
    with Service(calls, now_ns=now_ns) as service:
        answer = service.get("/timeline", asked)
    chosen = [c for c in calls if c.workspace_id == "engineering" and reference_views.within(period, tz, now_ns)(c)]
    begin_ns = now_ns - int(period[:-1]) * reference_views.UNIT[period[-1]] * S

    assert answer["step_s"] == step_s
    assert answer["buckets"] == list(map(reference_views.text, reference_views.buckets(begin_ns, now_ns, step_s, tz)))
    column = reference_views.COLUMN[by] if by else None
    values = {None} if column is None else {getattr(c, column) for c in chosen}
    assert len(answer["series"]) == len(values)
    for series in answer["series"]:
        of_series = [c for c in chosen if column is None or getattr(c, column) == series[column]]
        counted = [0] * len(answer["buckets"]), [0] * len(answer["buckets"])
        for c in of_series:
            at = answer["buckets"].index(
                reference_views.text(reference_views.bucket(c.timestamp_ns, step_s, tz, begin_ns))
            )
            counted[0][at] += 1
            counted[1][at] += c.status == "error"
        assert (series["calls"], series["errors"]) == counted
        assert of_series or by is None


@pytest.mark.parametrize("period", ["today", "7d", "30d", "90d"])
def test_the_last_day_of_a_timeline_is_today_whether_clocks_have_changed_since_it_began_or_not(period: str) -> None:
    evening = 1_795_732_200 * S  # 2026-11-26 22:30 UTC, half an hour before midnight in Berlin
    calls = [call(timestamp_ns=evening + hours * 3600 * S) for hours in (-1, 0, 1, 1, 2)]
    now_ns = evening + 3 * 3600 * S
    asked = {"period": period, "tz": "Europe/Berlin"}
    with Service(calls, now_ns=now_ns) as service:
        timeline = service.get("/timeline", {**asked, "step": "1d"})
        today = service.get("/overview", asked)["calls"]["today"]
    assert today == 3
    assert timeline["buckets"][-1] == "2026-11-26T23:00:00.000Z"
    assert timeline["series"][0]["calls"][-1] == today


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_percentiles_are_those_of_percentile_cont(values: list[float]) -> None:
    with Service([call(timestamp_ns=NOW_NS - 1, duration_ms=value) for value in values]) as service:
        check(
            service.get("/overview")["duration_ms"],
            reference_views.durations([call(duration_ms=value) for value in values]),
        )


@given(st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_another_workspace_and_another_member_change_no_answer(data: st.DataObject) -> None:

    ours = [c for c in data.draw(drawn_calls(NOW_NS)) if c.workspace_id == "engineering"]
    others: Sequence[ToolCall] = [c for c in data.draw(drawn_calls(NOW_NS)) if c.workspace_id == "sales"]
    path = data.draw(st.sampled_from(["", "/tools", "/members", "/groups", "/timeline", "/calls"]))
    asked = query(data.draw(drawn_filters()), period=data.draw(st.sampled_from(PERIODS)))
    if path == "/groups":
        asked.append(("by", "token,server,tool"))
    alone = bearer(workspaces=["engineering"], token="alice")
    with Service([c for c in ours if c.token_id == "alice"]) as service:
        expected = service.request(path, asked, bearer=alone)
    with Service([*ours, *others]) as service:
        found = service.request(path, asked, bearer=alone)
    assert (found.status_code, found.json()) == (expected.status_code, expected.json())


def test_configured_and_cataloged_names_are_listed_with_0() -> None:
    catalog = {"engineering": [("github", "merge"), ("jira", "close")]}
    with Service(catalog=lambda workspace: catalog[workspace]) as service:
        whole = service.get()
    nothing = {"avg": None, "p50": None, "p95": None, "p99": None}
    empty = {"calls": 0, "errors": 0, "error_rate": None, "duration_ms": nothing}
    assert whole["overview"]["success_rate"] is None
    assert whole["tools"] == [
        {"server_slug": "github", "tool_name": "merge", **empty, "last_called_at": None},
        {"server_slug": "jira", "tool_name": "close", **empty, "last_called_at": None},
    ]
    assert [(m["token_id"], m["token_name"], m["calls"], m["top_tools"]) for m in whole["members"]] == [
        ("bob", "Bob", 0, []),
        ("alice", "Zoe's Cursor", 0, []),
    ]
    assert whole["servers"] == [
        {"server_slug": "github", **empty, "up": None},
        {"server_slug": "jira", **empty, "up": None},
    ]


def test_a_member_shows_five_tools_the_most_called_first() -> None:
    calls = [
        call(tool_name=f"tool_{i}", timestamp_ns=NOW_NS - 1)
        for i, times in enumerate([1, 7, 3, 3, 5, 6])
        for _ in range(times)
    ]
    with Service(calls) as service:
        [top] = [m["top_tools"] for m in service.get("/members") if m["token_id"] == "alice"]
    assert [(t["tool_name"], t["calls"]) for t in top] == [
        ("tool_1", 7),
        ("tool_5", 6),
        ("tool_4", 5),
        ("tool_2", 3),
        ("tool_3", 3),
    ]


def test_a_members_tools_that_were_called_as_often_come_by_name() -> None:
    names = [f"{server}__{tool}" for server in ("github", "jira") for tool in "dcba"]
    calls = [
        call(server_slug=name.partition("__")[0], tool_name=name.partition("__")[2], timestamp_ns=NOW_NS - 1)
        for name in reversed(names)
    ]
    with Service(calls) as service:
        [top] = [m["top_tools"] for m in service.get("/members") if m["token_id"] == "alice"]
    assert [f"{t['server_slug']}__{t['tool_name']}" for t in top] == sorted(names)[:5]


def test_lists_are_cut_to_the_limit_after_sorting() -> None:
    calls = [call(tool_name=name, timestamp_ns=NOW_NS - 1) for name in ("a", "b", "b", "c", "c", "c")]
    with Service(calls) as service:
        assert [t["tool_name"] for t in service.get("/tools", {"limit": "2"})] == ["c", "b"]
        assert [s["server_slug"] for s in service.get("/servers", {"limit": "1"})] == ["github"]
        assert len(service.get("/groups", {"by": "tool", "limit": "2"})["groups"]) == 2


def test_servers_show_whether_they_are_up() -> None:
    states = {("engineering", "github"): True, ("engineering", "jira"): False}
    with Service(upstream_up=lambda workspace, server: states[workspace, server]) as service:
        assert {s["server_slug"]: s["up"] for s in service.get("/servers")} == {"github": True, "jira": False}


def test_a_range_is_clamped_to_what_the_plan_retains_and_says_so() -> None:
    sold = {"workspace_id": "sales", "server_slug": "crm", "token_id": "carol"}
    days = [1, 6, 8, 20]
    calls = [call(timestamp_ns=NOW_NS - d * 86_400 * S, call_id=f"day-{d}", **sold) for d in days]
    with Service(calls) as service:
        kept = service.get("", {"period": "30d"}, workspace="sales")
        assert kept["plan"] == "free"
        assert kept["range"]["clamped"] is True
        assert kept["range"]["from"] == reference_views.text(NOW_NS - 7 * 86_400 * S)
        assert kept["overview"]["calls"]["range"] == kept["overview"]["calls"]["month"] == 2
        assert service.get("", {"period": "7d"}, workspace="sales")["range"]["clamped"] is False
        before = service.get("", {"from": "1700000000", "to": "1700000001"}, workspace="sales")
        assert (before["range"]["clamped"], before["overview"]["calls"]["range"]) == (True, 0)
        assert [c["call_id"] for c in service.get("/calls", {"period": "30d"}, workspace="sales")["calls"]] == [
            "day-1",
            "day-6",
        ]
        assert service.request("/calls/day-6", workspace="sales").status_code == 200
        assert service.request("/calls/day-8", workspace="sales").status_code == 404


def test_a_range_from_to_is_half_open() -> None:
    calls = [call(timestamp_ns=s * S, call_id=str(s)) for s in (1_795_000_000, 1_795_000_001, 1_795_000_002)]
    with Service(calls) as service:
        answer = service.get("/calls", {"from": "1795000000", "to": "2026-11-18T11:06:42Z"})
        found = service.get("", {"from": "2026-11-18T12:06:40.000+01:00", "to": "1795000002"})
    assert reference_views.text(1_795_000_002 * S) == "2026-11-18T11:06:42.000Z"
    assert [c["call_id"] for c in answer["calls"]] == ["1795000001", "1795000000"]
    assert found["overview"]["calls"]["range"] == 2
    assert found["range"] == {
        "from": "2026-11-18T11:06:40.000Z",
        "to": "2026-11-18T11:06:42.000Z",
        "tz": "UTC",
        "clamped": False,
    }


def test_an_answer_says_how_fresh_it_is() -> None:
    with Service() as service:
        assert service.get()["fresh_as_of"] is None
        service.ledger.fresh_as_of_ns = NOW_NS
        assert service.get()["fresh_as_of"] == reference_views.text(NOW_NS)


def test_a_timeline_in_days_begins_at_the_zones_midnight() -> None:
    with Service([call(timestamp_ns=NOW_NS - 1)]) as service:
        answer = service.get("/timeline", {"period": "24h", "step": "1d", "tz": "Asia/Kolkata"})
    assert [bucket[11:] for bucket in answer["buckets"]] == ["18:30:00.000Z", "18:30:00.000Z"]
    assert answer["series"] == [{"calls": [0, 1], "errors": [0, 0]}]


def test_a_timeline_in_weeks_begins_on_a_monday() -> None:
    with Service([call(timestamp_ns=NOW_NS - 1)]) as service:
        answer = service.get("/timeline", {"period": "week", "step": "1w"})
        overview = service.get("/overview", {"period": "week"})
    assert answer["buckets"] == ["2026-11-23T00:00:00.000Z"]
    assert answer["series"] == [{"calls": [1], "errors": [0]}]
    assert overview["calls"]["week"] == 1


def test_a_timeline_takes_two_thousand_buckets_and_names_the_step_that_would_do_for_more() -> None:
    hours = {"from": "2026-01-01T00:00:00Z", "step": "1h"}
    with Service() as service:
        most = service.get("/timeline", {**hours, "to": "2026-03-25T08:00:00Z"})
        assert len(most["buckets"]) == 2000
        refused = service.request("/timeline", {**hours, "to": "2026-03-25T08:00:01Z"})
    assert refused.status_code == 400
    assert refused.json()["parameter"] == "step"
    assert "step=2h" in refused.json()["error"]
    assert refused.json()["allowed"][0] == "2h"


def test_a_timeline_of_more_than_two_hundred_series_is_refused_until_a_limit_is_given() -> None:
    calls = [call(tool_name=f"tool_{i:03d}", timestamp_ns=NOW_NS - 1) for i in range(201)]
    with Service(calls) as service:
        refused = service.request("/timeline", {"by": "tool"})
        assert (refused.status_code, refused.json()["parameter"]) == (400, "by")
        assert len(service.get("/timeline", {"by": "tool", "limit": "200"})["series"]) == 200
