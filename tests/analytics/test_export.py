"""Exports: every call of the range, once, in order, the same in every format, and no file that only looks whole."""

import asyncio
import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from gateway.analytics import export
from gateway.analytics.routes import CONCURRENT
from gateway.calls import ErrorType, ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.ledger.rows import COLUMNS, to_row
from tests.analytics import reference_views
from tests.analytics.service import NOW_NS, Service, bearer
from tests.ledger.records import call

HOUR = 3600 * 10**9
FORMATS = ["csv", "jsonl", "parquet"]


def made_calls(number: int = 40) -> list[ToolCall]:
    """Over three days, some at the same nanosecond, some failing, one with what CSV has to quote."""
    made = [
        call(
            timestamp_ns=NOW_NS - 1 - i // 2 * 2 * HOUR,
            call_id=f"{i:04d}",
            token_id=["alice", "bob"][i % 2],
            status="error" if i % 3 == 0 else "success",
            error_type=ErrorType.TOOL_ERROR if i % 3 == 0 else None,
            http_status=None if i % 5 else 200,
            duration_ms=i + 0.25,
        )
        for i in range(number)
    ]
    made.append(call(timestamp_ns=NOW_NS - 7, call_id="odd", error_message='a "b",\r\nc é 🙂', upstream_response=""))
    return made


CALLS = made_calls()


def read(kind: str, body: bytes, folder: Path) -> list[dict[str, Any]]:
    """The rows of a file as other programs read it, in its order; times as text."""
    if kind == "csv":
        rows = csv.DictReader(io.StringIO(body.decode(), newline=""))
        numeric = {"_ns": int, "_ms": float, "_bytes": int}
        return [
            {
                name: next((of(text) for end, of in numeric.items() if name.endswith(end) and text), text or None)
                for name, text in row.items()
            }
            for row in rows
        ]
    if kind == "jsonl":
        return [json.loads(line) for line in body.splitlines()]
    path = folder / "read.parquet"
    path.write_bytes(body)
    with duckdb.connect() as reader:
        # without the timestamp itself: Python has no time zones for DuckDB to make it of
        found = reader.execute(f"select epoch_ns(timestamp) as ns, * exclude (timestamp) from '{path}'")  # noqa: S608 - our own file
        names = [column[0] for column in found.description or ()]
        table = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return [{"timestamp": reference_views.text(row.pop("ns"))} | {name: row[name] for name in COLUMNS} for row in table]


@pytest.fixture
def service(ledger_url: str | None) -> Iterator[Service]:
    with Service(CALLS, ledger_url=ledger_url) as running:
        yield running


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_has_every_call_of_the_range_in_its_order_with_every_field(
    service: Service, kind: str, tmp_path: Path
) -> None:
    response = service.request("/export", {"format": kind, "period": "30d"})
    assert response.status_code == 200, response.text
    expected = sorted(CALLS, key=lambda c: (c.timestamp_ns, c.call_id))
    rows = read(kind, response.content, tmp_path)

    assert [row["call_id"] for row in rows] == [c.call_id for c in expected]
    assert list(rows[0]) == ["timestamp", *COLUMNS]
    for row, record in zip(rows, expected, strict=True):
        assert row["timestamp"] == reference_views.text(record.timestamp_ns)
        wanted = dict(zip(COLUMNS, to_row(record), strict=True))
        if kind == "csv":  # which knows texts only: nothing and an empty text look the same
            wanted = {name: None if value in (None, "") else value for name, value in wanted.items()}
            row |= {name: str(wanted[name]) for name in ("trace_flags",)}
            wanted |= {
                name: None if wanted[name] is None else str(wanted[name])
                for name in ("http_status", "jsonrpc_code", "trace_flags")
            }
        del row["timestamp"], wanted["trace_flags"], row["trace_flags"]
        assert row == wanted


def test_the_timestamps_of_parquet_are_in_utc_by_their_type(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "calls.parquet"
    path.write_bytes(service.request("/export", {"format": "parquet", "period": "30d"}).content)
    with duckdb.connect() as reader:
        [(kind,)] = reader.execute(
            "select logical_type from parquet_schema($path) where name = 'timestamp'", {"path": str(path)}
        ).fetchall()
        rows = reader.execute(f"select typeof(timestamp), epoch_us(timestamp), timestamp_ns from '{path}'").fetchall()  # noqa: S608 - our own file
    assert "isAdjustedToUTC=1" in kind
    assert rows
    for type_, microseconds, nanoseconds in rows:
        assert (type_, microseconds) == ("TIMESTAMP WITH TIME ZONE", nanoseconds // 1000)


PARQUET_OF_ONE = """
import sys
from pathlib import Path
from msgspec import json
from gateway.calls import ToolCall
from gateway.ledger.rows import to_row
from gateway.ledger.duckdb_driver import ParquetFile
with ParquetFile(Path(sys.argv[1]) / "calls.parquet") as parquet:
    parquet.add([to_row(json.decode(sys.stdin.buffer.read(), type=ToolCall))])
    parquet.write()
"""


def test_the_zone_of_the_machine_moves_no_timestamp(tmp_path: Path) -> None:
    record = call(timestamp_ns=1_795_443_000_123_456_789)
    subprocess.run(
        [sys.executable, "-c", PARQUET_OF_ONE, str(tmp_path)],
        input=msgspec.json.encode(record),
        env={**os.environ, "TZ": "America/New_York"},
        check=True,
        timeout=60,
    )
    with duckdb.connect() as reader:
        rows = reader.execute("select epoch_us(timestamp) from read_parquet($path)", {"path": f"{tmp_path}/*.parquet"})
        assert rows.fetchall() == [(1_795_443_000_123_456,)]


@pytest.mark.parametrize("kind", FORMATS)
def test_filters_the_range_a_limit_and_a_members_token_narrow_it(service: Service, kind: str, tmp_path: Path) -> None:
    def ids(bearer_: str | None = None, **parameters: str) -> list[str]:
        response = service.request("/export", {"format": kind, "period": "30d", **parameters}, bearer=bearer_)
        assert response.status_code == 200, response.text
        return [row["call_id"] for row in read(kind, response.content, tmp_path)]

    ordered = sorted(CALLS, key=lambda c: (c.timestamp_ns, c.call_id))
    assert ids(status="error") == [c.call_id for c in ordered if c.status == "error"]
    assert ids(period="5h") == [c.call_id for c in ordered if c.timestamp_ns >= NOW_NS - 5 * HOUR]
    assert ids(limit="3") == [c.call_id for c in ordered[:3]]
    assert ids(bearer(token="bob")) == [c.call_id for c in ordered if c.token_id == "bob"]


def test_however_the_calls_lie_in_time_no_part_is_left_out_or_there_twice(service: Service) -> None:
    everything = service.request("/export", {"format": "jsonl", "period": "30d"}).content
    for rows in (1, 2, 3, 7, 1000):
        service.options["batch_rows"] = rows
        service.serve(service.ledger)
        assert service.request("/export", {"format": "jsonl", "period": "30d"}).content == everything


def test_a_file_of_nothing_has_its_header(ledger_url: str | None, tmp_path: Path) -> None:
    with Service(ledger_url=ledger_url) as service:
        for kind in FORMATS:
            response = service.request("/export", {"format": kind})
            assert response.status_code == 200
            assert read(kind, response.content, tmp_path) == []
        assert service.request("/export", {"format": "csv"}).text == ",".join(export.HEADER) + "\r\n"


def test_the_answer_says_what_it_is_and_how_it_is_called(service: Service) -> None:
    for kind, media_type in [
        ("csv", "text/csv"),
        ("jsonl", "application/x-ndjson"),
        ("parquet", "application/vnd.apache.parquet"),
    ]:
        asked = {"format": kind, "from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
        response = service.request("/export", asked, method="HEAD")
        assert response.headers["content-type"].startswith(media_type)
        name = f"engineering-20261101T000000Z-20261102T000000Z.{kind}"
        assert response.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert response.content == b""
        assert "content-length" not in response.headers  # nobody knows it before the file is made
        assert service.request("/export", asked, headers={"Accept": media_type}).status_code == 200
        assert service.request("/export", asked, headers={"Accept": "image/png"}).status_code == 406


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        ({}, "format"),
        ({"format": "xlsx"}, "format"),
        ({"format": "csv", "server": "nowhere"}, "server"),
        ({"format": "csv", "by": "token"}, "by"),
        ({"format": "csv", "limit": "0"}, "limit"),
    ],
)
def test_a_mistake_is_400_and_no_file(service: Service, asked: dict[str, str], parameter: str) -> None:
    response = service.request("/export", asked)
    assert response.status_code == 400
    assert response.json()["parameter"] == parameter


class Broken:
    """A snapshot that fails at its `at`th query, and counts those that are open."""

    def __init__(self, service: Service, at: int) -> None:
        self._service, self._at = service, at
        self.open = 0
        self.fresh_as_of_ns = None

    @contextlib.contextmanager
    def snapshot(self, *, seconds: float | None = None) -> Iterator[Any]:
        with self._service.ledger.snapshot(seconds=seconds) as snapshot:
            self.open += 1
            asked, at = 0, self._at if seconds is not None else 10**9

            class Counting:
                def rows(self, query: Any) -> list[tuple[Any, ...]]:
                    nonlocal asked
                    asked += 1
                    if asked >= at:
                        raise LedgerUnavailableError("gone")
                    return snapshot.rows(query)

            try:
                yield Counting()
            finally:
                self.open -= 1


@contextlib.contextmanager
def breaking(service: Service, at: int) -> Iterator[Broken]:
    broken = Broken(service, at)
    service.serve(broken)
    try:
        yield broken
    finally:
        service.serve(service.ledger)


def test_a_ledger_that_fails_at_once_is_503_and_one_that_fails_later_breaks_the_file_off(service: Service) -> None:
    service.options["batch_rows"] = 5
    asked = {"format": "jsonl", "period": "30d"}
    with breaking(service, at=1) as broken:
        response = service.request("/export", asked)
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert broken.open == 0
    with breaking(service, at=4) as broken:
        with pytest.raises(LedgerUnavailableError):  # the server's connection is closed by it, without an end
            service.request("/export", asked)
        assert broken.open == 0


async def _stream(service: Service, asked: dict[str, str]) -> AsyncGenerator[Any, None]:
    """An export as a server sees it: what it sends, one message at a time; closing it is a client that goes."""
    messages: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
    gone = asyncio.Event()
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "GET",
        "path": "/api/community/mcp/workspaces/engineering/analytics/export",
        "query_string": query.encode(),
        "headers": [(b"authorization", f"Bearer {bearer(workspaces=['*'])}".encode())],
    }

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    serving = asyncio.create_task(service.app(scope, receive, messages.put))
    try:
        while True:
            yield await messages.get()
    finally:
        gone.set()
        await asyncio.wait([serving], timeout=10)
        assert serving.done()


async def test_a_client_that_goes_away_ends_its_export_and_few_run_at_once(service: Service) -> None:
    service.options["batch_rows"] = 1
    asked = {"format": "jsonl", "period": "30d"}
    with breaking(service, at=10**9) as broken:
        streams = [_stream(service, asked) for _ in range(export.CONCURRENT)]
        for stream in streams:
            assert (await anext(stream))["status"] == 200
        refused = await service.send("/export", asked)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, str(export.RETRY_AFTER_S))
        assert (await service.send("/overview")).status_code == 200
        for stream in streams:
            await stream.aclose()
        assert broken.open == 0
        assert (await service.send("/export", asked)).status_code == 200


async def test_of_many_requests_at_once_some_wait_and_more_are_429() -> None:
    go_on = threading.Event()

    def catalog(_workspace: str) -> list[tuple[str, str]]:
        go_on.wait(10)  # a question that takes its time
        return []

    with Service(catalog=catalog, max_waiting=3) as service:
        asking = [asyncio.create_task(service.send("/tools")) for _ in range(CONCURRENT + 3 + 2)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        assert {task.result().status_code for task in done} == {429}
        go_on.set()
        statuses = sorted([(await task).status_code for task in asking])
    assert statuses == [200] * (CONCURRENT + 3) + [429] * 2
