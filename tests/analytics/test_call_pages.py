import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.analytics.views import decode_cursor, encode_cursor
from gateway.calls import ErrorType, Phases
from gateway.ledger.queries import PagePosition
from gateway.relay.active_call import call_id
from tests.analytics.service import NOW_NS, Service
from tests.ledger.records import call

pytestmark = pytest.mark.usefixtures("both_ledgers")

S = 10**9


@given(st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_show_each_call_of_the_first_moment_once_while_new_ones_arrive(data: st.DataObject) -> None:
    ages = st.lists(st.integers(1, 4), min_size=1, max_size=12)  # many share a timestamp
    first = [call(timestamp_ns=NOW_NS - age * S) for age in data.draw(ages)]
    limit = str(data.draw(st.integers(1, 5)))
    seen: list[str] = []
    with Service(first) as service:
        asked = {"limit": limit, "period": "1h"}
        while True:
            answer = service.get("/calls", asked)
            seen += [row["call_id"] for row in answer["calls"]]
            if answer["next_cursor"] is None:
                break
            asked["cursor"] = answer["next_cursor"]
            service.now_ns += 600 * S  # soon, the first calls are older than the period
            service.add([call(timestamp_ns=service.now_ns - 1, call_id=f"new-{len(seen)}")])
    newest_first = sorted(first, key=lambda c: (c.timestamp_ns, c.call_id), reverse=True)
    assert seen == [c.call_id for c in newest_first]


def test_a_long_call_that_ends_between_pages_disturbs_nothing() -> None:
    calls = [call(timestamp_ns=NOW_NS - age * S, call_id=str(age)) for age in (1, 3, 5, 7)]
    with Service(calls) as service:
        page = service.get("/calls", {"limit": "2"})
        service.add([call(timestamp_ns=NOW_NS - age * S, call_id=str(age)) for age in (2, 6)])
        rest = service.get("/calls", {"limit": "10", "cursor": page["next_cursor"]})
    assert [c["call_id"] for c in page["calls"]] == ["1", "3"]
    assert [c["call_id"] for c in rest["calls"]] == ["5", "6", "7"]
    assert rest["next_cursor"] is None


def test_a_page_that_ends_with_the_last_call_has_no_cursor() -> None:
    with Service([call(timestamp_ns=NOW_NS - 1), call(timestamp_ns=NOW_NS - 2)]) as service:
        assert service.get("/calls", {"limit": "2"})["next_cursor"] is None
        assert service.get("/calls", {"limit": "1"})["next_cursor"] is not None


def test_a_page_has_fifty_calls_by_default() -> None:
    with Service([call(timestamp_ns=NOW_NS - 1) for _ in range(60)]) as service:
        assert len(service.get("/calls")["calls"]) == 50
        assert len(service.get("/calls", {"limit": "60"})["calls"]) == 60


def test_a_cursor_keeps_to_its_workspace_whoever_uses_it() -> None:
    calls = [call(timestamp_ns=NOW_NS - age * S, call_id=str(age)) for age in (1, 2)]
    with Service(calls) as service:
        cursor = service.get("/calls", {"limit": "1"})["next_cursor"]
        assert service.get("/calls", {"cursor": cursor}, workspace="sales")["calls"] == []


def test_the_range_of_a_cursor_goes_before_the_requests() -> None:
    calls = [call(timestamp_ns=NOW_NS - age * S, call_id=str(age)) for age in (1, 3, 5)]
    with Service(calls) as service:
        cursor = service.get("/calls", {"limit": "1"})["next_cursor"]
        rest = service.get("/calls", {"period": "1s", "cursor": cursor})
        refused = service.request("/calls", {"period": "0s", "cursor": cursor})
    assert [c["call_id"] for c in rest["calls"]] == ["3", "5"]
    assert refused.status_code == 400


def test_a_call_that_was_running_when_its_page_was_read_is_not_in_the_walk() -> None:
    """What was there when the walk began is neither skipped nor repeated."""
    calls = [call(timestamp_ns=NOW_NS - age * S, call_id=str(age)) for age in (1, 3, 5)]
    with Service(calls) as service:
        page = service.get("/calls", {"limit": "2"})
        service.add([call(timestamp_ns=NOW_NS - 2 * S, call_id="slow")])
        rest = service.get("/calls", {"cursor": page["next_cursor"]})
        again = service.get("/calls")
    assert [c["call_id"] for c in page["calls"] + rest["calls"]] == ["1", "3", "5"]
    assert [c["call_id"] for c in again["calls"]] == ["1", "slow", "3", "5"]


def test_a_cursor_opens_nothing_that_the_plan_does_not_retain() -> None:
    sold = {"workspace_id": "sales", "server_slug": "crm", "token_id": "carol"}
    calls = [call(timestamp_ns=NOW_NS - days * 86_400 * S, call_id=f"day-{days}", **sold) for days in (6, 8)]
    made_up = encode_cursor(0, NOW_NS, PagePosition(NOW_NS - 1, ""))
    with Service(calls) as service:
        page = service.get("/calls", {"cursor": made_up}, workspace="sales")
    assert [row["call_id"] for row in page["calls"]] == ["day-6"]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "!!!!",
        "e30",
        "Ã",
        base64.urlsafe_b64encode(b"[1,2,3]").decode(),
        base64.urlsafe_b64encode(b'[1,2,99999999999999999999999,"a"]').decode(),
        base64.urlsafe_b64encode(b'[1,2,-3,"a"]').decode(),
        base64.urlsafe_b64encode(b"\xff").decode(),
        base64.urlsafe_b64encode(b'[1,9,5,"a\\u0000b"]').decode(),
        base64.urlsafe_b64encode(b'[1,9,5,"\\ud800"]').decode(),
        encode_cursor(9, 1, PagePosition(5, "a")),
        encode_cursor(5, 5, PagePosition(5, "a")),
        encode_cursor(1, 9, PagePosition(0, "a")),
        encode_cursor(1, 9, PagePosition(9, "a")),
    ],
)
def test_a_cursor_that_no_page_gave_is_400(cursor: str) -> None:
    with Service() as service:
        response = service.request("/calls", {"cursor": cursor})
    assert response.status_code == 400
    assert response.json()["parameter"] == "cursor"


@given(
    st.lists(st.integers(0, 2**63 - 2), min_size=3, max_size=3).map(sorted),
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
)
def test_a_cursor_says_what_was_put_into_it(times: list[int], call_id: str) -> None:
    from_ns, at_ns, last_ns = times
    to_ns, place = last_ns + 1, PagePosition(at_ns, call_id)
    assert decode_cursor(encode_cursor(from_ns, to_ns, place)) == (from_ns, to_ns, place)


def test_a_single_call_shows_all_that_is_known_of_it() -> None:
    failed = call(
        call_id="c1",
        timestamp_ns=1_795_443_000_123_999_999 - 60 * S,
        status="error",
        error_type=ErrorType.JSONRPC_ERROR,
        error_message="no such issue",
        upstream_response='{"code":-32602}',
        jsonrpc_code=-32602,
        http_status=200,
        duration_ms=30.5,
        total_ms=31.25,
        request_bytes=120,
        response_bytes=80,
        client_name="cursor",
        client_version="2.1",
        protocol_version="2025-11-25",
        transport="stdio",
        session_id="s",
        jsonrpc_id="7",
        replica="r1",
        trace_id="a" * 32,
        span_id="b" * 16,
        upstream_span_id="c" * 16,
        phases=Phases(authenticate=0.25, route=0.25, send=0.5, wait=30.0, respond=0.25),
    )
    with Service([failed]) as service:
        row = service.get("/calls")["calls"][0]
        whole = service.get("/calls/c1")
    expected: dict[str, Any] = {
        "call_id": "c1",
        "timestamp": "2026-11-23T14:09:00.123Z",
        "workspace_id": "engineering",
        "token_id": "alice",
        "server_slug": "github",
        "tool_name": "create_issue",
        "status": "error",
        "error_type": "jsonrpc_error",
        "error_message": "no such issue",
        "upstream_response": '{"code":-32602}',
        "duration_ms": 30.5,
        "total_ms": 31.25,
        "gateway_ms": 0.75,
        "request_bytes": 120,
        "response_bytes": 80,
        "jsonrpc_code": -32602,
        "http_status": 200,
        "transport": "stdio",
        "protocol_version": "2025-11-25",
        "client": {"name": "cursor", "version": "2.1"},
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
    }
    assert row == expected
    assert whole == {
        **expected,
        "phases": [
            {"phase": "authenticate", "start_ms": 0.0, "duration_ms": 0.25},
            {"phase": "route", "start_ms": 0.25, "duration_ms": 0.25},
            {"phase": "send", "start_ms": 0.5, "duration_ms": 0.5},
            {"phase": "wait", "start_ms": 1.0, "duration_ms": 30.0},
            {"phase": "respond", "start_ms": 31.0, "duration_ms": 0.25},
        ],
        "upstream_address": None,
        "upstream_span_id": "c" * 16,
        "parent_span_id": None,
        "session_id": "s",
        "jsonrpc_id": "7",
        "replica": "r1",
    }


def test_a_single_call_takes_the_parameters_that_every_read_takes_and_only_filters_exclude_it() -> None:
    known = call(server_slug="jira", token_id="bob", timestamp_ns=1)
    with Service([call(call_id="a", timestamp_ns=NOW_NS - 3600 * S), known]) as service:
        for asked in ({}, {"period": "1s"}, {"from": "1", "to": "2"}, {"tz": "Europe/Berlin"}, {"limit": "1"}):
            assert service.get("/calls/a", asked)["call_id"] == "a"
        asked = {"server": "github", "token": "alice", "tool": "create_issue", "status": "success"}
        assert service.get("/calls/a", asked)["call_id"] == "a"
        for other in ({"server": "jira"}, {"token": "bob"}, {"status": "error"}, {"error_type": "tool_error"}):
            assert service.request("/calls/a", {**asked, **other}).status_code == 404


def test_a_call_of_another_workspace_or_none_is_404() -> None:
    with Service([call(call_id="a", timestamp_ns=NOW_NS - 1)]) as service:
        assert service.request("/calls/a").status_code == 200
        assert service.request("/calls/a", workspace="sales").status_code == 404
        missing = service.request("/calls/b")
    assert missing.status_code == 404
    assert "'b'" in missing.json()["error"]


def of(moment_ns: int) -> str:
    return call_id(moment_ns, "0123456789abcdef012")


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(of(NOW_NS - 60 * S), id="a version 7 of its own millisecond"),
        pytest.param(of(NOW_NS - 3600 * S), id="a version 7 of another time"),
        pytest.param(of(2**48 * 10**6 - 1), id="a version 7 of a time that no ledger holds"),
        pytest.param("7d444840-9dc0-41d1-b245-5ffdce74fad2", id="a version 4"),
        pytest.param("call-1", id="no UUID"),
    ],
)
def test_a_call_is_found_by_its_id_whatever_the_id_says_of_its_time(chosen: str) -> None:
    with Service([call(call_id=chosen, timestamp_ns=NOW_NS - 60 * S)]) as service:
        assert service.get(f"/calls/{chosen}")["call_id"] == chosen
        assert service.request(f"/calls/{of(NOW_NS - 30 * S)}").status_code == 404
