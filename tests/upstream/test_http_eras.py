"""Servers that come back in the other era, servers without a common revision, and redirects."""

import contextlib
import json
from typing import Any

import pytest

from gateway.calls import ErrorType
from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamError
from tests.http1.raw import (
    DISCOVERED,
    TEXT,
    Behave,
    Request,
    Steps,
    answered,
    error,
    legacy,
    modern,
    raw,
    whole,
)
from tests.upstream.http_rig import call, upstream_of, value

AT_ONCE = {"reprobe_after_s": 0.0}


class Changing:
    """A server that may be replaced by another one at its address."""

    def __init__(self, now: Behave) -> None:
        self.now = now

    def __call__(self, request: Request) -> Steps:
        return self.now(request)


def strictly_legacy(refusal: bytes) -> Behave:
    """A legacy server that answers any request outside its session with `refusal`."""

    def behave(request: Request) -> Steps:
        if request.message.get("method") == "initialize" or "mcp-session-id" in request.headers:
            return legacy()(request)
        return [refusal]

    return behave


def strictly_modern(request: Request) -> Steps:
    """A modern server that answers any other revision with -32022."""
    if request.headers.get("mcp-protocol-version") == "2026-07-28":
        return modern()(request)
    refusal = error(request, -32022, "unsupported")
    refusal["error"]["data"] = {"supported": ["2026-07-28"]}
    return [whole(json.dumps(refusal).encode(), 400)]


NO_SESSION = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Bad Request: Missing session ID"}}


@pytest.mark.parametrize(
    "refusal", [whole(b"", 404), whole(b"", 405), whole(b"no", 400), whole(json.dumps(NO_SESSION).encode(), 400)]
)
async def test_a_modern_server_that_comes_back_as_a_legacy_one_is_negotiated_again(refusal: bytes) -> None:
    behave = Changing(modern())
    async with raw(behave) as server, upstream_of(server, timings=AT_ONCE) as upstream:
        await upstream.request(call())
        behave.now = strictly_legacy(refusal)

        assert value(await upstream.request(call(repeatable=True))) == TEXT
        assert upstream.era == "legacy"
        behave.now = strictly_modern
        assert value(await upstream.request(call()))["content"] == TEXT["content"]
        assert upstream.era == "modern"


@pytest.mark.parametrize(("status", "sent"), [(404, 2), (400, 1), (405, 1)])
async def test_what_may_not_be_repeated_is_sent_in_the_other_era_only_after_a_404(status: int, sent: int) -> None:
    behave = Changing(modern())
    async with raw(behave) as server, upstream_of(server, timings=AT_ONCE) as upstream:
        await upstream.request(call())
        behave.now = strictly_legacy(whole(b"", status))
        with contextlib.suppress(UpstreamError):
            await upstream.request(call())

        assert len(server.calls) == 1 + sent
        assert value(await upstream.request(call())) == TEXT
        assert upstream.era == "legacy"


async def test_a_response_names_the_era_of_its_request_though_the_server_has_changed_eras_since() -> None:
    behave = Changing(legacy())
    async with raw(behave) as server, upstream_of(server, timings=AT_ONCE) as upstream:
        first = await upstream.request(call())
        behave.now = strictly_modern
        second = await upstream.request(call())

        assert (first.era, second.era, upstream.era) == (Era.LEGACY, Era.MODERN, Era.MODERN)


async def test_a_legacy_server_without_sessions_that_comes_back_as_a_modern_one_is_negotiated_again() -> None:
    behave = Changing(legacy(session=None))
    async with raw(behave) as server, upstream_of(server, timings=AT_ONCE) as upstream:
        await upstream.request(call())
        behave.now = strictly_modern

        assert value(await upstream.request(call()))["content"] == TEXT["content"]
        assert upstream.era == "modern"


async def test_a_server_that_refuses_all_calls_is_not_probed_for_each_of_them() -> None:
    async with raw(modern(lambda _: [whole(b"", 404)])) as server, upstream_of(server) as upstream:
        for _ in range(5):
            with pytest.raises(UpstreamError, match="HTTP 404"):
                await upstream.request(call())

        assert server.methods().count("server/discover") == 1
        assert len(server.calls) == 5


@pytest.mark.parametrize("code", [-32602, -32601, -32021, -32020])
async def test_an_error_that_a_modern_server_gives_is_its_answer(code: int) -> None:
    behave = modern(lambda r: [whole(json.dumps(error(r, code, "no")).encode(), 400)])
    async with raw(behave) as server, upstream_of(server, timings=AT_ONCE) as upstream:
        assert not (await upstream.request(call())).is_result

        assert server.methods() == ["server/discover", "tools/call"]


@pytest.mark.parametrize("way", ["discovered", "refused"])
async def test_without_a_common_revision_a_call_fails_and_says_what_the_server_speaks(way: str) -> None:
    def behave(request: Request) -> Steps:
        if way == "discovered":
            return [answered(request, {**DISCOVERED, "supportedVersions": ["2031-01-01"]})]
        refusal: dict[str, Any] = error(request, -32022, "unsupported")
        refusal["error"]["data"] = {"supported": ["2031-01-01"], "requested": "2026-07-28"}
        return [whole(json.dumps(refusal).encode(), 400)]

    async with raw(behave) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="speaks MCP 2031-01-01") as caught:
            await upstream.request(call())

        assert caught.value.error_type is ErrorType.UPSTREAM_PROTOCOL_ERROR
        assert server.methods() == ["server/discover"]


@pytest.mark.parametrize("server_of", [modern, legacy])
async def test_what_a_server_declares_is_known_after_the_first_contact(server_of: Any) -> None:
    async with raw(server_of()) as server, upstream_of(server) as upstream:
        assert upstream.declared is None
        await upstream.request(call())

        assert upstream.declared is not None
        assert json.loads(bytes(upstream.declared)) == {"tools": {}}


# -- redirects


def at(path: str, ordinary: Behave, status: int, location: str) -> Behave:
    """A server whose `path` is right; any other redirects. `{host}` in a location is where it was asked."""

    def behave(request: Request) -> Steps:
        asked = request.head.decode().split(" ")[1]
        return (
            ordinary(request)
            if asked == path
            else [whole(b"", status, "location: " + location.replace("{host}", request.headers["host"]))]
        )

    return behave


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("location", ["/mcp/", "mcp/", "http://{host}/mcp/"])
@pytest.mark.parametrize("server_of", [modern, legacy])
async def test_a_redirect_within_the_origin_is_followed_with_the_whole_request(
    status: int, location: str, server_of: Any
) -> None:
    async with (
        raw(at("/mcp/", server_of(), status, location)) as server,
        upstream_of(server, headers={"Authorization": "Bearer up"}) as upstream,
    ):
        for _ in range(2):
            assert value(await upstream.request(call()))["content"] == TEXT["content"]

        first, second, *later = server.calls
        moved_at_once = second if status == 307 else first
        assert moved_at_once.headers["authorization"] == "Bearer up"
        assert (len(later) == 2) is (status == 307)  # what is permanent is not asked for again
        assert "notifications/initialized" not in [
            r.message.get("method") for r in server.requests if r.head.startswith(b"POST /mcp HTTP")
        ]


async def test_redirects_without_end_are_not_followed() -> None:
    async with raw(at("/never", modern(), 307, "/mcp?again")) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="redirects"):
            await upstream.request(call())

        assert len(server.requests) <= 10


@pytest.mark.parametrize(
    "location",
    ["https://{host}/mcp/", "http://localhost/mcp/", "http://127.0.0.1:1/", "//evil.example/", "http://[",
     "/a b", "file:///etc/passwd"],
)  # fmt: skip
async def test_a_redirect_to_another_origin_is_refused(location: str) -> None:
    async with raw(at("/never", modern(), 307, location)) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="configure that URL instead"):
            await upstream.request(call())


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_would_change_the_method_is_refused(status: int) -> None:
    async with raw(at("/mcp/", modern(), status, "/mcp/")) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="'/mcp/': configure that URL instead"):
            await upstream.request(call())
