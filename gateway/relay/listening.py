"""`subscriptions/listen`: the stream on which a modern client hears of changes.

What is recorded of it is the time until it is acknowledged: how long a client goes on listening says nothing of the
gateway, and an hour in a histogram of milliseconds would hide all else.

Source: specification 2026-07-28, patterns/subscriptions (requirement M24).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import Raw
from starlette.types import Receive, Send

from gateway.calls import Operation
from gateway.mcp import capabilities, jsonrpc, sse, subscriptions
from gateway.mcp.subscriptions import Filter, InvalidFilterError
from gateway.relay.call import Call
from gateway.relay.changes import Changes
from gateway.relay.crossing import server_info
from gateway.relay.recorder import Recorder
from gateway.relay.responses import SSE_HEADERS, send_json
from gateway.relay.upstream.seam import UpstreamError
from gateway.relay.workspaces import Directory, WorkspaceView

KEEP_ALIVE_S: Final = 15.0
MAX_STREAMS: Final = 32
"""That one token may have open."""
_COMMENT: Final = b":\r\n\r\n"


class Stream:
    """What one client has to be told: each kind of change, and each resource, once."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.stirred = asyncio.Event()
        self._noted: dict[tuple[str, str | None], jsonrpc.Params] = {}

    def note(self, method: str, params: jsonrpc.Params) -> None:
        """A change; the newest of its kind is told."""
        self._noted[method, subscriptions.updated_uri(params)] = params
        self.stirred.set()

    def look(self) -> None:
        """Something else has changed."""
        self.stirred.set()

    def take(self) -> list[tuple[str, jsonrpc.Params]]:
        """What is to be told now."""
        noted, self._noted = self._noted, {}
        return [(method, params) for (method, _), params in noted.items()]


class Listening:
    """The streams of every workspace."""

    def __init__(self, directory: Callable[[], Directory], recorder: Recorder, changes: Changes) -> None:
        self._directory = directory
        self._recorder = recorder
        self._changes = changes
        self._open: Counter[tuple[str, str]] = Counter()
        self._stopping = False

    def close(self) -> None:
        """End every stream, with its result."""
        self._stopping = True
        self._changes.close()

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Serve one request, until its client goes, its token does, or the relay stops."""
        owner = (call.view.slug, call.principal.token_id)
        refusal: Raw | None = None
        code: int | None = None
        try:
            stream = Stream(_kept(call.view, subscriptions.read(call.request.params)))
            if self._open[owner] >= MAX_STREAMS:
                code = jsonrpc.INVALID_REQUEST
                refusal = jsonrpc.error_object(code, f"this token listens on {MAX_STREAMS} streams: close one first")
            else:
                self._open[owner] += 1
        except InvalidFilterError as error:
            code = jsonrpc.INVALID_PARAMS
            refusal = jsonrpc.error_object(code, str(error))
        if refusal is not None or code is not None:
            self._record(call, str(code))
            status = jsonrpc.http_status(call.request.era, code or 0)
            await send_json(send, status, jsonrpc.error(call.request.id, refusal or jsonrpc.EMPTY_OBJECT))
            return
        try:
            await self._follow(call, stream, receive, send)
        finally:
            self._changes.remove(call.view.slug, stream)
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

    async def _follow(self, call: Call, stream: Stream, receive: Receive, send: Send) -> None:
        request_id = call.request.id
        try:
            await self._changes.add(call.view.slug, call.principal.token_id, stream)
        except UpstreamError as error:
            self._record(call, error.error_type)
            refusal = jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, f"a server does not let itself be followed: {error}")
            await send_json(send, 200, jsonrpc.error(request_id, refusal))
            return
        self._record(call, None)
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        await _write(send, sse.encode(subscriptions.acknowledged(request_id, stream.wanted)))
        gone = asyncio.create_task(_until_gone(receive))
        gone.add_done_callback(lambda _: stream.look())
        try:
            while not gone.done() and not self._is_over(call):
                for method, params in stream.take():
                    await _write(send, sse.encode(subscriptions.stamped(request_id, method, params)))
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await stream.stirred.wait()
                    stream.stirred.clear()
                except TimeoutError:
                    await _write(send, _COMMENT)
        finally:
            gone.cancel()
        if not gone.done():
            result = jsonrpc.result(request_id, subscriptions.ended(request_id, server_info(call.view)))
            await send({"type": "http.response.body", "body": sse.encode(result)})

    def _is_over(self, call: Call) -> bool:
        """Whether the relay stops, or the token is not one any more."""
        expires_at = call.principal.expires_at
        expired = expires_at is not None and time.time() >= expires_at
        return self._stopping or expired or not self._directory().knows(call.principal)

    def _record(self, call: Call, error_type: str | None) -> None:
        self._recorder.operation(
            Operation(
                side="server",
                method=subscriptions.METHOD,
                timestamp_ns=call.timestamp_ns,
                duration_ms=(time.perf_counter_ns() - call.began_ns) / 1e6,
                workspace_id=call.view.slug,
                token_id=call.principal.token_id,
                error_type=error_type,
            )
        )


def _kept(view: WorkspaceView, requested: Filter) -> Filter:
    """What of it can be heard: a list of which a server tells when it changes, a resource of one that can follow it."""
    declared = [capabilities.read_server(server.upstream.declared) for server in view.servers.values()]
    can_follow = any(one.resources is not None and one.resources.subscribe for one in declared)
    return subscriptions.honoured(
        requested,
        tools=any(one.tools is not None and one.tools.list_changed for one in declared),
        prompts=any(one.prompts is not None and one.prompts.list_changed for one in declared),
        resources=any(one.resources is not None and one.resources.list_changed for one in declared),
        subscribable=lambda _: can_follow,
    )


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
