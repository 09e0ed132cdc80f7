"""A ledger of millions of calls, made with SQL in seconds for each million: what many months of traffic would leave."""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import psycopg

from gateway.calls import ToolCall
from gateway.ledger import open_ledger
from gateway.ledger.rows import COLUMNS
from gateway.months import month_of

DAY_NS: Final = 86_400 * 10**9
SERVERS, TOOLS, TOKENS = 5, 50, 20
CHUNK: Final = 500_000
_SLOTS: Final = 4_000
_LARGEST: Final = 0.4
"""The largest workspace's share; the others share the rest by Zipf's law."""
_ERRORS: Final = {
    "tool_error": 60, "jsonrpc_error": 15, "upstream_timeout": 10, "upstream_unreachable": 5, "upstream_http_error": 4,
    "cancelled": 3, "rate_limited": 2, "gateway_error": 1,
}  # fmt: skip
"""Of the twentieth of all calls that fail."""

_ROWS: Final = """
select
    format('{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}', ms >> 16, ms & 65535, n & 4095, (n >> 12) & 4095, hash(n) >> 16)
        as call_id,
    at_ns as timestamp_ns, workspace as workspace_id, token as token_id,
    'server-' || (tool % $servers) as server_slug, printf('tool_%02d', tool) as tool_name,
    if(error_type is null, 'success', 'error') as status, error_type,
    if(error_type is null, null, 'failed: ' || error_type || ' ' || n % 1000) as error_message,
    if(error_type = 'tool_error', '{"content":[{"type":"text","text":"no issue ' || n || '"}],"isError":true}', null)
        as upstream_response,
    upstream_ms as duration_ms, round(upstream_ms + 0.1 + 0.05 * random(), 4) as total_ms,
    200 + n % 80 as request_bytes, (300 * exp(3 * random()))::bigint as response_bytes, 200 as http_status,
    'http' as transport, '127.0.0.1:9000' as upstream_address, '2026-07-28' as protocol_version,
    'claude' as client_name, '1.2.3' as client_version, (n % 100000)::varchar as jsonrpc_id, 'replica-0' as replica,
    md5(n::varchar) as trace_id, left(md5('a' || n), 16) as span_id, left(md5('b' || n), 16) as upstream_span_id,
    1 as trace_flags, 0.03 as phase_authenticate_ms, 0.02 as phase_route_ms, 0.01 as phase_acquire_ms,
    0.05 as phase_send_ms, greatest(upstream_ms - 0.16, 0) as phase_wait_ms, 0.1 as phase_receive_ms,
    0.04 as phase_respond_ms
from (
    select *, at_ns // 1000000 as ms,
        round(exp(2 + tool % 7 * 0.5 + 0.8 * sqrt(-2 * ln(1 - chance)) * cos(2 * pi() * random())), 4) as upstream_ms
    from (
        select n, $from_ns + n * $step_ns as at_ns, random() as chance,
            list_extract($workspaces, 1 + (random() * len($workspaces))::bigint % len($workspaces)) as workspace,
            list_extract($tokens, 1 + (random() * len($tokens))::bigint % len($tokens)) as token,
            list_extract($tools, 1 + (random() * len($tools))::bigint % len($tools)) as tool,
            if(random() < 0.05, list_extract($errors, 1 + (random() * len($errors))::bigint % len($errors)), null)
                as error_type
        from range($first, $end) as rows(n)
    )
)
"""
"""Durations are log-normal, with another median for each tool, in the digits that the relay writes."""

_SEEN: Final = """
insert into seen select workspace_id, token_id, server_slug, tool_name, min(timestamp_ns) from calls
group by workspace_id, token_id, server_slug, tool_name
"""


class Shape(NamedTuple):
    """How many calls, over how many days until now, in how many workspaces."""

    rows: int
    days: int
    workspaces: int

    @property
    def workspace_ids(self) -> list[str]:
        """The largest first."""
        return [f"bench-{number}" for number in range(self.workspaces)]


def tokens() -> list[str]:
    """Those that every workspace has."""
    return [f"token-{number:02d}" for number in range(TOKENS)]


def _zipf(count: int) -> list[int]:
    """The numbers from 0, each so often as its rank makes it likely."""
    weights = [1 / rank for rank in range(1, count + 1)]
    share = _SLOTS / sum(weights)
    return [number for number, weight in enumerate(weights) for _ in range(max(1, round(weight * share)))]


def _workspaces(names: Sequence[str]) -> list[str]:
    if len(names) == 1:
        return list(names)
    others = [names[1 + number] for number in _zipf(len(names) - 1)]
    return [names[0]] * round(len(others) * _LARGEST / (1 - _LARGEST)) + others


def _parameters(shape: Shape, now_ns: int) -> dict[str, object]:
    return {
        "from_ns": now_ns - shape.days * DAY_NS,
        "step_ns": shape.days * DAY_NS // shape.rows,
        "workspaces": _workspaces(shape.workspace_ids),
        "tokens": [tokens()[number] for number in _zipf(TOKENS)],
        "tools": _zipf(TOOLS),
        "servers": SERVERS,
        "errors": [error_type for error_type, weight in _ERRORS.items() for _ in range(weight)],
    }


def _chunks(shape: Shape) -> Iterator[dict[str, int]]:
    for first in range(0, shape.rows, CHUNK):
        yield {"first": first, "end": min(first + CHUNK, shape.rows)}


def fill_duckdb(path: Path, shape: Shape) -> None:
    """Make the file that the observer opens; oldest calls first, as ingestion writes them."""
    open_ledger(None, path.parent).close()
    parameters = _parameters(shape, time.time_ns())
    with duckdb.connect(str(path)) as connection:
        for chunk in _chunks(shape):
            connection.execute(f"insert into calls by name {_ROWS}", {**parameters, **chunk})
        connection.execute(_SEEN)
        connection.execute("checkpoint")


def fill_postgresql(url: str, shape: Shape) -> None:
    """The same rows, by way of CSV."""
    parameters = _parameters(shape, time.time_ns())
    now_ns = time.time_ns()
    _make_partitions(url, sorted({month_of(now_ns - day * DAY_NS).start_ns for day in range(shape.days + 1)}))
    columns = ", ".join(COLUMNS)
    with duckdb.connect() as source, psycopg.connect(url) as target, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "calls.csv"
        for chunk in _chunks(shape):
            rows = f"select {', '.join(_or_null(source, parameters))} from ({_ROWS})"  # noqa: S608 - constants
            source.execute(f"copy ({rows}) to '{file}' (format csv, header false)", {**parameters, **chunk})
            with (
                target.cursor().copy(f"copy calls ({columns}) from stdin (format csv)") as copy,
                file.open("rb") as csv,
            ):
                while block := csv.read(2**20):
                    copy.write(block)
            target.commit()
        target.execute(_SEEN + " on conflict do nothing")
        target.commit()
        target.autocommit = True
        target.execute("vacuum (analyze) calls")


def _or_null(source: duckdb.DuckDBPyConnection, parameters: dict[str, object]) -> list[str]:
    described = source.execute(_ROWS, {**parameters, "first": 0, "end": 0}).description
    made = {name for name, *_ in described or []}
    return [name if name in made else f"null as {name}" for name in COLUMNS]


def _make_partitions(url: str, month_starts: Sequence[int]) -> None:
    """A call of each month, taken in as any other."""
    ledger = open_ledger(url, Path())
    with ledger.transaction() as transaction:
        transaction.insert([_call(start_ns) for start_ns in month_starts])
    ledger.close()


def _call(timestamp_ns: int) -> ToolCall:
    digits = os.urandom(16).hex()
    return ToolCall(
        call_id=digits,
        timestamp_ns=timestamp_ns,
        workspace_id="bench-0",
        token_id=tokens()[0],
        server_slug="server-0",
        tool_name="tool_00",
        trace_id=digits,
        span_id=digits[:16],
        upstream_span_id=digits[16:],
        status="success",
        duration_ms=12.66,
        total_ms=12.75,
    )
