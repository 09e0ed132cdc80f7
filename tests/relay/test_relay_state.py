"""A reload replaces what the relay knows as a whole: no request is served by half of two configurations."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.calls import ToolCall
from gateway.relay.relay_app import Relay
from tests.http1.raw import Request, Step, answered, raw
from tests.http1.raw import modern as modern_server
from tests.relay.clients import until
from tests.relay.rig import PATH, Rig, bearer, configuration, legacy, rig, tool_call

FIRST: dict[str, Any] = {
    "redaction": {"patterns": ["first-[a-z]+"]},
    "requests": {"max_bytes": 100_000, "allowed_origins": ["https://first.example"], "sessions": True},
}
SECOND: dict[str, Any] = {
    "redaction": {"patterns": ["second-[a-z]+"]},
    "requests": {"max_bytes": 1024, "allowed_origins": ["https://second.example"], "sessions": False},
}


def failing(request: Request) -> Sequence[Step]:
    text = "first-secret second-secret"
    return modern_server(lambda r: [answered(r, {"content": [{"type": "text", "text": text}], "isError": True})])(
        request
    )


class SlowRequest:
    """A request through ASGI whose body arrives when the test says so."""

    def __init__(self, relay: Relay, headers: dict[str, str], body: bytes) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.answer = b""
        self.waiting = asyncio.Event()
        self._body: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parts = [body[:100], body[100:]]
        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self.task = asyncio.ensure_future(relay(scope, self._receive, self._send))

    def send_body(self) -> None:
        self._body.set_result(None)

    async def _receive(self) -> Any:
        """The body in two parts, then nothing more."""
        self.waiting.set()
        await asyncio.shield(self._body)
        if not self._parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._parts.pop(0), "more_body": bool(self._parts)}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.headers.update(message.get("headers", ()))
        self.answer += message.get("body", b"")


def reload(relay: Rig, **changes: Any) -> None:
    relay.relay.apply(configuration({}, **changes))


def last_call(relay: Rig) -> ToolCall:
    return relay.ends[-1]


async def test_a_request_that_arrived_before_a_reload_is_served_by_the_configuration_before(tmp_path: Path) -> None:
    """Origin, token, size, server and redaction: all of the first configuration, though the body comes later."""
    async with raw(failing) as server, rig(tmp_path, {"files": server}, **FIRST) as relay:
        headers, message = tool_call(arguments={"text": "x" * 2000})
        lines = {**bearer("alice"), **headers, "origin": "https://first.example"}
        slow = SlowRequest(relay.relay, lines, json.dumps(message).encode())
        await slow.waiting.wait()
        reload(relay, **SECOND, workspace={"tokens": []})
        slow.send_body()
        await until(lambda: bool(slow.answer))
        await slow.task
        assert (slow.status, json.loads(slow.answer)["result"]["isError"]) == (200, True)
        assert last_call(relay).error_message == "[redacted] second-secret"

        later = await relay.post((lines, message))
        assert later.status_code == 403, "the origin is no longer allowed"


async def test_a_call_that_is_running_during_a_reload_is_recorded_by_the_configuration_before(tmp_path: Path) -> None:
    answer = asyncio.Event()

    def hanging(request: Request) -> Sequence[Step]:
        steps = failing(request)
        return [answer, *steps] if request.message.get("method") == "tools/call" else steps

    async with raw(hanging) as server, rig(tmp_path, {"files": server}, **FIRST) as relay:
        running = asyncio.create_task(relay.post(tool_call()))
        await until(lambda: bool(server.calls))
        relay.relay.apply(configuration({"files": server}, **SECOND))
        answer.set()
        assert (await running).json()["result"]["isError"]
        assert last_call(relay).error_message == "[redacted] second-secret"
        await relay.post(tool_call())
        assert last_call(relay).error_message == "first-secret [redacted]"


async def test_an_initialize_that_arrived_before_sessions_were_switched_off_still_gets_one(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **FIRST) as relay:
        headers, message = legacy(
            "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "padding": "x" * 2000}
        )
        slow = SlowRequest(relay.relay, {**bearer("alice"), **headers}, json.dumps(message).encode())
        await slow.waiting.wait()
        reload(relay, **SECOND)
        slow.send_body()
        await until(lambda: bool(slow.answer))
        assert b"mcp-session-id" in slow.headers
        refused = await relay.post((headers, message))
        assert refused.status_code == 413, "the new limit of 1,024 bytes holds for new requests"
