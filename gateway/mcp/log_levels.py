"""`notifications/message`: a modern client names the lowest level that it wants on each request.

A legacy client names it once, with `logging/setLevel`.

Source: specification 2026-07-28, server/utilities/logging; 2025-11-25, server/utilities/logging; RFC 5424, 6.2.1.
"""

from typing import Final, get_args

from mcp_types import LOG_LEVEL_META_KEY, LoggingLevel

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import InvalidParamsError, Params

METHOD: Final = "notifications/message"
LEVELS: Final[tuple[str, ...]] = get_args(LoggingLevel)
"""From the least to the most severe."""


def level_of_request(meta: Params) -> str | None:
    """The level that a modern request asks for; None: it wants no message.

    Raises:
        InvalidParamsError: the level is unknown.
    """
    return _level(meta, LOG_LEVEL_META_KEY) if LOG_LEVEL_META_KEY in meta else None


def level_to_set(params: Params) -> str:
    """The level of a legacy client's `logging/setLevel`.

    Raises:
        InvalidParamsError: there is no level, or an unknown one.
    """
    return _level(params, "level")


def with_level(meta: Params, level: str | None) -> Params:
    """The `_meta` of a request to a modern upstream, for a legacy client that has chosen a level."""
    return {**meta, LOG_LEVEL_META_KEY: jsonrpc.raw(level)} if level is not None else meta


def passes(params: Params, minimum: str | None) -> bool:
    """Whether a message is passed on to a client that wants those from `minimum` on; one without a level is not."""
    try:
        return minimum is not None and LEVELS.index(_level(params, "level")) >= LEVELS.index(minimum)
    except InvalidParamsError:
        return False


def _level(members: Params, name: str) -> str:
    level = jsonrpc.decode_or(jsonrpc.decode_string, members.get(name), "")
    if level not in LEVELS:
        raise InvalidParamsError(f"{name!r} must be one of {', '.join(LEVELS)}")
    return level
