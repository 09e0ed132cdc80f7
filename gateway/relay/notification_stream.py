"""Notifications that belong to no request, on their way to one client: a bounded queue, and the SSE stream it feeds.

A legacy client opens its stream by GET in its session, a modern one by `subscriptions/listen`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import Receive, Send

from gateway.mcp import sse, subscriptions
from gateway.mcp.jsonrpc import Params
from gateway.mcp.subscriptions import MAX_RESOURCES, SubscriptionFilter
from gateway.relay.responses import SSE_HEADERS

MAX_QUEUED: Final = 2 * MAX_RESOURCES
"""Then the oldest notification is dropped. One of each resource and each list always fits."""
_COMMENT: Final = b":\r\n\r\n"


class NotificationQueue:
    """What one client subscribes to, and the notifications that wait for it to read.

    Of a kind and a resource only the newest waits, so a slow client gets a hundred changes as one.
    """

    def __init__(self, wanted: SubscriptionFilter, encode: Callable[[str, Params], bytes]) -> None:
        """`encode` makes the message from a notification's method and params."""
        self.filter = wanted
        self._encode = encode
        self._messages: dict[tuple[str, str | None], bytes] = {}
        self._changed = asyncio.Event()

    def put(self, method: str, params: Params) -> None:
        self._messages[method, subscriptions.updated_uri(params)] = self._encode(method, params)
        if len(self._messages) > MAX_QUEUED:
            self.pop()
        self._changed.set()

    def pop(self) -> bytes | None:
        """The oldest message that waits."""
        return self._messages.pop(next(iter(self._messages))) if self._messages else None

    def wake(self) -> None:
        """Let the stream look whether it is still to go on."""
        self._changed.set()

    async def wait(self) -> None:
        """Wait for a message or a `wake`."""
        await self._changed.wait()
        self._changed.clear()


async def send_notifications(
    queue: NotificationQueue,
    receive: Receive,
    send: Send,
    *,
    first: bytes,
    seconds_left: Callable[[], float],
    keep_alive_s: float,
) -> bool:
    """Begin a stream with the event `first` and send what comes into the queue, while there are `seconds_left`.

    A silent stream carries a comment every `keep_alive_s`. Gives whether the client is still there; then the caller
    has to end the body.
    """
    await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
    await _write(send, first)
    disconnected = asyncio.create_task(_until_disconnected(receive))
    disconnected.add_done_callback(lambda _: queue.wake())
    try:
        # One message at a time: when a newer stream of the same session takes over, the rest is for that one.
        while not disconnected.done() and (left := seconds_left()) > 0:
            message = queue.pop()
            if message is not None:
                await _write(send, sse.encode(message))
                continue
            try:
                async with asyncio.timeout(min(left, keep_alive_s)):
                    await queue.wait()
            except TimeoutError:
                await _write(send, _COMMENT)
    finally:
        disconnected.cancel()
    return not disconnected.done()


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
