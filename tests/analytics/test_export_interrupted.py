"""Exports that do not come to their end: the client goes, or the ledger does."""

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from gateway.analytics import export
from gateway.analytics.authorization import Authorizer
from gateway.analytics.routes import AnalyticsRoutes
from gateway.errors import LedgerUnavailableError
from gateway.ledger.queries import Query
from gateway.process import serve
from tests.analytics.service import CONFIG, NOW_NS, PATH, Service, bearer_of_all
from tests.ledger.records import call

FORMATS = ["csv", "jsonl", "parquet"]
CALLS = [call(call_id=f"{i:03d}", timestamp_ns=NOW_NS - 1 - i * 3600 * 10**9) for i in range(100)]
EXPORT = PATH.format("engineering") + "/export"


class SlowLedger:
    """The service's, but an export's questions after the first `at_once` wait for `go_on`; then they may fail."""

    fresh_as_of_ns = None

    def __init__(self, service: Service, *, at_once: int = 10**9, fails: bool = False) -> None:
        self._service, self._at_once, self._fails = service, at_once, fails
        self.go_on = threading.Event()
        self.asked = 0
        self.open = 0
        api = AnalyticsRoutes(self, Authorizer(lambda: CONFIG), clock=lambda: NOW_NS, batch_rows=1)  # type: ignore[arg-type]
        self.app = Starlette(routes=api.routes())

    @contextlib.contextmanager
    def snapshot(self, *, seconds: float | None = None) -> Iterator[Any]:
        with self._service.ledger.snapshot(seconds=seconds) as snapshot:
            if seconds is None:  # no export
                yield snapshot
                return
            self.open += 1
            try:
                yield _Slow(snapshot, self)
            finally:
                self.open -= 1

    def pass_by(self) -> None:
        """Let one question through."""
        self.asked += 1
        if self.asked > self._at_once:
            assert self.go_on.wait(20)
            if self._fails:
                raise LedgerUnavailableError("the ledger is away")


class _Slow:
    def __init__(self, snapshot: Any, ledger: SlowLedger) -> None:
        self._snapshot, self._ledger = snapshot, ledger

    def rows(self, query: Query) -> Any:
        self._ledger.pass_by()
        return self._snapshot.rows(query)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Service(CALLS, batch_rows=1) as running:
        yield running


@pytest.mark.parametrize("kind", FORMATS)
async def test_an_export_whose_client_has_gone_reads_no_further_and_leaves_nothing(
    service: Service, kind: str, tmp_path: Path
) -> None:
    ledger = SlowLedger(service, at_once=5)
    began, gone = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, str]:
        await gone.wait()
        asyncio.get_running_loop().call_soon(ledger.go_on.set)  # when the export has been told
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            began.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "GET",
        "path": EXPORT,
        "query_string": f"format={kind}&period=30d".encode(),
        "headers": [(b"authorization", f"Bearer {bearer_of_all()}".encode())],
    }
    async with asyncio.timeout(60):
        serving = asyncio.create_task(ledger.app(scope, receive, send))
        await began.wait()
        gone.set()
        await serving

    assert 0 < ledger.asked <= 6
    assert ledger.open == 0
    assert list(tmp_path.iterdir()) == []


async def test_exports_whose_clients_leave_before_the_first_byte_block_no_other(service: Service) -> None:
    """The server has no room for the answer's head while it still sends the one before it to a slow client."""
    ledger = SlowLedger(service)

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "GET",
        "path": EXPORT,
        "query_string": b"format=jsonl&period=30d",
        "headers": [(b"authorization", f"Bearer {bearer_of_all()}".encode())],
    }
    async with asyncio.timeout(60):
        for _ in range(export.CONCURRENT):
            await ledger.app(scope, receive, send)
    assert ledger.asked > 0
    assert ledger.open == 0
    async with served(ledger.app) as client:
        asked = {"format": "jsonl", "period": "30d"}
        response = await client.get(EXPORT, params=asked, headers={"Authorization": f"Bearer {bearer_of_all()}"})
    assert (response.status_code, response.text.count("\n")) == (200, len(CALLS))


@contextlib.asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """The application behind the observer's own server."""
    listening = socket.create_server(("127.0.0.1", 0))
    stop = asyncio.Event()
    url = "http://{}:{}".format(*listening.getsockname())
    async with asyncio.TaskGroup() as tasks, httpx.AsyncClient(base_url=url, timeout=60) as client:
        tasks.create_task(serve(app, listening, stop=stop, grace_seconds=5))
        try:
            yield client
        finally:
            stop.set()


@pytest.mark.parametrize("kind", FORMATS)
async def test_over_http_a_file_that_breaks_off_is_no_complete_response(
    service: Service, kind: str, tmp_path: Path
) -> None:
    ledger = SlowLedger(service, at_once=20, fails=True)
    asked = {"format": kind, "period": "30d"}
    headers = {"Authorization": f"Bearer {bearer_of_all()}"}
    async with served(ledger.app) as client:
        async with client.stream("GET", EXPORT, params=asked, headers=headers) as response:
            assert response.status_code == 200
            ledger.go_on.set()
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()

        assert ledger.open == 0
        assert list(tmp_path.iterdir()) == []
        again = SlowLedger(service)
    async with served(again.app) as client:
        complete = await client.get(EXPORT, params=asked, headers=headers)
        assert complete.status_code == 200
        assert len(complete.content) > 100
