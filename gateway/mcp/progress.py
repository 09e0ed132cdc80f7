"""Progress: the token that a request carries, and the notifications that carry it back.

A token is a string or a number and keeps its type, so it stays the bytes that it was written in.

Source: specification 2026-07-28, basic/patterns/progress; 2025-11-25, basic/utilities/progress.
"""

from typing import Final

import msgspec
from msgspec import Raw

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import Params

METHOD: Final = "notifications/progress"
TOKEN: Final = "progressToken"  # noqa: S105 - the member's name in MCP

_decode_token: Final = msgspec.json.Decoder(str | int | float).decode
_decode_progress: Final = msgspec.json.Decoder(int | float).decode


def token(members: Params) -> Raw | None:
    """The token in a request's `_meta` or in a notification's params; None without one, or if it is none."""
    value = members.get(TOKEN)
    return value if value is not None and key(value) is not None else None


def key(token: Raw) -> tuple[type, str | float] | None:
    """What two tokens are compared by: 1 and "1" are two. None if it is no token."""
    value = jsonrpc.decode_or(_decode_token, token, None)
    if value is None:
        return None
    return (str, value) if isinstance(value, str) else (float, value)


def notification(params: Params, token: Raw) -> bytes:
    """An upstream's progress under the client's token; everything else stays as it is."""
    return jsonrpc.notification(METHOD, {**params, TOKEN: token})


class IncreasingProgress:
    """Passes on the progress of one request only while it increases, as the specification demands."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = float("-inf")

    def advance(self, params: Params) -> bool:
        """Whether a notification is passed on to the client."""
        reached = jsonrpc.decode_or(_decode_progress, params.get("progress"), self._last)
        if reached <= self._last:
            return False
        self._last = reached
        return True
