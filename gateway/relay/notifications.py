"""What an upstream tells while a request runs, on its way to the client: only what that client may be told (M21, M22).

Source: specification 2026-07-28, basic/patterns/progress, server/utilities/logging; 2025-11-25, the same utilities.
"""

from typing import Final, Self

from msgspec import UNSET

from gateway.mcp import jsonrpc, log_levels, progress
from gateway.mcp.inbound import Request
from gateway.mcp.jsonrpc import NO_JSON, Params
from gateway.mcp.revisions import Era
from gateway.relay.responses import EventStream

_NOTHING: Final[Params] = {}


class NotificationFilter:
    """One request's. Progress goes on under its own token, and only onwards; log messages by its level."""

    __slots__ = ("_era", "_level", "_steps", "_stream", "_token")

    def __init__(self, stream: EventStream, era: Era, meta: Params, level: str | None) -> None:
        self._stream = stream
        self._era = era
        self._token = progress.token(meta)
        self._steps = progress.Steps()
        self._level = level

    @classmethod
    def of_request(cls, stream: EventStream, request: Request) -> Self:
        """What a modern request's client wants.

        Raises:
            InvalidLevelError: it names a log level that is none.
        """
        return cls(stream, Era.MODERN, request.meta, log_levels.requested(request.meta))

    async def notify(self, data: bytes) -> None:
        """Take one notification of the upstream's, as bytes."""
        try:
            message = jsonrpc.decode_message(data)
        except NO_JSON:
            return
        params = message.params if message.params is not UNSET else _NOTHING
        if message.method == progress.METHOD:
            if self._token is not None and self._steps.advance(params):
                await self._stream.event(progress.notification(params, self._token))
        elif message.method == log_levels.METHOD:
            if log_levels.passes(params, self._level):
                await self._stream.event(data)
        elif self._era is Era.LEGACY:  # a modern stream has no other
            await self._stream.event(data)
