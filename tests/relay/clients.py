"""A legacy client with a session, over a real socket: its calls are streams, and it can be asked."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from gateway.mcp import sse
from tests.relay.rig import ALICE, PATH, Rig, bearer, legacy, listening

CAN_ALL: Final[Mapping[str, Any]] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}


@dataclass(slots=True)
class Stream:
    """The events of one answer, as they come."""

    response: httpx.Response
    _parser: sse.Parser = field(default_factory=sse.Parser)
    _events: list[Any] = field(default_factory=list)
    _chunks: AsyncIterator[bytes] | None = None

    async def next(self) -> Any:
        """The next message; None at the end."""
        if self._chunks is None:
            self._chunks = self.response.aiter_bytes()
        while not self._events:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                return None
            self._events += [json.loads(event.data) for event in self._parser.feed(chunk)]
        return self._events.pop(0)


@dataclass(slots=True)
class LegacyClient:
    """Speaks 2025-11-25; `session` is its `Mcp-Session-Id`."""

    http: httpx.AsyncClient
    headers: dict[str, str]
    session: str = ""

    async def begin(self, capabilities: Mapping[str, Any], **client: str) -> Any:
        """`initialize`: the result."""
        who = {"name": "old", "version": "1", **client}
        params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": who}
        response = await self.post("initialize", params)
        self.session = response.headers.get("mcp-session-id", "")
        if self.session:
            self.headers["mcp-session-id"] = self.session
        return response.json()["result"]

    async def post(self, method: str, params: Any = None, *, id_: Any = 1) -> httpx.Response:
        return await self.send(legacy(method, params, id_=id_)[1])

    async def send(self, body: Any) -> httpx.Response:
        return await self.http.post(PATH, content=json.dumps(body), headers=self.headers)

    async def answer(self, request: Any, result: Any = None, *, error: Any = None) -> int:
        """Answer what was asked: the HTTP status."""
        said = {"error": error} if error is not None else {"result": result}
        return (await self.send({"jsonrpc": "2.0", "id": request["id"], **said})).status_code

    @contextlib.asynccontextmanager
    async def call(self, name: str = "files__act", *, id_: Any = 1, **meta: Any) -> AsyncIterator[Stream]:
        """A `tools/call` whose answer is read as it comes."""
        params = {"name": name, "arguments": {}, **({"_meta": meta} if meta else {})}
        body = json.dumps(legacy("tools/call", params, id_=id_)[1])
        async with self.http.stream("POST", PATH, content=body, headers=self.headers) as response:
            yield Stream(response)

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[Stream]:
        """The session's own stream."""
        async with self.http.stream("GET", PATH, headers=self.headers) as response:
            yield Stream(response)


@contextlib.asynccontextmanager
async def connected(
    rig: Rig, capabilities: Mapping[str, Any] | None = None, *, token: str = ALICE, session: bool = True
) -> AsyncIterator[LegacyClient]:
    """A client of the relay, with a session unless that is not wanted."""
    async with (
        listening(rig) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, verify=False) as http,  # noqa: S501 - no TLS
    ):
        client = LegacyClient(http, {**bearer(token), **legacy("ping")[0]})
        if session:
            await client.begin(CAN_ALL if capabilities is None else capabilities)
        yield client


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what a condition looks at sets no event
            await asyncio.sleep(0.002)
