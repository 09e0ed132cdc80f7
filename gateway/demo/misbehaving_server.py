"""An MCP server, as far as it keeps to MCP: the same tools, but HTTP errors, garbage and cut answers among them.

It speaks the modern era only, in plain ASGI: the SDK would not let it misbehave.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from gateway.demo.tools import HANG_S, REFUSED, DemoTool, Outcome, Outcomes

VERSION: Final = "2026-07-28"
METHOD_NOT_FOUND: Final = -32601
_CACHEABLE: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


class Misbehaving:
    """The ASGI application."""

    def __init__(self, tools: Sequence[DemoTool], seed: int) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._outcomes = Outcomes(tools, seed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one POST, whatever its path, well or badly."""
        if scope["method"] != "POST":
            await _send(send, 405, b"")
            return
        request = json.loads(await _body(receive))
        match request.get("method"):
            case "server/discover":
                discovered = {"supportedVersions": [VERSION], "capabilities": {"tools": {}}}
                await _answer(send, request, {**_CACHEABLE, **discovered})
            case "tools/list":
                listings = [
                    {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema()}
                    for tool in self._tools.values()
                ]
                await _answer(send, request, {**_CACHEABLE, "tools": listings})
            case "tools/call":
                await self._call(send, request)
            case _:
                error = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
                await _send(send, 404, _message(request, "error", error))

    async def _call(self, send: Send, request: dict[str, Any]) -> None:
        tool = self._tools[request["params"]["name"]]
        planned = self._outcomes.draw(tool.name)
        await asyncio.sleep(planned.seconds)
        match planned.outcome:
            case Outcome.HTTP_ERROR:
                await _send(send, 502, f"<h1>{tool.message}</h1>".encode(), b"text/html")
            case Outcome.GARBAGE:
                await _send(send, 200, b'{"jsonrpc": "2.0", "id": 1, "resul')
            case Outcome.CUT:  # fewer bytes than announced: the server closes the connection in the middle
                length = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
                await send({"type": "http.response.start", "status": 200, "headers": length})
                await send({"type": "http.response.body", "body": b'{"jsonrpc":', "more_body": True})
            case Outcome.HANG:
                await asyncio.sleep(HANG_S)
            case Outcome.JSONRPC_ERROR:
                await _send(send, 200, _message(request, "error", {"code": REFUSED, "message": tool.message}))
            case outcome:
                content = [{"type": "text", "text": tool.message if outcome is Outcome.TOOL_ERROR else "ok"}]
                failed = {"isError": True} if outcome is Outcome.TOOL_ERROR else {}
                await _answer(send, request, {"resultType": "complete", "content": content, **failed})


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _message(request: dict[str, Any], member: str, value: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request.get("id"), member: value}).encode()


async def _answer(send: Send, request: dict[str, Any], result: dict[str, Any]) -> None:
    await _send(send, 200, _message(request, "result", result))


async def _send(send: Send, status: int, body: bytes, media_type: bytes = b"application/json") -> None:
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
