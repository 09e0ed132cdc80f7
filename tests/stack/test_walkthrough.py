"""docs/walkthrough.md, walked: from an alert to a dashboard, a call, its trace, and the server's answer in the log."""

import re
import time
from typing import Final

import pytest

from tests.dashboards.generated_boards import ROOT, queries
from tests.dashboards.interpolation import interpolated
from tests.stack.demo_stack import DemoStack, Row

ALERT: Final = "CallscopeServerFailuresFast"
FIRES_S: Final = 300.0
ANSWER: Final = "<h1>Bad Gateway: warehouse-db does not answer</h1>"


def text(board: str, panel: str) -> str:
    """The query of a panel."""
    [found] = [query.text for query in queries() if (query.board, query.panel) == (board, panel)]
    return found


@pytest.fixture(scope="module")
def alert(stack: DemoStack) -> Row:
    """What Alertmanager says of the demo's failing server; it takes some minutes to be sure of it."""
    deadline = time.monotonic() + FIRES_S
    while time.monotonic() < deadline:
        for one in stack.alerts():
            if (one["labels"]["alertname"], one["labels"].get("server")) == (ALERT, "warehouse"):
                return one
        time.sleep(2)
    pytest.fail(f"{ALERT} does not fire: {[one['labels'] for one in stack.alerts()]}")


@pytest.fixture(scope="module")
def failure(stack: DemoStack, alert: Row) -> Row:
    """The log record of the newest call that failed with an answer of the server."""
    wanted = {
        "mcp_workspace_id": alert["labels"]["workspace"],
        "server_slug": alert["labels"]["server"],
        "error_type": "upstream_http_error",
    }
    found = [record for record in stack.log_records() if wanted.items() <= record.items()]
    return max(found, key=lambda record: record["time_ns"])


def test_the_alert_says_who_is_hit_and_where_to_read_on(alert: Row) -> None:
    assert alert["labels"]["workspace"] == "engineering"
    assert alert["labels"]["severity"] == "critical"
    assert [receiver["name"] for receiver in alert["receivers"]] == ["page"]
    assert "warehouse in engineering fail" in alert["annotations"]["description"]
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    [section] = re.findall(rf"(?ms)^### {ALERT}$(.*?)(?=^##)", (ROOT / page).read_text())
    assert anchor == ALERT.lower()
    assert "callscope-servers" in section


def test_the_servers_dashboard_says_how_it_fails(stack: DemoStack, alert: Row) -> None:
    shown = interpolated(
        text("callscope-servers", "Failures by server and kind"),
        workspace=alert["labels"]["workspace"],
        server=alert["labels"]["server"],
        __rate_interval="15m",
    )

    kinds = {series["metric"]["error_type"]: float(series["value"][1]) for series in stack.prometheus(shown)}

    assert set(kinds) <= {"upstream_http_error", "upstream_protocol_error", "upstream_unreachable", "rate_limited"}
    assert kinds["upstream_http_error"] > kinds.get("upstream_protocol_error", 0)


def test_the_log_record_has_the_error_and_the_servers_answer(failure: Row) -> None:
    assert "warehouse__stock_level" in failure["line"]
    assert failure["error_message"]
    assert failure["mcp_upstream_response"] == ANSWER


def test_the_logs_dashboard_shows_the_error_and_the_servers_answer(stack: DemoStack, alert: Row, failure: Row) -> None:
    shown = interpolated(
        text("callscope-logs", "Failed calls in full"),
        workspace=alert["labels"]["workspace"],
        server=alert["labels"]["server"],
        error_type="upstream_http_error",
    )

    newest = max(stack.loki(shown), key=lambda stream: stream["values"][0][0])

    assert newest["stream"]["mcp_call_id"] == failure["mcp_call_id"]
    line = newest["values"][0][1]
    assert "warehouse__stock_level" in line
    assert f"Error: {failure['error_message']}" in line
    assert f"The upstream answered: {ANSWER}" in line


def test_the_call_is_the_same_in_the_api(stack: DemoStack, failure: Row) -> None:
    call = stack.api("engineering", f"/calls/{failure['mcp_call_id']}")

    assert (call["trace_id"], call["span_id"]) == (failure["trace_id"], failure["span_id"])
    assert (call["error_type"], call["upstream_response"]) == ("upstream_http_error", ANSWER)
    assert call["error_message"] == failure["error_message"]
    assert call["total_ms"] == pytest.approx(float(failure["total_ms"]))


def test_the_trace_says_where_the_time_went_and_which_answer_it_was(stack: DemoStack, failure: Row) -> None:
    spans = {span["name"]: span for span in stack.spans() if span["traceId"] == failure["trace_id"]}
    call, sent = spans["tools/call warehouse__stock_level"], spans["tools/call stock_level"]

    assert call["spanId"] == failure["span_id"]
    assert sent["parentSpanId"] == call["spanId"]
    assert sent["attributes"]["http.response.status_code"] == "502"
    assert sent["status"] == call["status"] == {"code": 2, "message": failure["error_message"]}
    inside = [name for name, span in spans.items() if span.get("parentSpanId") == sent["spanId"]]
    longest = max(inside, key=lambda name: int(spans[name]["endTimeUnixNano"]) - int(spans[name]["startTimeUnixNano"]))
    assert longest == "wait"


def test_the_calls_dashboard_finds_the_log_record_of_the_trace(stack: DemoStack, failure: Row) -> None:
    [stream] = stack.loki(interpolated(text("callscope-call", "Log of this trace"), trace_id=failure["trace_id"]))

    assert stream["stream"]["mcp_call_id"] == failure["mcp_call_id"]
    assert stream["stream"]["mcp_upstream_response"] == ANSWER
