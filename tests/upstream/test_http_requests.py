"""What an upstream is sent over HTTP: the envelope of its era, and never anything that is no header."""

import pytest

from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamRequest
from tests.http1.raw import (
    legacy,
    modern,
    raw,
)
from tests.upstream.http_rig import call, upstream_of


async def test_headers_and_meta_describe_the_request_to_a_modern_upstream() -> None:
    async with (
        raw(modern()) as server,
        upstream_of(server, headers={"Authorization": "Bearer up", "X-Team": "a b"}) as upstream,
    ):
        request = call(meta={"example/x": {"kept": True}})
        request.traceparent, request.tracestate = f"00-{'a' * 32}-{'b' * 16}-01", "vendor=1"
        await upstream.request(request)

        sent = server.calls[0]
        assert sent.head.startswith(b"POST /mcp HTTP/1.1\r\n")
        assert sent.headers == {
            "host": f"127.0.0.1:{server.port}",
            "authorization": "Bearer up",
            "x-team": "a b",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "act",
            "traceparent": request.traceparent,
            "tracestate": "vendor=1",
            "content-length": str(len(sent.body)),
        }
        meta = sent.message["params"]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "callscope"
        assert meta["example/x"] == {"kept": True}
        assert (meta["traceparent"], meta["tracestate"]) == (request.traceparent, request.tracestate)


@pytest.mark.parametrize("tracestate", ["a=1\r\nx-evil: 1", "a=\xe9", "a=1,b=" + "x" * 10_000])
async def test_a_tracestate_that_is_no_header_is_not_sent_as_one(tracestate: str) -> None:
    async with raw(modern()) as server, upstream_of(server) as upstream:
        request = call()
        request.traceparent, request.tracestate = f"00-{'a' * 32}-{'b' * 16}-01", tracestate
        await upstream.request(request)

        assert "tracestate" not in server.calls[0].headers
        assert "x-evil" not in server.calls[0].headers


@pytest.mark.parametrize("name", ["a\r\nx-evil: 1", "ü", " act ", "=?base64?YQ==?="])
async def test_a_tools_name_that_is_no_header_value_is_encoded(name: str) -> None:
    async with raw(modern()) as server, upstream_of(server) as upstream:
        await upstream.request(UpstreamRequest("tools/call", {"name": name}, name=name))

        assert server.calls[0].headers["mcp-name"].startswith("=?base64?")
        assert "x-evil" not in server.calls[0].headers


async def test_a_legacy_upstream_gets_its_session_and_none_of_the_modern_envelope() -> None:
    async with raw(legacy()) as server, upstream_of(server) as upstream:
        await upstream.request(
            call(meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": 7, "traceparent": "x"})
        )

        sent = server.calls[0]
        assert upstream.era is Era.LEGACY
        assert sent.headers["mcp-session-id"] == "s-1"
        assert sent.headers["mcp-protocol-version"] == "2025-11-25"
        assert "mcp-method" not in sent.headers
        assert sent.message["params"]["_meta"] == {"progressToken": 7}


async def test_an_ipv6_address_stands_in_brackets_in_the_host_header() -> None:
    async with raw(modern(), host="::1") as server, upstream_of(server) as upstream:
        await upstream.request(call())

        assert server.calls[0].headers["host"] == f"[::1]:{server.port}"
        assert upstream.address == f"[::1]:{server.port}"
