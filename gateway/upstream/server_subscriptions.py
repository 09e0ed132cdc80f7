"""The changes of one server, kept reported over either transport: subscribed, renewed when broken, passed on.

A modern server has one `subscriptions/listen` stream for all that is wanted of it. A legacy one reports its lists
unasked, and a resource to the session that has subscribed to it: here the gateway's own. After a time in which changes
may have been missed, everything counts as changed.

Source: specification 2026-07-28, basic/patterns/subscriptions; 2025-11-25, server/resources "Subscriptions".
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from msgspec import UNSET, Raw

from gateway.backoff import Backoff
from gateway.calls import ErrorType
from gateway.mcp import capabilities, jsonrpc, subscriptions
from gateway.mcp.jsonrpc import Params
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import CHANGES, NOTHING, RESOURCE_UPDATED, SubscriptionFilter
from gateway.upstream.base import (
    OnChange,
    ServerSession,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
    UpstreamTimings,
)

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=ServerSession)


class ChangeNotifier:
    """Passes the changes of one server on: each list's change at once, and those that follow soon as one at the end."""

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._changed: OnChange | None = None
        self._quiet: dict[str, asyncio.TimerHandle] = {}
        self._pending: dict[str, Raw] = {}

    @property
    def is_active(self) -> bool:
        return self._changed is not None

    def start(self, changed: OnChange) -> None:
        self._changed = changed

    def notify(self, method: str, params: Params) -> None:
        """Pass a notification on, if it is one of a change."""
        if method not in CHANGES or self._changed is None:
            return
        encoded = jsonrpc.raw(params)
        if method in self._quiet:
            self._pending[method] = encoded
            return
        self._changed(method, encoded)
        if method != RESOURCE_UPDATED:
            self._quiet[method] = asyncio.get_running_loop().call_later(self._quiet_s, self._end_quiet, method)

    def notify_all(self, declared: Raw | None, uris: Iterable[str]) -> None:
        """Report a change of every list that may change, and of these resources."""
        lists = filter_for(declared, frozenset())
        for method in sorted(CHANGES):
            if lists.wants(method):
                self.notify(method, {})
        for uri in uris:
            self.notify(RESOURCE_UPDATED, {"uri": jsonrpc.raw(uri)})

    def close(self) -> None:
        for timer in self._quiet.values():
            timer.cancel()
        self._quiet.clear()
        self._changed = None

    def _end_quiet(self, method: str) -> None:
        del self._quiet[method]
        params = self._pending.pop(method, None)
        if params is not None and self._changed is not None:
            self._changed(method, params)


class SubscriptionTransport(Protocol[S]):
    """What the two transports do differently."""

    async def subscription_session(self, *, start: bool) -> S | None:
        """The gateway's own session; None if there is none and the transport does not start one unless `start`."""

    def send_in(self, session: S, request: UpstreamRequest) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send a request in the session."""


class ListenStream:
    """One `subscriptions/listen`: a request whose notifications are the changes, and whose response ends it."""

    def __init__(self, session: ServerSession, wanted: SubscriptionFilter) -> None:
        self.session = session
        self.wanted = wanted
        self.accepted: asyncio.Future[SubscriptionFilter] = asyncio.get_running_loop().create_future()
        """What the server will report; done when the server has acknowledged the request."""
        self.ended: asyncio.Task[UpstreamResponse]
        self.request = UpstreamRequest(
            subscriptions.METHOD, subscriptions.listen_params(wanted), notify=self._notified, repeatable=True
        )

    async def open(self, sending: Coroutine[Any, Any, UpstreamResponse], timeout_s: float) -> None:
        """Send the request by `sending`, and wait until the server has acknowledged it."""
        self.ended = asyncio.create_task(sending)
        self.ended.add_done_callback(lambda task: task.cancelled() or task.exception())  # it may break at any time
        waiting: list[asyncio.Future[Any]] = [self.accepted, self.ended]
        try:
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not self.accepted.done():
                self.close()
        if self.accepted.done():
            return
        if not self.ended.done():
            reason = f"did not acknowledge subscriptions/listen within {timeout_s:g} s"
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, reason)
        error = self.ended.result().error
        if error is not UNSET:
            raise _refusal("subscriptions/listen", error)
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, "ended subscriptions/listen before it acknowledged it")

    def close(self) -> None:
        self.ended.cancel()

    async def _notified(self, data: bytes) -> None:
        message = jsonrpc.decode_message(data)
        if message.method == subscriptions.ACKNOWLEDGED and not self.accepted.done():
            params = message.params if message.params is not UNSET else {}
            self.accepted.set_result(subscriptions.read_acknowledged(params))


class ServerSubscriptions(Generic[S]):
    """What is subscribed at one server, and the task that renews it."""

    def __init__(
        self, slug: str, transport: SubscriptionTransport[S], notifier: ChangeNotifier, timings: UpstreamTimings
    ) -> None:
        self._slug = slug
        self._transport = transport
        self._notifier = notifier
        self._timings = timings
        self._uris: frozenset[str] = frozenset()
        self._refused: dict[str, UpstreamError] = {}
        """Which of them the server does not report, and why."""
        self._session: S | None = None
        """In which everything that is wanted was last subscribed."""
        self._stream: ListenStream | None = None
        self._missed = False
        """Whether changes may have been missed since everything was last subscribed."""
        self._subscribe_lock = asyncio.Lock()
        self._update_lock = asyncio.Lock()
        """Apart from the other: who waits for an update that another began has already said what it wants."""
        self._broken = asyncio.Event()
        self._backoff = Backoff(timings.reconnect_s, timings.reconnect_longest_s)
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def listen(self, changed: OnChange) -> None:
        """Report changes until closed; see `Upstream.listen`."""
        self._notifier.start(changed)
        self._task = asyncio.create_task(self._keep_subscribed())

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        """Report updates of just these resources; see `Upstream.subscribe`."""
        async with self._subscribe_lock:
            before = self._uris, self._refused
            self._uris = uris
            self._refused = {uri: error for uri, error in self._refused.items() if uri in uris}
            try:
                await self._update(start=bool(uris))
            except UpstreamError as error:
                if error.error_type is ErrorType.JSONRPC_ERROR:
                    self._uris, self._refused = before  # it would refuse them the next time as well
                raise
            return dict(self._refused)

    def session_started(self) -> None:
        """The transport has a new session, in which nothing is subscribed."""
        self._broken.set()

    def session_ended(self, session: ServerSession) -> None:
        if session is self._session:
            self._broken.set()

    def stream_reopened(self, session: ServerSession) -> None:
        """A legacy session's stream was away for a time: what the server said meanwhile was missed."""
        self._notifier.notify_all(session.declared, self._uris if session is self._session else ())

    async def close(self) -> None:
        self._closed = True
        self._notifier.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._replace_stream(None)

    async def _keep_subscribed(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._broken.clear()
            try:
                has_session = await self._update()
            except UpstreamError as error:
                logger.info("server %s: its changes cannot be received: %s", self._slug, error)
            else:
                since = loop.time()
                await self._broken.wait()
                if not has_session:  # a process has started
                    continue
                if loop.time() - since >= self._timings.stable_stream_s:
                    self._backoff.reset()
                    continue
            await asyncio.sleep(self._backoff.failed())

    async def _update(self, *, start: bool = False) -> bool:
        """Subscribe to what is wanted now, and to nothing else; False if there is no session to subscribe in."""
        async with self._update_lock:
            try:
                session = await self._transport.subscription_session(start=start)
                if session is None:
                    return False
                if session is not self._session:
                    self._missed = self._missed or (self._session is not None and self._stream is None)
                    self._refused = {}
                if session.era is Era.MODERN:
                    await self._update_stream(session)
                else:
                    self._replace_stream(None)
                    await self._update_resources(session)
            except UpstreamError:
                self._missed = self._missed or self._session is None
                raise
            self._session = session
            if self._missed:
                self._missed = False
                self._notifier.notify_all(session.declared, self._uris)
            return True

    # -- a modern server

    async def _update_stream(self, session: S) -> None:
        """The new stream is open before the old one is closed, so that no change falls between them."""
        wanted = filter_for(session.declared, self._uris)
        stream = self._stream
        if stream is not None and (stream.session, stream.wanted) == (session, wanted):
            return
        self._replace_stream(await self._open_stream(session, wanted) if not wanted.is_empty else None)

    async def _open_stream(self, session: S, wanted: SubscriptionFilter) -> ListenStream:
        """Open the stream; if the server refuses all because of the resources, at least for its lists."""
        try:
            stream = await self._send_listen(session, wanted)
        except UpstreamError as error:
            lists = subscriptions.without(wanted, self._uris)
            is_refused = error.error_type is ErrorType.JSONRPC_ERROR
            if self._stream is not None or lists in (wanted, NOTHING) or not is_refused:
                raise
            stream = await self._send_listen(session, lists)
            stream.wanted = wanted
            self._refused = dict.fromkeys(self._uris, error)
        else:
            accepted = stream.accepted.result().resource_subscriptions or ()
            left_out = UpstreamError(ErrorType.JSONRPC_ERROR, "does not report updates of the resource")
            self._refused = {uri: left_out for uri in self._uris if uri not in accepted}
        return stream

    async def _send_listen(self, session: S, wanted: SubscriptionFilter) -> ListenStream:
        stream = ListenStream(session, wanted)
        await stream.open(self._transport.send_in(session, stream.request), self._timings.acknowledge_s)
        return stream

    def _replace_stream(self, stream: ListenStream | None) -> None:
        if stream is not None and self._closed:  # closed while it was being opened
            stream.close()
            return
        old, self._stream = self._stream, stream
        if old is not None:
            old.close()
        if stream is not None:
            stream.ended.add_done_callback(lambda _: self._stream_ended(stream))

    def _stream_ended(self, stream: ListenStream) -> None:
        if stream is self._stream:
            self._stream = None
            self._missed = True
            self._broken.set()

    # -- a legacy server

    async def _update_resources(self, session: S) -> None:
        for uri in sorted(session.subscribed - self._uris):
            await self._send(session, "resources/unsubscribe", uri)
            session.subscribed -= {uri}
        for uri in sorted(self._uris - session.subscribed - self._refused.keys()):
            reply = await self._send(session, "resources/subscribe", uri)
            if reply.error is UNSET:
                session.subscribed |= {uri}
            else:
                self._refused[uri] = _refusal(f"to subscribe to {uri[:200]!r}", reply.error)

    async def _send(self, session: S, method: str, uri: str) -> UpstreamResponse:
        return await self._transport.send_in(session, UpstreamRequest(method, {"uri": uri}, repeatable=True))


def filter_for(declared: Raw | None, uris: frozenset[str]) -> SubscriptionFilter:
    """What to ask a modern server for: every list that it says may change, and these resources."""
    can = capabilities.read_server(declared)
    return SubscriptionFilter(
        tools_list_changed=(can.tools is not None and can.tools.list_changed) or None,
        prompts_list_changed=(can.prompts is not None and can.prompts.list_changed) or None,
        resources_list_changed=(can.resources is not None and can.resources.list_changed) or None,
        resource_subscriptions=tuple(sorted(uris)) or None,
    )


def _refusal(what: str, error: Raw) -> UpstreamError:
    said = bytes(error)
    reason = f"refused {what}: {said[:200].decode('utf-8', 'replace')}"
    return UpstreamError(ErrorType.JSONRPC_ERROR, reason, response=said)
