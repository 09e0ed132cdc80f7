from functools import partial

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.calls import UNKNOWN, ErrorType, Phases, ToolCall
from gateway.observer.spans import spans
from tests.observer.events import BEGIN, traced_call

ALL_PHASES = Phases(authenticate=0.1, route=0.2, acquire=1.0, send=0.5, wait=30.0, receive=2.0, respond=0.4)

call = partial(traced_call, phases=ALL_PHASES)


def by_name(record: ToolCall) -> dict[str, Span]:
    return {span.name: span for span in spans(record)}


def attributes(span: Span) -> dict[str, str | int | float]:
    return {
        item.key: item.value.string_value if item.value.HasField("string_value") else item.value.int_value
        for item in span.attributes
    }


def test_a_call_is_one_tree_of_a_server_span_a_client_span_and_their_phases() -> None:
    found = by_name(call())
    server, client = found["tools/call github__create_issue"], found["tools/call create_issue"]

    children: dict[bytes, list[str]] = {}
    for span in found.values():
        children.setdefault(span.parent_span_id, []).append(span.name)

    assert children == {
        b"": ["tools/call github__create_issue"],
        server.span_id: ["tools/call create_issue", "authenticate", "route", "respond"],
        client.span_id: ["acquire", "send", "wait", "receive"],
    }
    assert (server.kind, client.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert {found[name].kind for name in ("route", "wait")} == {Span.SPAN_KIND_INTERNAL}
    assert {span.trace_id.hex() for span in found.values()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert server.span_id.hex() == "00f067aa0ba902b7"
    assert client.span_id.hex() == "b7ad6b7169203331"
    assert len({span.span_id for span in found.values()}) == 9


def test_phases_follow_one_another_and_the_client_span_covers_the_upstreams_four() -> None:
    found = by_name(call())
    client = found["tools/call create_issue"]

    assert client.start_time_unix_nano == found["acquire"].start_time_unix_nano == BEGIN + 300_000
    assert client.end_time_unix_nano == found["receive"].end_time_unix_nano == BEGIN + 33_800_000
    assert found["wait"].start_time_unix_nano == found["send"].end_time_unix_nano == BEGIN + 1_800_000
    assert found["respond"].end_time_unix_nano == BEGIN + 34_200_000


def test_no_span_leaves_its_parents_time_even_if_the_phases_sum_up_to_more_than_the_call() -> None:
    found = list(spans(call(total_ms=20.0)))
    times = {span.span_id: (span.start_time_unix_nano, span.end_time_unix_nano) for span in found}

    for span in found[1:]:
        begin, end = times[span.parent_span_id]
        assert begin <= span.start_time_unix_nano <= span.end_time_unix_nano <= end


def test_a_call_that_the_gateway_refused_has_no_client_span() -> None:
    refused = call(
        status="error",
        error_type=ErrorType.RATE_LIMITED,
        error_message="120 requests a minute",
        duration_ms=0.0,
        total_ms=0.2,
        phases=Phases(authenticate=0.2),
    )
    found = by_name(refused)

    assert list(found) == ["tools/call github__create_issue", "authenticate"]
    server = found["tools/call github__create_issue"]
    assert server.status.code == Status.STATUS_CODE_ERROR
    assert server.status.message == "120 requests a minute"
    assert attributes(server)["error.type"] == "rate_limited"


def test_an_upstreams_failure_marks_both_spans_and_the_gateways_own_only_the_server_span() -> None:
    upstreams = by_name(call(status="error", error_type=ErrorType.JSONRPC_ERROR, jsonrpc_code=-32602))
    own = by_name(call(status="error", error_type=ErrorType.GATEWAY_ERROR))

    client = upstreams["tools/call create_issue"]
    assert client.status.code == Status.STATUS_CODE_ERROR
    assert client.status.message == "jsonrpc_error"
    assert attributes(client)["rpc.response.status_code"] == "-32602"
    assert own["tools/call create_issue"].status.code == Status.STATUS_CODE_UNSET
    assert own["tools/call github__create_issue"].status.code == Status.STATUS_CODE_ERROR


def test_the_gateways_own_spans_say_that_their_parents_are_its_own() -> None:
    _, *inner = spans(call(parent_span_id="1111111111111111", trace_flags=1))

    assert {span.flags for span in inner} == {0x101}


def test_the_clients_context_is_the_parent_and_the_http_context_a_link() -> None:
    server = next(
        spans(call(parent_span_id="1111111111111111", link_trace_id="2" * 32, link_span_id="3" * 16, trace_flags=1))
    )

    assert server.parent_span_id.hex() == "1111111111111111"
    assert server.flags == 0x301
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in server.links] == [("2" * 32, "3" * 16)]


def test_a_repetition_has_the_same_ids() -> None:
    record = call()

    assert [span.SerializeToString() for span in spans(record)] == [span.SerializeToString() for span in spans(record)]


def test_a_call_whose_upstream_time_has_no_phases_still_has_a_client_span() -> None:
    client = by_name(call(phases=Phases(authenticate=0.1, route=0.2), transport="stdio"))["tools/call create_issue"]

    assert client.start_time_unix_nano == BEGIN + 300_000
    assert client.end_time_unix_nano == BEGIN + 33_800_000
    assert attributes(client)["network.transport"] == "pipe"


def test_attributes_say_who_called_what_and_where() -> None:
    found = by_name(
        call(
            upstream_address="[::1]:8443",
            http_status=200,
            protocol_version="2026-07-28",
            client_name="cursor",
            client_version="1.2",
            jsonrpc_id="7",
        )
    )

    assert attributes(found["tools/call github__create_issue"]) == {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "github__create_issue",
        "mcp.protocol.version": "2026-07-28",
        "jsonrpc.request.id": "7",
        "mcp.client.name": "cursor",
        "mcp.client.version": "1.2",
        "network.transport": "tcp",
        "mcp.workspace.id": "engineering",
        "mcp.token.id": "alice",
        "mcp.server.slug": "github",
        "mcp.call.id": "c1",
    }
    client = attributes(found["tools/call create_issue"])
    assert client["gen_ai.tool.name"] == "create_issue"
    assert (client["server.address"], client["server.port"]) == ("::1", 8443)
    assert client["http.response.status_code"] == 200


def test_an_unknown_tool_is_named_by_the_placeholder_and_not_by_the_request() -> None:
    record = call(
        server_slug=UNKNOWN,
        tool_name=UNKNOWN,
        status="error",
        error_type=ErrorType.UNKNOWN_TOOL,
        duration_ms=0.0,
        phases=Phases(authenticate=0.1),
    )

    assert list(by_name(record)) == ["tools/call _unknown", "authenticate"]
