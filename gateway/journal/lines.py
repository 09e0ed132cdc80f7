"""The two journal lines of a tool call, joined from parts that are the same for many calls.

A reader decodes them as `CallStart` and `ToolCall`. They have the same members in the same order. Building and encoding
the two records instead would cost a call five times as much.
"""

from typing import Any, NamedTuple

import msgspec


class PhaseTexts(NamedTuple):
    """Milliseconds of each phase, as JSON numbers; see `gateway.calls.Phases`."""

    authenticate: str
    route: str
    acquire: str
    send: str
    wait: str
    receive: str
    respond: str


def members(**values: Any) -> str:
    """The members of a JSON object without its braces. Those that are None are left out."""
    return msgspec.json.encode({name: value for name, value in values.items() if value is not None}).decode()[1:-1]


def start(identity: str) -> bytes:
    """The line of a `CallStart`; `identity` holds the members of `CallIdentity`."""
    return f'{{"event":"start",{identity}}}\n'.encode()


def end(
    identity: str,
    *,
    failure: str,
    duration_ms: str,
    total_ms: str,
    response_bytes: int,
    http_status: int | None,
    phases: PhaseTexts,
) -> bytes:
    """The line of a `ToolCall`; `failure` holds the members that only a failed call has, and is empty for a success."""
    authenticate, route, acquire, send, wait, receive, respond = phases
    status = '"success"' if not failure else f'"error",{failure}'
    http = f'"http_status":{http_status},' if http_status is not None else ""
    return (
        f'{{"event":"end",{identity},"status":{status},"duration_ms":{duration_ms},"total_ms":{total_ms},'
        f'"response_bytes":{response_bytes},{http}"phases":{{"authenticate":{authenticate},"route":{route},'
        f'"acquire":{acquire},"send":{send},"wait":{wait},"receive":{receive},"respond":{respond}}}}}\n'
    ).encode()
