"""A door for the conformance suite into a workspace: it adds a token and takes the server's prefix off the names.

    python -m tests.conformance.adapter --to http://127.0.0.1:8080/ws/engineering --prefix everything__ --token mwt_…

The suite knows neither bearer tokens nor prefixed names. Everything else passes as it came, in both directions: headers
(Host and Origin too, for the gateway's own checks to answer), status, streams, and the end of a connection. It mends
nothing, so that what the suite finds is the gateway's.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from mcp.shared.inbound import decode_header_value, encode_header_value
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conformance import loopback_server

_NAMED: Final = ("tools/call", "prompts/get")
_LISTS: Final = {"tools/list": "tools", "prompts/list": "prompts"}
_NOT_PASSED_ON: Final = (b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"accept-encoding")
_NO_HEADERS_OF_ITS_OWN: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_FOREVER: Final = aiohttp.ClientTimeout(total=None, sock_connect=10)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Names:
    """Puts the prefix before a name that the suite sends, and takes it off those that it is shown."""

    prefix: str

    def request(self, method: str, body: dict[str, Any]) -> None:
        """Prefix what a request names: a tool, a prompt, or the prompt whose argument is completed."""
        params = body.get("params")
        named = params.get("ref") if isinstance(params, dict) and method == "completion/complete" else params
        is_prompt = isinstance(named, dict) and named.get("type") == "ref/prompt"
        if isinstance(named, dict) and isinstance(named.get("name"), str) and (method in _NAMED or is_prompt):
            named["name"] = self.prefix + named["name"]

    def header(self, value: bytes) -> bytes:
        """The same in `Mcp-Name`, plain or in base64; a value that cannot be decoded stays what it is."""
        text = value.decode("latin-1")
        decoded = decode_header_value(text.strip())
        if decoded is None:
            return value
        if decoded == text.strip():
            return text.replace(decoded, self.prefix + decoded, 1).encode("latin-1")
        return encode_header_value(self.prefix + decoded).encode("latin-1")

    def listing(self, key: str, message: bytes) -> bytes:
        """A JSON-RPC response whose result lists tools or prompts, under the server's own names."""
        try:
            decoded = json.loads(message)
            for item in decoded["result"][key]:
                item["name"] = item["name"].removeprefix(self.prefix)
        except (ValueError, KeyError, TypeError):
            return message
        return json.dumps(decoded).encode()

    def event_line(self, key: str, line: bytes) -> bytes:
        """The same for one line of an event stream."""
        if not line.startswith(b"data:"):
            return line
        data = line.removeprefix(b"data:")
        return b"data: " + self.listing(key, data.strip()) + data[len(data.rstrip()) :]


class Adapter:
    """The ASGI application."""

    def __init__(self, http: aiohttp.ClientSession, to: str, token: str, names: Names) -> None:
        self._http = http
        self._to = to
        self._token = token
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; a client that goes away takes its request with it."""
        body = await _read(receive)
        async with asyncio.TaskGroup() as tasks:
            passing = tasks.create_task(self._pass_on(scope, body, send))
            watching = tasks.create_task(_gone(receive))
            await asyncio.wait((passing, watching), return_when=asyncio.FIRST_COMPLETED)
            passing.cancel()
            watching.cancel()

    async def _pass_on(self, scope: Scope, body: bytes, send: Send) -> None:
        message = _decoded(body)
        method = message.get("method")
        if isinstance(method, str):
            self._names.request(method, message)
            body = json.dumps(message).encode()
        headers = [(name, value) for name, value in scope["headers"] if name not in _NOT_PASSED_ON]
        if method in _NAMED:
            headers = [(n, self._names.header(v) if n == b"mcp-name" else v) for n, v in headers]
        headers.append((b"authorization", b"Bearer " + self._token.encode()))
        async with self._http.request(
            scope["method"],
            self._to,
            data=body or None,
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
            skip_auto_headers=_NO_HEADERS_OF_ITS_OWN,
            allow_redirects=False,
        ) as response:
            answered = [(n.lower(), v) for n, v in response.raw_headers if n.lower() not in _NOT_PASSED_ON]
            await send({"type": "http.response.start", "status": response.status, "headers": answered})
            async for chunk in self._answer(response, _LISTS.get(method) if isinstance(method, str) else None):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, response: aiohttp.ClientResponse, key: str | None) -> AsyncIterator[bytes]:
        """The body as it comes; of a listing, a line or the whole at a time."""
        if key is None:
            async for chunk in response.content.iter_any():
                yield chunk
        elif response.content_type == "text/event-stream":
            async for line in _lines(response.content):
                yield self._names.event_line(key, line)
        else:
            yield self._names.listing(key, await response.read())


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, however long, with their ends."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).splitlines(keepends=True)
        if rest.endswith(b"\n"):
            lines.append(rest)
            rest = b""
        for line in lines:
            yield line
    if rest:
        yield rest


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


@asynccontextmanager
async def application(to: str, token: str, prefix: str) -> AsyncIterator[ASGIApp]:
    """The adapter in front of the workspace at `to`, for one of its servers."""
    async with aiohttp.ClientSession(timeout=_FOREVER, auto_decompress=False) as http:
        yield Adapter(http, to, token, Names(prefix))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A door for the conformance suite into a workspace.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--to", required=True, help="the workspace's URL")
    parser.add_argument("--token", required=True, help="a member's secret")
    parser.add_argument("--prefix", required=True, help="what the names have there and not here: <server>__")
    options = parser.parse_args()
    loopback_server.run("adapter", application(options.to, options.token, options.prefix), options.port)


if __name__ == "__main__":
    main()
