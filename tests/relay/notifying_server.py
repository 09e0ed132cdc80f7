"""An MCP server over HTTP, of either era, that sends notifications when a test says so, and a client to get them.

It keeps its streams open, knows which have ended, and can go away and come back.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from starlette.types import Receive, Scope, Send

from gateway.process import serve
from tests.relay.clients import Stream
from tests.relay.rig import ALICE, PATH, Rig, bearer, configuration, listening, modern

LISTEN: Final = "subscriptions/listen"
SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
COMPLETE: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
EVERYTHING: Final[dict[str, Any]] = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
CAN_CHANGE: Final[Mapping[str, Any]] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
}
_FLAGS: Final = {f"notifications/{kind}/list_changed": f"{kind}ListChanged" for kind in CAN_CHANGE}


@dataclass(slots=True, eq=False)
class _ServerStream:
    """One open stream: a modern one has a filter, a legacy one a session."""

    kept: Mapping[str, Any] | None
    session: str | None
    subscription: Any = None
    last_id: str | None = None
    frames: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)


@dataclass(slots=True, eq=False)
class NotifyingServer:
    """The server. It lists `resources`, and accepts subscriptions to all but those that it `refuses`."""

    era: str = "modern"
    resources: Sequence[str] = ()
    capabilities: Mapping[str, Any] = field(default_factory=lambda: CAN_CHANGE)
    refuses: set[str] = field(default_factory=set)
    refuses_whole: bool = False
    """Whether a modern one refuses all of a filter that has what it refuses in it, as an error."""
    away: bool = False
    """Whether only something in front of it answers: HTTP 503 to everything."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, it lets every request wait."""
    slow: set[str] = field(default_factory=set)
    """The methods that wait for `go`."""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    """Method and params, as they came."""
    streams: list[_ServerStream] = field(default_factory=list)
    """Those that are open."""
    opened: int = 0
    refused: int = 0
    """Requests that came while it was away."""
    url: str = ""
    _sessions: dict[str, set[str]] = field(default_factory=dict)
    _begun: int = 0

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    @property
    def subscribed_uris(self) -> set[str]:
        """The resources that the gateway is subscribed to now."""
        modern = [stream.kept.get("resourceSubscriptions", ()) for stream in self.streams if stream.kept is not None]
        return set().union(*modern, *self._sessions.values())

    def count(self, method: str) -> int:
        return sum(one == method for one, _ in self.requests)

    # -- what a test triggers

    def changes(self, kind: str) -> None:
        """A list has changed."""
        method = f"notifications/{kind}/list_changed"
        for stream in self.streams:
            if stream.kept is None or stream.kept.get(_FLAGS[method]):
                self._say(stream, method, {})

    def updates(self, uri: str, *, of: str | None = None) -> None:
        """A resource has changed: notify who subscribed to it, or to the resource that it is a part of."""
        for stream in self.streams:
            wants = stream.kept.get("resourceSubscriptions", ()) if stream.kept is not None else ()
            wants = wants or self._sessions.get(stream.session or "", ())
            if (of or uri) in wants:
                self._say(stream, "notifications/resources/updated", {"uri": uri})

    def ends_streams(self, *, in_order: bool = False) -> None:
        """Every stream ends, with its result or without."""
        for stream in list(self.streams):
            stream.frames.put_nowait("result" if in_order else None)

    def forgets(self) -> None:
        """As after a restart, no session is known."""
        self._sessions.clear()
        self.ends_streams()

    def _say(self, stream: _ServerStream, method: str, params: Mapping[str, Any]) -> None:
        meta = {"_meta": {SUBSCRIPTION: stream.subscription}} if stream.kept is not None else {}
        stream.frames.put_nowait({"jsonrpc": "2.0", "method": method, "params": {**params, **meta}})

    # -- requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        session = headers.get("mcp-session-id")
        if self.away:
            self.refused += 1
            await _answer(send, 503)
        elif session is not None and session not in self._sessions:
            await _answer(send, 404)
        elif scope["method"] == "GET":
            await self._stream(_ServerStream(None, session, last_id=headers.get("last-event-id")), receive, send)
        elif scope["method"] == "DELETE":
            self._sessions.pop(session or "", None)
            await _answer(send, 204)
        else:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            await self._post(json.loads(body), session, receive, send)

    async def _post(self, message: Any, session: str | None, receive: Receive, send: Send) -> None:
        method, params = message["method"], message.get("params", {})
        self.requests.append((method, params))
        if "id" not in message:
            await _answer(send, 202)
            return
        if method in self.slow:
            await self.go.wait()
        if method == LISTEN and self.era == "modern":
            await self._listen(message, receive, send)
            return
        status, members, lines = self._result(method, params, session)
        await _answer(send, status, {"jsonrpc": "2.0", "id": message["id"], **members}, lines)

    async def _listen(self, message: Any, receive: Receive, send: Send) -> None:
        wanted = message["params"]["notifications"]
        uris = [uri for uri in wanted.get("resourceSubscriptions", ()) if uri not in self.refuses]
        if self.refuses_whole and uris != list(wanted.get("resourceSubscriptions", ())):
            error = {"code": -32602, "message": "no such resource"}
            await _answer(send, 400, {"jsonrpc": "2.0", "id": message["id"], "error": error})
            return
        kept = {**wanted, "resourceSubscriptions": uris} if uris else {k: v for k, v in wanted.items() if v is True}
        stream = _ServerStream(kept, None, message["id"])
        meta = {SUBSCRIPTION: message["id"]}
        params = {"_meta": meta, "notifications": kept}
        first = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}
        stream.frames.put_nowait(first)
        await self._stream(stream, receive, send)

    async def _stream(self, stream: _ServerStream, receive: Receive, send: Send) -> None:
        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            stream.frames.put_nowait(None)

        self.streams.append(stream)
        self.opened += 1
        gone = asyncio.create_task(until_gone())
        lines = [(b"content-type", b"text/event-stream")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": lines})
            await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
            while (frame := await stream.frames.get()) is not None:
                if frame == "result":
                    meta = {"_meta": {SUBSCRIPTION: stream.subscription}, "resultType": "complete"}
                    frame = {"jsonrpc": "2.0", "id": stream.subscription, "result": meta}
                    stream.frames.put_nowait(None)
                data = f"data: {json.dumps(frame)}\n\n".encode()
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            gone.cancel()
            self.streams.remove(stream)
        await send({"type": "http.response.body", "body": b""})

    def _result(self, method: str, params: Any, session: str | None) -> tuple[int, Any, Mapping[str, str]]:
        lists: dict[str, dict[str, Any]] = {
            "tools/list": {"tools": [{"name": "act", "inputSchema": {"type": "object"}}]},
            "prompts/list": {"prompts": []},
            "resources/list": {"resources": [{"uri": uri, "name": uri} for uri in self.resources]},
            "resources/templates/list": {"resourceTemplates": []},
        }
        complete: dict[str, Any] = {**COMPLETE} if self.era == "modern" else {}
        match method, self.era:
            case "server/discover", "modern":
                found = {"supportedVersions": ["2026-07-28"], "capabilities": self.capabilities}
                return 200, {"result": {**complete, **found}}, {}
            case "initialize", "legacy":
                self._begun += 1
                self._sessions[f"s-{self._begun}"] = set()
                opened = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "old"}}
                result = {**opened, "capabilities": self.capabilities}
                return 200, {"result": result}, {"mcp-session-id": f"s-{self._begun}"}
            case "resources/subscribe", "legacy" if params["uri"] in self.refuses:
                return 200, {"error": {"code": -32002, "message": "no such resource", "data": params}}, {}
            case "resources/subscribe", "legacy":
                self._sessions[session or ""].add(params["uri"])
                return 200, {"result": {}}, {}
            case "resources/unsubscribe", "legacy":
                self._sessions[session or ""].discard(params["uri"])
                return 200, {"result": {}}, {}
        if method in lists:
            return 200, {"result": {**complete, **lists[method]}}, {}
        return 404 if self.era == "modern" else 400, {"error": {"code": -32601, "message": f"no {method}"}}, {}


async def _answer(send: Send, status: int, message: Any = None, lines: Mapping[str, str] | None = None) -> None:
    body = json.dumps(message).encode() if message is not None else b""
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(lines or {})}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def notifying_server(
    era: str = "modern", *, again: NotifyingServer | None = None, **settings: Any
) -> AsyncIterator[NotifyingServer]:
    """A server that runs within the block; `again`: the same one, back at its address."""
    server = again or NotifyingServer(era, **settings)
    sock = socket.create_server(("127.0.0.1", server.port if again else 0))
    server.url = f"http://127.0.0.1:{sock.getsockname()[1]}/mcp"
    server.away, stop = False, asyncio.Event()
    serving = asyncio.create_task(serve(server, sock, stop=stop, grace_seconds=1))
    try:
        yield server
    finally:
        server.away = True
        server.forgets()
        server.go.set()
        stop.set()
        await serving


# -- a client


@dataclass(slots=True)
class ModernClient:
    """Speaks 2026-07-28 over a real socket."""

    http: httpx.AsyncClient

    @contextlib.asynccontextmanager
    async def listen(self, *, id_: Any = 1, token: str = ALICE, **wanted: Any) -> AsyncIterator[Stream]:
        """One `subscriptions/listen`, its frames as they come."""
        headers, body = modern(LISTEN, {"notifications": wanted}, id_=id_)
        lines = {**bearer(token), **headers}
        async with self.http.stream("POST", PATH, content=json.dumps(body), headers=lines) as response:
            yield Stream(response)

    @contextlib.asynccontextmanager
    async def subscribed(self, *, id_: Any = 1, token: str = ALICE, **wanted: Any) -> AsyncIterator[Stream]:
        """The same, after its acknowledgement of all that is wanted."""
        async with self.listen(id_=id_, token=token, **wanted) as stream:
            assert acknowledged(await stream.next()) == wanted
            yield stream


@contextlib.asynccontextmanager
async def modern_client(rig: Rig) -> AsyncIterator[ModernClient]:
    async with (
        listening(rig) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, verify=False) as http,  # noqa: S501 - no TLS
    ):
        yield ModernClient(http)


def acknowledged(frame: Any) -> Any:
    """The filter in the first frame."""
    assert frame["method"] == "notifications/subscriptions/acknowledged", frame
    return frame["params"]["notifications"]


def subject(frame: Any) -> str:
    """What a notification is about, in short: `tools`, or the URI of the resource."""
    assert frame is not None, "the stream has ended"
    return str(frame.get("params", {}).get("uri") or frame["method"].split("/")[1])


def resource_filter(*uris: str) -> dict[str, Any]:
    """The part of a filter that names resources."""
    return {"resourceSubscriptions": list(uris)}


def servers(*of: NotifyingServer, **named: NotifyingServer) -> dict[str, Any]:
    """The servers of a configuration: `a`, `b`, … in their order."""
    return {slug: {"url": server.url} for slug, server in [*zip("abc", of, strict=False), *named.items()]}


def reload(relay: Rig, of: dict[str, Any], **changes: Any) -> None:
    """Apply another configuration."""
    relay.relay.apply(configuration(of, **changes))
