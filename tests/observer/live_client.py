"""A live stream over real HTTP: uvicorn on a free port, httpx as the client, a real journal behind it."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from starlette.applications import Starlette

from gateway.analytics.authorization import Authorizer
from gateway.analytics.bearer import issue
from gateway.calls import ErrorType, ToolCall
from gateway.config import Config, Jwt
from gateway.journal import journal_id
from gateway.ledger import Ledger
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.observer.journal_tail import decode_cursor
from gateway.observer.live_stream import LiveSettings, LiveStream
from gateway.process import serve
from tests.observer.events import BEGIN, traced_call

JWT = Jwt(secret="a secret of the tests that is long enough")
CONFIG = Config.model_validate(
    {
        "api": {"jwt": {"secret": JWT.secret}},
        "workspaces": {
            "engineering": {
                "servers": {"github": {"url": "http://127.0.0.1/"}, "jira": {"url": "http://127.0.0.1/"}},
                "tokens": [{"id": name, "name": name, "sha256": name[0] * 64} for name in ("alice", "bob")],
            },
            "sales": {},
        },
    }
)
PATH = "/api/community/mcp/workspaces/engineering/logs/stream"
QUICK = LiveSettings(poll=0.01)


def call(number: int, **changes: Any) -> ToolCall:
    return traced_call(number, **{"timestamp_ns": BEGIN + number * 1_000_000_000, **changes})


FAILED = {"status": "error", "error_type": ErrorType.TOOL_ERROR, "error_message": "no such repository"}


class Block(NamedTuple):
    """One block of the stream."""

    event: str
    data: Any
    id: str | None
    comment: str | None


class Client:
    """Reads a stream block by block."""

    def __init__(self, response: httpx.Response) -> None:
        self.last_event_id: str | None = None
        self._lines = response.aiter_lines()

    async def block(self) -> Block | None:
        """The next one; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(60):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name or ":"] = value if name else line.removeprefix(": ")
                elif "id" in fields or "event" in fields or ":" in fields:
                    self.last_event_id = fields.get("id", self.last_event_id)
                    data = json.loads(fields["data"]) if "data" in fields else None
                    return Block(fields.get("event", ""), data, fields.get("id"), fields.get(":"))
                else:
                    fields = {}
        return None

    async def event(self) -> Block:
        """The next block with an event in it."""
        while (block := await self.block()) is not None:
            if block.event:
                return block
        raise AssertionError("the stream ended")

    async def calls(self, count: int) -> list[str]:
        """The ids of the next calls."""
        found = []
        for _ in range(count):
            event = await self.event()
            assert event.event == "call"
            found.append(event.data["call_id"])
        return found

    def place(self, root: Path) -> dict[str, int] | None:
        """Up to where the client has been told that it knows everything."""
        return decode_cursor(self.last_event_id or "", journal_id(root)[:8], [])

    async def ready(self) -> None:
        """Wait until the stream has told its place: what is written after this comes."""
        assert await self.block() is not None


class Server:
    """One life of an observer's live stream: its configuration, its clock and its ledger are a test's to change."""

    def __init__(self, root: Path, settings: LiveSettings, catalog: Sequence[tuple[str, str]]) -> None:
        self.stop = asyncio.Event()
        self.config = CONFIG
        self.seconds_on = 0
        """By which the clock goes before the real one."""
        self.ledger: Ledger = DuckLedger.open(Path(":memory:"))
        self.live = LiveStream(
            root,
            Authorizer(lambda: self.config),
            ledger=self.ledger,
            stop=self.stop,
            catalog=lambda _workspace: catalog,
            settings=settings,
            wall_clock=lambda: time.time_ns() + self.seconds_on * 10**9,
        )
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.http = httpx.AsyncClient(base_url=self.url, headers=authorization())

    @contextlib.asynccontextmanager
    async def connect(
        self, query: str = "", *, last_event_id: str | None = None, token: str | None = None
    ) -> AsyncIterator[Client]:
        headers = authorization(token)
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        async with self.http.stream("GET", f"{PATH}?{query}", headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield Client(response)


def authorization(token: str | None = None) -> dict[str, str]:
    """Good for ten minutes."""
    return {"authorization": f"Bearer {issue(JWT, ['engineering'], 600, time.time(), token=token)}"}


@contextlib.asynccontextmanager
async def serving(
    root: Path, settings: LiveSettings = QUICK, catalog: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[Server]:
    server = Server(root, settings, catalog)
    async with asyncio.TaskGroup() as tasks, server.http:
        app = Starlette(routes=server.live.routes())
        tasks.create_task(serve(app, server.socket, stop=server.stop, grace_seconds=5))
        try:
            yield server
        finally:
            server.stop.set()
    server.ledger.close()
