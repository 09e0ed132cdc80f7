"""The two lines of a tool call, put together from parts that are the same for many calls.

A reader decodes them as `CallStart` and `ToolCall`, whose members they have, in the same order. Building and encoding
the two records instead costs a call five times as much.
"""

from typing import Any, NamedTuple

import msgspec


class Phases(NamedTuple):
    """Milliseconds of each phase, as JSON numbers; see `gateway.calls.Phases`."""

    authenticate: str
    route: str
    acquire: str
    send: str
    wait: str
    receive: str
    respond: str


def members(**values: Any) -> str:
    """Members of a JSON object, without its braces; those that are None are left out."""
    return msgspec.json.encode({name: value for name, value in values.items() if value is not None}).decode()[1:-1]


def start(identity: str) -> bytes:
    """The line that says that a call starts; `identity` are the members of `CallIdentity`."""
    return f'{{"event":"start",{identity}}}\n'.encode()


def end(
    identity: str,
    *,
    failure: str,
    duration_ms: str,
    total_ms: str,
    response_bytes: int,
    http_status: int | None,
    phases: Phases,
) -> bytes:
    """The line that records a call; `failure` are the members that only a failed one has, empty for a success."""
    authenticate, route, acquire, send, wait, receive, respond = phases
    status = '"success"' if not failure else f'"error",{failure}'
    http = f'"http_status":{http_status},' if http_status is not None else ""
    return (
        f'{{"event":"end",{identity},"status":{status},"duration_ms":{duration_ms},"total_ms":{total_ms},'
        f'"response_bytes":{response_bytes},{http}"phases":{{"authenticate":{authenticate},"route":{route},'
        f'"acquire":{acquire},"send":{send},"wait":{wait},"receive":{receive},"respond":{respond}}}}}\n'
    ).encode()
