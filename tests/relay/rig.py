"""A relay in this process, with a real journal, in front of raw upstreams."""

import asyncio
import contextlib
import hashlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway.calls import UPSTREAM_PHASES, CallStart, Heartbeat, Operation, ToolCall
from gateway.config import Config
from gateway.http1.server import HttpProtocol
from gateway.journal import Reader, Writer
from gateway.process import serve
from gateway.relay.relay_app import Relay, Tuning
from gateway.upstream.base import UpstreamTimings
from tests.http1.raw import Raw

SECRETS: Final = {name: f"mwt_{name}_{'x' * 32}" for name in ("alice", "bot", "stranger")}
"""`stranger` is a member of another workspace."""
PATH: Final = "/ws/team"
ALICE: Final = "alice"
QUICK: Final = UpstreamTimings(reconnect_s=0.01)
HANG_S: Final = 60.0
"""A test that waits longer than this hangs."""
MODERN_META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "tester", "version": "1.2"},
}


@dataclass(slots=True)
class Rig:
    """The relay, a client without a socket, and the journal as it is now."""

    relay: Relay
    journal: Path
    config: Config
    http: httpx.AsyncClient
    counted: Counter[str] = field(default_factory=Counter)

    def events(self) -> list[Any]:
        batch = Reader(self.journal).read({}, max_bytes=2**30)
        assert batch.corrupt == 0
        return batch.events

    @property
    def starts(self) -> list[CallStart]:
        return [event for event in self.events() if isinstance(event, CallStart)]

    @property
    def ends(self) -> list[ToolCall]:
        return [event for event in self.events() if isinstance(event, ToolCall)]

    @property
    def recorded(self) -> list[Any]:
        """What there is of clients' requests, calls or not."""
        return [*self.starts, *self.ends, *self.operations("server")]

    @property
    def end(self) -> ToolCall:
        """The only call's record."""
        (only,) = self.ends
        return only

    def operations(self, side: str) -> list[Operation]:
        return [event for event in self.events() if isinstance(event, Operation) and event.side == side]

    @property
    def rejected(self) -> Counter[str]:
        """Requests that were turned away, by reason; all of them once the relay has stopped."""
        return sum((Counter(e.rejected) for e in self.events() if isinstance(e, Heartbeat)), Counter())

    async def post(
        self,
        message: tuple[Mapping[str, str], Any],
        *,
        token: str | None = ALICE,
        path: str = PATH,
        **headers: str,
    ) -> httpx.Response:
        """Send a message; a body that is bytes is sent as it is."""
        own, body = message
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {**bearer(token), **own, **{name.replace("_", "-"): value for name, value in headers.items()}}
        encoded = {name.encode(): value.encode("latin-1") for name, value in lines.items()}
        return await self.http.post(path, content=content, headers=encoded)


def bearer(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS.get(token, token)}"} if token else {}


def modern(
    method: str, params: Mapping[str, Any] | None = None, *, id_: Any = 1, **meta: Any
) -> tuple[dict[str, str], Any]:
    """A modern client's request: headers and body."""
    params = {**(params or {}), "_meta": {**MODERN_META, **meta}}
    headers = {**JSON, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
    if "name" in params:
        headers["mcp-name"] = params["name"]
    return headers, {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def legacy(method: str, params: Mapping[str, Any] | None = None, *, id_: Any = 1) -> tuple[dict[str, str], Any]:
    """A legacy client's request: headers and body."""
    body = {"jsonrpc": "2.0", "id": id_, "method": method, **({"params": dict(params)} if params is not None else {})}
    return {**JSON, "mcp-protocol-version": "2025-11-25"}, body


def assert_times_add_up(call: ToolCall) -> None:
    """The phases follow one another and are all there is; the upstream's are what it took."""
    phases = {name: getattr(call.phases, name) for name in call.phases.__struct_fields__}
    assert min(phases.values()) >= 0
    assert sum(phases.values()) == pytest.approx(call.total_ms, abs=0.001)
    assert sum(phases[name] for name in UPSTREAM_PHASES) == pytest.approx(call.duration_ms, abs=0.001)
    assert 0 <= call.duration_ms <= call.total_ms


def legacy_call(name: str = "files__act", arguments: Any = None, **meta: Any) -> tuple[dict[str, str], Any]:
    """A legacy client's `tools/call`."""
    return legacy("tools/call", {"name": name, "arguments": arguments or {}, **({"_meta": meta} if meta else {})})


JSON: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def tool_call(
    name: str = "files__act", arguments: Any = None, *, id_: Any = 1, **meta: Any
) -> tuple[dict[str, str], Any]:
    """A modern client's `tools/call`."""
    return modern("tools/call", {"name": name, "arguments": arguments or {}}, id_=id_, **meta)


def configuration(servers: Mapping[str, Raw | Mapping[str, Any]], **changes: Any) -> Config:
    """A configuration with the workspace `team`, its members `alice` and `bot`, and another workspace."""
    settings = {
        slug: {"url": server.url} if isinstance(server, Raw) else dict(server) for slug, server in servers.items()
    }
    team = {"rate_limit": None, "servers": settings, "tokens": [member("alice"), member("bot")]}
    team.update(changes.pop("workspace", {}))
    other = {"tokens": [member("stranger")]}
    return Config.model_validate({"workspaces": {"team": team, "other": other}, **changes})


def member(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "name": name.title(),
        "sha256": hashlib.sha256(SECRETS.get(name, name).encode()).hexdigest(),
        **changes,
    }


@contextlib.asynccontextmanager
async def rig(
    folder: Path, servers: Mapping[str, Raw | Mapping[str, Any]] | None = None, **changes: Any
) -> AsyncIterator[Rig]:
    """The relay, running, with `tuning` and a configuration; the journal can still be read when it has stopped."""
    tuning = replace(changes.pop("tuning", Tuning()), upstream=QUICK)
    config = configuration(servers or {}, **changes)
    writer = Writer(folder / "journal", "relay")
    relay = Relay(config, writer, tuning=tuning)
    transport = httpx.ASGITransport(app=relay, raise_app_exceptions=False)
    try:
        async with (
            asyncio.timeout(HANG_S),
            httpx.AsyncClient(transport=transport, base_url="http://relay") as http,
            relay.running(),
        ):
            await asyncio.sleep(0)  # its tasks have begun
            yield Rig(relay, folder / "journal", config, http)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def listening(rig: Rig) -> AsyncIterator[int]:
    """The relay behind a real socket; the port."""
    sock = socket.create_server(("127.0.0.1", 0))
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(rig.relay, sock, stop=stop, grace_seconds=1, http=HttpProtocol))
    try:
        yield sock.getsockname()[1]
    finally:
        stop.set()
        await serving
