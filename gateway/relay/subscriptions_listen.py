"""`subscriptions/listen`: the stream on which a modern client hears of changes.

What is recorded of it is the time until it is acknowledged: how long a client goes on listening says nothing of the
gateway, and an hour in a histogram of milliseconds would hide all else.

Source: specification 2026-07-28, patterns/subscriptions (requirement M24).
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.types import Receive, Send

from gateway.calls import Operation
from gateway.mcp import capabilities, jsonrpc, sse, subscriptions
from gateway.mcp.subscriptions import MAX_RESOURCES, Filter, InvalidFilterError
from gateway.relay.active_call import Call
from gateway.relay.forwarding import server_info
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.registry import WorkspaceRegistry, WorkspaceView
from gateway.relay.responses import SSE_HEADERS, send_json
from gateway.relay.subscription_registry import SubscriptionRegistry, can_follow, meet

KEEP_ALIVE_S: Final = 15.0
MAX_STREAMS: Final = 32
"""That one token may have open."""
MAX_NOTED: Final = 2 * MAX_RESOURCES
"""Changes that wait for a client to read; then the oldest goes. Only parts of what it follows can be so many."""
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
        if len(self._noted) > MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        self.stirred.set()

    def look(self) -> None:
        """Something else has changed."""
        self.stirred.set()

    def take(self) -> list[tuple[str, jsonrpc.Params]]:
        """What is to be told now."""
        noted, self._noted = self._noted, {}
        return [(method, params) for (method, _), params in noted.items()]


class SubscriptionStreams:
    """The streams of every workspace."""

    def __init__(
        self, directory: Callable[[], WorkspaceRegistry], recorder: HeartbeatWriter, changes: SubscriptionRegistry
    ) -> None:
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
        try:
            requested = subscriptions.read(call.request.params)
        except InvalidFilterError as error:
            await self._refuse(call, send, jsonrpc.INVALID_PARAMS, str(error))
            return
        if self._open[owner] >= MAX_STREAMS:
            why = f"this token listens on {MAX_STREAMS} streams: close one first"
            await self._refuse(call, send, jsonrpc.INVALID_REQUEST, why)
            return
        self._open[owner] += 1
        try:
            await meet(call.view)
            stream = Stream(_kept(call.view, requested))
            try:
                await self._follow(call, stream, receive, send)
            finally:
                self._changes.remove(call.view.slug, stream)
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

    async def _refuse(self, call: Call, send: Send, code: int, why: str) -> None:
        self._record(call, str(code))
        status = jsonrpc.http_status(call.request.era, code)
        await send_json(send, status, jsonrpc.error(call.request.id, jsonrpc.error_object(code, why)))

    async def _follow(self, call: Call, stream: Stream, receive: Receive, send: Send) -> None:
        request_id = call.request.id
        refused = await self._changes.add(call.view.slug, call.principal.token_id, stream)
        if refused:
            stream.wanted = subscriptions.without(stream.wanted, refused)
            self._changes.settle(call.view.slug)
        self._record(call, None)
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        await _write(send, sse.encode(subscriptions.acknowledged(request_id, stream.wanted)))
        gone = asyncio.create_task(_until_gone(receive))
        gone.add_done_callback(lambda _: stream.look())
        try:
            while not gone.done() and (left := self._left(call)) > 0:
                for method, params in stream.take():
                    await _write(send, sse.encode(subscriptions.stamped(request_id, method, params)))
                try:
                    async with asyncio.timeout(min(left, KEEP_ALIVE_S)):
                        await stream.stirred.wait()
                    stream.stirred.clear()
                except TimeoutError:
                    await _write(send, _COMMENT)
        finally:
            gone.cancel()
        if not gone.done():
            result = jsonrpc.result(request_id, subscriptions.ended(request_id, server_info(call.view)))
            await send({"type": "http.response.body", "body": sse.encode(result)})

    def _left(self, call: Call) -> float:
        """For how many seconds it may go on: not if the relay stops, or the token is not one any more."""
        secret = call.headers.get(b"authorization", b"")[len(b"Bearer ") :].strip()  # its form was admitted
        principal = self._directory().principal(secret)
        if self._stopping or principal is None or principal[:2] != call.principal[:2]:
            return 0.0
        return math.inf if principal.expires_at is None else principal.expires_at - time.time()

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
    follows = any(can_follow(server) for server in view.servers.values())
    return subscriptions.honoured(
        requested,
        tools=any(one.tools is not None and one.tools.list_changed for one in declared),
        prompts=any(one.prompts is not None and one.prompts.list_changed for one in declared),
        resources=any(one.resources is not None and one.resources.list_changed for one in declared),
        subscribable=lambda _: follows,
    )


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
