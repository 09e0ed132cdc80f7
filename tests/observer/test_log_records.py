from functools import partial
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.calls import ErrorType, ToolCall
from gateway.config import Config, Plan, Token, Workspace
from gateway.observer.log_records import log_record, retention, retentions, sentence
from gateway.observer.spans import spans
from tests.observer.events import BEGIN, traced_call

call = partial(traced_call, 1, total_ms=34.25)

FAILED: dict[str, Any] = {
    "status": "error",
    "error_type": ErrorType.TOOL_ERROR,
    "error_message": "no such\nrepository",
    "upstream_response": '{"isError":true}',
}


def attributes(record: LogRecord | Span) -> dict[str, str | int | float]:
    kinds = ("string_value", "int_value", "double_value")
    return {
        item.key: next(getattr(item.value, kind) for kind in kinds if item.value.HasField(kind))
        for item in record.attributes
    }


def test_a_successful_call_is_an_info_record_with_its_durations_and_its_trace() -> None:
    record = log_record(call(), {"engineering": "90d"})

    assert record.event_name == "mcp.tool_call"
    assert (record.severity_number, record.severity_text) == (9, "INFO")
    assert record.body.string_value == "alice called github__create_issue: success in 34.2 ms"
    assert record.time_unix_nano == BEGIN + 34_250_000
    assert record.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert record.span_id.hex() == "00f067aa0ba902b7"
    found = attributes(record)
    assert found["mcp.event"] == "tool_call"
    assert found["mcp.retention"] == "90d"
    assert found["mcp.workspace.id"] == "engineering"
    assert (found["duration_ms"], found["total_ms"], found["gateway_ms"]) == (33.5, 34.25, 0.75)
    assert "error.type" not in found
    assert "error.message" not in found


def test_a_failed_call_is_an_error_record_with_the_whole_message_and_the_upstreams_answer() -> None:
    record = log_record(call(**FAILED), {"engineering": "7d"})

    assert (record.severity_number, record.severity_text) == (17, "ERROR")
    assert record.body.string_value == (
        "alice called github__create_issue: tool_error after 34.2 ms: no such repository"
    )
    found = attributes(record)
    assert found["error.type"] == "tool_error"
    assert found["error.message"] == "no such\nrepository"
    assert found["mcp.upstream.response"] == '{"isError":true}'
    assert found["status"] == "error"


@pytest.mark.parametrize("one", [call(session_id="s", jsonrpc_id="7", client_name="claude"), call(**FAILED)])
def test_a_record_says_all_that_the_calls_span_says(one: ToolCall) -> None:
    server = next(spans(one))

    assert attributes(server).items() <= attributes(log_record(one, {})).items()
    assert attributes(server)["network.transport"] == "tcp"


def test_the_tracked_fields_have_their_own_names() -> None:
    found = attributes(log_record(call(), {}))

    tracked = {"token_id": "alice", "server_slug": "github", "tool_name": "create_issue", "status": "success"}
    assert {name: found[name] for name in tracked} == tracked


def test_the_sentence_quotes_the_beginning_of_a_long_message_only() -> None:
    text = sentence(call(**FAILED | {"error_message": "x" * 4096}))

    assert text.endswith("x" * 200 + "…")
    assert "x" * 201 not in text


def test_a_workspace_that_is_gone_gets_the_shortest_retention() -> None:
    assert attributes(log_record(call(workspace_id="gone"), {"engineering": "90d"}))["mcp.retention"] == "7d"


@pytest.mark.parametrize(
    ("days", "label"),
    [(7, "7d"), (30, "30d"), (90, "90d"), (365, "1y"), (730, "2y"), (400, "400d"), (None, "unlimited")],
)
def test_retention_is_named_in_days_or_whole_years(days: int | None, label: str) -> None:
    assert retention(days) == label


def test_each_workspaces_retention_is_its_plans() -> None:
    token = Token(id="alice", name="Alice", sha256="0" * 64)
    config = Config(
        plans={"trial": Plan(retention_days=3)},
        workspaces={
            "a": Workspace(plan="trial"),
            "b": Workspace(plan="business", tokens=[token]),
            "c": Workspace(plan="enterprise"),
        },
    )

    assert retentions(config) == {"a": "3d", "b": "1y", "c": "unlimited"}
