"""What the analytics API answers, as far as it is shown here; docs/api.md has the whole."""

from typing import TypeVar

import msgspec
from msgspec import Struct

from gateway.errors import CallscopeError

Answer = TypeVar("Answer")


def read(data: bytes, answer: type[Answer]) -> Answer:
    """An answer of its JSON.

    Raises:
        CallscopeError: it is another one.
    """
    try:
        return msgspec.json.decode(data, type=answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CallscopeError(f"this is none of the answers of an observer: {error}") from error


class Durations(Struct, frozen=True):
    """Milliseconds that the upstream took; None of no calls."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Counts(Struct, frozen=True):
    """How many calls."""

    range: int


class ErrorCount(Struct, frozen=True):
    """How many calls failed in one way."""

    error_type: str
    calls: int


class Overview(Struct, frozen=True):
    """The range's totals."""

    calls: Counts
    errors: int
    active_tokens: int
    duration_ms: Durations
    errors_by_type: list[ErrorCount]


class ToolGroup(Struct, frozen=True):
    """The calls of one tool."""

    server_slug: str
    tool_name: str
    calls: int
    errors: int
    duration_ms: Durations


class ToolGroups(Struct, frozen=True):
    """Every tool that was called, most first."""

    groups: list[ToolGroup]


class Series(Struct, frozen=True):
    """The counts of each bucket."""

    calls: list[int]
    errors: list[int]


class Timeline(Struct, frozen=True):
    """Counts over time."""

    step_s: int
    series: list[Series]


class Call(Struct, frozen=True):
    """One call."""

    timestamp: str
    token_id: str
    server_slug: str
    tool_name: str
    status: str
    duration_ms: float
    error_type: str | None = None
    error_message: str | None = None


class Calls(Struct, frozen=True):
    """Calls, newest first."""

    calls: list[Call]


class CallCount(Struct, frozen=True):
    """Calls of a month against the plan's limit."""

    used: int
    limit: int | None
    remaining: int | None
    projected: int
    exhausted_on: str | None


class UsageOf(Struct, frozen=True):
    """What is counted."""

    mcp_proxy_calls: CallCount


class Usage(Struct, frozen=True):
    """A workspace's month."""

    tier: str
    period: str
    usage: UsageOf


class Skipped(Struct, frozen=True):
    """Calls that the live stream left out; None if nobody can count them."""

    skipped: int | None


class Refusal(Struct, frozen=True):
    """Why there is no answer."""

    error: str
    parameter: str | None = None
    allowed: list[str] = []
