"""An upstream's notifications while a request runs: only those that the request's client may receive go on to it.

Source: specification 2026-07-28, basic/patterns/progress, server/utilities/logging; 2025-11-25, the same utilities.
"""

from typing import Final

from msgspec import UNSET

from gateway.mcp import jsonrpc, log_levels, progress
from gateway.mcp.inbound import Request
from gateway.mcp.jsonrpc import DECODE_ERRORS, Params
from gateway.mcp.revisions import Era
from gateway.relay.responses import EventStream

_NO_PARAMS: Final[Params] = {}


class NotificationFilter:
    """One request's. Progress goes on under the client's own token if it advances, log messages by their level.

    The level of a legacy client is the one of its session; a modern client names it in each request.

    Raises:
        InvalidParamsError: a modern request names an unknown log level.
    """

    __slots__ = ("_era", "_level", "_steps", "_stream", "_token")

    def __init__(self, stream: EventStream, request: Request, session_level: str | None = None) -> None:
        self._stream = stream
        self._era = request.era
        self._token = progress.token(request.meta)
        self._steps = progress.IncreasingProgress()
        self._level = session_level if request.era is Era.LEGACY else log_levels.level_of_request(request.meta)

    async def notify(self, data: bytes) -> None:
        """Take one notification as bytes."""
        try:
            message = jsonrpc.decode_message(data)
        except DECODE_ERRORS:
            return
        params = message.params if message.params is not UNSET else _NO_PARAMS
        if message.method == progress.METHOD:
            if self._token is not None and self._steps.advance(params):
                await self._stream.event(progress.notification(params, self._token))
        elif message.method == log_levels.METHOD:
            if log_levels.passes(params, self._level):
                await self._stream.event(data)
        elif self._era is Era.LEGACY:  # the stream of a modern request carries no other notification
            await self._stream.event(data)
