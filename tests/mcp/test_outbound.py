"""What an upstream is sent and what a client gets, across the two eras."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway import __version__
from gateway.mcp import jsonrpc, outbound
from gateway.mcp.revisions import Era

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT = "io.modelcontextprotocol/clientInfo"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

ENVELOPE = {VERSION: "2026-07-28", CAPABILITIES: {"sampling": {}}, CLIENT: {"name": "cursor", "version": "1"}}
"""What a modern client sends with each request."""


def sent(era: Era, values: dict[str, Any], meta: dict[str, Any], **context: str) -> dict[str, Any]:
    """The params as the upstream reads them."""
    raws = {key: jsonrpc.raw(value) for key, value in meta.items()}
    decoded: dict[str, Any] = json.loads(jsonrpc.encode(outbound.params(era, values, raws, **context)))
    return decoded


def test_a_modern_clients_envelope_goes_on_to_a_modern_upstream() -> None:
    meta = {**ENVELOPE, "progressToken": 7, "vendor/key": [1]}
    assert sent(Era.MODERN, {"name": "x"}, meta) == {"name": "x", "_meta": meta}


def test_a_legacy_clients_request_gets_the_gateways_envelope_for_a_modern_upstream() -> None:
    meta = sent(Era.MODERN, {"name": "x"}, {"progressToken": "p", "vendor/key": 1})["_meta"]
    assert meta == {
        VERSION: "2026-07-28",
        CAPABILITIES: {},
        CLIENT: {"name": "callscope", "version": __version__},
        "progressToken": "p",
        "vendor/key": 1,
    }


def test_a_legacy_upstream_gets_no_envelope_but_every_other_key() -> None:
    meta = {**ENVELOPE, "io.modelcontextprotocol/logLevel": "debug", "progressToken": 7, "vendor/key": {"a": 1}}
    assert sent(Era.LEGACY, {"name": "x"}, meta) == {
        "name": "x",
        "_meta": {"progressToken": 7, "vendor/key": {"a": 1}},
    }


def test_a_legacy_upstream_gets_no_meta_at_all_if_nothing_is_left_of_it() -> None:
    assert sent(Era.LEGACY, {"name": "x", "_meta": {"old": 1}}, ENVELOPE) == {"name": "x"}


@pytest.mark.parametrize("era", Era)
def test_the_context_of_the_client_span_takes_the_place_of_the_clients_and_baggage_is_dropped(era: Era) -> None:
    meta = {**ENVELOPE, "traceparent": "old", "tracestate": "old=1", "baggage": "user=alice"}
    with_state = sent(era, {}, meta, traceparent=TRACEPARENT, tracestate="new=1")["_meta"]
    assert (with_state["traceparent"], with_state["tracestate"]) == (TRACEPARENT, "new=1")
    assert "baggage" not in with_state
    without_state = sent(era, {}, meta, traceparent=TRACEPARENT)["_meta"]
    assert without_state["traceparent"] == TRACEPARENT
    assert not {"tracestate", "baggage"} & set(without_state)
    assert not {"traceparent", "tracestate", "baggage"} & set(sent(era, {}, meta).get("_meta", {}))


@pytest.mark.parametrize("era", Era)
def test_everything_but_meta_stays_byte_for_byte(era: Era) -> None:
    arguments = Raw(b'{ "b" : 1.0,"a":[ ] ,"e":1e3}')
    values = {"name": "x", "arguments": arguments}
    translated = outbound.params(era, values, {}, TRACEPARENT)
    assert bytes(arguments) in jsonrpc.encode(translated)
    assert values == {"name": "x", "arguments": arguments}


def test_the_headers_tell_a_modern_upstream_what_the_body_is_and_a_legacy_one_nothing() -> None:
    assert outbound.headers(Era.LEGACY, "tools/call", "x") == b""
    assert outbound.headers(Era.MODERN, "tools/call", "x") == b"mcp-method: tools/call\r\nmcp-name: x\r\n"
    assert outbound.headers(Era.MODERN, "tools/list", None) == b"mcp-method: tools/list\r\n"
    assert outbound.headers(Era.MODERN, "tools/list", "x") == b"mcp-method: tools/list\r\n"


@given(st.text(min_size=1))
def test_no_name_can_put_in_a_header_of_its_own(name: str) -> None:
    lines = outbound.headers(Era.MODERN, "tools/call", name)
    assert lines.isascii()
    assert lines.count(b"\r\n") == 2
    assert lines.count(b"\r") == lines.count(b"\n") == 2


def test_the_trace_travels_in_headers_as_well() -> None:
    assert outbound.trace_headers(None, "a=1") == b""
    assert outbound.trace_headers(TRACEPARENT, None) == f"traceparent: {TRACEPARENT}\r\n".encode()
    assert outbound.trace_headers(TRACEPARENT, "a=1,b=2") == (
        f"traceparent: {TRACEPARENT}\r\ntracestate: a=1,b=2\r\n".encode()
    )


@pytest.mark.parametrize("tracestate", ["a=1\r\nx: y", "a=é", "a=\0"])
def test_a_tracestate_that_is_no_header_value_is_left_out(tracestate: str) -> None:
    assert outbound.trace_headers(TRACEPARENT, tracestate) == f"traceparent: {TRACEPARENT}\r\n".encode()


@pytest.mark.parametrize(
    ("result", "versions"),
    [
        (b'{"supportedVersions":["2026-07-28"],"capabilities":{}}', ["2026-07-28"]),
        (b"{}", []),
        (b'{"supportedVersions":"2026-07-28"}', []),
        (b'{"supportedVersions":[7]}', []),
        (b'{"supportedVersions":["\xff"]}', []),
        (b"[]", []),
    ],
)
def test_the_versions_of_a_discover_result_are_read_if_it_is_one(result: bytes, versions: list[str]) -> None:
    assert outbound.supported_versions(Raw(result)) == versions


@pytest.mark.parametrize(
    ("result", "version"),
    [
        (b'{"protocolVersion":"2025-11-25","capabilities":{}}', "2025-11-25"),
        (b"{}", None),
        (b'{"protocolVersion":7}', None),
        (b'{"protocolVersion":"\xff"}', None),
        (b"[]", None),
    ],
)
def test_the_version_of_an_initialize_result_is_read_if_it_is_one(result: bytes, version: str | None) -> None:
    assert outbound.negotiated_version(Raw(result)) == version
