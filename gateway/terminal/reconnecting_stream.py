"""A live stream that goes on where it broke off."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from gateway.mcp.sse import Parser, ServerSentEvent
from gateway.terminal.api import ApiClient, Parameters, UnansweredError

PATH: Final = "/logs/stream"
SILENCE_S: Final = 45.0
"""Three times the interval of the comments that keep a stream alive: after this it is broken."""
TTL_S: Final = 3600.0
"""A stream ends with its bearer, and the observer itself lets none run for longer than this."""
PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 10.0


def follow(
    api: ApiClient,
    workspace: str,
    filters: Parameters,
    *,
    last: int | None = None,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[ServerSentEvent]:
    """The stream's events, each once, without end: after an interruption those that came meanwhile are first.

    `say` hears of interruptions.

    Raises:
        UnansweredError: there is no stream at the beginning.
        CallscopeError: the request is refused, at the beginning or when the stream is asked for again.
    """
    parser = Parser(retry_ms=int(PAUSE_S * 1000))
    replay = [] if last is None else [("last", str(last))]  # the observer's answer, where no place is named
    begun, failures = False, 0
    while True:
        place = {} if parser.last_id is None else {"Last-Event-ID": parser.last_id}
        try:
            with api.stream(workspace, PATH, [*filters, *replay], place, silence_s=SILENCE_S, ttl_s=TTL_S) as response:
                if failures:
                    say(f"{_now()} the stream is back")
                begun, failures = True, 0
                for chunk in response.iter_bytes():
                    yield from parser.feed(chunk)
            pause = 0.0  # an end in order: the observer stops, or wants to see the token again
        except UnansweredError as error:
            if not begun:
                raise
            if not failures:
                say(f"{_now()} the stream broke off: {error.reason}: trying to go on where it was …")
            failures += 1
            pause = max(min(PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S), error.retry_after_s)
        parser = Parser(parser.last_id, parser.retry_ms)
        sleep(max(pause, (parser.retry_ms or 0) / 1000))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
